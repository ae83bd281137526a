"""What one call of `train_zoo` works with, and what is left to do: known runs, saved snapshots, shards to train."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from weightzoo.architectures import Architecture
from weightzoo.datasets.images import ImageData
from weightzoo.errors import EngineError, FormatError
from weightzoo.execution.background import BackgroundWriter
from weightzoo.execution.recording import Recorder
from weightzoo.execution.shard import Shard, StartWeights, split_cohort
from weightzoo.execution.snapshot import Identity, Snapshot
from weightzoo.members import Cohort, Member, cohort_key, cohorts
from weightzoo.population import Result
from weightzoo.tracking import KnownRun, ZooRuns
from weightzoo.training.protocol import Engine

_log = logging.getLogger("weightzoo")


@dataclass(frozen=True)
class Progress:
    """How far training is, in epochs of single models."""

    done: int
    total: int
    what: str  # the cohort that is in training, or what else is going on
    images_per_second: float  # training images since the start, over all models; 0 while nothing was trained


@dataclass
class Build:
    """What the steps of one call of `train_zoo` share."""

    name: str
    epochs: int  # that every member is trained for
    objective: str  # what a search looks at
    data: ImageData
    architecture: Architecture
    start: StartWeights | None  # of the members that have a parent
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
        """Tell whoever watches how far training is."""
        if self.on_progress is not None:
            images = self.trained_epochs * self.data.size("train")
            elapsed = time.perf_counter() - self.started
            self.on_progress(
                Progress(min(self.done, self.total), self.total, what, images / elapsed if elapsed else 0.0)
            )


def recorded_results(build: Build, batch: Sequence[Member], *, with_objective: bool) -> dict[str, Result]:
    """What is known of the members that need no more training; only a search asks for the objective of every epoch."""
    results: dict[str, Result] = {}
    for member in batch:
        ended = [run for run in build.known.get(member.id, []) if run.ended]
        if ended:
            objective: list[float] = []
            if with_objective:
                objective = [float(value) for value in build.runs.metrics(ended[0]).values[build.objective]]
            results[member.id] = Result(ended[0].status, objective)
            build.digests[member.id] = ended[0].digest
    return results


def plan_shards(build: Build, batch: Sequence[Member], ended: set[str]) -> list[Shard]:
    """The shards of a batch: those that have a snapshot as they were, the other members in new ones."""
    by_id = {member.id: member for member in batch}
    shards: list[Shard] = []
    covered = set(ended)
    for snapshot in build.snapshots:
        ids = snapshot.identity.members
        if set(ids) <= ended:  # all is recorded, only the snapshot had not been deleted yet
            snapshot.discard()
            continue
        if not set(ids) <= set(by_id) or set(ids) & (covered - ended):
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


def _shard(build: Build, cohort: Cohort, engine: Engine, snapshot: Snapshot, ended: set[str]) -> Shard:
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
    return Shard(
        cohort,
        engine,
        build.architecture,
        build.data,
        snapshot,
        recorder,
        build.writer,
        objective=build.objective,
        start=build.start,
        snapshot_seconds=build.snapshot_seconds,
    )


def engine_chooser(
    choice: str | Engine, built: Architecture, device: str, threads: int | None, *, compile: bool = False
) -> Callable[[Cohort], Engine]:
    """What finds the engine of each cohort: one by its name, or a given one.

    The function raises `EngineError` if that can't train the cohort.
    """
    if isinstance(choice, str):
        from weightzoo.training import choose_engine

        chosen: dict[tuple[object, ...], Engine] = {}  # one a kind of cohort, so that a fall-back is logged once

        def choose(cohort: Cohort) -> Engine:
            key = cohort_key(cohort.members[0])
            if key not in chosen:
                chosen[key] = choose_engine(choice, built, cohort, device, threads=threads, compile=compile)
            return chosen[key]

        return choose

    def supported(cohort: Cohort) -> Engine:
        reason = choice.supports(built, cohort, device)
        if reason is not None:
            raise EngineError(f"engine {choice.name}: {reason}")
        return choice

    return supported


def default_shard_size(device: str, threads: int | None) -> int:
    """Enough members for every thread, few enough that their runs can be written while the next ones train."""
    if device != "cpu":
        return 512
    return max(64, 32 * (threads or os.cpu_count() or 1))


def usable_runs(runs: ZooRuns) -> dict[str, list[KnownRun]]:
    """The zoo's runs by member, without those whose artifacts are damaged: these are deleted, to be trained again."""
    known = runs.known()
    damaged = [run for own in known.values() for run in own if run.damaged]
    if damaged:
        _log.warning(
            "%d runs have missing or truncated artifacts, the first is %s of member %s; training their members again",
            len(damaged),
            damaged[0].run_id,
            damaged[0].member,
        )
    for run in damaged:
        runs.delete(run)
        known[run.member].remove(run)
    return known


def saved_snapshots(folder: Path) -> list[Snapshot]:
    """The snapshots of interrupted training; a damaged one is discarded, since its members can be trained anew."""
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
