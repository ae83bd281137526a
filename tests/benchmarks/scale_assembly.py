"""Packing 1,000 CNN(s) with their weights of 51 epochs into a zoo, 500 MB, from artifacts in the file system."""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from tests.benchmarks.population import finished_run, members
from tests.benchmarks.scale import Figure, timed
from weightzoo import checkpoints, seeds
from weightzoo.architectures import architecture
from weightzoo.checkpoints import METRICS, Checkpoints, RecordedMetrics
from weightzoo.members import Member
from weightzoo.tracking import RunStore
from weightzoo.training.protocol import PROBE_SIZE
from weightzoo.zoo_runs import FinishedRun

MODELS, QUICK = 1000, 50
TOGETHER = 50
BUILT = architecture("cnn-s", (1, 28, 28), 10)


def measure(quick: bool) -> list[Figure]:
    """Time and memory of a process that does nothing else."""
    models = QUICK if quick else MODELS
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        runs = RunStore(uri).zoo("zoo")
        population = list(members(models))
        for start in range(0, models, TOGETHER):
            some = enumerate(population[start : start + TOGETHER], start)
            runs.record([_with_files(member, number) for number, member in some])
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_assemble, args=(uri, Path(folder) / "packed", there))
        process.start()
        there.close()
        seconds, megabytes = here.recv()
        process.join()
        size = sum(file.stat().st_size for file in (Path(folder) / "packed").rglob("*")) / 1e6
    what = f"{models:,} CNN(s) x 51 epochs, {size:.0f} MB"
    return [
        Figure.under(f"assembling {what}, local", 15, seconds, "s"),
        Figure.under(f"memory that this takes more, {what}", 200, megabytes, "MB"),
    ]


def _with_files(member: Member, number: int) -> FinishedRun:
    """A run of random weights; all live to the end."""
    run = finished_run(member, number - number % 100)  # the numbers in between are those of runs that diverge
    return replace(run, files=_Files(member, number), tags=dict(run.tags) | {"member": member.id})


class _Files:
    """Made when they are stored."""

    def __init__(self, member: Member, number: int) -> None:
        self._member, self._number = member, number

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        kept = np.arange(51, dtype=np.int32)
        size = 51 * BUILT.layout.size
        weights = seeds.normals(self._number, "weights", size=size).astype(np.float32).reshape(51, -1)
        part = Checkpoints(self._member.id, tuple(kept.tolist()), weights)
        name = f"{checkpoints.CHECKPOINTS_FOLDER}/{checkpoints.part_name(part.epochs)}"
        yield name, checkpoints.encode_checkpoints(part, BUILT.layout)
        shares = np.linspace(0, 1, 51, dtype=np.float32)
        classes = np.repeat(shares[:, None], 10, axis=1)
        metrics = RecordedMetrics(
            member=self._member.id,
            epochs=kept,
            values=dict.fromkeys(METRICS, shares),
            val_class_accuracy=classes,
            test_class_accuracy=classes,
            checkpoint_epochs=kept,
            probe_logits=np.zeros((51, PROBE_SIZE, 10), np.float16),
        )
        yield checkpoints.METRICS_FILE, checkpoints.encode_metrics(metrics)


def _assemble(uri: str, path: Path, answer: Connection) -> None:
    from weightzoo.registry import Registry

    selection = Registry(uri).query("status == 'finished'")
    before = _peak()
    with timed() as seconds:
        selection.assemble(path)
    answer.send((seconds(), _peak() - before))


def _peak() -> float:
    """Megabytes that this process took at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
