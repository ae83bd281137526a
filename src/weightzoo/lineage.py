"""Members that start from the models of a packed zoo: which models those are, and what is taken over of their weights.

Fine-tuning and transfer (Yosinski et al. 2014, "How transferable are features in deep neural networks?", arXiv
1411.1792): all weights are taken over, but for those of the last layer where the number of classes differs.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from weightzoo import seeds
from weightzoo.architectures import Architecture, architecture
from weightzoo.checkpoints import ranges
from weightzoo.datasets.images import ImageData
from weightzoo.errors import FormatError, LayoutError, NotFoundError
from weightzoo.members import FACTORS, Hyperparameters, Member, Parent, Protocol, Seeds
from weightzoo.points import protocol_of, unique, varied
from weightzoo.query import Kind, parse
from weightzoo.spec import FinetuneSpec, RandomSeeds, SparsifySpec, Start
from weightzoo.training.initial import initial_weights
from weightzoo.zoo import Zoo

_log = logging.getLogger("weightzoo")


@dataclass(frozen=True)
class Origin:
    """A model of a packed zoo, behind an epoch, as the parent of other members."""

    parent: Parent
    hyperparameters: Hyperparameters
    seeds: Seeds


def finetuned_members(spec: FinetuneSpec, source: Zoo, data: ImageData) -> tuple[Member, ...]:
    """The members of a zoo of fine-tuned models: each model of `source` that `spec.start` chooses, in its order.

    Raises:
        NotFoundError: no model is chosen, or the zoo does not hold the epoch.
        QueryError: the condition can't be read.
        FormatError: the zoo lacks a hyperparameter that `spec` does not give.
        SpecError: two members would be the same.
    """
    given = {name: values for name, values in spec.factors if values is not None}
    return unique(
        Member(
            dataset=spec.dataset,
            dataset_hash=data.content_hash,
            architecture=source.architecture.name,
            hyperparameters=_complete(
                dataclasses.replace(origin.hyperparameters, **dict(zip(given, values, strict=True))), source
            ),
            seeds=own,
            protocol=protocol_of(spec.training),
            config_kind="finetune",
            parent=origin.parent,
        )
        for origin in origins(source, spec.start)
        for values in itertools.product(*given.values())
        for own in _seeds(spec, origin)
    )


def sparse_members(spec: SparsifySpec, source: Zoo) -> tuple[Member, ...]:
    """The sparse twins of models of `source`, in its order: each trained on as it was trained, while it is made sparse.

    Their epoch 0 is the parent's own state; what is kept of them are the epochs behind it.

    Raises:
        NotFoundError: no model is chosen, or the zoo does not hold the epoch.
        QueryError: the condition can't be read.
        FormatError: the zoo does not say how its models were trained, or its models are of several protocols.
    """
    if source.dataset_info.hash is None:
        raise FormatError(f"zoo {source.name} was imported and does not say on which images its models were trained")
    recorded = (source.header.spec or {}).get("protocol")
    if recorded is None:
        raise FormatError(f"zoo {source.name} does not have one training protocol; assemble its models by protocol")
    try:
        protocol = Protocol.from_definition(recorded)
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise FormatError(f"zoo {source.name}: can't read its training protocol ({reason}); assemble it anew") from None
    epochs = tuple(range(1, spec.epochs + 1))
    return tuple(
        Member(
            dataset=source.dataset_info.name,
            dataset_hash=source.dataset_info.hash,
            architecture=source.architecture.name,
            hyperparameters=_complete(origin.hyperparameters, source),
            seeds=origin.seeds,
            protocol=dataclasses.replace(protocol, epochs=spec.epochs, checkpoint_epochs=epochs),
            config_kind="sparsify",
            parent=origin.parent,
            sparsification=spec.method,
        )
        for origin in origins(source, spec.start)
    )


def origins(source: Zoo, start: Start) -> list[Origin]:
    """The models to start from. Those without finite weights at the epoch, or that ended before it, are left out.

    Raises:
        NotFoundError: no model is left, or the zoo does not hold the epoch.
        QueryError: the condition can't be read.
    """
    condition = parse(start.where, _fields(source)) if start.where is not None else None
    chosen = [row for row in _rows(source) if condition is None or condition.matches(row)]
    accuracy: dict[tuple[int, int], float] = {}
    if start.epoch == "best":
        table = source.epochs
        states = zip(table["model"], table["epoch"], strict=True)
        accuracy = dict(zip(states, table["val_accuracy"].fillna(-1), strict=True))
    usable: list[Origin] = []
    for row in chosen:
        epoch = _epoch(row, start, source, accuracy)
        if epoch > row["last_epoch"] or not np.isfinite(source.weights([row["number"]], [epoch])).all():
            continue
        usable.append(
            Origin(
                Parent(row["member"], epoch, row["group"]),
                Hyperparameters(**{name: row[name] for name in FACTORS}),
                _own_seeds(row),
            )
        )
    if not usable:
        wanted = f" that fulfils {start.where!r}" if start.where else ""
        raise NotFoundError(f"zoo {source.name} has no model{wanted} with finite weights at epoch {start.epoch}")
    if len(usable) < len(chosen):
        left = len(chosen) - len(usable)
        _log.warning(
            "zoo %s: %d of %d models have no finite weights at epoch %s and start nothing",
            source.name,
            left,
            len(chosen),
            start.epoch,
        )
    return usable


def start_weights(source: Zoo, built: Architecture, members: Sequence[Member]) -> np.ndarray:
    """The weights float32 `[M, P]` that members of the architecture `built` start from, out of their parents' zoo.

    Raises:
        NotFoundError: a parent is not in the zoo.
        LayoutError: a parent's weights do not fit, other than in the last layer.
    """
    return np.stack([inherited(built, one, _state(source, one)) for one in members])


def inherited(built: Architecture, member: Member, state: Mapping[str, np.ndarray]) -> np.ndarray:
    """The weights float32 `[P]` that a member starts from, given its parent's by name.

    If the last layer has other classes, it is drawn anew, as the member's initialisation and init seed have it.

    Raises:
        LayoutError: the parent's weights do not fit, other than in the last layer.
    """
    head = built.layout.layers[-1]
    fresh = built.layout.unflatten(initial_weights(built, (member,))[0])
    taken: dict[str, np.ndarray] = {}
    for name, shape in built.layout.parameters:
        values = state.get(name)
        if values is not None and values.shape == shape:
            taken[name] = values
        elif name.rpartition(".")[0] == head:
            taken[name] = fresh[name]
        else:
            got = "nothing" if values is None else list(values.shape)
            raise LayoutError(
                f"{name}: the model started from has {got}, {built.name} on images of "
                f"{'x'.join(map(str, built.input_shape))} has {list(shape)}; choose a data set of the same image shape"
            )
    return built.layout.flatten(taken)


def architecture_on(source: Zoo, data: ImageData) -> Architecture:
    """The architecture of a zoo's models for other images.

    Raises:
        SpecError: it takes images of another size.
        NotFoundError: this version does not know it.
    """
    return architecture(source.architecture.name, data.image_shape, data.classes)


def parent_runs(source: Zoo) -> dict[str, str]:
    """The runs that a zoo's models came from, by member id, as far as it says."""
    table = source.provenance.dropna(subset="run_id")
    return dict(zip(table["member"], table["run_id"], strict=True))


