"""Training a zoo: from its section to one finished MLflow run a member, whatever was done before."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypedDict, Unpack

from weightzoo.architectures import Architecture, architecture
from weightzoo.datasets.images import ImageData
from weightzoo.execution.background import BackgroundWriter
from weightzoo.execution.build import (
    Build,
    Engines,
    Progress,
    default_shard_size,
    recorded_results,
    saved_snapshots,
    usable_runs,
)
from weightzoo.execution.executor import Batch, Executor, LocalExecutor
from weightzoo.execution.guard import exit_on_terminate, only_trainer, settled_objects_uncollected
from weightzoo.execution.parents import recorded_weights
from weightzoo.execution.shard import Outcome, StartWeights
from weightzoo.members import Member
from weightzoo.population import FixedPopulation, Population, Result, population
from weightzoo.spec import EvolutionConfiguration, SearchConfiguration, ZooSpec
from weightzoo.tracking import RunStore
from weightzoo.training.protocol import Engine

__all__ = ["Progress", "TrainSummary", "train_descendants", "train_zoo"]


@dataclass(frozen=True)
class TrainSummary:
    """What became of a zoo's members."""

    members: tuple[str, ...]  # ids, in the population's order
    statuses: Mapping[str, int]  # finished, diverged, pruned -> how many
    trained: int  # members trained (or finished) now
    reused: int  # members that had been trained before
    seconds: float  # wall time in all
    training_seconds: float  # wall time in the engine
    logging_seconds: float  # time of the background writer, mostly while training went on
    digest: str  # of all metrics and probe outputs

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {status}" for status, count in sorted(self.statuses.items()))
        return f"{len(self.members):,} models ({counts}), {self.trained:,} trained now in {self.seconds:,.0f} s"


class Settings(TypedDict, total=False):
    """How members are trained; `train_zoo` describes each."""

    engine: str | Engine
    device: str
    compile: bool
    threads: int | None
    on_progress: Callable[[Progress], None] | None
    snapshot_seconds: float
    log_seconds: float
    shard_size: int | None
    executor: Executor | None


def train_zoo(
    name: str,
    spec: ZooSpec,
    data: ImageData,
    store: RunStore,
    *,
    engine: str | Engine | None = None,
    device: str | None = None,
    threads: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    snapshot_seconds: float = 30.0,
    log_seconds: float = 60.0,
    shard_size: int | None = None,
    executor: Executor | None = None,
) -> TrainSummary:
    """Train every member of a zoo that has no finished run yet, each as an MLflow run of its own.

    May be killed at any moment and called again: finished members are not trained again, the others go on from their
    last snapshot, at most about `snapshot_seconds` old, on the engine that it was made with. Metrics are logged about
    every `log_seconds` and at the end. At most `shard_size` members are trained together, by default enough to give
    every thread work. The `executor` says where that is, by default in this process.

    Raises:
        EngineError: the engine that was asked for can't train this zoo.
        ClusterError: the cluster that the executor uses can't be used.
        SpecError: the architecture does not take the images of the data set, or the name can't be that of a folder.
        TrackingError: the store can't be used, or another process trains this zoo.
    """
    built = architecture(spec.architecture, data.image_shape, data.classes)
    configuration = spec.configuration
    return _train(
        name,
        population(spec, data.content_hash),
        built,
        data,
        store,
        spec.training.epochs,
        search=configuration if isinstance(configuration, SearchConfiguration | EvolutionConfiguration) else None,
        models=spec.models,
        start=lambda members: recorded_weights(store, built, members),
        compile=spec.compile,
        engine=engine or spec.engine,
        device=device or spec.device,
        threads=threads,
        on_progress=on_progress,
        snapshot_seconds=snapshot_seconds,
        log_seconds=log_seconds,
        shard_size=shard_size,
        executor=executor,
    )


def train_descendants(
    name: str,
    members: tuple[Member, ...],
    start: StartWeights,
    built: Architecture,
    data: ImageData,
    store: RunStore,
    *,
    parent_runs: Mapping[str, str] | None = None,
    **settings: Unpack[Settings],
) -> TrainSummary:
    """Train members that start from their parents' weights, with all that `train_zoo` says of its members.

    `start` gives these weights for some of the members, `parent_runs` the run that each parent has, by member id, as
    far as it is known; it is only looked at where a run is made.

    Raises:
        EngineError: the engine that was asked for can't train the members.
        TrackingError: the store can't be used, or another process trains this zoo.
    """
    epochs, source = members[0].protocol.epochs, FixedPopulation(members)
    return _train(name, source, built, data, store, epochs, start=start, parent_runs=parent_runs, **settings)


