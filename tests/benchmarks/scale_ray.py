"""Training on a Ray cluster: speed-up and overhead measured on this machine, and larger clusters simulated from these.

The table of the simulation goes to `reports/bench/scale_ray.md`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from tests.benchmarks.cluster import Cluster, Course, Job, limits, longest_least, one_after_another, together
from tests.benchmarks.population import finished_run, members
from tests.benchmarks.scale import Figure, say, timed
from tests.benchmarks.scale_writing import several_writers, stores
from tests.execution.support import DriftEngine, image_data
from tests.servers import SeaweedFS
from weightzoo.architectures import architecture
from weightzoo.calibration import Speed, calibrate
from weightzoo.checkpoints import METRICS
from weightzoo.console import readable_size, readable_time
from weightzoo.datasets.description import describe
from weightzoo.execution import train_zoo
from weightzoo.execution.executor import Executor, LocalExecutor
from weightzoo.members import cohort_key, cohorts
from weightzoo.plan import disk_of
from weightzoo.population import population
from weightzoo.rehearsal import sections
from weightzoo.spec import Params, load_params, parse_params
from weightzoo.tracking import RunStore

COLLECTION = "released"  # 27 zoos, 50,360 models
WORKERS = (1, 10, 100, 1000)
SHARD = 16  # members of the shards that are measured


def measure(quick: bool) -> list[Figure]:
    """Speed-up, overhead and the simulation."""
    speed_up, overhead = on_this_machine(quick)
    say(f"  speed-up {speed_up:.2f}, overhead {overhead:.3f} s a shard")
    with stores() as uris:
        rate = several_writers(uris["PostgreSQL"], 64 if quick else 640, public=False)
    say(f"  PostgreSQL takes {rate:.1f} runs/s")
    requests = requests_a_file()
    say(f"  requests by size of the file: {requests}")
    jobs = catalogue(load_params(Path("params.yaml")), requests, quick=quick)
    cluster = Cluster(overhead, rate)
    report = Report(jobs, cluster)
    path = Path("reports/bench") / ("scale_ray-quick.md" if quick else "scale_ray.md")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report.text())
    print(report.text())
    networks = [job for job in jobs if not job.name.partition("-resnet")[1]]
    alone = together(networks, 1, cluster).makespan

    def faster(workers: int) -> float:
        return alone / together(networks, workers, cluster).makespan

    return [
        Figure.at_least("Ray: tasks of equal work, 2 cores against 1", 1.8, speed_up, "times as fast"),
        Figure.under("Ray: overhead a shard, beside its training", 0.5, overhead, "s"),
        *(
            Figure.at_least(
                f"Ray, simulated: {len(networks)} CNN zoos at once on {workers:,} workers against 1",
                wanted, faster(workers), "times as fast",
            )
            for workers, wanted in ((10, 9.5), (100, 90), (1000, 500))
        ),
    ]  # fmt: skip


def on_this_machine(quick: bool) -> tuple[float, float]:
    """How much faster shards of equal work are trained on two cores than on one; the seconds that Ray adds to a shard."""
    shards, images, epochs = (6, 400, 20) if quick else (8, 2000, 40)
    cnn, idle = _spec(shards, images, epochs), _spec(shards, images, 1)
    with _ray(1):
        one, _ = _seconds(cnn, "lanes")
        overhead = (_seconds(idle, DriftEngine())[1] - _seconds(idle, DriftEngine(), local=True)[1]) / shards
    with _ray(2):
        two, _ = _seconds(cnn, "lanes")
    return one / two, max(0.0, overhead)


@contextlib.contextmanager
def _ray(cpus: int) -> Generator[None]:
    """A cluster of one node, whose workers have imported what they need."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    ray.init(address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        _seconds(_spec(4 * cpus, 100, 1), "lanes")
        yield
    finally:
        ray.shutdown()