def _state(source: Zoo, member: Member) -> dict[str, np.ndarray]:
    assert member.parent is not None
    return source.state_dict(member.parent.member, member.parent.epoch)


def _rows(source: Zoo) -> Iterator[dict[str, Any]]:
    """The rows of the table of models as plain values, None where there is none, with the number of each."""
    table = source.models.astype(object)
    for number, row in enumerate(table.where(table.notna(), None).to_dict("records")):
        yield {str(name): value for name, value in row.items()} | {"number": number}


def _fields(source: Zoo) -> dict[str, Kind]:
    columns = source.models.drop(columns="missing_epochs", errors="ignore")  # lists, which no condition compares
    return {str(name): "number" if pd.api.types.is_numeric_dtype(columns[name]) else "text" for name in columns}


def _epoch(row: dict[str, Any], start: Start, source: Zoo, accuracy: Mapping[tuple[int, int], float]) -> int:
    """The epoch that a model is taken from, by its `accuracy` if the best is asked for.

    Raises:
        NotFoundError: the zoo does not hold it.
    """
    kept = source.checkpoint_epochs
    reached = [epoch for epoch, there in zip(kept, source.present[row["number"]], strict=True) if there]
    if start.epoch == "last":
        return max(reached, default=kept[0])
    if start.epoch == "best":
        if row["best_epoch"] is None:
            raise NotFoundError(f"zoo {source.name} was imported without validation accuracies; name an epoch, or last")
        return max(reached, key=lambda epoch: accuracy[row["number"], epoch], default=kept[0])
    epoch = int(start.epoch)
    if epoch not in kept:
        raise NotFoundError(f"zoo {source.name} does not hold epoch {epoch}; it holds {ranges(kept)}")
    return epoch


def _own_seeds(row: dict[str, Any]) -> Seeds:
    """The seeds of a model. Those that an imported record lacks are the one that it has, or drawn by its member id."""
    known = [row[f"seed_{name}"] for name in ("init", "order", "dropout")]
    first = next((seed for seed in known if seed is not None), None)
    if first is None:
        first = seeds.spawn(0, f"seeds of {row['member']}", 1)[0]
    return Seeds(*(first if seed is None else seed for seed in known))


def _complete(chosen: Hyperparameters, source: Zoo) -> Hyperparameters:
    """The hyperparameters, after a check that none is unknown.

    Raises:
        FormatError: one is.
    """
    unknown = [name for name in FACTORS if getattr(chosen, name) is None]
    if unknown:
        raise FormatError(f"zoo {source.name} was imported without {', '.join(unknown)}; give them under factors")
    return chosen


def _seeds(spec: FinetuneSpec, origin: Origin) -> tuple[Seeds, ...]:
    if spec.seeds is None:
        return (origin.seeds,)
    if isinstance(spec.seeds, RandomSeeds):
        key = f"finetune seeds {origin.parent.member} {origin.parent.epoch}"
        return varied(seeds.spawn(spec.seed, key, spec.seeds.random), spec.seeds.vary)
    return varied(spec.seeds.values, spec.seeds.vary)
