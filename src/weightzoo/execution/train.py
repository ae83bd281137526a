"""Training a zoo: from its section to one finished MLflow run a member, whatever was done before."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

from weightzoo.architectures import Architecture, architecture
from weightzoo.datasets.images import ImageData
from weightzoo.execution.background import BackgroundWriter
from weightzoo.execution.build import (
    Build,
    Progress,
    default_shard_size,
    engine_chooser,
    plan_shards,
    recorded_results,
    saved_snapshots,
    usable_runs,
)
from weightzoo.execution.guard import exit_on_terminate, only_trainer, settled_objects_uncollected
from weightzoo.execution.shard import Shard, StartWeights
from weightzoo.members import Cohort, Member
from weightzoo.population import FixedPopulation, Population, Result, population
from weightzoo.spec import SearchConfiguration, ZooSpec
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
) -> TrainSummary:
    """Train every member of a zoo that has no finished run yet, each as an MLflow run of its own.

    May be killed at any moment and called again: finished members are not trained again, the others go on from their
    last snapshot, at most about `snapshot_seconds` old, on the engine that it was made with. Metrics are logged about
    every `log_seconds` and at the end. At most `shard_size` members are trained together, by default enough to give
    every thread work.

    Raises:
        EngineError: the engine that was asked for can't train this zoo.
        SpecError: the architecture does not take the images of the data set, or the name can't be that of a folder.
        TrackingError: the store can't be used, or another process trains this zoo.
    """
    return _train(
        name,
        population(spec, data.content_hash),
        architecture(spec.architecture, data.image_shape, data.classes),
        data,
        store,
        spec.training.epochs,
        search=spec.configuration if isinstance(spec.configuration, SearchConfiguration) else None,
        compile=spec.compile,
        engine=engine or spec.engine,
        device=device or spec.device,
        threads=threads,
        on_progress=on_progress,
        snapshot_seconds=snapshot_seconds,
        log_seconds=log_seconds,
        shard_size=shard_size,
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
    search: SearchConfiguration | None = None,
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
) -> TrainSummary:
    if on_progress is not None:
        on_progress(Progress(0, 0, "opening the tracking store", 0.0))  # seconds, and longer where it is made first
    runs = store.zoo(name, parent_runs)
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
            choose=engine_chooser(engine, built, device, threads, compile=compile),
            writer=BackgroundWriter(),
            on_progress=on_progress,
            shard_size=shard_size or default_shard_size(device, threads),
            snapshot_seconds=snapshot_seconds,
            log_seconds=log_seconds,
        )
        try:
            with settled_objects_uncollected():
                results, trained = _train_batches(build, source, search)
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
    build: Build, source: Population, search: SearchConfiguration | None
) -> tuple[dict[str, Result], set[str]]:
    """All batches of the population: the results by member id, in order, and the ids of those that were trained now."""
    lockstep = search is not None and search.pruner is not None
    everything: dict[str, Result] = {}
    trained: set[str] = set()
    while batch := source.ask():
        models = max(len(everything) + len(batch), search.models if search else 0)
        build.total = models * (build.epochs + 1)
        results = recorded_results(build, batch, with_objective=search is not None)
        build.done += len(results) * (build.epochs + 1)
        shards = plan_shards(build, batch, set(results))
        if shards and len(everything) + len(batch) >= models:
            shards[-1].last_of_zoo = True
        for group in [shards] if lockstep else [[shard] for shard in shards]:
            recorded = {member: result.objective for member, result in results.items()} if lockstep else {}
            _train_together(build, group, recorded, source.prune)
        for shard in shards:
            for member in shard.cohort.members:
                if member.id not in results:
                    trained.add(member.id)
                    results[member.id] = _result(member, shard)
        source.tell(results)
        everything |= {member.id: results[member.id] for member in batch}
    return everything, trained


def _train_together(
    build: Build,
    shards: Sequence[Shard],
    recorded: Mapping[str, list[float]],
    prune: Callable[[int, Mapping[str, float]], set[str]],
) -> None:
    """Train shards side by side, epoch by epoch, so that a pruner sees all members of a batch at the same epoch.

    What is `recorded` or in a snapshot takes part in that with its old values: the same members are pruned again.
    """
    for shard in shards:
        build.writer.submit(shard.recorder.begin)
    try:
        for epoch in range(build.epochs + 1):
            values = {member: objective[epoch] for member, objective in recorded.items() if epoch < len(objective)}
            for shard in shards:
                if not shard.done:
                    own = shard.advance()
                    values |= own
                    build.done += len(own)
                    build.trained_epochs += len(own) if epoch >= shard.replayed else 0
                    build.report(describe(shard.cohort))
            pruned = prune(epoch, values)
            for shard in shards:
                if pruned:
                    build.done += shard.drop(pruned) * (build.epochs - epoch)
    except Exception:
        _save(build, shards)
        if not build.writer.failed:
            for shard in shards:
                build.writer.submit(shard.recorder.fail, essential=True)  # behind saving, which may make the runs
        raise
    except BaseException:
        build.runs.store.patience.end()  # told to go, which should not wait for a store that is away
        _save(build, shards)
        raise
    _save(build, shards)
    for shard in shards:
        build.writer.submit(shard.recorder.finish)
        shard.release()


def _save(build: Build, shards: Sequence[Shard]) -> None:
    for shard in shards:
        shard.close()
        shard.save()
        build.training_seconds += shard.train_seconds


def describe(cohort: Cohort) -> str:
    """A cohort in a few words, as `64 x cnn-s tanh adam`."""
    return f"{len(cohort)} x {cohort.architecture} {cohort.activation} {cohort.optimizer}"


def _result(member: Member, shard: Shard) -> Result:
    outcome = shard.outcomes[member.id]
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