def _spec(shards: int, images: int, epochs: int) -> Params:
    zoo = {
        "dataset": "noise",
        "architecture": "cnn-s",
        "configuration": {"kind": "seed", "seeds": {"first": 1, "count": shards * SHARD}},
        "training": {"epochs": epochs, "batch_size": 10},
    }
    return parse_params({"build": ["z"], "datasets": {"noise": {"train": images}}, "zoos": {"z": zoo}})


def _seconds(params: Params, engine: Any, *, local: bool = False) -> tuple[float, float]:
    """Of training a zoo in a new store: until all is trained, and until all is recorded too."""
    from weightzoo.execution.cluster.executor import RayExecutor

    images = params.datasets["noise"].train or 100
    data = image_data() if isinstance(engine, DriftEngine) else _noise(images)
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        store = RunStore(f"sqlite:///{folder}/mlflow.db")
        store.zoo("z")
        executor: Executor = LocalExecutor() if local else RayExecutor()
        with executor, timed() as seconds:
            done = train_zoo(
                "z", params.zoo("z"), data, store, engine=engine, threads=1, shard_size=SHARD, executor=executor
            )
        return done.training_seconds, seconds()


def _noise(images: int) -> Any:
    import numpy as np

    from weightzoo.datasets.images import ImageData

    rng, sizes = np.random.default_rng(0), {"train": images, "val": 50, "test": 50}
    return ImageData(
        name="noise",
        images={split: rng.integers(0, 256, (n, 1, 28, 28), dtype=np.uint8) for split, n in sizes.items()},
        labels={split: np.arange(n, dtype=np.int32) % 10 for split, n in sizes.items()},
        mean=(0.5,),
        std=(0.5,),
        class_names=tuple("0123456789"),
        source="random numbers",
    )


def requests_a_file() -> dict[int, int]:
    """Requests to the object store that a run makes whose artifact is one file, by the file's bytes."""
    from botocore.httpsession import URLLib3Session

    counted = 0
    send = URLLib3Session.send

    def counting(self: URLLib3Session, request: Any) -> Any:
        nonlocal counted
        counted += 1
        return send(self, request)

    found: dict[int, int] = {}
    with tempfile.TemporaryDirectory(prefix="scale-") as folder, SeaweedFS(Path(folder, "s3")) as server:
        before = dict(os.environ)
        os.environ.update(server.settings())
        URLLib3Session.send = counting  # type: ignore[method-assign]
        try:
            runs = RunStore(f"sqlite:///{folder}/mlflow.db", artifact_root=f"s3://{server.bucket('runs')}").zoo("count")
            for number, (size, member) in enumerate(zip((500_000, 45_000_000), members(2), strict=True)):
                run, counted = finished_run(member, number), 0
                files = [("checkpoints/epochs_0000-0050.safetensors", bytes(size))]
                runs.record([dataclasses.replace(run, files=files)])
                found[size] = counted
        finally:
            URLLib3Session.send = send  # type: ignore[method-assign]
            os.environ.clear()
            os.environ.update(before)
    return found


def catalogue(params: Params, requests: dict[int, int], *, quick: bool) -> list[Job]:
    """The zoos of the collection, with the speed of their cohorts on one CPU; quick, of one cohort a kind of network."""
    small, large = sorted(requests)
    measured: dict[tuple[object, ...], list[Speed]] = {}
    jobs: list[Job] = []
    for name, spec in params.zoos.items():
        if COLLECTION not in spec.collections:
            continue
        spec, dataset = sections(name, params)
        data = describe(spec.dataset, dataset)
        built = architecture(spec.architecture, data.image_shape, data.classes)
        kinds = cohorts(population(spec, dataset_hash="").ask())
        key = (spec.architecture, data.image_shape, data.classes if quick else name)
        if key not in measured:
            start = time.perf_counter()
            budget = 0.0 if quick else 3.0
            measured[key] = calibrate(built, kinds, data, engine=spec.engine, threads=1, budget=budget)
            say(f"  {name}: {measured[key][0].image * 1e6:.2f} us an image, {time.perf_counter() - start:.0f} s")
        speeds = measured[key]
        typical = sum(speed.image for speed in speeds) / len(speeds)
        default = Speed(speeds[0].engine, 0.0, typical, speeds[0].members)
        kept = len(spec.training.checkpoint_epochs)
        disk = disk_of(1, built.layout.size, kept, spec.training.epochs, data.classes)
        is_large = 4 * built.layout.size > 8_000_000  # then each epoch has a file of its own
        jobs.append(
            Job(
                name,
                kinds,
                {
                    cohort_key(kind.members[0]): speeds[place] if place < len(speeds) else default
                    for place, kind in enumerate(kinds)
                },
                built.layout.size,
                data.counts["train"],
                spec.training.epochs,
                requests=requests[small] + (kept * requests[large] if is_large else requests[small]),
                bytes=disk.checkpoints + disk.metrics,
            )
        )
    return jobs


