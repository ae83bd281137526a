"""What one call of `train_zoo` works with, and what is left to do: known runs, saved snapshots, shards to train."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from weightzoo.architectures import Architecture
from weightzoo.datasets.images import ImageData
from weightzoo.errors import EngineError, FormatError
from weightzoo.execution.background import BackgroundWriter
from weightzoo.execution.recording import Recorder
from weightzoo.execution.shard import Shard, StartWeights, split_cohort
from weightzoo.execution.snapshot import Identity, Snapshot
from weightzoo.members import Cohort, Member, cohort_key, cohorts
from weightzoo.population import Result
from weightzoo.training.protocol import Engine
from weightzoo.zoo_runs import KnownRun, ZooRuns

T = TypeVar("T")
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
    engines: Engines
    writer: BackgroundWriter
    on_progress: Callable[[Progress], None] | None
    most_together: int  # members of a shard
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

    def start_of(self, cohort: Cohort) -> StartWeights | None:
        """What gives the weights that a cohort starts from; None if its members have no parents."""
        return self.start if cohort.members[0].parent is not None else None

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


@dataclass(frozen=True)
class ShardPlan:
    """Members to train together, by which engine, and the snapshot that is, or will be, of them."""

    cohort: Cohort
    engine: Engine
    snapshot: Snapshot


def interrupted_shards(build: Build, batch: Sequence[Member], ended: set[str]) -> list[ShardPlan]:
    """The shards of a batch that have a snapshot, as they were."""
    by_id = {member.id: member for member in batch}
    plans: list[ShardPlan] = []
    covered: set[str] = set()
    for snapshot in build.snapshots:
        ids = snapshot.identity.members
        if set(ids) <= ended:  # all is recorded, only the snapshot had not been deleted yet
            snapshot.discard()
            continue
        if not set(ids) <= set(by_id) or set(ids) & covered:
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
        covered |= set(ids) - ended
        plans.append(ShardPlan(cohort, engine, snapshot))
    return plans


def fresh_shard(build: Build, cohort: Cohort) -> ShardPlan:
    """A shard that is trained from the start."""
    engine = build.choose(cohort)
    identity = Identity(engine.name, tuple(member.id for member in cohort.members))
    return ShardPlan(cohort, engine, Snapshot(build.folder / shard_id(identity.members), identity))


def untouched(batch: Sequence[Member], ended: set[str], plans: Iterable[ShardPlan]) -> tuple[Cohort, ...]:
    """The members that are neither `ended` nor in a plan, in cohorts."""
    covered = {member.id for plan in plans for member in plan.cohort.members} | ended
    return cohorts(member for member in batch if member.id not in covered)


def plan_shards(build: Build, batch: Sequence[Member], ended: set[str]) -> list[Shard]:
    """The shards of a batch: those that have a snapshot as they were, the other members in new ones."""
    plans = interrupted_shards(build, batch, ended)
    for cohort in untouched(batch, ended, plans):
        parts = split_cohort(cohort, build.architecture.layout.size, build.most_together)
        plans += [fresh_shard(build, part) for part in parts]
    return [open_shard(build, plan, ended) for plan in plans]


def open_shard(build: Build, plan: ShardPlan, ended: set[str]) -> Shard:
    """The shard of a plan, ready to be trained; of its members, those that have `ended` are recorded already."""
    cohort, snapshot = plan.cohort, plan.snapshot
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
        plan.engine,
        build.architecture,
        build.data,
        snapshot,
        recorder,
        build.writer,
        objective=build.objective,
        start=build.start_of(cohort),
        snapshot_seconds=build.snapshot_seconds,
    )


@dataclass(frozen=True)
class Engines:
    """How the engine of a cohort is found: one by its name, or a given one."""

    choice: str | Engine
    architecture: Architecture
    device: str
    threads: int | None
    compile: bool = False

    def choose(self, cohort: Cohort) -> Engine:
        """The engine that trains a cohort.

        Raises:
            EngineError: it can't.
        """
        if isinstance(self.choice, str):
            from weightzoo.training import choose_engine

            return choose_engine(
                self.choice, self.architecture, cohort, self.device, threads=self.threads, compile=self.compile
            )
        reason = self.choice.supports(self.architecture, cohort, self.device)
        if reason is not None:
            raise EngineError(f"engine {self.choice.name}: {reason}")
        return self.choice


def once_a_kind(choose: Callable[[Cohort], T]) -> Callable[[Cohort], T]:
    """Choose one engine a kind of cohort, so that a fall-back is logged once."""
    chosen: dict[tuple[object, ...], T] = {}

    def choose_once(cohort: Cohort) -> T:
        key = cohort_key(cohort.members[0])
        if key not in chosen:
            chosen[key] = choose(cohort)
        return chosen[key]

    return choose_once


def default_shard_size(device: str, threads: int | None) -> int:
    """Enough members for every thread, few enough that their runs can be written while the next ones train."""
    if device != "cpu":
        return 512
    return max(64, 32 * (threads or os.cpu_count() or 1))


def usable_runs(runs: ZooRuns) -> dict[str, list[KnownRun]]:
    """The zoo's runs by member, as they can be relied on.

    Those whose artifacts are damaged are deleted, to be trained again. One that is complete but for its end is ended,
    unless its member has another one; and those that another run of their member has made superfluous are deleted.
    """
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
    for member, own in known.items():
        ended = [run for run in own if run.ended]
        if not ended and (complete := [run for run in own if run.complete]):
            runs.end(complete[0].run_id, time.time_ns() // 1_000_000)
            ended = [replace(complete[0], ended=True)]
        if ended:
            delete_superfluous(runs, own, ended)
            known[member] = ended
    return known


def delete_superfluous(runs: ZooRuns, own: Iterable[KnownRun], ended: Sequence[KnownRun]) -> None:
    """Delete a member's runs of attempts that did not come to their end, since others did."""
    for run in own:
        if run.run_id not in {one.run_id for one in ended}:
            runs.delete(run)


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


def shard_id(members: Iterable[str]) -> str:
    """What a shard is called by: a hash of its members."""
    return hashlib.blake2b(" ".join(members).encode(), digest_size=8).hexdigest()
