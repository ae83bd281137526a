"""Where the shards of a zoo are trained: an executor is a setting, and none changes what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from weightzoo.execution.build import Build, Engines, once_a_kind, plan_shards
from weightzoo.execution.shard import Outcome, Shard
from weightzoo.members import Cohort, Member
from weightzoo.population import Result
from weightzoo.spec import Execution, RayExecution
from weightzoo.training.protocol import Engine


@dataclass(frozen=True)
class Batch:
    """Members that a population asks for together, and what is known of them."""

    members: tuple[Member, ...]
    results: Mapping[str, Result]  # of those that were recorded before, by id
    prune: Callable[[int, Mapping[str, float]], set[str]] | None  # as `Population.prune`, None if nobody is
    last: bool  # no further batch comes behind it

    @property
    def ended(self) -> set[str]:
        """The ids of the members that need no more training."""
        return set(self.results)


class Executor(AbstractContextManager["Executor"], Protocol):
    """Trains and records members; the `with` block holds whatever it needs for that."""

    threads: int | None  # that an engine gets if nobody says how many; None leaves it to the engine

    def chooser(self, engines: Engines) -> Callable[[Cohort], Engine]:
        """What finds the engine of a cohort where that will be trained.

        The function raises `EngineError` if it can't be trained there.
        """
        ...

    def train(self, build: Build, batch: Batch) -> Mapping[str, Outcome]:
        """Train and record the members of a batch that were not recorded before: what became of each, by id."""
        ...


class LocalExecutor(Executor):
    """Trains in this process, one shard after the other; those of a search with a pruner side by side."""

    threads = None

    def __exit__(self, *_: object) -> None:
        """Nothing is held."""

    def chooser(self, engines: Engines) -> Callable[[Cohort], Engine]:
        """Choose by this machine; once a kind of cohort, so that a fall-back is logged once."""
        return once_a_kind(engines.choose)

    def train(self, build: Build, batch: Batch) -> Mapping[str, Outcome]:
        """Train what is left of a batch; see `Executor.train`."""
        shards = plan_shards(build, batch.members, batch.ended)
        if shards and batch.last:
            shards[-1].last_of_zoo = True
        for group in [[shard] for shard in shards] if batch.prune is None else [shards]:
            _train_together(build, group, batch)
        return {
            member: outcome
            for shard in shards
            for member, outcome in shard.outcomes.items()
            if member not in batch.results
        }


def executor_of(execution: Execution) -> Executor:
    """The executor that a section asks for; to be entered by `with`."""
    if isinstance(execution, RayExecution):
        from weightzoo.execution.cluster.executor import RayExecutor

        return RayExecutor(execution.address)
    return LocalExecutor()


def _train_together(build: Build, shards: Sequence[Shard], batch: Batch) -> None:
    """Train shards side by side, epoch by epoch, so that a pruner sees all members of a batch at the same epoch.

    What is recorded or in a snapshot takes part in that with its old values: the same members are pruned again.
    """
    recorded = {} if batch.prune is None else {member: result.objective for member, result in batch.results.items()}
    for shard in shards:
        build.writer.submit(shard.recorder.begin)
    try:
        for epoch in range(build.epochs + 1):
            values = {member: objective[epoch] for member, objective in recorded.items() if epoch < len(objective)}
            for shard in shards:
                if not shard.done:
                    values |= advance(build, shard)
                    build.report(describe(shard.cohort))
            pruned = batch.prune(epoch, values) if batch.prune else set[str]()
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


def advance(build: Build, shard: Shard) -> dict[str, float]:
    """One epoch of a shard, counted: the objective of the members that were trained in it, by id."""
    replayed = shard.replaying
    values = shard.advance()
    build.done += len(values)
    build.trained_epochs += 0 if replayed else len(values)
    return values


def describe(cohort: Cohort) -> str:
    """A cohort in a few words, as `64 x cnn-s tanh adam`."""
    return f"{len(cohort)} x {cohort.architecture} {cohort.activation} {cohort.optimizer}"