@dataclasses.dataclass(frozen=True)
class Report:
    """The simulation in Markdown."""

    jobs: list[Job]
    cluster: Cluster

    def text(self) -> str:
        networks = [job for job in self.jobs if not job.name.partition("-resnet")[1]]
        return "\n".join(
            [
                "# The 27 zoos of the catalogue on a Ray cluster, simulated",
                "",
                f"A worker is one CPU core of this machine; load average while measuring {os.getloadavg()[0]:.1f}. "
                f"Beside training a shard takes {self.cluster.overhead:.2f} s; PostgreSQL takes "
                f"{self.cluster.runs_a_second:.0f} runs a second; a small CNN's run makes "
                f"{networks[0].requests:.0f} requests to the object store, a ResNet-18's "
                f"{self.jobs[-1].requests:,.0f}. Sizes of shards are the executor's own; networks are not simulated.",
                "",
                *self._table(networks),
                *self._table(self.jobs),
            ]
        )

    def _table(self, jobs: list[Job]) -> list[str]:
        models, work = sum(job.models for job in jobs), sum(job.work() for job in jobs)
        least = longest_least(jobs, self.cluster.most)
        store = models / self.cluster.runs_a_second
        lines = [
            f"## {len(jobs)} zoos, {models:,} models: {readable_time(work)} on one core",
            "",
            "| workers | one zoo after another | all at once | busy | runs/s | metric rows/s | S3 requests/s | to S3 | "
            "bound by |",
            "|---:|---:|---:|---:|---:|---:|---:|---:|---|",
        ]
        alone = together(jobs, 1, self.cluster).makespan
        for workers in WORKERS:
            course, sequence = together(jobs, workers, self.cluster), one_after_another(jobs, workers, self.cluster)
            lines.append(self._row(jobs, workers, course, sequence, alone, least))
        return [
            *lines,
            "",
            f"All at once, the shortest time is that of the longest shard of the least size, {readable_time(least)}, from "
            f"{work / least:,.0f} workers on; the store alone takes {readable_time(store)} to record all runs, as long as "
            f"{work / store:,.0f} workers train.",
            "",
        ]

    def _row(self, jobs: list[Job], workers: int, course: Course, sequence: Course, alone: float, least: float) -> str:
        models = sum(job.models for job in jobs)
        rows = sum(job.models * ((job.epochs + 1) * len(METRICS) + 4) for job in jobs)
        requests, size = (sum(job.models * one for job, one in zip(jobs, each, strict=True)) for each in (
            [job.requests for job in jobs], [job.bytes for job in jobs],
        ))  # fmt: skip
        bound = limits(jobs, workers, self.cluster, least)
        cells = (
            f"{workers:,}",
            f"{readable_time(sequence.makespan)} ({alone / sequence.makespan:.3g}x)",
            f"{readable_time(course.makespan)} ({alone / course.makespan:.3g}x)",
            f"{course.busy / (workers * course.makespan):.0%}",
            f"{models / course.makespan:.3g}",
            f"{rows / course.makespan:,.0f}",
            f"{requests / course.makespan:.3g}",
            f"{readable_size(int(size / course.makespan))}/s",
            max(bound, key=lambda reason: bound[reason]),
        )
        return f"| {' | '.join(cells)} |"
