"""The executor on a Ray cluster: gives work to free slots and takes what comes back, whatever dies meanwhile."""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from weightzoo.checkpoints import write_atomically
from weightzoo.connection import sqlite_path, tracking_errors
from weightzoo.console import say
from weightzoo.errors import ClusterError
from weightzoo.execution.build import (
    Build,
    Engines,
    ShardPlan,
    delete_superfluous,
    fresh_shard,
    interrupted_shards,
    once_a_kind,
    untouched,
)
from weightzoo.execution.cluster.connection import connected, load_ray
from weightzoo.execution.cluster.jobs import ATTEMPTS, Job, RecordingJob, RelayedJob, RemoteEngine, may_pass
from weightzoo.execution.cluster.sizing import Backlog, Node
from weightzoo.execution.cluster.streams import Tasks, WorkerLost, resolve
from weightzoo.execution.cluster.tasks import Sight
from weightzoo.execution.executor import Batch, Executor, describe
from weightzoo.execution.shard import Outcome
from weightzoo.members import Cohort
from weightzoo.training.protocol import Engine
from weightzoo.version import code_version

LOOK_SECONDS = 2.0  # between two looks at which nodes there are
FIRST_SIGHT_SECONDS = 120.0  # that the first nodes have to say what they see
SAVE_SECONDS = 10.0  # that interrupted tasks have to save what they have
_log = logging.getLogger("weightzoo")


