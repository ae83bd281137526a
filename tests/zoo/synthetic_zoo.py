"""Records of models that nobody trained: random weights and metrics of the right shapes, with every status."""

from __future__ import annotations

import dataclasses

import numpy as np

from weightzoo.architectures import Architecture, architecture
from weightzoo.members import Hyperparameters, Member, Protocol, Seeds
from weightzoo.spec import Constant
from weightzoo.zoo import METRICS, DatasetInfo, ModelRecord, ZooHeader

CLASSES = 10
PROBE = 5


def header(models: int, last: int = 4, kept: tuple[int, ...] | None = None, **changes) -> ZooHeader:
    built = changes.pop("architecture", architecture("cnn-s", (1, 28, 28), CLASSES))
    info = DatasetInfo("digits", "0123456789abcdef", tuple(map(str, range(CLASSES))), (0.3,), (0.32,))
    kept = tuple(range(last + 1)) if kept is None else kept
    return ZooHeader("synthetic", built, info, kept, models, probe_images=PROBE, spec={"dataset": "digits"}, **changes)


def member(number: int, last: int = 4) -> Member:
    chosen = Hyperparameters(
        init=("uniform", "normal")[number % 2],
        activation=("tanh", "relu", "gelu")[number % 3],
        optimizer=("adam", "sgd")[number // 2 % 2],
        learning_rate=(1e-3, 1e-4)[number // 4 % 2],
        weight_decay=1e-3,
        dropout=(0.0, 0.5)[number // 8 % 2],
    )
    protocol = Protocol(last, 10, Constant(), 0.9, tuple(range(last + 1)))
    return Member("digits", "0123456789abcdef", "cnn-s", chosen, Seeds.all(number), protocol, "grid")


def record(number: int, head: ZooHeader, status: str = "finished", last: int = 4, diverged: int | None = None):
    """Model `number`: the same number gives the same record."""
    drawn = np.random.default_rng(number)
    made = member(number)
    chosen = made.hyperparameters
    reached = sum(epoch <= last for epoch in head.checkpoint_epochs)
    weights = drawn.normal(size=(reached, head.architecture.layout.size)).astype(np.float32)
    metrics = {name: drawn.uniform(size=last + 1).astype(np.float32) for name in METRICS}
    if diverged is not None:
        weights[[epoch >= diverged for epoch in head.checkpoint_epochs[:reached]]] = np.nan
        for name in ("train_loss", "val_loss", "test_loss"):
            metrics[name][diverged:] = np.nan
    return ModelRecord(
        row={
            "member": made.id,
            "group": made.group,
            "split": made.split,
            "status": status,
            "last_epoch": last,
            "diverged_epoch": diverged,
            "init": chosen.init,
            "activation": chosen.activation,
            "optimizer": chosen.optimizer,
            "learning_rate": chosen.learning_rate,
            "weight_decay": chosen.weight_decay,
            "dropout": chosen.dropout,
            "seed_init": made.seeds.init,
            "seed_order": made.seeds.order,
            "seed_dropout": made.seeds.dropout,
            "engine": "lanes",
        },
        weights=weights,
        metrics=metrics,
        val_class_accuracy=drawn.uniform(size=(last + 1, CLASSES)).astype(np.float32),
        test_class_accuracy=drawn.uniform(size=(last + 1, CLASSES)).astype(np.float32),
        probe=drawn.normal(size=(reached, PROBE, CLASSES)).astype(np.float16) if head.probe_images else None,
        provenance={"run_id": f"run{number}", "seconds": 1.5, "machine": "here"},
    )


def records(head: ZooHeader, last: int = 4) -> list[ModelRecord]:
    """As many records as the header says; number 1 diverged behind epoch 2, number 2 was pruned behind epoch 3."""
    special = {1: ("diverged", last, 2), 2: ("pruned", 3, None)}
    return [record(n, head, *special.get(n, ("finished", last, None))) for n in range(head.models)]


def made_sparse(dense: ModelRecord, head: ZooHeader) -> ModelRecord:
    """A dense record as that of a sparse model: masks drawn at random, the sparsity theirs. All epochs are kept."""
    assert head.sparse is not None
    assert isinstance(dense.weights, np.ndarray)
    layout = head.architecture.layout
    masks = np.ones(dense.weights.shape, np.uint8)
    drawn = np.random.default_rng(1).uniform(size=masks.shape) < 0.7
    spans = [layout.span(name) for name in head.sparse.prunable]
    for span in spans:
        masks[:, span] = drawn[:, span]
    sparsity = 1 - np.concatenate([masks[:, span] for span in spans], 1).mean(1)
    return dataclasses.replace(
        dense,
        metrics={
            **dense.metrics,
            "train_objective": 2 * dense.metrics["train_loss"],
            "sparsity": sparsity.astype(np.float32),
        },
        sparse={"mask": masks, "log_variance": dense.weights / 2},
        layer_sparsity=np.stack([1 - masks[:, span].mean(1) for span in spans], 1).astype(np.float32),
    )


def wide(architecture_name: str) -> Architecture:
    return architecture(architecture_name, (3, 32, 32), CLASSES)
