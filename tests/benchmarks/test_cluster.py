"""The simulated cluster: nothing is faster than it can be, and nothing gets lost."""

from __future__ import annotations

import pytest

from tests.benchmarks.cluster import Cluster, Job, limits, longest_least, one_after_another, together
from tests.benchmarks.population import members
from weightzoo.calibration import Speed
from weightzoo.members import cohort_key, cohorts

SPEED = Speed("lanes", 0.0, 1e-5, 32)


def job(name: str, models: int, images: int = 1000) -> Job:
    kinds = cohorts(members(models))
    speeds = {cohort_key(kind.members[0]): SPEED for kind in kinds}
    return Job(name, kinds, speeds, 2464, images, 50, requests=2, bytes=1000)


def test_one_worker_takes_the_work_and_the_overhead_of_every_shard():
    alone = job("a", 768)  # 96 of each cohort: whole lanes
    course = together([alone], 1, Cluster(0.5, 1e9))
    assert course.busy == pytest.approx(alone.work())
    assert course.makespan == pytest.approx(alone.work() + 0.5 * course.shards)


@pytest.mark.parametrize("workers", [1, 3, 40, 500])
@pytest.mark.parametrize("rate", [0.5, 1e9])
def test_nothing_is_faster_than_work_longest_shard_and_store(workers: int, rate: float):
    jobs, cluster = [job("a", 768), job("b", 256, images=9000)], Cluster(0.1, rate)
    least = longest_least(jobs, cluster.most)
    course = together(jobs, workers, cluster)
    assert course.busy >= sum(one.work() for one in jobs) * (1 - 1e-9)
    assert course.makespan >= max(limits(jobs, workers, cluster, least).values()) * (1 - 1e-9)
    assert one_after_another(jobs, workers, cluster).makespan >= course.makespan * (1 - 0.1)


def test_more_workers_help_until_the_shards_are_too_few():
    jobs = [job("a", 768)]
    times = [together(jobs, workers, Cluster(0.0, 1e9)).makespan for workers in (1, 2, 8, 48, 500)]
    assert times == sorted(times, reverse=True)
    assert times[0] / times[1] == pytest.approx(2, rel=0.05)
    assert times[-1] == pytest.approx(longest_least(jobs, 64))
