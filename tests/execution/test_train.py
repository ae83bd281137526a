"""What a trained zoo leaves in MLflow and on disk, in one go and when it is called again."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time

import numpy as np
import pytest

from tests.execution.support import DIVERGES, DriftEngine, artifact_bytes, image_data, store, train, zoo_spec
from weightzoo import checkpoints
from weightzoo.architectures import architecture
from weightzoo.checkpoints import METRICS
from weightzoo.errors import EngineError, TrackingError
from weightzoo.execution.recording import Recorder
from weightzoo.members import Member
from weightzoo.population import population

CNN = architecture("cnn-s", (1, 28, 28), 3)


def mlflow_runs(folder):
    runs = store(folder).zoo("z")
    return runs.store.client.search_runs([runs.experiment_id])


def test_every_member_is_one_finished_run(undisturbed):
    runs = mlflow_runs(undisturbed["grid"])
    members = {member.id: member for member in population(zoo_spec(), image_data().content_hash).ask()}
    assert sorted(run.data.tags["weightzoo.member"] for run in runs) == sorted(members)
    for run in runs:
        member = members[run.data.tags["weightzoo.member"]]
        diverges = member.hyperparameters.learning_rate == DIVERGES
        assert run.info.status == "FINISHED"
        assert run.data.tags["weightzoo.status"] == ("diverged" if diverges else "finished")
        assert run.data.tags.get("weightzoo.diverged_epoch") == ("2" if diverges else None)
        assert run.data.tags["weightzoo.last_epoch"] == "6"
        assert run.data.tags["weightzoo.split"] == member.split
        assert run.data.tags["weightzoo.engine"] == "drift"
        assert float(run.data.params["learning_rate"]) == member.hyperparameters.learning_rate
        assert run.data.params["seed_order"] == str(member.seeds.order)
        assert run.data.params["schedule"] == "constant"
        assert len(run.data.params) == 13
        assert run.data.metrics["seconds"] == 7 * 0.25
        (dataset,) = run.inputs.dataset_inputs
        assert (dataset.dataset.name, dataset.dataset.digest) == ("noise", member.dataset_hash)


def test_metrics_in_mlflow_are_those_of_the_artifact(undisturbed):
    client = store(undisturbed["grid"]).client
    for run in mlflow_runs(undisturbed["grid"])[:4]:
        recorded = checkpoints.read_metrics(run.info.artifact_uri.removeprefix("file://"))
        for name in METRICS:
            history = sorted(client.get_metric_history(run.info.run_id, name), key=lambda point: point.step)
            assert [point.step for point in history] == list(range(7))
            logged = np.array([point.value for point in history], np.float32)
            np.testing.assert_array_equal(logged, recorded.values[name])
        values = recorded.values
        np.testing.assert_array_equal(values["generalization_gap"], values["train_accuracy"] - values["test_accuracy"])
        best = recorded.best_epoch
        assert run.data.metrics["best_epoch"] == best
        assert run.data.metrics["best_test_accuracy"] == values["test_accuracy"][best]
        assert run.data.metrics["best_val_accuracy"] == np.nanmax(values["val_accuracy"])


def test_checkpoints_are_the_engines_weights(undisturbed):
    tracking = store(undisturbed["grid"])
    member = population(zoo_spec(), image_data().content_hash).ask()[0]
    from weightzoo.members import Cohort

    for result in DriftEngine().train(CNN, Cohort((member,)), image_data()):
        state = tracking.checkpoint(member.id, result.epoch)
        assert CNN.layout.flatten(state).tobytes() == result.state.weights[0].tobytes()


def test_finished_members_are_not_trained_again(folder):
    first = train(folder, zoo_spec())
    before = artifact_bytes(folder)
    engine = DriftEngine()
    second = train(folder, zoo_spec(), engine)
    assert engine.trained == []
    assert (second.trained, second.reused) == (0, 12)
    assert (second.members, second.statuses, second.digest) == (first.members, first.statuses, first.digest)
    assert artifact_bytes(folder) == before
    assert len(mlflow_runs(folder)) == 12


def test_only_new_members_are_trained(folder):
    spec = zoo_spec("seed")
    fewer = spec.model_copy(
        update={
            "configuration": spec.configuration.model_copy(
                update={"seeds": spec.configuration.seeds.model_copy(update={"count": 3})}
            )
        }
    )
    train(folder, fewer)
    engine = DriftEngine()
    summary = train(folder, spec, engine)
    assert (summary.trained, summary.reused) == (17, 3)
    assert len({member for _, member in engine.trained}) == 17
    assert len(mlflow_runs(folder)) == 20


def test_neither_shards_nor_the_pace_of_saving_change_a_byte(new_store, undisturbed):
    one = new_store("one")
    train(one, zoo_spec(), shard_size=1, snapshot_seconds=0.0, log_seconds=0.0)
    assert artifact_bytes(one) == artifact_bytes(undisturbed["grid"])
    for run in mlflow_runs(one):
        history = store(one).client.get_metric_history(run.info.run_id, "val_loss")
        assert sorted(point.step for point in history) == list(range(7))


def test_runs_are_live_while_training_goes_on(folder):
    class Looking(DriftEngine):
        def train(self, *arguments, **named):
            for result in super().train(*arguments, **named):
                yield result
                if result.epoch == 3:
                    settled.wait(20)

    settled, seen = threading.Event(), []

    def look():
        import time

        for _ in range(200):
            runs = mlflow_runs(folder)
            points = [
                len(store(folder).client.get_metric_history(run.info.run_id, "val_accuracy"))
                for run in runs
                if run.info.status == "RUNNING" and run.data.tags["weightzoo.status"] == "training"
            ]
            if points and max(points) >= 2:
                seen.append(max(points))
                break
            time.sleep(0.05)
        settled.set()

    watcher = threading.Thread(target=look)
    watcher.start()
    train(folder, zoo_spec("seed"), Looking(), snapshot_seconds=0.0, log_seconds=0.0)
    watcher.join()
    assert seen


@pytest.mark.parametrize("kept", [[0, 2, 3], {"every": 4}])
def test_only_the_wanted_epochs_are_kept(folder, kept):
    spec = zoo_spec(checkpoints=kept)
    train(folder, spec)
    run = mlflow_runs(folder)[0]
    path = run.info.artifact_uri.removeprefix("file://")
    recorded = checkpoints.read_metrics(path)
    assert tuple(recorded.checkpoint_epochs) == spec.training.checkpoint_epochs
    assert checkpoints.read_checkpoints(path, CNN.layout).epochs == spec.training.checkpoint_epochs
    assert len(recorded.probe_logits) == len(spec.training.checkpoint_epochs)
    assert len(recorded.epochs) == 7


@pytest.mark.parametrize("pace", [0.0, 100.0])
def test_full_parts_go_to_the_artifact_store_at_once(folder, undisturbed, monkeypatch, pace):
    monkeypatch.setattr(checkpoints, "PART_BYTES", 3 * 4 * CNN.layout.size)
    train(folder, zoo_spec(), snapshot_seconds=pace)
    for run in mlflow_runs(folder):
        path = run.info.artifact_uri.removeprefix("file://")
        names = [file.name for file in checkpoints.checkpoint_files(path)]
        assert names == [f"epochs_{span}.safetensors" for span in ("0000-0002", "0003-0005", "0006-0006")]
        whole = store(undisturbed["grid"]).find(run.data.tags["weightzoo.member"]).info.artifact_uri
        expected = checkpoints.read_checkpoints(whole.removeprefix("file://"), CNN.layout)
        assert checkpoints.read_checkpoints(path, CNN.layout).weights.tobytes() == expected.weights.tobytes()


def test_a_truncated_artifact_is_trained_again(folder, caplog):
    train(folder, zoo_spec())
    before = artifact_bytes(folder)
    victim = next(iter(store(folder).zoo("z").known().values()))[0]
    file = checkpoints.checkpoint_files(victim.artifacts)[0]
    file.write_bytes(file.read_bytes()[:-100])
    engine = DriftEngine()
    with caplog.at_level(logging.WARNING, "weightzoo"):
        summary = train(folder, zoo_spec(), engine)
    assert {member for _, member in engine.trained} == {victim.member}
    assert summary.trained == 1
    assert "truncated" in caplog.text
    assert artifact_bytes(folder) == before
    assert len(mlflow_runs(folder)) == 12


def test_a_broken_engine_fails_the_runs_and_training_goes_on_later(folder, undisturbed):
    with pytest.raises(RuntimeError, match="the engine broke"):
        train(folder, zoo_spec(), DriftEngine(fail_at=4))
    runs = mlflow_runs(folder)
    assert {run.info.status for run in runs} == {"FAILED"}
    engine = DriftEngine()
    train(folder, zoo_spec(), engine)
    failed = {run.data.tags["weightzoo.member"] for run in runs}
    assert {epoch for epoch, member in engine.trained if member in failed} == {4, 5, 6}
    assert artifact_bytes(folder) == artifact_bytes(undisturbed["grid"])
    assert {run.info.status for run in mlflow_runs(folder)} == {"FINISHED"}
    assert len(mlflow_runs(folder)) == 12


def test_runs_fail_too_if_the_engine_breaks_before_they_are_made(folder, monkeypatch):
    class BreaksLater(DriftEngine):
        def train(self, architecture, cohort, data, *, resume=None):
            self.fail_at = 1 if self.trained else None
            return super().train(architecture, cohort, data, resume=resume)

    finish = Recorder.finish
    monkeypatch.setattr(Recorder, "finish", lambda recorder: (time.sleep(0.5), finish(recorder)))
    with pytest.raises(RuntimeError, match="the engine broke"):
        train(folder, zoo_spec(), BreaksLater(), shard_size=6)  # the writer is still at the first shard then
    assert "RUNNING" not in {run.info.status for run in mlflow_runs(folder)}
    assert "FAILED" in {run.info.status for run in mlflow_runs(folder)}
    train(folder, zoo_spec(), DriftEngine(), shard_size=6)
    assert {run.info.status for run in mlflow_runs(folder)} == {"FINISHED"}


def test_an_engine_that_can_not_is_named(folder):
    with pytest.raises(EngineError, match="drift: runs on cpu only"):
        train(folder, zoo_spec(), device="cuda")


def test_an_error_of_the_store_ends_training_with_one_line(folder):
    class Sabotage(DriftEngine):
        def train(self, *arguments, **named):
            for result in super().train(*arguments, **named):
                if result.epoch == 2:
                    with sqlite3.connect(folder / "mlflow.db") as connection:
                        connection.execute("DROP TABLE IF EXISTS metrics")
                yield result

    with pytest.raises(TrackingError) as caught:
        train(folder, zoo_spec(), Sabotage())
    assert "\n" not in str(caught.value)


def test_a_member_comes_back_from_its_run(undisturbed):
    from weightzoo.execution import recorded_member, retrain

    tracking = store(undisturbed["grid"])
    for run in mlflow_runs(undisturbed["grid"])[:3]:
        member = recorded_member(tracking, run.info.run_id)
        assert isinstance(member, Member)
        assert member.id == run.data.tags["weightzoo.member"]
        assert member.group == run.data.tags["weightzoo.group"]
        for result in retrain(member, image_data(), DriftEngine()):
            state = tracking.checkpoint(run.info.run_id, result.epoch)
            assert CNN.layout.flatten(state).tobytes() == result.state.weights[0].tobytes()


def test_pruned_members_stop_and_say_where(undisturbed):
    runs = mlflow_runs(undisturbed["search"])
    assert len(runs) == 16
    pruned = [run for run in runs if run.data.tags["weightzoo.status"] == "pruned"]
    assert 0 < len(pruned) < 16
    for run in runs:
        last = int(run.data.tags["weightzoo.last_epoch"])
        path = run.info.artifact_uri.removeprefix("file://")
        assert checkpoints.read_metrics(path).last_epoch == last
        assert checkpoints.read_checkpoints(path, CNN.layout).epochs == tuple(range(last + 1))
        assert (last < 6) == (run in pruned)


def test_a_search_is_replayed_from_its_runs(undisturbed):
    engine = DriftEngine()
    before = artifact_bytes(undisturbed["search"])
    summary = train(undisturbed["search"], zoo_spec("search"), engine)
    assert engine.trained == []
    assert summary.reused == 16
    assert artifact_bytes(undisturbed["search"]) == before
