"""Zoos made of numbers, not of training: every column and weight is known, so that figures can be checked by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weightzoo.architectures import cnn_s
from weightzoo.zoo import DatasetInfo, ModelRecord, Zoo, ZooHeader, write_zoo

HYP = {
    "init": ["uniform", "normal", "kaiming_uniform", "kaiming_normal"],
    "activation": ["tanh", "sigmoid", "relu", "gelu"],
    "optimizer": ["adam", "sgd"],
    "learning_rate": [1e-3, 1e-4],
    "weight_decay": [1e-3, 1e-4],
    "dropout": [0.0, 0.5],
}


def synthetic_zoo(
    path: Path,
    factors: Mapping[str, Sequence[Any]] = HYP,
    seeds: int = 2,
    epochs: int = 50,
    kept: tuple[int, ...] | None = None,
    diverged: Collection[int] = (),
    pruned: Collection[int] = (),
    name: str | None = None,
    class_names: tuple[str, ...] = tuple("0123456789"),
) -> Zoo:
    """A zoo of all points of the factors; the models in `diverged` break at a third of training, in `pruned` stop there."""
    points = [dict(zip(factors, point, strict=True)) for point in itertools.product(*factors.values())]
    kept = kept or tuple(range(epochs + 1))
    spec = {
        "dataset": "digits",
        "architecture": "cnn-s",
        "configuration": {"kind": "grid", "seeds": {"first": 1, "count": seeds}},
        "factors": {factor: list(values) for factor, values in factors.items()},
        "protocol": {"epochs": epochs, "batch_size": 10, "schedule": {"kind": "constant"}, "momentum": 0.9},
    }
    header = ZooHeader(
        name=name or path.name,
        architecture=cnn_s(1, 10),
        dataset=DatasetInfo("digits", "0123456789abcdef", class_names, (0.1,), (0.3,)),
        checkpoint_epochs=kept,
        models=len(points) * seeds,
        spec=spec,
    )
    rows = [{**point, "seed": seed} for point in points for seed in range(1, seeds + 1)]
    write_zoo(path, header, _records(rows, seeds, epochs, kept, set(diverged), set(pruned)))
    return Zoo.open(path)


def _records(
    rows: list[dict[str, Any]], seeds: int, epochs: int, kept: tuple[int, ...], diverged: set[int], pruned: set[int]
) -> Iterator[ModelRecord]:
    rng = np.random.default_rng(0)
    layout = cnn_s(1, 10).layout
    skill = {"tanh": 1.2, "sigmoid": -1.6, "relu": 0.7, "gelu": 0.9, "adam": 0.9, "sgd": -0.4}
    for number, point in enumerate(rows):
        last = max(1, epochs // 3) if number in pruned else epochs
        broken = max(1, epochs // 3) if number in diverged else None
        time = np.arange(last + 1)
        merit = skill.get(point["activation"], 0) + skill.get(point["optimizer"], 0) + 0.25 * rng.normal()
        merit += 0.35 * math.log10(point["learning_rate"] * 3000) - 0.9 * (point["dropout"] > 0)
        top, rate = 0.1 + 0.87 / (1 + math.exp(-1.3 * merit - 0.8)), 0.03 + 0.15 / (1 + math.exp(-merit))
        grown = 1 - np.exp(-rate * time)
        test = np.clip(0.1 + (top - 0.1) * grown + 0.012 * rng.normal(size=len(time)), 0, 1)
        val = np.clip(test + 0.01 * rng.normal(size=len(time)), 0, 1)
        train = np.clip(test + (0.03 - 0.1 * point["dropout"]) * grown + 0.004 * rng.normal(size=len(time)), 0, 1)
        metrics = {
            f"{name}_{kind}": accuracy if kind == "accuracy" else 2.3 * (1 - accuracy) ** 0.8 + 0.02
            for name, accuracy in (("train", train), ("val", val), ("test", test))
            for kind in ("loss", "accuracy")
        }
        metrics["generalization_gap"] = train - test
        start = rng.normal(size=layout.size) * (0.35 if "kaiming" in point["init"] else 0.1)
        goal = rng.normal(size=layout.size) * 0.12 * (1 + merit / 4)
        goal[: layout.size // 2] += {"tanh": 0.05, "sigmoid": -0.08, "gelu": 0.03}.get(point["activation"], 0.0)
        reached = [epoch for epoch in kept if epoch <= last]
        weights = start + goal * grown[reached, None]
        if broken is not None:
            weights[[epoch >= broken for epoch in reached]] = np.nan
            for name, values in metrics.items():
                values[broken:] = np.nan if name.endswith("loss") else 0.1
        by_class = np.full((last + 1, 10), 0.5, np.float32)
        yield ModelRecord(
            row={
                "member": f"{number:016x}",
                "group": f"{number // seeds:016x}",
                "split": ("train", "train", "train", "val", "test")[number // seeds % 5],
                "status": "diverged" if broken is not None else "pruned" if number in pruned else "finished",
                "last_epoch": last,
                "diverged_epoch": broken,
                **{factor: point[factor] for factor in HYP},
                **{f"seed_{kind}": point["seed"] for kind in ("init", "order", "dropout")},
                "engine": "lanes",
            },
            weights=weights.astype(np.float32),
            metrics={name: values.astype(np.float32) for name, values in metrics.items()},
            val_class_accuracy=by_class,
            test_class_accuracy=by_class,
        )
