"""A shard as the driver sees it: started on a node, advanced by what comes back, started again if that is lost."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

from weightzoo.errors import ClusterError, TrackingError
from weightzoo.execution.build import Build, ShardPlan, open_shard
from weightzoo.execution.cluster.sizing import Node
from weightzoo.execution.cluster.streams import Stream, Tasks, WorkerLost
from weightzoo.execution.cluster.tasks import Order, Recorded, Step, Timed
from weightzoo.execution.executor import Batch, advance, describe
from weightzoo.execution.shard import Outcome
from weightzoo.members import Cohort
from weightzoo.training.protocol import EpochResult, TrainState
from weightzoo.zoo_runs import Addition

ATTEMPTS = 4  # in a row that may be lost without an epoch's progress


class Pace:
    """How much was trained in how much time; without the first epoch of a task, in which it prepares."""

    def __init__(self) -> None:
        self.model_epochs, self.seconds = 0, 0.0

    def add(self, models: int, seconds: float) -> None:
        """An epoch of some models was trained in this time."""
        self.model_epochs += models
        self.seconds += seconds


class Job(ABC):
    """A shard in training, or waiting to be."""

    def __init__(self, cohort: Cohort) -> None:
        self.cohort = cohort
        self._losses, self._lost_at = 0, -1

    @property
    @abstractmethod
    def outcomes(self) -> Mapping[str, Outcome]:
        """What became of the members, by id."""

    @property
    @abstractmethod
    def stream(self) -> Stream | None:
        """Of the task that trains it at the moment."""

    @property
    @abstractmethod
    def pace(self) -> Pace:
        """Of that task."""

    @property
    @abstractmethod
    def epochs(self) -> int:
        """How many epochs it has behind it."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether all is trained."""

    @abstractmethod
    def start(self, node: Node) -> None:
        """Start a task on a node, unless nothing is left to do."""

    @abstractmethod
    def take(self) -> None:
        """Take one result; to be called when it is there.

        Without a stream behind it, the job is done, or to be started again.

        Raises:
            WeightzooError: see `Stream.take`; it can be started again.
        """

    @abstractmethod
    def finish(self) -> None:
        """Record what is trained."""

    @abstractmethod
    def stop(self) -> None:
        """Interrupt the task, and save what has come back."""

    @abstractmethod
    def fail(self) -> None:
        """Mark the runs: training broke."""

    def lost(self) -> int:
        """Count a task that was lost: how many were in a row that brought no progress."""
        self._losses = self._losses + 1 if self.epochs == self._lost_at else 1
        self._lost_at = self.epochs
        return self._losses


class RemoteEngine:
    """An engine whose epochs are trained by a task on `node`, which is to be set before."""

    def __init__(self, name: str, tasks: Tasks) -> None:
        self.name, self._tasks = name, tasks
        self.node: Node | None = None
        self.pace = Pace()
        self.stream: Stream | None = None

    def supports(self, architecture: object, cohort: Cohort, device: str) -> str | None:
        """None: what trains there was chosen there."""
        return None

    def train(
        self, architecture: object, cohort: Cohort, data: object, *, resume: TrainState | None = None
    ) -> Iterator[EpochResult]:
        """See `Engine.train`. The task is started at once; closing the iterator interrupts it."""
        assert self.node is not None
        self.stream, self.pace = self._tasks.train(self.node, self.name, cohort, resume), Pace()
        return _Epochs(self, self.stream, cohort)


class _Epochs(Iterator[EpochResult]):
    def __init__(self, engine: RemoteEngine, stream: Stream, cohort: Cohort) -> None:
        self._engine, self._stream, self._cohort = engine, stream, cohort
        self._first = True

    def __next__(self) -> EpochResult:
        timed: Timed | None = self._stream.take()
        if timed is None:
            raise StopIteration
        if not self._first:
            self._engine.pace.add(len(self._cohort), timed.seconds)
        self._first = False
        if timed.result.epoch == self._cohort.protocol.epochs:
            self._stream.over()
        return timed.result

    def close(self) -> None:
        self._engine.stream = None
        self._stream.cancel()


