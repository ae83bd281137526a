"""Training that is killed, interrupted or finds damaged snapshots ends in the same zoo."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.execution.support import DriftEngine, artifact_bytes, store, train, zoo_spec
from weightzoo.checkpoints import METRICS
from weightzoo.errors import TrackingError
from weightzoo.execution.guard import only_trainer

ROOT = Path(__file__).parent.parent.parent
PAUSE = 0.12  # seconds of training an epoch: 7 epochs x 4 cohorts of the grid
EXIT_SECONDS = 60


def start(folder: Path, kind: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.execution.support", str(folder), kind, str(PAUSE)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], lines: int) -> None:
    """Until the process has trained that many epochs of a shard."""
    assert process.stdout is not None
    assert process.stdout.readline() == "opening the tracking store\n"
    for _ in range(lines):
        assert "x cnn-s" in process.stdout.readline()


def check_same_as(folder: Path, undisturbed: Path) -> None:
    """The bytes of all artifacts, one run a member, and exactly one point a metric and epoch."""
    assert artifact_bytes(folder) == artifact_bytes(undisturbed)
    tracking, expected = store(folder), store(undisturbed)
    runs = tracking.client.search_runs([tracking.zoo("z").experiment_id])
    assert len({run.data.tags["weightzoo.member"] for run in runs}) == len(runs)
    for run in runs:
        assert run.info.status == "FINISHED"
        twin = expected.find(run.data.tags["weightzoo.member"])
        np.testing.assert_equal(run.data.metrics, twin.data.metrics)  # NaN equals NaN here
        same = ("status", "last_epoch", "diverged_epoch", "digest", "artifact_bytes", "split", "group")
        for name in (f"weightzoo.{tag}" for tag in same):
            assert run.data.tags.get(name) == twin.data.tags.get(name), name
        assert run.data.params == twin.data.params
        assert len(run.inputs.dataset_inputs) == 1
        for name in METRICS:
            steps = sorted(point.step for point in tracking.client.get_metric_history(run.info.run_id, name))
            assert steps == list(range(int(run.data.tags["weightzoo.last_epoch"]) + 1))
    assert not list((folder / ".resume" / "z").iterdir())


@pytest.mark.parametrize(("kind", "seed"), [("grid", 1), ("search", 3)])
def test_killed_three_times_it_ends_in_the_same_zoo(folder, undisturbed, kind, seed):
    chance = random.Random(seed)
    for _ in range(3):
        process = start(folder, kind)
        wait_for(process, chance.randint(2, 9))
        time.sleep(chance.uniform(0.0, 1.5 * PAUSE))
        process.kill()
        assert process.wait(EXIT_SECONDS) == -signal.SIGKILL
        process.stdout.close()
    engine = DriftEngine()
    train(folder, zoo_spec(kind), engine)
    assert len(engine.trained) < len(artifact_bytes(folder)) / 2 * 6
    check_same_as(folder, undisturbed[kind])


def test_killed_while_the_last_runs_are_written(folder, undisturbed):
    process = start(folder, "grid")
    while process.stdout.readline() != "writing the last runs\n":
        assert process.poll() is None
    process.kill()
    process.wait(EXIT_SECONDS)
    process.stdout.close()
    engine = DriftEngine()
    train(folder, zoo_spec(), engine)
    assert len(engine.trained) < 12 * 6 / 2
    check_same_as(folder, undisturbed["grid"])


def test_told_to_end_it_saves_what_it_has(folder, undisturbed):
    process = start(folder, "grid")
    wait_for(process, 5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(EXIT_SECONDS) == 128 + signal.SIGTERM
    process.stdout.close()
    engine = DriftEngine()
    train(folder, zoo_spec(), engine)
    assert len(engine.trained) <= 12 * 6 - 3 * 4  # five epochs of the first shard, three members, are behind it
    check_same_as(folder, undisturbed["grid"])


class Interrupt(DriftEngine):
    """Ctrl-C behind an epoch."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def train(self, *arguments, **named):
        for result in super().train(*arguments, **named):
            if result.epoch == self.at:
                raise KeyboardInterrupt
            yield result


