"""Finished runs by the thousand, with all that a real one has: 51 epochs x 7 metrics, params, tags, a data set."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

import numpy as np

from weightzoo import checkpoints, seeds
from weightzoo.members import Hyperparameters, Member, Protocol, Seeds
from weightzoo.run_fields import member_params, run_name
from weightzoo.spec import Constant
from weightzoo.zoo_runs import FinishedRun, Point

EPOCHS = 50
STARTED = 1_700_000_000_000  # in milliseconds
CHOICES = (
    ("uniform", "normal", "kaiming_uniform", "kaiming_normal"),
    ("tanh", "sigmoid", "relu", "gelu"),
    ("adam", "sgd"),
    (1e-3, 1e-4, 1e-5),
    (1e-3, 1e-4),
    (0.0, 0.5),
)


def members(count: int, dataset: str = "mnist") -> Iterator[Member]:
    """Members of the published grids, with as many seeds of each point as it takes."""
    protocol = Protocol(EPOCHS, 10, Constant(), 0.9, tuple(range(EPOCHS + 1)))
    points = ((seed, point) for seed in itertools.count(1) for point in itertools.product(*CHOICES))
    for seed, point in itertools.islice(points, count):
        yield Member(
            dataset, "41955fd12d714e6c", "cnn-s", Hyperparameters(*point), Seeds(seed, seed, seed), protocol, "grid"
        )


def finished_run(member: Member, number: int) -> FinishedRun:
    """The run of a member, with metrics drawn by its number; one in a hundred diverges half-way."""
    diverged = number % 100 == 99
    last = EPOCHS // 2 if diverged else EPOCHS
    values = seeds.normals(number, "benchmark", size=(last + 1) * len(checkpoints.METRICS)).reshape(last + 1, -1)
    started = STARTED + 1000 * number
    points = [
        Point(name, float(np.float32(values[epoch, column])), epoch, started + 100 * epoch)
        for epoch in range(last + 1)
        for column, name in enumerate(checkpoints.METRICS)
    ]
    best = {"seconds": 1.5, "best_epoch": 7.0, "best_val_accuracy": 0.5, "best_test_accuracy": 0.25}
    points += [Point(name, value, last, started + 100 * last) for name, value in best.items()]
    tags = {
        "dataset": member.dataset,
        "dataset_hash": member.dataset_hash,
        "architecture": member.architecture,
        "configuration": member.config_kind,
        "member": member.id,
        "group": member.group,
        "split": member.split,
        "engine": "lanes",
        "version": "0.1.0",
        "machine": "Linux x86_64",
        "definition": json.dumps(member.definition(), sort_keys=True, separators=(",", ":")),
        "last_epoch": str(last),
        "digest": member.id,
        "artifact_bytes": "502656",
        "status": "diverged" if diverged else "finished",
        **({"diverged_epoch": str(last)} if diverged else {}),
    }
    dataset = (member.dataset, member.dataset_hash)
    ended = started + 100 * last
    return FinishedRun(run_name(member), tags, member_params(member), points, (), started, ended, dataset)


def finished_runs(count: int, dataset: str = "mnist") -> Iterator[FinishedRun]:
    """So many runs of different members."""
    return (finished_run(member, number) for number, member in enumerate(members(count, dataset)))
