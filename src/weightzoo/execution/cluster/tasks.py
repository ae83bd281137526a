"""What runs on a node: plain functions and generators, which know nothing of Ray."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from weightzoo.connection import connect
from weightzoo.datasets.images import ImageData
from weightzoo.errors import EngineError, FormatError, WeightzooError
from weightzoo.execution.background import BackgroundWriter
from weightzoo.execution.build import Build, Engines, ShardPlan, open_shard, shard_id
from weightzoo.execution.shard import Outcome
from weightzoo.execution.snapshot import Identity, Snapshot
from weightzoo.members import Cohort, Member
from weightzoo.tracking import RunStore
from weightzoo.training.protocol import Engine, EpochResult, TrainState
from weightzoo.version import code_version
from weightzoo.zoo_runs import Addition, ZooRuns


@dataclass(frozen=True)
class Sight:
    """What a node is like, as seen from it."""

    version: str  # of weightzoo
    seen: frozenset[str]  # files of the driver that are here too
    store_error: str | None  # why the tracking store can't be used from here; None if it can


def look(marks: Mapping[str, str], tracking_uri: str | None) -> Sight:
    """See which of the `marks`, contents by path, are here, and whether the tracking store answers, if one is given."""
    seen = frozenset(path for path, content in marks.items() if _read(path) == content)
    error: str | None = None
    if tracking_uri is not None:
        try:
            connect(tracking_uri)
        except WeightzooError as problem:
            error = str(problem)
    return Sight(code_version(), seen, error)


def engine_name(engines: Engines, cohort: Cohort) -> tuple[str, list[str]]:
    """The engine that trains a cohort here, and what there is to warn of.

    Raises:
        EngineError: none can.
    """
    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())
    log = logging.getLogger("weightzoo")
    log.addHandler(handler)
    try:
        return engines.choose(cohort).name, warnings
    finally:
        log.removeHandler(handler)


@dataclass(frozen=True)
class Timed:
    """An epoch, and the seconds of wall time that it took."""

    result: EpochResult
    seconds: float


def train_epochs(
    engines: Engines, engine: str, cohort: Cohort, data: ImageData, resume: TrainState | None
) -> Iterator[Timed]:
    """The epochs of a cohort, as `Engine.train` gives them.

    Raises:
        EngineError: here, another engine would be chosen.
    """
    training = _same(engines.choose(cohort), engine).train(engines.architecture, cohort, data, resume=_own(resume))
    while True:
        start = time.perf_counter()
        result = next(training, None)
        if result is None:
            return
        yield Timed(result, time.perf_counter() - start)


@dataclass(frozen=True)
class Order:
    """A shard to train and to record."""

    attempt: str  # no two attempts share it
    zoo: str
    tracking_uri: str
    resume_folder: str | None  # None if the driver's can't be seen from the node: then it keeps one of its own
    parent_runs: Mapping[str, str]
    cohort: Cohort
    ended: frozenset[str]  # members that are recorded already
    start: np.ndarray | None  # float32 [M, P]: the weights to start from, if not fresh ones
    engines: Engines
    engine: str
    objective: str
    prune: Callable[[int, Mapping[str, float]], set[str]] | None
    snapshot_seconds: float
    log_seconds: float


@dataclass(frozen=True)
class Step:
    """An epoch of a shard was trained."""

    epoch: int
    values: Mapping[str, float]  # the objective of its members
    replayed: bool  # it had been trained before
    dropped: int  # members that are not trained any further
    seconds: float  # wall time


@dataclass(frozen=True)
class Prepared:
    """A run that is complete but for its end."""

    run_id: str
    ended_ms: int
    digest: str


@dataclass(frozen=True)
class Recorded:
    """A shard is trained, and all but the end of its runs is recorded."""

    outcomes: Mapping[str, Outcome]
    runs: Mapping[str, Prepared]  # by member


class PreparedRuns(ZooRuns):
    """Runs that are left without their end, which is for the driver to set."""

    def __init__(self, store: RunStore, zoo: str, parent_runs: Mapping[str, str]) -> None:
        super().__init__(store, zoo, store.experiment(zoo), parent_runs)
        self.by_member: dict[str, str] = {}
        self.ended_ms: dict[str, int] = {}

    def create(self, members: Sequence[Member], engine: str, time_ms: int) -> list[str]:
        """See `ZooRuns.create`."""
        made = super().create(members, engine, time_ms)
        self.by_member |= {member.id: run_id for member, run_id in zip(members, made, strict=True)}
        return made

    def log(self, additions: Sequence[Addition]) -> None:
        """Add to runs, and note when they came to their end rather than end them."""
        super().log([replace(one, ended_ms=None) for one in additions])
        self.ended_ms |= {one.run_id: one.ended_ms for one in additions if one.ended_ms is not None}


def record_members(order: Order, data: ImageData) -> Generator[Step | Recorded]:
    """Train a shard and record its members in runs of their own; those of an earlier attempt are not touched.

    Raises:
        EngineError: here, another engine would be chosen.
        TrackingError: the store can't be used.
    """
    folder = Path(order.resume_folder or Path(tempfile.gettempdir(), f"weightzoo-{os.getuid()}"))
    store = RunStore(order.tracking_uri, resume_folder=folder)
    runs = PreparedRuns(store, order.zoo, order.parent_runs)
    engine = _same(order.engines.choose(order.cohort), order.engine)
    build = Build(
        name=order.zoo,
        epochs=order.cohort.protocol.epochs,
        objective=order.objective,
        data=data,
        architecture=order.engines.architecture,
        start=None if order.start is None else lambda _: np.array(order.start),
        runs=runs,
        known={},
        snapshots=[],
        choose=lambda _: engine,
        engines=order.engines,
        writer=BackgroundWriter(),
        on_progress=None,
        most_together=len(order.cohort),
        snapshot_seconds=order.snapshot_seconds,
        log_seconds=order.log_seconds,
    )
    try:
        snapshot = claim(
            build.folder, Identity(engine.name, tuple(one.id for one in order.cohort.members)), order.attempt
        )
        shard = open_shard(build, ShardPlan(order.cohort, engine, snapshot), set(order.ended))
        build.writer.submit(shard.recorder.begin)
        try:
            while not shard.done:
                epoch, replayed, start = shard.epoch, shard.replaying, time.perf_counter()
                values = shard.advance()
                seconds = time.perf_counter() - start
                pruned = order.prune(epoch, values) if order.prune else set[str]()
                yield Step(epoch, values, replayed, shard.drop(pruned), seconds)
        except BaseException as error:
            if not isinstance(error, Exception):
                store.patience.end()  # told to go, which should not wait for a store that is away
            shard.close()
            shard.save()
            if isinstance(error, Exception) and not build.writer.failed:
                build.writer.submit(shard.recorder.fail, essential=True)  # behind saving, which may make the runs
            raise
        shard.close()
        shard.save()
        build.writer.submit(shard.recorder.finish)
        build.writer.close()
    except BaseException as error:
        build.writer.abandon(only_essential=not isinstance(error, Exception))
        raise
    yield Recorded(
        shard.outcomes,
        {
            member: Prepared(run_id, runs.ended_ms[run_id], build.digests[member])
            for member, run_id in runs.by_member.items()
        },
    )


def claim(folder: Path, identity: Identity, attempt: str) -> Snapshot:
    """What earlier attempts at a shard saved, under a name of this attempt's own; an empty snapshot if there is none.

    An earlier attempt that is still alive, though its node was given up, then writes to a folder that nobody reads.
    """
    shard = shard_id(identity.members)
    target = folder / f"{shard}-{attempt}"
    saved: list[Snapshot] = []
    for one in sorted(folder.glob(f"{shard}*")):
        try:
            saved.append(Snapshot.load(one))
        except FormatError:
            continue  # it is being written, or half deleted
    usable = [one for one in saved if one.identity == identity]
    if not usable:
        return Snapshot(target, identity)
    best = max(usable, key=lambda one: one.last_epoch)
    try:
        best.folder.rename(target)
    except OSError:  # another attempt was faster
        return Snapshot(target, identity)
    for one in saved:
        if one is not best:
            one.discard()
    return Snapshot.load(target)


def _same(engine: Engine, name: str) -> Engine:
    if engine.name != name:
        raise EngineError(f"this node would train by engine {engine.name}, others by {name}; name one in params.yaml")
    return engine


def _own(state: TrainState | None) -> TrainState | None:
    """A copy that may be written to: what Ray hands over lies in memory that all tasks of the node share."""
    if state is None:
        return None
    return TrainState(state.epoch, state.weights.copy(), {name: slot.copy() for name, slot in state.slots.items()})


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return None