class RayExecutor(Executor):
    """Trains on the nodes of a cluster; who is connected already need not say which. See `weightzoo.execution.cluster`.

    Raises, where it is entered:
        ClusterError: Ray is not installed, or the cluster does not answer.
    """

    threads = 1

    def __init__(self, address: str | None = None) -> None:
        self._address = address
        self._held = contextlib.ExitStack()

    def __enter__(self) -> RayExecutor:
        """Connect."""
        self._held.enter_context(connected(self._address))
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnect; a cluster that was started for this ends."""
        self._held.close()

    def chooser(self, engines: Engines) -> Callable[[Cohort], Engine]:
        """Choose by the nodes; once a kind of cohort, so that a fall-back is logged once."""
        if ":" in engines.device:
            raise ClusterError(f"device {engines.device}: Ray says which card a task has; use cuda")
        self._tasks = Tasks(engines)
        self._nodes = Nodes(self._tasks)
        self._held.callback(self._nodes.close)

        def name(cohort: Cohort) -> str:
            chosen, warnings = self._tasks.engine_name(cohort)
            for warning in warnings:
                _log.warning(warning)
            return chosen

        names = once_a_kind(name)
        return lambda cohort: RemoteEngine(names(cohort), self._tasks)

    def train(self, build: Build, batch: Batch) -> Mapping[str, Outcome]:
        """Train what is left of a batch; see `Executor.train`."""
        if {member.id for member in batch.members} <= batch.ended:
            return {}
        started = time.perf_counter()
        self._nodes.begin(build)
        run = _Run(build, batch, self._nodes, self._tasks)
        try:
            run.loop()
        except BaseException as error:
            if not isinstance(error, Exception):
                build.runs.store.patience.end()  # told to go, which should not wait for a store that is away
            run.stop(failed=isinstance(error, Exception))
            raise
        finally:
            build.training_seconds += time.perf_counter() - started
        run.clean()
        return {member: outcome for member, outcome in run.outcomes.items() if member not in batch.results}


class Nodes:
    """The nodes that take tasks, as they come and go, and whether their tasks record."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self.usable: dict[str, Node] = {}
        self.waiting: dict[Any, Node] = {}  # by the reference to what they see
        self.record = False  # whether tasks record their runs
        self.shared_resume = False
        self._known: set[str] = set()
        self._looked = -LOOK_SECONDS
        self._build: Build | None = None
        self._marks: dict[str, str] = {}

    def begin(self, build: Build) -> None:
        """Wait for the first nodes, once, and decide who records.

        Raises:
            ClusterError: none can take a task.
        """
        if self._build is not None:
            return
        self._build = build
        self._marks = _mark(build)
        self.refresh()
        if not self.waiting:
            wanted = f"{self._tasks.cpus} CPU" + (" and a GPU" if self._tasks.gpus else "")
            raise ClusterError(f"no node of the cluster has {wanted} for a task; start one with more, or ask for less")
        ray = load_ray()
        ready, _ = ray.wait([*self.waiting], num_returns=len(self.waiting), timeout=FIRST_SIGHT_SECONDS)
        sights = [sight for reference in ready if (sight := self.see(reference)) is not None]
        if not sights:
            raise ClusterError(
                f"no node of the cluster answered within {FIRST_SIGHT_SECONDS:.0f} s, or has this version"
            )
        why_not = _why_not_recorded_there(build, sights, self._marks)
        self.record = why_not is None
        self.shared_resume = all(_mark_path(build) in sight.seen for sight in sights)
        slots = sum(node.slots for node in self.usable.values())
        who = "which record their runs themselves" if self.record else f"whose runs this process records: {why_not}"
        say(f"ray       {build.name}: nodes: {len(self.usable)}, tasks at a time: {slots}, {who}")

    def refresh(self) -> None:
        """Look which nodes there are, if that was long enough ago."""
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        alive: set[str] = set()
        for one in load_ray().nodes():
            if one["Alive"]:
                alive.add(one["NodeID"])
                self._meet(one["NodeID"], one["NodeManagerHostname"], one["Resources"])
        for gone in self.usable.keys() - alive:
            del self.usable[gone]

    def see(self, reference: Any) -> Sight | None:
        """Take what a node saw, when it is there: the node is usable from then on, or never."""
        node = self.waiting.pop(reference)
        try:
            sight: Sight = resolve(reference)
        except ClusterError as error:
            _log.warning("node %s takes no tasks: %s", node.name, error)
            return None
        if sight.version != code_version():
            problem: str | None = f"it has weightzoo {sight.version}, here it is {code_version()}"
        elif self.record and self._build is not None:
            problem = _why_not_recorded_there(self._build, [sight], self._marks)
        else:
            problem = None
        if problem is not None:
            _log.warning("node %s takes no tasks: %s", node.name, problem)
            return None
        self.usable[node.id] = node
        return sight

    def close(self) -> None:
        """Remove what was laid out for nodes to see."""
        for path in self._marks:
            Path(path).unlink(missing_ok=True)

    def lose(self, node: Node) -> None:
        """Give no more tasks to a node."""
        self.usable.pop(node.id, None)

    def _meet(self, identity: str, name: str, resources: Mapping[str, float]) -> None:
        if identity in self._known:
            return
        self._known.add(identity)
        slots = int(resources.get("CPU", 0) // self._tasks.cpus)
        if self._tasks.gpus:
            slots = min(slots, int(resources.get("GPU", 0) // self._tasks.gpus))
        if slots > 0:
            assert self._build is not None
            uri = self._build.runs.store.uri
            node = Node(identity, name, slots)
            self.waiting[self._tasks.look(node, self._marks, None if sqlite_path(uri) else uri)] = node


class _Run:
    """The training of one batch."""

    def __init__(self, build: Build, batch: Batch, nodes: Nodes, tasks: Tasks) -> None:
        self._build, self._batch, self._nodes, self._tasks = build, batch, nodes, tasks
        self.outcomes: dict[str, Outcome] = {}
        interrupted = interrupted_shards(build, batch.members, batch.ended)
        left = untouched(batch.members, batch.ended, interrupted)
        self._interrupted = deque(interrupted)
        self._backlog = Backlog(left, build.architecture.layout.size, build.most_together)
        self._again = deque[tuple[float, Job]]()  # with the time before which not to try
        self._running: dict[Any, tuple[Job, Node]] = {}
        self._attempts_lost = 0

    def loop(self) -> None:
        """Until all is trained and handed to be recorded.

        Raises:
            WeightzooError: a task failed, and trying again does not help.
        """
        ray = load_ray()
        while self._running or self._again or self._interrupted or self._backlog.left:
            self._nodes.refresh()
            self._assign()
            self._build.writer.check()
            waiting = [*self._running, *self._nodes.waiting]
            if not waiting:
                time.sleep(0.2)
                continue
            ready, _ = ray.wait(waiting, num_returns=1, timeout=LOOK_SECONDS)
            for reference in ready:
                if reference in self._nodes.waiting:
                    self._nodes.see(reference)
                else:
                    self._take(reference)

    def stop(self, *, failed: bool) -> None:
        """Interrupt all tasks, which save what they have."""
        for job, _ in self._running.values():
            job.stop()
        for _, job in self._again:
            job.stop()
        if failed:
            for job in [*(job for job, _ in self._running.values()), *(job for _, job in self._again)]:
                job.fail()
        if self._running and self._nodes.record:
            load_ray().wait([*self._running], num_returns=len(self._running), timeout=SAVE_SECONDS)

    def clean(self) -> None:
        """Delete the runs of attempts that were lost, now that others have come to their end."""
        if not self._attempts_lost or not self._nodes.record:
            return
        runs, wanted = self._build.runs, {member.id for member in self._batch.members}

        def delete() -> None:
            for member, own in runs.known().items():
                ended = [run for run in own if run.ended]
                if member in wanted and ended:
                    delete_superfluous(runs, own, ended)

        self._build.writer.submit(delete)

    def _assign(self) -> None:
        """Give every free slot something to do."""
        nodes = self._nodes.usable
        for node in sorted(nodes.values(), key=lambda one: one.busy / one.slots):
            while node.busy < node.slots and (job := self._next(node)) is not None:
                job.start(node)
                if job.done:
                    self._finish(job)
                elif job.stream is not None:
                    node.busy += 1
                    self._running[job.stream.refs] = job, node

    def _next(self, node: Node) -> Job | None:
        for position, (not_before, job) in enumerate(self._again):
            if not_before <= time.monotonic():
                del self._again[position]
                return job
        if self._interrupted:
            return self._open(self._interrupted.popleft())
        cohort = self._backlog.take(node, self._nodes.usable.values())
        return None if cohort is None else self._open(fresh_shard(self._build, cohort))

    def _open(self, plan: ShardPlan) -> Job:
        self._tasks.place(self._build.data, plan.engine.name)
        if not self._nodes.record:
            return RelayedJob(self._build, plan, self._batch)
        folder = str(self._build.runs.store.resume_folder.absolute()) if self._nodes.shared_resume else None
        return RecordingJob(self._build, plan, self._batch, self._tasks, resume_folder=folder)

    def _take(self, reference: Any) -> None:
        job, node = self._running[reference]
        try:
            job.take()
        except Exception as error:
            self._release(reference)
            if isinstance(error, WorkerLost) and error.node_gone:
                self._nodes.lose(node)
            if not may_pass(error) or self._build.writer.failed:
                self._again.append((0.0, job))  # to be stopped with the others
                raise
            self._retry(job, node, error)
            return
        self._build.report(f"{describe(job.cohort)} on {node.name}, {len(self._running)} tasks")
        if job.stream is None:
            self._release(reference)
            if job.done:
                self._finish(job)
            else:
                self._again.append((0.0, job))

    def _retry(self, job: Job, node: Node, error: Exception) -> None:
        attempts = job.lost()
        self._attempts_lost += 1
        if attempts >= ATTEMPTS:
            self._again.append((0.0, job))
            raise ClusterError(
                f"{describe(job.cohort)} was lost {attempts} times in a row, at last on node {node.name}: {error}"
            ) from error
        _log.warning("%s on node %s was lost, and is tried again: %s", describe(job.cohort), node.name, error)
        delay = 0.0 if isinstance(error, WorkerLost) else 2.0**attempts
        self._again.append((time.monotonic() + delay, job))

    def _release(self, reference: Any) -> None:
        job, node = self._running.pop(reference)
        node.busy -= 1
        if job.pace.seconds and len(job.cohort) >= self._backlog.least:
            node.measured(job.pace.model_epochs / job.pace.seconds)

    def _finish(self, job: Job) -> None:
        job.finish()
        self.outcomes |= job.outcomes


def _mark_path(build: Build) -> str:
    return str((build.runs.store.resume_folder / f".{build.name}.mark").absolute())


def _mark(build: Build) -> dict[str, str]:
    """Files with random contents, by which a node sees whether the folders here are its own too."""
    mark = uuid.uuid4().hex
    marks = {_mark_path(build): mark}
    artifacts = _local_artifacts(build)
    if artifacts is not None:
        marks[str(artifacts / f".{build.name}.mark")] = mark
    with tracking_errors(build.runs.store.uri):
        for path, content in marks.items():
            write_atomically(Path(path), content.encode())
    return marks


def _local_artifacts(build: Build) -> Path | None:
    """The folder of the zoo's artifacts, if they are in the file system."""
    parts = urlsplit(build.runs.artifact_location)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


def _why_not_recorded_there(build: Build, sights: Iterable[Sight], marks: Mapping[str, str]) -> str | None:
    """Why tasks can't record on nodes that see this; None if they can."""
    if sqlite_path(build.runs.store.uri) is not None:
        return "they go to an SQLite database, which other machines can't write to"
    for sight in sights:
        if sight.store_error is not None:
            return f"a node can't reach the tracking store ({sight.store_error})"
        if _local_artifacts(build) is not None and not sight.seen.issuperset(marks.keys() - {_mark_path(build)}):
            return "their artifacts go to a folder that a node does not have"
    return None
