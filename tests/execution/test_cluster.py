"""Zoos trained on a Ray cluster of several nodes are those trained in one process, whatever is killed meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.execution.support import DriftEngine, artifact_bytes, train, zoo_spec
from tests.execution.test_resume import PAUSE, ROOT, check_same_as, wait_for
from weightzoo.errors import EngineError, WeightzooError
from weightzoo.execution import Progress
from weightzoo.execution.cluster.executor import RayExecutor

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray = pytest.importorskip("ray")
FAST_CHECKS = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "health_check_failure_threshold": 4}


class Nodes:
    """A head that trains nothing, and nodes of one CPU."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": FAST_CHECKS}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address: str = self.cluster.address
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(2)]

    def kill(self) -> None:
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)

    def add(self) -> None:
        self.nodes.append(self.cluster.add_node(num_cpus=1))


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    made = Nodes()
    ray.init(made.address, log_to_driver=False)  # once: new workers import PyTorch for every driver
    yield made
    ray.shutdown()
    made.cluster.shutdown()


class FragileEngine(DriftEngine):
    """Its process is killed behind an epoch, once; and it wants the images in memory that it shares with others."""

    def __init__(self, mark: Path, at: int = 3, seconds: float = 0.1) -> None:
        super().__init__(seconds)
        self.mark, self.at = mark, at

    def train(self, architecture, cohort, data, *, resume=None):
        if data.images["train"].flags.writeable:
            raise EngineError("the images were copied")
        for result in super().train(architecture, cohort, data, resume=resume):
            if result.epoch == self.at and not self.mark.exists():
                self.mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield result


def train_there(folder: Path, kind: str = "grid", engine: DriftEngine | None = None, **settings) -> None:
    with RayExecutor() as executor:
        train(folder, zoo_spec(kind), engine, executor=executor, snapshot_seconds=0.0, log_seconds=0.0, **settings)


def test_killed_workers_and_nodes_leave_the_same_zoo(nodes: Nodes, folder: Path, undisturbed, tmp_path, caplog):
    reports: list[str] = []

    def watch(progress: Progress) -> None:
        reports.append(progress.what)
        if sum("x cnn-s" in what for what in reports) == 12:
            nodes.kill()
            nodes.add()

    train_there(folder, engine=FragileEngine(tmp_path / "killed"), on_progress=watch)
    assert "WorkerCrashedError" in caplog.text
    assert "NodeDiedError" in caplog.text or "TaskUnschedulableError" in caplog.text
    check_same_as(folder, undisturbed["grid"])


def test_a_killed_driver_goes_on_where_it_was(nodes: Nodes, folder: Path, undisturbed):
    command = [sys.executable, "-m", "tests.execution.support", str(folder), "grid", str(PAUSE), nodes.address]
    driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    wait_for(driver, 9)
    driver.kill()
    driver.wait()
    driver.stdout.close()
    saved = len(list((folder / ".resume" / "z").iterdir()))
    counts: list[int] = []
    train_there(folder, on_progress=lambda progress: counts.append(progress.done))
    first = next(count for count in counts if count)
    assert first > 1 or not saved
    check_same_as(folder, undisturbed["grid"])


def test_tasks_that_record_leave_one_run_a_member(
    nodes: Nodes, folder: Path, undisturbed, tmp_path, monkeypatch, caplog
):
    """On one machine an SQLite database can stand for one that all nodes reach."""
    monkeypatch.setattr("weightzoo.execution.cluster.executor._why_not_recorded_there", lambda *_: None)
    train_there(folder, engine=FragileEngine(tmp_path / "killed", at=4))
    assert "WorkerCrashedError" in caplog.text
    check_same_as(folder, undisturbed["grid"])


def test_a_search_with_a_pruner_stops_the_same_members(nodes: Nodes, folder: Path, undisturbed):
    train_there(folder, "search")
    assert artifact_bytes(folder) == artifact_bytes(undisturbed["search"])


def test_an_engine_that_breaks_is_an_error_of_one_line(nodes: Nodes, folder: Path, undisturbed):
    with pytest.raises(WeightzooError, match="RuntimeError: the engine broke") as caught:
        train_there(folder, engine=DriftEngine(fail_at=4))
    assert "\n" not in str(caught.value)
    train_there(folder)
    check_same_as(folder, undisturbed["grid"])