def _train(
    name: str,
    source: Population,
    built: Architecture,
    data: ImageData,
    store: RunStore,
    epochs: int,
    *,
    search: SearchConfiguration | EvolutionConfiguration | None = None,
    models: int = 0,
    compile: bool = False,
    start: StartWeights | None = None,
    parent_runs: Mapping[str, str] | None = None,
    engine: str | Engine = "auto",
    device: str = "cpu",
    threads: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    snapshot_seconds: float = 30.0,
    log_seconds: float = 60.0,
    shard_size: int | None = None,
    executor: Executor | None = None,
) -> TrainSummary:
    if on_progress is not None:
        on_progress(Progress(0, 0, "opening the tracking store", 0.0))  # seconds, and longer where it is made first
    runs = store.zoo(name, parent_runs)
    executor = executor or LocalExecutor()
    threads = threads or executor.threads
    engines = Engines(engine, built, device, threads, compile)
    with only_trainer(store.resume_folder, name), exit_on_terminate():
        build = Build(
            name=name,
            epochs=epochs,
            objective=search.objective if search else "val_accuracy",
            data=data,
            architecture=built,
            start=start,
            runs=runs,
            known=usable_runs(runs),
            snapshots=saved_snapshots(store.resume_folder / name),
            choose=executor.chooser(engines),
            engines=engines,
            writer=BackgroundWriter(),
            on_progress=on_progress,
            most_together=shard_size or default_shard_size(device, threads),
            snapshot_seconds=snapshot_seconds,
            log_seconds=log_seconds,
        )
        try:
            with settled_objects_uncollected():
                results, trained = _train_batches(build, source, search, models, executor)
                build.report("writing the last runs")
                build.writer.close()
            if trained:
                store.update_statistics()
        except BaseException as error:
            interrupted = not isinstance(error, Exception)
            if interrupted or build.writer.failed:
                store.patience.end()  # who interrupts does not wait, nor does who has waited
            build.writer.abandon(only_essential=interrupted)
            raise
        finally:
            store.patience.renew()
        return _summary(build, results, trained)


def _train_batches(
    build: Build,
    source: Population,
    search: SearchConfiguration | EvolutionConfiguration | None,
    most: int,
    executor: Executor,
) -> tuple[dict[str, Result], set[str]]:
    """All batches of the population: the results by member id, in order, and the ids of those that were trained now."""
    pruned = isinstance(search, SearchConfiguration) and search.pruner is not None
    everything: dict[str, Result] = {}
    trained: set[str] = set()
    while members := source.ask():
        models = max(len(everything) + len(members), most)
        build.total = models * (build.epochs + 1)
        results = recorded_results(build, members, with_objective=search is not None)
        build.done += len(results) * (build.epochs + 1)
        last = len(everything) + len(members) >= models
        outcomes = executor.train(build, Batch(members, results, source.prune if pruned else None, last))
        trained |= set(outcomes)
        results |= {member.id: _result(member, outcomes[member.id]) for member in members if member.id not in results}
        source.tell(results)
        if isinstance(search, EvolutionConfiguration):
            build.writer.flush()  # the next generation starts from what was recorded of this one
        everything |= {member.id: results[member.id] for member in members}
    return everything, trained


def _result(member: Member, outcome: Outcome) -> Result:
    whole = len(outcome.objective) == member.protocol.epochs + 1
    return Result("diverged" if outcome.diverged else "finished" if whole else "pruned", outcome.objective)


def _summary(build: Build, results: Mapping[str, Result], trained: set[str]) -> TrainSummary:
    digest = hashlib.blake2b(digest_size=8)
    for member in results:
        digest.update(f"{member} {build.digests[member]}\n".encode())
    return TrainSummary(
        members=tuple(results),
        statuses=dict(Counter(result.status for result in results.values())),
        trained=len(trained),
        reused=len(results) - len(trained),
        seconds=time.perf_counter() - build.started,
        training_seconds=build.training_seconds,
        logging_seconds=build.writer.seconds,
        digest=digest.hexdigest(),
    )