def interrupt(folder: Path, at: int = 5, **settings) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(folder, zoo_spec(), Interrupt(at), **settings)


@pytest.mark.parametrize("pace", [0.0, 100.0])
def test_interrupted_it_goes_on_behind_the_last_epoch(folder, undisturbed, pace):
    interrupt(folder, snapshot_seconds=pace, log_seconds=0.0)
    engine = DriftEngine()
    train(folder, zoo_spec(), engine)
    assert min(epoch for epoch, _ in engine.trained[:6]) == 5
    check_same_as(folder, undisturbed["grid"])


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-5]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-4] + b"\x01\x02\x03\x04"),
        lambda path: path.unlink(),
    ],
    ids=["truncated", "empty", "altered", "missing"],
)
@pytest.mark.parametrize("victim", ["state", "epochs"])
def test_a_damaged_snapshot_is_discarded(folder, undisturbed, caplog, damage, victim):
    interrupt(folder, log_seconds=0.0, snapshot_seconds=0.0)
    file = next((folder / ".resume" / "z").glob(f"*/{victim}*.safetensors"))
    damage(file)
    engine = DriftEngine()
    train(folder, zoo_spec(), engine)
    assert "discarding this snapshot" in caplog.text
    assert engine.trained[0][0] == 1
    check_same_as(folder, undisturbed["grid"])


def test_another_engine_does_not_go_on_from_a_snapshot(folder, undisturbed, caplog):
    interrupt(folder, log_seconds=0.0, snapshot_seconds=0.0)
    engine = DriftEngine()
    engine.name = "other"
    train(folder, zoo_spec(), engine)
    assert "training these members anew" in caplog.text
    assert len(engine.trained) == 12 * 6
    check_same_as(folder, undisturbed["grid"])


def test_changed_members_leave_other_snapshots_alone(folder, undisturbed):
    interrupt(folder, snapshot_seconds=0.0)
    train(folder, zoo_spec("seed"))
    engine = DriftEngine()
    train(folder, zoo_spec(), engine)
    assert {epoch for epoch, _ in engine.trained[:3]} == {5}


def test_runs_with_metrics_but_no_snapshot_are_replaced(folder, undisturbed):
    import shutil

    interrupt(folder, log_seconds=0.0, snapshot_seconds=0.0)
    shutil.rmtree(folder / ".resume")
    train(folder, zoo_spec())
    check_same_as(folder, undisturbed["grid"])


def test_one_trainer_at_a_time(folder):
    with (
        only_trainer(folder / ".resume", "z"),
        pytest.raises(TrackingError, match=rf"z\.lock: process {os.getpid()} is training 'z'"),
    ):
        train(folder, zoo_spec())
    train(folder, zoo_spec())


def test_a_finished_shard_is_logged_without_training(folder, undisturbed, monkeypatch):
    """Killed behind training and before logging: everything is in the snapshot."""
    from weightzoo.execution.recording import Recorder

    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "finish", lambda self: (_ for _ in ()).throw(OSError("killed here")))
        with pytest.raises(OSError, match="killed here"):
            train(folder, zoo_spec("grid"))
    engine = DriftEngine()
    train(folder, zoo_spec(), engine)
    assert len(engine.trained) < 12 * 6
    check_same_as(folder, undisturbed["grid"])


def test_a_snapshot_that_is_recorded_already_is_deleted(folder, undisturbed, monkeypatch):
    """Killed between the end of a shard's runs and the deletion of its snapshot."""
    from weightzoo.execution.snapshot import Snapshot

    with monkeypatch.context() as patched:
        patched.setattr(Snapshot, "discard", lambda self: None)
        train(folder, zoo_spec())
    assert len(list((folder / ".resume" / "z").iterdir())) == 4
    engine = DriftEngine()
    train(folder, zoo_spec(), engine)
    assert engine.trained == []
    check_same_as(folder, undisturbed["grid"])


def test_a_disk_that_can_not_be_written_to_is_an_error_of_one_line(folder):
    (folder / ".resume").mkdir()
    (folder / ".resume" / "z").write_text("in the way")
    with pytest.raises(TrackingError) as caught:
        train(folder, zoo_spec())
    assert "\n" not in str(caught.value)
