"""Training a zoo: from its section to one finished MLflow run a member, whatever was done before."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from weightzoo.architectures import Architecture, architecture
from weightzoo.datasets.images import ImageData
from weightzoo.errors import EngineError, FormatError
from weightzoo.execution.background import BackgroundWriter
from weightzoo.execution.guard import exit_on_terminate, only_trainer, settled_objects_uncollected
from weightzoo.execution.recording import Recorder
from weightzoo.execution.shard import Shard, split_cohort
from weightzoo.execution.snapshot import Identity, Snapshot
from weightzoo.members import Cohort, Member, cohort_key, cohorts
from weightzoo.population import Result, population
from weightzoo.spec import SearchConfiguration, ZooSpec
from weightzoo.tracking import KnownRun, RunStore, ZooRuns
from weightzoo.training.protocol import Engine

_log = logging.getLogger("weightzoo")


@dataclass(frozen=True)
class Progress:
    """How far training is, in epochs of single models."""

    done: int
    total: int
    what: str  # the cohort that is in training, or what else is going on
    images_per_second: float  # training images since the start, over all models; 0 while nothing was trained


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


@dataclass
class _Build:
    """What the steps of one call of `train_zoo` share."""

    name: str
    spec: ZooSpec
    data: ImageData
    architecture: Architecture
    runs: ZooRuns
    known: dict[str, list[KnownRun]]
    snapshots: list[Snapshot]  # those that were there at the start
    choose: Callable[[Cohort], Engine]
    writer: BackgroundWriter
    on_progress: Callable[[Progress], None] | None
    shard_size: int
    snapshot_seconds: float
    log_seconds: float
    started: float = field(default_factory=time.perf_counter)
    done: int = 0
    total: int = 0
    trained_epochs: int = 0
    training_seconds: float = 0.0
    digests: dict[str, str] = field(default_factory=dict[str, str])  # member id -> digest of what was measured

    @property
    def folder(self) -> Path:
        """Where the snapshots are."""
        return self.runs.store.resume_folder / self.name

    def report(self, what: str) -> None:
        if self.on_progress is not None:
            images = self.trained_epochs * self.data.size("train")
            elapsed = time.perf_counter() - self.started
            self.on_progress(
                Progress(min(self.done, self.total), self.total, what, images / elapsed if elapsed else 0.0)
            )


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
    built = architecture(spec.architecture, data.image_shape, data.classes)
    chosen_device = device or spec.device
    if on_progress is not None:
        on_progress(Progress(0, 0, "opening the tracking store", 0.0))  # seconds, and longer where it is made first
    runs = store.zoo(name)
    with only_trainer(store.resume_folder, name), exit_on_terminate():
        build = _Build(
            name=name,
            spec=spec,
            data=data,
            architecture=built,
            runs=runs,
            known=_usable_runs(runs),
            snapshots=_snapshots(store.resume_folder / name),
            choose=_chooser(engine or spec.engine, built, chosen_device, threads),
            writer=BackgroundWriter(),
            on_progress=on_progress,
            shard_size=shard_size or _shard_size(chosen_device, threads),
            snapshot_seconds=snapshot_seconds,
            log_seconds=log_seconds,
        )
        try:
            with settled_objects_uncollected():
                results, trained = _train_batches(build)
                build.report("writing the last runs")
                build.writer.close()
            if trained:
                store.update_statistics()
        except BaseException:
            build.writer.abandon()
            raise
        return _summary(build, results, trained)


def _train_batches(build: _Build) -> tuple[dict[str, Result], set[str]]:
    """All batches of the population: the results by member id, in order, and the ids of those that were trained now."""
    configuration = build.spec.configuration
    searching = isinstance(configuration, SearchConfiguration)
    lockstep = searching and configuration.pruner is not None
    source = population(build.spec, build.data.content_hash)
    everything: dict[str, Result] = {}
    trained: set[str] = set()
    while batch := source.ask():
        models = max(len(everything) + len(batch), configuration.models if searching else 0)
        build.total = models * (build.spec.training.epochs + 1)
        results = _recorded_results(build, batch, with_objective=searching)
        build.done += len(results) * (build.spec.training.epochs + 1)
        shards = _shards(build, batch, set(results))
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
    build: _Build,
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
        for epoch in range(build.spec.training.epochs + 1):
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
                    build.done += shard.drop(pruned) * (build.spec.training.epochs - epoch)
    except Exception:
        if not build.writer.failed:
            for shard in shards:
                build.writer.submit(shard.recorder.fail, essential=True)
        raise
    finally:
        for shard in shards:
            shard.close()
            shard.save()
            build.training_seconds += shard.train_seconds
    for shard in shards:
        build.writer.submit(shard.recorder.finish)
        shard.release()


def describe(cohort: Cohort) -> str:
    """A cohort in a few words, as `64 x cnn-s tanh adam`."""
    return f"{len(cohort)} x {cohort.architecture} {cohort.activation} {cohort.optimizer}"


def _shards(build: _Build, batch: Sequence[Member], ended: set[str]) -> list[Shard]:
    """The shards of a batch: those that have a snapshot as they were, the other members in new ones."""
    by_id = {member.id: member for member in batch}
    shards: list[Shard] = []
    covered = set(ended)
    for snapshot in build.snapshots:
        ids = snapshot.identity.members
        if not set(ids) <= set(by_id) or set(ids) <= covered or set(ids) & (covered - ended):
            continue
        cohort = Cohort(tuple(by_id[one] for one in ids))
        engine = build.choose(cohort)
        if engine.name != snapshot.identity.engine:
            _log.warning(
                "%s: was trained by engine %s, now it is %s: training these members anew",
                snapshot.folder,
                snapshot.identity.engine,
                engine.name,
            )
            snapshot.discard()
            continue
        covered |= set(ids)
        shards.append(_shard(build, cohort, engine, snapshot, ended))
    for cohort in cohorts(member for member in batch if member.id not in covered):
        for part in split_cohort(cohort, build.architecture.layout.size, build.shard_size):
            engine = build.choose(part)
            identity = Identity(engine.name, tuple(member.id for member in part.members))
            folder = build.folder / _folder_name(identity.members)
            shards.append(_shard(build, part, engine, Snapshot(folder, identity), ended))
    return shards


def _shard(build: _Build, cohort: Cohort, engine: Engine, snapshot: Snapshot, ended: set[str]) -> Shard:
    unfinished: dict[str, KnownRun] = {}
    for member in cohort.members:
        for run in build.known.get(member.id, []):
            if run.ended:
                continue
            if member.id in unfinished or member.id in ended or (run.has_metrics and snapshot.last_epoch < 0):
                build.runs.delete(run)  # what it has logged can't be told from what will be logged now
            else:
                unfinished[member.id] = run
    recorder = Recorder(
        build.runs,
        cohort,
        build.architecture.layout,
        snapshot,
        known=unfinished,
        ended=frozenset(ended),
        log_seconds=build.log_seconds,
        on_recorded=build.digests.__setitem__,
    )
    objective = getattr(build.spec.configuration, "objective", "val_accuracy")
    return Shard(
        cohort,
        engine,
        build.architecture,
        build.data,
        snapshot,
        recorder,
        build.writer,
        objective=objective,
        snapshot_seconds=build.snapshot_seconds,
    )


def _chooser(choice: str | Engine, built: Architecture, device: str, threads: int | None) -> Callable[[Cohort], Engine]:
    if isinstance(choice, str):
        from weightzoo.training import choose_engine

        chosen: dict[tuple[object, ...], Engine] = {}  # one a kind of cohort, so that a fall-back is logged once

        def choose(cohort: Cohort) -> Engine:
            key = cohort_key(cohort.members[0])
            if key not in chosen:
                chosen[key] = choose_engine(choice, built, cohort, device, threads=threads)
            return chosen[key]

        return choose

    def supported(cohort: Cohort) -> Engine:
        reason = choice.supports(built, cohort, device)
        if reason is not None:
            raise EngineError(f"engine {choice.name}: {reason}")
        return choice

    return supported


def _shard_size(device: str, threads: int | None) -> int:
    """Enough members for every thread, few enough that their runs can be written while the next ones train."""
    if device != "cpu":
        return 512
    return max(64, 32 * (threads or os.cpu_count() or 1))


def _usable_runs(runs: ZooRuns) -> dict[str, list[KnownRun]]:
    """The zoo's runs by member, without those whose artifacts are damaged: these are deleted, to be trained again."""
    known = runs.known()
    for member, own in known.items():
        for run in [run for run in own if run.damaged]:
            _log.warning("run %s: artifacts are missing or truncated; training member %s again", run.run_id, member)
            runs.delete(run)
            own.remove(run)
    return known


