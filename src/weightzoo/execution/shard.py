"""Shards: the members of a cohort that are trained, saved and recorded together."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from weightzoo.architectures import Architecture
from weightzoo.checkpoints import FOLDERS
from weightzoo.datasets.images import ImageData
from weightzoo.errors import EngineError
from weightzoo.execution.background import BackgroundWriter
from weightzoo.execution.recording import Recorder
from weightzoo.execution.snapshot import Epoch, Snapshot
from weightzoo.members import Cohort, Member
from weightzoo.training.protocol import Engine, EpochResult, TrainState

PENDING_BYTES = 64_000_000  # of epochs that are not saved yet
LAST_LOG = 0.8  # of the last shard's training: most is logged by then, so that little is left to wait for at its end
STATE_BYTES = 1_000_000_000  # of weights, gradients and optimiser state of one shard
LANE = 16  # members that the widest vector unit takes at a time

StartWeights = Callable[[Sequence[Member]], np.ndarray]  # members that have a parent -> float32 [M, P]


def split_cohort(cohort: Cohort, parameters: int, most: int) -> list[Cohort]:
    """A cohort in shards of nearly equal size: at most `most` members each, multiples of `LANE` if there are as many.

    Large models make smaller shards: the state of one takes at most `STATE_BYTES`, for models of P parameters.
    """
    most = most_members(parameters, most)
    count = -(-len(cohort) // most)
    size = -(-len(cohort) // count)
    if most >= LANE:
        size = min(-(-size // LANE) * LANE, most - most % LANE)
    return [cohort.select(range(start, min(start + size, len(cohort)))) for start in range(0, len(cohort), size)]


def most_members(parameters: int, most: int) -> int:
    """How many models of so many parameters are trained together: `most`, or as many as fit in `STATE_BYTES`."""
    return max(1, min(most, STATE_BYTES // (16 * parameters)))


@dataclass
class Outcome:
    """What a search is told of a member: its objective by epoch, and what became of it."""

    objective: list[float]
    diverged: bool = False


class Shard:
    """The training of some members, epoch by epoch; what a snapshot holds already is replayed instead of trained."""

    def __init__(
        self,
        cohort: Cohort,
        engine: Engine,
        architecture: Architecture,
        data: ImageData,
        snapshot: Snapshot,
        recorder: Recorder,
        writer: BackgroundWriter,
        *,
        objective: str,
        snapshot_seconds: float,
        start: StartWeights | None = None,
    ):
        self.cohort, self.engine, self._architecture, self._data = cohort, engine, architecture, data
        self.recorder, self._writer = recorder, writer
        self._objective, self._snapshot_seconds, self._start = objective, snapshot_seconds, start
        self.outcomes: Mapping[str, Outcome] = {member.id: Outcome([]) for member in cohort.members}
        self._replay = list(snapshot.epochs())
        self._state: TrainState | None = None
        self._rows = np.arange(len(cohort), dtype=np.int32)
        if self._replay:
            self._state, self._rows = snapshot.state()
        self._next = 0
        self._training: Iterator[EpochResult] | None = None
        self._pending: list[Epoch] = []
        self._saved_at = time.monotonic()
        self.train_seconds = 0.0  # wall time
        self.last_of_zoo = False  # nothing is trained behind it while its runs are written

    @property
    def replaying(self) -> bool:
        """Whether the next epoch comes from the snapshot."""
        return self._next < len(self._replay)

    @property
    def epoch(self) -> int:
        """The epoch that comes next."""
        return self._next

    @property
    def left(self) -> int:
        """How many members are still in training."""
        return 0 if self.done else len(self._rows)

    @property
    def done(self) -> bool:
        """Whether no member has an epoch left."""
        return self._next > self.cohort.protocol.epochs or (not self.replaying and not len(self._rows))

    def advance(self) -> dict[str, float]:
        """The next epoch: the objective of the members that were trained in it, by id.

        Raises:
            EngineError: the engine stops too early.
        """
        epoch = self._replay[self._next] if self.replaying else self._train()
        self._next += 1
        values: dict[str, float] = {}
        for row, value, finite in zip(epoch.rows, getattr(epoch.metrics, self._objective), epoch.finite, strict=True):
            member = self.cohort.members[row].id
            values[member] = float(value)
            self.outcomes[member].objective.append(float(value))
            self.outcomes[member].diverged |= not finite
        return values

    def drop(self, members: Collection[str]) -> int:
        """Stop training these members and say how many they are; the others go on as if nothing had happened."""
        stay = np.array([self.cohort.members[row].id not in members for row in self._rows], np.bool_)
        if stay.all():
            return 0
        self.close()
        positions = np.flatnonzero(stay)
        self._rows = self._rows[positions]
        if self._state is not None:
            self._state = self._state.select(positions)
        return len(stay) - len(positions)

    def save(self, *, log_now: bool = False) -> None:
        """Hand what was trained since the last time to the writer, to be logged at once or when it is time."""
        if self._pending and self._state is not None:
            pending, state, rows = self._pending, self._state, self._rows
            self._writer.submit(
                lambda: self.recorder.append(pending, state, rows, log_now=log_now),
                essential=True,
                nbytes=state.nbytes + sum(epoch.nbytes for epoch in pending[:-1]),  # the last one's weights are those
            )
            self._pending = []
        self._saved_at = time.monotonic()

    def start(self) -> Iterator[EpochResult]:
        """Have the engine begin with the next epoch, where it has not; what the epochs come from."""
        if self._training is None:
            cohort = self.cohort.select([int(row) for row in self._rows])
            if self._state is None and self._start is not None:
                self._state = TrainState.given(self._start(cohort.members), cohort.optimizer)
            self._training = self.engine.train(self._architecture, cohort, self._data, resume=self._state)
        return self._training

    def close(self) -> None:
        """Let the engine free its threads."""
        if self._training is not None:
            close = getattr(self._training, "close", None)
            if close is not None:
                close()
            self._training = None

    def release(self) -> None:
        """Give back the memory; only the outcomes stay."""
        self._state, self._replay = None, []

    def _train(self) -> Epoch:
        start = time.perf_counter()
        result = next(self.start(), None)
        if result is None or result.epoch != self._next:
            got = "no more" if result is None else f"epoch {result.epoch}"
            raise EngineError(f"engine {self.engine.name} gave {got} where epoch {self._next} was due")
        self._state = result.state
        epoch = self._epoch(result)
        self._pending.append(epoch)
        self.train_seconds += time.perf_counter() - start
        due = time.monotonic() - self._saved_at >= self._snapshot_seconds
        log_now = self.last_of_zoo and epoch.epoch == int(LAST_LOG * self.cohort.protocol.epochs)
        if due or log_now or sum(one.nbytes for one in self._pending) >= PENDING_BYTES:
            self.save(log_now=log_now)
            self._writer.check()
        return epoch

    def _epoch(self, result: EpochResult) -> Epoch:
        tensors = {name: slot for name, slot in result.state.slots.items() if name in FOLDERS}
        tensors = {"weights": result.state.weights, **tensors}
        finite = [np.isfinite(values).all(axis=1) for values in tensors.values()]
        kept = result.epoch in self.cohort.protocol.checkpoint_epochs
        return Epoch(
            epoch=result.epoch,
            time_ms=time.time_ns() // 1_000_000,
            seconds=result.seconds,
            rows=self._rows,
            finite=np.logical_and.reduce([*finite, np.isfinite(result.metrics.train_loss)]),
            metrics=result.metrics,
            kept=tensors if kept else {},
            sparse=result.sparse,
        )
