"""Zoos from run artifacts on S3, and one model of a large zoo there: seconds, memory, bytes. A SeaweedFS on loopback."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import numpy as np

from tests.benchmarks.population import finished_run, members
from tests.benchmarks.scale import Figure, say, timed
from tests.servers import Proxy, SeaweedFS
from weightzoo.architectures import architecture
from weightzoo.checkpoints import (
    CHECKPOINTS_FOLDER,
    METRICS,
    METRICS_FILE,
    Checkpoints,
    RecordedMetrics,
    encode_checkpoints,
    encode_metrics,
    part_name,
)
from weightzoo.s3 import Location
from weightzoo.stages.upload import upload
from weightzoo.tracking import FinishedRun, RunStore
from weightzoo.workspace import Workspace
from weightzoo.zoo import Zoo

ARCHITECTURE = architecture("cnn-s", (1, 28, 28), 10)
CLASSES, PROBE = 10, 50
ASSEMBLE = """
import json, resource, sys, time
from weightzoo.registry import Registry
uri, members, target = sys.argv[1:]
registry, members = Registry(uri), json.loads(members)
registry.members(members[:2]).assemble(target)  # all is imported, the mirror of the runs is there
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
registry.members(members).assemble(target)
print(json.dumps([time.perf_counter() - start, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 1024 * before]))
"""


def measure(quick: bool) -> list[Figure]:
    """1,000 models of 51 states, 500 MB; in a quick round 150, 75 MB."""
    models = 150 if quick else 1000
    with tempfile.TemporaryDirectory(prefix="scale-") as temporary, SeaweedFS(Path(temporary, "s3")) as server:
        folder, bucket = Path(temporary), server.bucket("zoos")
        with environment(server.settings()):
            uri = f"sqlite:///{folder}/mlflow.db"
            say(f"  recording {models:,} runs")
            ids = record(RunStore(uri, artifact_root=f"s3://{bucket}/runs"), models)
            _, little, _ = assemble(uri, ids[: models // 4], folder / "quarter")
            seconds, much, _ = assemble(uri, ids, folder / "whole")
            size = sum(file.stat().st_size for file in (folder / "whole").iterdir())
            what = f"{models:,} models x 51 epochs, {size / 1e6:,.0f} MB"
            upload(str(folder / "whole"), f"s3://{bucket}/whole", Workspace(folder))
            share, reading = read_one(server, f"s3://{bucket}/whole", Zoo.open(folder / "whole"))
        return [
            Figure.under(f"assembling {what}, from run artifacts on S3", 60, seconds, "s"),
            Figure.under(f"memory that it takes above that of a quarter of it, {models:,} models", 50, (much - little) / 1e6, "MB"),
            Figure.under(f"memory at its peak, {models:,} models", 1000, much / 1e6, "MB"),
            Figure.under(f"reading one model of {what} on S3: bytes moved", 1, 100 * share, "% of the zoo"),
            Figure.under(f"reading one model of {what} on S3: time", 1, reading, "s"),
        ]  # fmt: skip


@contextlib.contextmanager
def environment(settings: Mapping[str, str]) -> Generator[None]:
    """These variables while the block runs."""
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def record(store: RunStore, models: int) -> list[str]:
    """Record runs with all their artifacts, and of their metrics what is behind the last epoch; the members."""
    runs, made = store.zoo("bench"), list(members(models))
    for number, member in enumerate(made):
        run = finished_run(member, number)
        last = max(point.epoch for point in run.points)
        points = [point for point in run.points if point.epoch == last]
        runs.record(dataclasses.replace(run, points=points, files=artifacts(run, member.id, number)))
    return [member.id for member in made]


def artifacts(run: FinishedRun, member: str, number: int) -> Iterator[tuple[str, bytes]]:
    """Those of a run that was trained, with random content."""
    epochs = np.arange(int(run.tags["last_epoch"]) + 1, dtype=np.int32)
    drawn = np.random.default_rng(number)
    weights = drawn.standard_normal((len(epochs), ARCHITECTURE.layout.size), np.float32)
    kept = Checkpoints(member, tuple(epochs.tolist()), weights)
    yield f"{CHECKPOINTS_FOLDER}/{part_name(epochs.tolist())}", encode_checkpoints(kept, ARCHITECTURE.layout)
    accuracies = drawn.uniform(size=(2, len(epochs), CLASSES)).astype(np.float32)
    values = {name: drawn.uniform(size=len(epochs)).astype(np.float32) for name in METRICS}
    logits = drawn.standard_normal((len(epochs), PROBE, CLASSES), np.float32).astype(np.float16)
    yield METRICS_FILE, encode_metrics(RecordedMetrics(member, epochs, values, *accuracies, epochs, logits))


def assemble(uri: str, ids: list[str], target: Path) -> tuple[float, int, int]:
    """In a process of its own: seconds, bytes of memory at its peak, and at its peak when it had imported everything."""
    command = [sys.executable, "-c", ASSEMBLE, uri, json.dumps(ids), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    seconds, peak, before = json.loads(done.stdout)
    return seconds, peak, before


def read_one(server: SeaweedFS, place: str, expected: Zoo) -> tuple[float, float]:
    """Open the zoo and read all states of one model: the share of the zoo's bytes that the server sent, and seconds."""
    number = len(expected) // 2
    with Proxy(server.ports["s3"]) as proxy, environment({"AWS_ENDPOINT_URL": proxy.url}):
        with timed() as seconds:
            zoo = Zoo.open(str(Location.parse(place)))
            weights = zoo.weights(number)
        if not np.array_equal(weights, expected.weights(number), equal_nan=True):
            raise RuntimeError("what was read is not what was written")
        return proxy.received / zoo.place.total(), seconds()