def _snapshots(folder: Path) -> list[Snapshot]:
    found: list[Snapshot] = []
    for one in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            found.append(Snapshot.load(one))
        except FormatError as error:
            _log.warning("%s; discarding this snapshot, its members are trained from the start", error)
            shutil.rmtree(one, ignore_errors=True)
    return found


def _folder_name(members: Iterable[str]) -> str:
    return hashlib.blake2b(" ".join(members).encode(), digest_size=8).hexdigest()


def _recorded_results(build: _Build, batch: Sequence[Member], *, with_objective: bool) -> dict[str, Result]:
    """What is known of the members that need no more training; only a search asks for the objective of every epoch."""
    results: dict[str, Result] = {}
    for member in batch:
        ended = [run for run in build.known.get(member.id, []) if run.ended]
        if ended:
            objective: list[float] = []
            if with_objective:
                name = getattr(build.spec.configuration, "objective", "val_accuracy")
                objective = [float(value) for value in build.runs.metrics(ended[0]).values[name]]
            results[member.id] = Result(ended[0].status, objective)
            build.digests[member.id] = ended[0].digest
    return results


def _result(member: Member, shard: Shard) -> Result:
    outcome = shard.outcomes[member.id]
    whole = len(outcome.objective) == member.protocol.epochs + 1
    return Result("diverged" if outcome.diverged else "finished" if whole else "pruned", outcome.objective)


def _summary(build: _Build, results: Mapping[str, Result], trained: set[str]) -> TrainSummary:
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
