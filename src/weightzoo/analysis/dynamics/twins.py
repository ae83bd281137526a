"""Sparse twins of some models of a zoo, made for an analysis and packed in a folder of their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from weightzoo.analysis.dynamics.trained import epochs_of, protocol
from weightzoo.errors import NotFoundError
from weightzoo.members import FACTORS, Cohort, Hyperparameters, Member, Parent, Seeds, cohorts
from weightzoo.spec import Variational
from weightzoo.training.protocol import EpochResult, TrainState
from weightzoo.training.sparse.state import MASK
from weightzoo.zoo import METRICS, ModelRecord, Zoo, write_zoo
from weightzoo.zoo.format import GIVEN
from weightzoo.zoo.header import Sparse

if TYPE_CHECKING:
    from weightzoo.datasets.images import ImageData

EPOCHS = 25
_KEPT = tuple(range(1, EPOCHS + 1))
_SEEDS = ("seed_init", "seed_order", "seed_dropout")
_SPARSE = ("train_objective", "sparsity")
_BATCH = 10  # where the zoo does not say how its models were trained


def make_twins(zoo: Zoo, rows: np.ndarray, data: ImageData, folder: Path, threads: int | None) -> Zoo:
    """Train the models `rows` on for 25 epochs by variational dropout, each as it was trained; a zoo in `folder`.

    The learning rate is constant. Weights and masks of every epoch are kept, and all of a twin's record but its runs.

    Raises:
        NotFoundError: a model's hyperparameters or seeds are not known, as of some imported ones.
    """
    last = zoo.checkpoint_epochs[-1]
    start = zoo.weights(rows.tolist(), [last])[:, 0]
    members = [_twin(zoo, int(row), last) for row in rows]
    place = {id(one): number for number, one in enumerate(members)}
    records: dict[int, ModelRecord] = {}
    for cohort in cohorts(members):
        own = [place[id(one)] for one in cohort.members]
        state = TrainState.given(start[own], cohort.optimizer)
        epochs = [*epochs_of(zoo.architecture, cohort, data, state, threads)]
        models = zoo.models.iloc[rows[own]].to_dict("records")
        records |= zip(own, _records(cohort, epochs, models), strict=True)
    header = replace(
        zoo.header,
        name=f"{zoo.name}-sparse",
        checkpoint_epochs=_KEPT,
        models=len(rows),
        probe_images=next(iter(records.values())).probe.shape[1],  # pyright: ignore[reportOptionalMemberAccess]
        sparse=Sparse((MASK,), zoo.architecture.prunable),
    )
    write_zoo(folder, header, [records[number] for number in range(len(rows))])
    return Zoo.open(folder)


def _twin(zoo: Zoo, row: int, epoch: int) -> Member:
    known = zoo.models.iloc[row]
    missing = [name for name in (*FACTORS, *_SEEDS) if known.isna()[name]]
    if missing:
        raise NotFoundError(f"model {row} of {zoo.name} does not say its {missing[0]}, which its twin is trained by")
    batch = (zoo.header.spec or {}).get("protocol", {}).get("batch_size", _BATCH)
    return Member(
        zoo.dataset_info.name,
        str(zoo.dataset_info.hash),
        zoo.architecture.name,
        Hyperparameters(**{name: known[name] for name in FACTORS}),
        Seeds(*(int(known[name]) for name in _SEEDS)),
        protocol(EPOCHS, _KEPT, batch),
        "sparsify",
        Parent(known["member"], epoch, known["group"]),
        Variational(),
    )


def _records(cohort: Cohort, epochs: list[EpochResult], models: list[dict[str, object]]) -> Iterator[ModelRecord]:
    for number, (twin, parent) in enumerate(zip(cohort.members, models, strict=True)):
        assert twin.parent is not None
        weights = np.stack([epoch.state.weights[number] for epoch in epochs[1:]])
        finite = np.isfinite(weights).all(axis=1)
        diverged = None if finite.all() else int(_KEPT[int(np.argmin(finite))])
        given = {column.name: parent.get(column.name) for column in GIVEN}
        metrics = {name: _over(epochs, name, number) for name in METRICS if name != "generalization_gap"}
        metrics["generalization_gap"] = metrics["train_accuracy"] - metrics["test_accuracy"]
        sparse = [epoch.sparse for epoch in epochs if epoch.sparse is not None]
        metrics |= {name: np.stack([getattr(one, name)[number] for one in sparse]) for name in _SPARSE}
        yield ModelRecord(
            row=given
            | {"member": twin.id, "status": "finished" if diverged is None else "diverged", "last_epoch": EPOCHS}
            | {"diverged_epoch": diverged, "parent": twin.parent.member, "parent_epoch": twin.parent.epoch},
            weights=weights,
            metrics=metrics,
            val_class_accuracy=_over(epochs, "val_class_accuracy", number),
            test_class_accuracy=_over(epochs, "test_class_accuracy", number),
            probe=np.stack([epoch.metrics.probe_logits[number] for epoch in epochs[1:]]),
            sparse={MASK: np.stack([epoch.state.slots[MASK][number] for epoch in epochs[1:]])},
            layer_sparsity=np.stack([one.layer_sparsity[number] for one in sparse]),
        )


def _over(epochs: list[EpochResult], metric: str, number: int) -> np.ndarray:
    return np.stack([getattr(epoch.metrics, metric)[number] for epoch in epochs])
