"""Zoos with a planted relation between weights and accuracy, so that what can be predicted is known."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from weightzoo.architectures import cnn_s
from weightzoo.zoo import DatasetInfo, ModelRecord, Zoo, ZooHeader, write_zoo

EPOCHS = (0, 2, 4, 6)
MakeZoo = Callable[..., Zoo]


def planted(path: Path, configurations: int = 40, change: Callable[[dict[str, object]], None] | None = None) -> Zoo:
    """Two models of each configuration; accuracy is a function of the deviation of the weights of fc1.

    `change` may alter the row of a model before it is written.
    """
    layout = cnn_s(1, 10).layout
    header = ZooHeader(
        path.name, cnn_s(1, 10), DatasetInfo("digits", "0", tuple("0123456789")), EPOCHS, 2 * configurations
    )

    def records():
        for number, (configuration, seed) in enumerate(itertools.product(range(configurations), (1, 2))):
            rng = np.random.default_rng([configuration, seed])
            spread = 0.05 + 0.2 * np.random.default_rng(configuration).uniform()
            shift = 0.3 * (configuration % 2)  # which activation it is
            weights = np.stack([rng.normal(size=layout.size) * spread * (1 + 0.3 * epoch) for epoch in EPOCHS])
            weights[:, layout.span("conv2.bias")] += shift
            accuracy = np.repeat(np.clip(spread * (1 + 0.3 * np.arange(7)), 0.1, 0.9), 1)
            classes = np.repeat(accuracy[:, None], 10, 1).astype(np.float32)
            names = ("train", "val", "test")
            metrics = {f"{name}_{kind}": accuracy for name in names for kind in ("loss", "accuracy")}
            row: dict[str, object] = {
                "member": f"{number:016x}",
                "group": f"{configuration:016x}",
                "split": ("train", "train", "train", "val", "test")[configuration % 5],
                "status": "finished",
                "last_epoch": 6,
                "diverged_epoch": None,
                "init": "normal",
                "activation": ("tanh", "relu")[configuration % 2],
                "optimizer": "adam",
                "learning_rate": 10.0 ** -(2 + configuration % 3),
                "weight_decay": 0.0,
                "dropout": 0.0,
                **{f"seed_{kind}": seed for kind in ("init", "order", "dropout")},
                "engine": "lanes",
            }
            if change is not None:
                change(row)
            yield ModelRecord(
                row=row,
                weights=weights.astype(np.float32),
                metrics={name: values.astype(np.float32) for name, values in metrics.items()}
                | {"generalization_gap": np.zeros(7, np.float32)},
                val_class_accuracy=classes,
                test_class_accuracy=classes,
            )

    write_zoo(path, header, records())
    return Zoo.open(path)


@pytest.fixture(scope="session")
def planted_zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return planted(tmp_path_factory.mktemp("zoos") / "planted")
