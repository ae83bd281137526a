"""From a shard's epochs to MLflow runs: what the background thread does.

The order of the steps is what makes it safe to kill the process at any moment: artifact parts, then the snapshot, then
metrics in MLflow; at the end artifacts, metrics and tags, the end of the run, and the snapshot deleted last. Each step
may be done again by the next process.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from weightzoo import checkpoints
from weightzoo.checkpoints import FOLDERS, METRICS, METRICS_FILE, SPARSE_METRICS, Checkpoints, RecordedMetrics
from weightzoo.connection import tracking_errors
from weightzoo.execution.snapshot import Epoch, Snapshot
from weightzoo.layout import Layout
from weightzoo.members import Cohort, Member
from weightzoo.training.protocol import TrainState
from weightzoo.zoo_runs import Addition, KnownRun, Point, ZooRuns

T = TypeVar("T")
Saved = Callable[[int, Sequence[int], str], np.ndarray]  # see `Snapshot.trajectories`


@dataclass(frozen=True)
class _Trajectory:
    """All epochs of a shard of M members, but for the weights: E epochs, NaN where a member was no longer trained."""

    times: np.ndarray  # int64 [E]
    seconds: np.ndarray  # float64 [E, M]
    trained: np.ndarray  # bool [E, M]
    finite: np.ndarray  # bool [E, M]
    values: dict[str, np.ndarray]  # METRICS, and SPARSE_METRICS if they are made sparse -> float32 [E, M]
    val_class_accuracy: np.ndarray  # float32 [E, M, C]
    test_class_accuracy: np.ndarray  # float32 [E, M, C]
    probe_logits: np.ndarray  # float16 [E, M, probe images, C]
    layer_sparsity: np.ndarray | None  # float32 [E, M, L]


class Recorder:
    """Records the members of one shard."""

    def __init__(
        self,
        runs: ZooRuns,
        cohort: Cohort,
        layout: Layout,
        snapshot: Snapshot,
        *,
        known: Mapping[str, KnownRun],
        ended: frozenset[str],
        log_seconds: float,
        on_recorded: Callable[[str, str], None],
    ):
        """`known` are runs to go on with, by member id; the members `ended` are recorded already.

        `on_recorded` is told the id of every member that has been recorded, and the digest of what was measured on it.
        """
        self._runs, self._cohort, self._layout, self._snapshot = runs, cohort, layout, snapshot
        self._known, self._ended = known, ended
        self._on_recorded = on_recorded
        self._per_part = checkpoints.epochs_per_part(layout.size)
        self._run_ids: dict[int, str] = {}  # row -> run id
        self._described: set[int] = set()  # rows whose runs have their parameters
        self._log_seconds, self._logged_at = log_seconds, -math.inf  # the first saved epochs are logged at once
        self._unlogged: list[Epoch] = list(snapshot.epochs())

    def begin(self) -> None:
        """Make the runs, so that they can be seen from the start."""
        now, engine = _now_ms(), self._snapshot.identity.engine
        members = self._cohort.members
        to_make = [row for row in range(len(members)) if row not in self._run_ids]
        to_make = [row for row in to_make if members[row].id not in self._ended]

        def make(rows: Sequence[int]) -> None:
            made = self._runs.create([members[row] for row in rows], engine, now)
            self._run_ids |= dict(zip(rows, made, strict=True))

        def take_over(row: int) -> None:
            self._run_ids[row] = self._runs.take_over(self._known[members[row].id], members[row], engine)

        self._each(take_over, [row for row in to_make if members[row].id in self._known])
        self._each(make, self._together(row for row in to_make if members[row].id not in self._known))

    def append(self, epochs: Sequence[Epoch], state: TrainState, rows: np.ndarray, *, log_now: bool = False) -> None:
        """Save newly trained epochs, and log them if that is wanted or the last time was long enough ago."""
        stored: set[int] = set()
        for part in self._parts(self._snapshot.last_epoch, epochs[-1].epoch):
            self.begin()
            self._put_part(part, epochs)
            stored |= set(part)
        epochs = [replace(epoch, kept={}) if epoch.epoch in stored else epoch for epoch in epochs]
        with tracking_errors(str(self._snapshot.folder)):  # for a full disk, say
            self._snapshot.append(epochs, state, rows)
        self._unlogged += [replace(epoch, kept={}) for epoch in epochs]
        if log_now or time.monotonic() - self._logged_at >= self._log_seconds:
            self.begin()
            self._log_live()
            self._logged_at = time.monotonic()

    def finish(self) -> None:
        """All that is left of the shard, and the end of its runs."""
        self.begin()
        whole = _gather(list(self._snapshot.epochs()), len(self._cohort))
        first_unlogged = self._unlogged[0].epoch if self._unlogged else len(whole.times)

        def finish(rows: Sequence[int]) -> None:
            with self._snapshot.trajectories() as read:
                endings = [self._ending(row, whole, first_unlogged, read) for row in rows]
            self._runs.log([ending for ending, _ in endings])
            for row, (_, digest) in zip(rows, endings, strict=True):
                self._on_recorded(self._cohort.members[row].id, digest)

        self._each(finish, self._together(self._run_ids))
        self._snapshot.discard()

    def fail(self) -> None:
        """Mark the runs as failed: the engine broke. Training them again goes on from the snapshot."""
        self._each(lambda row: self._runs.end(self._run_ids[row], _now_ms(), failed=True), sorted(self._run_ids))

    def _ending(self, row: int, whole: _Trajectory, first_unlogged: int, read: Saved) -> tuple[Addition, str]:
        """What is left to log of a member, whose last artifacts are stored; and the digest of what was measured."""
        member, run_id = self._cohort.members[row], self._run_ids[row]
        last = int(np.flatnonzero(whole.trained[:, row])[-1])
        epochs = np.arange(last + 1, dtype=np.int32)
        kept = np.array([epoch for epoch in member.protocol.checkpoint_epochs if epoch <= last], np.int32)
        metrics = RecordedMetrics(
            member=member.id,
            epochs=epochs,
            values={name: values[: last + 1, row] for name, values in whole.values.items()},
            val_class_accuracy=whole.val_class_accuracy[: last + 1, row],
            test_class_accuracy=whole.test_class_accuracy[: last + 1, row],
            checkpoint_epochs=kept,
            probe_logits=whole.probe_logits[kept, row],
            layer_sparsity=None if whole.layer_sparsity is None else whole.layer_sparsity[: last + 1, row],
        )
        encoded = checkpoints.encode_metrics(metrics)
        rest = [epoch for epoch in self._kept_outside_parts() if epoch <= last]
        files = {METRICS_FILE: encoded}
        if rest:
            for kind in self._kinds:
                files |= self._encode_part(row, rest, read(row, rest, kind), kind)
        self._runs.put(run_id, files)
        times = whole.times.tolist()
        points = [
            Point(name, value, epoch, times[epoch])
            for name, values in metrics.values.items()
            for epoch, value in enumerate(values[first_unlogged:].tolist(), start=first_unlogged)
        ]
        best = metrics.best_epoch
        end = {
            "seconds": float(whole.seconds[: last + 1, row].sum()),
            "best_epoch": best,
            "best_val_accuracy": float(metrics.values["val_accuracy"][best]),
            "best_test_accuracy": float(metrics.values["test_accuracy"][best]),
        }
        time_ms = int(whole.times[last])
        points += [Point(name, value, last, time_ms) for name, value in end.items()]
        digest = hashlib.blake2b(encoded, digest_size=8).hexdigest()
        tags = {"last_epoch": str(last), "digest": digest}
        size = self._runs.artifact_bytes(run_id)
        if size is not None:
            tags["artifact_bytes"] = str(size)
        diverged = np.flatnonzero(~whole.finite[: last + 1, row])
        if len(diverged):
            tags |= {"status": "diverged", "diverged_epoch": str(int(diverged[0]))}
        else:
            tags["status"] = "finished" if last == member.protocol.epochs else "pruned"
        final = {name: float(values[-1]) for name, values in metrics.values.items()} | end
        tags["seal"] = self._runs.seal(member, self._snapshot.identity.engine, tags, final)
        return Addition(run_id, points, tags, self._undescribed(row), ended_ms=_now_ms()), digest

    def _log_live(self) -> None:
        points: dict[int, list[Point]] = {row: [] for row in self._run_ids}
        for epoch in self._unlogged:
            for name, values in epoch_metrics(epoch).items():
                for row, value in zip(epoch.rows.tolist(), values.tolist(), strict=True):
                    if row in points:
                        points[row].append(Point(name, value, epoch.epoch, epoch.time_ms))

        def log(rows: Sequence[int]) -> None:
            self._runs.log([Addition(self._run_ids[row], points[row], describe=self._undescribed(row)) for row in rows])
            self._described |= {*rows}

        self._each(log, self._together(row for row in points if points[row]))
        self._unlogged = []

    def _undescribed(self, row: int) -> Member | None:
        """The member whose parameters are to be logged, unless its run has them."""
        return None if row in self._described else self._cohort.members[row]

    def _together(self, rows: Iterable[int]) -> list[list[int]]:
        """Rows in the groups that the store takes best."""
        ordered, size = sorted(rows), self._runs.store.batch
        return [ordered[start : start + size] for start in range(0, len(ordered), size)]

    def _parts(self, after: int, until: int) -> list[tuple[int, ...]]:
        """The full checkpoint files whose last epoch is behind `after`, and not behind `until`."""
        kept, size = self._cohort.protocol.checkpoint_epochs, self._per_part
        full = [kept[start : start + size] for start in range(0, len(kept) - size + 1, size)]
        return [part for part in full if after < part[-1] <= until]

    def _kept_outside_parts(self) -> tuple[int, ...]:
        done = len(self._parts(-1, self._snapshot.last_epoch))
        return self._cohort.protocol.checkpoint_epochs[done * self._per_part :]

    @property
    def _kinds(self) -> tuple[str, ...]:
        """What is kept of an epoch."""
        method = self._cohort.sparsification
        if method is None:
            return ("weights",)
        return ("weights", "mask", *(("log_variance",) if method.kind == "variational" else ()))

    def _put_part(self, part: tuple[int, ...], fresh: Sequence[Epoch]) -> None:
        """Store one full file for every member that was in training at any of its epochs."""
        in_memory = {epoch.epoch: epoch for epoch in fresh}
        saved = {epoch.epoch: epoch for epoch in self._snapshot.epochs() if epoch.epoch in part}
        by_epoch = saved | in_memory

        def put(row: int) -> None:
            own = [epoch for epoch in part if row in by_epoch[epoch].rows]
            for kind in self._kinds if own else ():
                values: list[np.ndarray] = []
                for epoch in own:
                    one = in_memory.get(epoch)
                    if one is None:
                        values.append(read(row, [epoch], kind)[0])
                    else:
                        values.append(one.kept[kind][int(np.flatnonzero(one.rows == row)[0])])
                self._runs.put(self._run_ids[row], self._encode_part(row, own, np.stack(values), kind))

        with self._snapshot.trajectories() as read:
            self._each(put, sorted(self._run_ids))

    def _each(self, work: Callable[[T], None], items: Sequence[T]) -> None:
        """Do it for every row, or group, at once as far as the store takes it; after an error none is begun."""
        at_once = min(self._runs.store.writers, len(items))
        if at_once <= 1:
            for item in items:
                work(item)
            return
        with ThreadPoolExecutor(at_once, thread_name_prefix="weightzoo-writer") as pool:
            try:
                for done in [pool.submit(work, item) for item in items]:
                    done.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _encode_part(self, row: int, epochs: Sequence[int], values: np.ndarray, kind: str) -> dict[str, bytes]:
        part = Checkpoints(self._cohort.members[row].id, tuple(epochs), values, kind)
        name = f"{FOLDERS[kind]}/{checkpoints.part_name(epochs)}"
        return {name: checkpoints.encode_checkpoints(part, self._layout)}


def epoch_metrics(epoch: Epoch) -> dict[str, np.ndarray]:
    """The metrics that are logged, each float32 `[m]`; the generalisation gap is derived here and nowhere else.

    Those of SPARSE_METRICS are there for members that are made sparse.
    """
    values = {name: getattr(epoch.metrics, name) for name in METRICS if name != "generalization_gap"}
    gap = np.asarray(epoch.metrics.train_accuracy, np.float32) - np.asarray(epoch.metrics.test_accuracy, np.float32)
    values["generalization_gap"] = gap
    if epoch.sparse is not None:
        values |= {name: getattr(epoch.sparse, name) for name in SPARSE_METRICS}
    return {name: np.asarray(value, np.float32) for name, value in values.items()}


def _gather(epochs: Sequence[Epoch], members: int) -> _Trajectory:
    def blank(like: np.ndarray) -> np.ndarray:
        return np.full((len(epochs), members, *like.shape[1:]), np.nan, like.dtype)

    first, sparse = epochs[0].metrics, epochs[0].sparse
    whole = _Trajectory(
        times=np.array([epoch.time_ms for epoch in epochs], np.int64),
        seconds=np.zeros((len(epochs), members)),
        trained=np.zeros((len(epochs), members), np.bool_),
        finite=np.zeros((len(epochs), members), np.bool_),
        values={name: np.full((len(epochs), members), np.nan, np.float32) for name in epoch_metrics(epochs[0])},
        val_class_accuracy=blank(first.val_class_accuracy),
        test_class_accuracy=blank(first.test_class_accuracy),
        probe_logits=blank(first.probe_logits),
        layer_sparsity=None if sparse is None else blank(sparse.layer_sparsity),
    )
    for index, epoch in enumerate(epochs):
        whole.seconds[index, epoch.rows] = epoch.seconds / len(epoch.rows)
        whole.trained[index, epoch.rows] = True
        whole.finite[index, epoch.rows] = epoch.finite
        for name, values in epoch_metrics(epoch).items():
            whole.values[name][index, epoch.rows] = values
        for name in ("val_class_accuracy", "test_class_accuracy", "probe_logits"):
            getattr(whole, name)[index, epoch.rows] = getattr(epoch.metrics, name)
        if whole.layer_sparsity is not None and epoch.sparse is not None:
            whole.layer_sparsity[index, epoch.rows] = epoch.sparse.layer_sparsity
    return whole


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
