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
from tests.benchmarks.scale import Figure, say
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
from weightzoo.members import Member
from weightzoo.stages.upload import upload
from weightzoo.tracking import RunStore
from weightzoo.workspace import Workspace
from weightzoo.zoo import Zoo
from weightzoo.zoo_runs import FinishedRun

ARCHITECTURE = architecture("cnn-s", (1, 28, 28), 10)
CLASSES, PROBE = 10, 50
ASSEMBLE = """
import json, resource, sys, time
from weightzoo.registry import Registry

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

uri, members, target = sys.argv[1:]
registry, members = Registry(uri), json.loads(members)
registry.members(members[:2]).assemble(target)  # all is imported now, and the runs are known
before, start = peak(), time.perf_counter()
registry.members(members).assemble(target)
print(json.dumps([time.perf_counter() - start, peak() - before]))
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
            seconds, memory = assemble(uri, ids, folder / "whole")
            size = sum(file.stat().st_size for file in (folder / "whole").iterdir())
            what = f"{models:,} models x 51 epochs, {size / 1e6:,.0f} MB"
            upload(str(folder / "whole"), f"s3://{bucket}/whole", Workspace(folder))
            share = read_one(server, f"s3://{bucket}/whole", Zoo.open(folder / "whole"))
        return [
            Figure.under(f"assembling {what}, from run artifacts on S3", 60, seconds, "s"),
            Figure.under(f"memory for {what}, above that for two models", 150, memory / 1e6, "MB"),
            Figure.under(f"reading one model of {what}, on S3: bytes moved", 1, 100 * share, "% of the zoo"),
        ]


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
    for start in range(0, models, 100):
        runs.record([_run(made[number], number) for number in range(start, min(start + 100, models))])
    return [member.id for member in made]


def _run(member: Member, number: int) -> FinishedRun:
    run = finished_run(member, number)
    last = max(point.epoch for point in run.points)
    points = [point for point in run.points if point.epoch == last]
    return dataclasses.replace(run, points=points, files=artifacts(run, member.id, number))


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


def assemble(uri: str, ids: list[str], target: Path) -> tuple[float, float]:
    """In a process of its own: seconds, and bytes of memory at its peak above what two models take."""
    command = [sys.executable, "-c", ASSEMBLE, uri, json.dumps(ids), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    seconds, memory = json.loads(done.stdout)
    return seconds, memory


def read_one(server: SeaweedFS, place: str, expected: Zoo) -> float:
    """Open the zoo and read all states of one model: the share of the zoo's bytes that the server sent."""
    number = len(expected) // 2
    with Proxy(server.ports["s3"]) as proxy, environment({"AWS_ENDPOINT_URL": proxy.url}):
        zoo = Zoo.open(place)
        if not np.array_equal(zoo.weights(number), expected.weights(number), equal_nan=True):
            raise RuntimeError("what was read is not what was written")
        return proxy.received / zoo.place.total()