class RelayedJob(Job):
    """A shard that is trained on a node and recorded here."""

    def __init__(self, build: Build, plan: ShardPlan, batch: Batch) -> None:
        assert isinstance(plan.engine, RemoteEngine)
        super().__init__(plan.cohort)
        self._build, self._batch, self._engine = build, batch, plan.engine
        self._shard = open_shard(build, plan, batch.ended)
        build.writer.submit(self._shard.recorder.begin)
        while self._shard.replaying:
            self._advance()

    @property
    def stream(self) -> Stream | None:
        """See `Job`."""
        return self._engine.stream

    @property
    def pace(self) -> Pace:
        """See `Job`."""
        return self._engine.pace

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """See `Job`."""
        return self._shard.outcomes

    @property
    def epochs(self) -> int:
        """See `Job`."""
        return self._shard.epoch

    @property
    def done(self) -> bool:
        """See `Job`."""
        return self._shard.done

    def start(self, node: Node) -> None:
        """Go on behind the last epoch that came back."""
        if not self.done:
            self._engine.node = node
            self._shard.start()

    def take(self) -> None:
        """Take an epoch."""
        try:
            self._advance()
        except Exception:
            self._shard.close()
            raise
        if self.done:
            self._shard.close()

    def finish(self) -> None:
        """Hand it to the writer."""
        self._shard.save()
        self._build.writer.submit(self._shard.recorder.finish)
        self._shard.release()

    def stop(self) -> None:
        """See `Job`."""
        self._shard.close()
        self._shard.save()

    def fail(self) -> None:
        """See `Job`."""
        if not self._build.writer.failed:
            self._build.writer.submit(self._shard.recorder.fail, essential=True)

    def _advance(self) -> None:
        epoch = self._shard.epoch
        values = advance(self._build, self._shard)
        if self._batch.prune:
            dropped = self._shard.drop(self._batch.prune(epoch, values))
            self._build.done += dropped * (self._build.epochs - epoch)


class RecordingJob(Job):
    """A shard that is trained and recorded on a node; only the end of its runs is set here.

    Each attempt makes runs of its own. Those of an attempt that was lost, or that was given up and still lives, never
    come to their end, and are deleted.
    """

    def __init__(self, build: Build, plan: ShardPlan, batch: Batch, tasks: Tasks, *, resume_folder: str | None) -> None:
        super().__init__(plan.cohort)
        self._build, self._batch, self._tasks = build, batch, tasks
        self._engine, self._resume_folder = plan.engine.name, resume_folder
        self._stream: Stream | None = None
        self._pace = Pace()
        self._epochs = self._counted = 0
        self._recorded: Recorded | None = None
        for member in self.cohort.members:
            for run in build.known.get(member.id, []):
                if not run.ended:
                    build.runs.delete(run)

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """See `Job`."""
        return {} if self._recorded is None else self._recorded.outcomes

    @property
    def stream(self) -> Stream | None:
        """See `Job`."""
        return self._stream

    @property
    def pace(self) -> Pace:
        """See `Job`."""
        return self._pace

    @property
    def epochs(self) -> int:
        """See `Job`."""
        return self._epochs

    @property
    def done(self) -> bool:
        """See `Job`."""
        return self._recorded is not None

    def start(self, node: Node) -> None:
        """Start an attempt, which goes on from what the one before it saved, where it can be seen from the node."""
        build = self._build
        build.done -= self._counted
        self._counted, self._pace = 0, Pace()
        order = Order(
            attempt=uuid.uuid4().hex[:8],
            zoo=build.name,
            tracking_uri=build.runs.store.uri,
            resume_folder=self._resume_folder,
            parent_runs=build.runs.parent_runs,
            cohort=self.cohort,
            ended=frozenset(self._batch.ended),
            start=given(self.cohort.members) if (given := build.start_of(self.cohort)) else None,
            engines=build.engines,
            engine=self._engine,
            objective=build.objective,
            prune=self._batch.prune,
            snapshot_seconds=build.snapshot_seconds,
            log_seconds=build.log_seconds,
        )
        self._stream = self._tasks.record(node, order)

    def take(self) -> None:
        """Count an epoch, or learn that all is recorded."""
        assert self._stream is not None
        item: Step | Recorded | None
        try:
            item = self._stream.take()
        except Exception:
            self._stream = None
            raise
        if isinstance(item, Step):
            self._count(item)
        elif item is None:
            raise ClusterError(f"{describe(self.cohort)}: a task ended without a result")
        else:
            self._recorded = item
            self._stream.over()
            self._stream = None

    def finish(self) -> None:
        """Have the writer end the runs."""
        assert self._recorded is not None
        prepared = self._recorded.runs
        self._build.digests.update({member: run.digest for member, run in prepared.items()})
        runs = self._build.runs
        ends = [Addition(run.run_id, ended_ms=run.ended_ms) for run in prepared.values()]
        self._build.writer.submit(lambda: runs.log(ends))

    def stop(self) -> None:
        """Interrupt the task, which saves what it has."""
        if self._stream is not None:
            self._stream.cancel()

    def fail(self) -> None:
        """Nothing is left to do: a task marks its own."""

    def _count(self, step: Step) -> None:
        build, trained = self._build, len(step.values)
        count = trained + step.dropped * (build.epochs - step.epoch)
        build.done += count
        self._counted += count
        self._epochs = max(self._epochs, step.epoch + 1)
        if not step.replayed:
            build.trained_epochs += trained
            if step.epoch > 0:
                self._pace.add(trained, step.seconds)


def may_pass(error: Exception) -> bool:
    """Whether to try again what failed by this error."""
    return isinstance(error, WorkerLost | TrackingError)
