"""A cluster that trains zoos, simulated: the sizes of shards are those of `execution.cluster.sizing`, times are measured.

Workers take shards as they get free, as the executor hands them out. What a shard trained is recorded in the order in
which shards end, by a store that takes a certain number of runs a second; a zoo is done when its last run is recorded.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from weightzoo.calibration import Speed
from weightzoo.execution.cluster.sizing import Backlog, Node
from weightzoo.execution.shard import LANE
from weightzoo.members import Cohort, cohort_key


@dataclass(frozen=True)
class Job:
    """A zoo to be trained, and what its members take."""

    name: str
    cohorts: tuple[Cohort, ...]
    speeds: dict[tuple[object, ...], Speed]  # of one CPU, by `cohort_key`
    parameters: int
    images: int
    epochs: int
    requests: float  # to the object store, a run
    bytes: int  # of the artifacts of a run

    @property
    def models(self) -> int:
        return sum(map(len, self.cohorts))

    def seconds(self, cohort: Cohort) -> float:
        """What a shard takes on one CPU; the engine `lanes` trains its lanes whether they are full or not."""
        speed = self.speeds[cohort_key(cohort.members[0])]
        members = math.ceil(len(cohort) / LANE) * LANE if speed.engine == "lanes" else len(cohort)
        return members * self.images * self.epochs * speed.image

    def work(self) -> float:
        """CPU seconds of training, all lanes full."""
        return sum(
            len(one) * self.images * self.epochs * self.speeds[cohort_key(one.members[0])].image for one in self.cohorts
        )

    def backlog(self, most: int) -> Backlog:
        return Backlog(self.cohorts, self.parameters, most)


@dataclass(frozen=True)
class Cluster:
    """What does not depend on how many workers there are."""

    overhead: float  # seconds a shard, beside its training
    runs_a_second: float  # that the tracking store takes
    most: int = 64  # members of a shard


@dataclass(frozen=True)
class Course:
    """How it went, in seconds."""

    makespan: float
    trained: float  # when the last shard was trained
    busy: float  # of all workers together
    shards: int
    longest: float  # shard
    queued: float  # the longest that a trained shard waited for the store


def one_after_another(jobs: Sequence[Job], workers: int, cluster: Cluster) -> Course:
    """As `dvc repro` builds them: a zoo is begun when the one before it is recorded."""
    courses = [together([job], workers, cluster) for job in jobs]
    return Course(
        makespan=sum(course.makespan for course in courses),
        trained=sum(course.trained for course in courses),
        busy=sum(course.busy for course in courses),
        shards=sum(course.shards for course in courses),
        longest=max(course.longest for course in courses),
        queued=max(course.queued for course in courses),
    )


def together(jobs: Sequence[Job], workers: int, cluster: Cluster) -> Course:
    """All at once: a free worker takes of the zoo whose members take longest."""
    backlogs = [job.backlog(cluster.most) for job in sorted(jobs, key=_seconds_a_model, reverse=True)]
    ordered = sorted(jobs, key=_seconds_a_model, reverse=True)
    nodes = [Node(job.name, job.name, workers) for job in ordered]  # each command has its own view of the cluster
    free = [(0.0, worker) for worker in range(workers)]
    running: list[tuple[float, int, int, Callable[[], None]]] = []
    stored = trained = busy = longest = queued = 0.0
    shards = 0

    def end_before(moment: float) -> None:
        nonlocal stored, queued
        while running and running[0][0] <= moment:
            end, _, models, learn = heapq.heappop(running)
            learn()
            queued = max(queued, stored - end)
            stored = max(stored, end) + models / cluster.runs_a_second

    while True:
        moment, worker = heapq.heappop(free)
        end_before(moment)
        place = next((place for place, backlog in enumerate(backlogs) if backlog.left), None)
        if place is None:
            break
        job, node = ordered[place], nodes[place]
        cohort = backlogs[place].take(node, [node])
        assert cohort is not None
        training = job.seconds(cohort)
        end = moment + training + cluster.overhead

        def learn(node: Node = node, speed: float = len(cohort) * job.epochs / training) -> None:
            node.measured(speed)

        shards += 1
        heapq.heappush(running, (end, shards, len(cohort), learn))
        heapq.heappush(free, (end, worker))
        trained, busy, longest = max(trained, end), busy + training, max(longest, training)
    end_before(math.inf)
    return Course(max(trained, stored), trained, busy, shards, longest, queued)


def _seconds_a_model(job: Job) -> float:
    return job.work() / job.models


def limits(jobs: Sequence[Job], workers: int, cluster: Cluster, shortest: float) -> dict[str, float]:
    """What nothing can be faster than, by its reason, in seconds; `shortest` is the longest shard of the least size."""
    return {
        "the workers": sum(job.work() for job in jobs) / workers,
        "the longest shard": shortest,
        "the store": sum(job.models for job in jobs) / cluster.runs_a_second,
    }


def longest_least(jobs: Sequence[Job], most: int) -> float:
    """The seconds of the longest shard if all are as small as shards get."""
    longest = 0.0
    for job in jobs:
        least = job.backlog(most).least
        longest = max(longest, *(job.seconds(one.select(range(min(least, len(one))))) for one in job.cohorts))
    return longest
