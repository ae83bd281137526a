"""The tracking store: what can be wrong with it, where its artifacts are, what a run says of its member."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.execution.support import DriftEngine, image_data, store, train, zoo_spec
from weightzoo import checkpoints
from weightzoo.architectures import architecture
from weightzoo.connection import connect, default_tracking_uri, local_artifacts
from weightzoo.errors import MissingError, NotFoundError, SpecError, TrackingError
from weightzoo.execution import train_zoo
from weightzoo.population import population
from weightzoo.run_fields import member_params, run_name
from weightzoo.tracking import RunStore
from weightzoo.zoo_runs import Addition, ZooRuns

LAYOUT = architecture("cnn-s", (1, 28, 28), 3).layout


@pytest.fixture
def folder(new_store: Callable[[str], Path]) -> Path:
    return new_store("store")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(empty_database, folder / "mlflow.db")
    train(folder, zoo_spec(epochs=2))
    return folder


def test_importing_weightzoo_does_not_import_mlflow():
    code = "import sys, weightzoo.tracking, weightzoo.execution; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_default_store_and_the_environment(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default_tracking_uri() == "sqlite:///mlruns/mlflow.db"
    assert RunStore().resume_folder == Path("mlruns/.resume")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////elsewhere/m.db")
    assert RunStore().uri == "sqlite:////elsewhere/m.db"
    assert RunStore().resume_folder == Path("/elsewhere/.resume")


def test_the_database_is_in_write_ahead_mode_and_nothing_is_left_over(trained):
    with sqlite3.connect(trained / "mlflow.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert not list(trained.glob(".mlflow.db.partial*"))


def test_a_half_made_database_is_made_anew(tmp_path):
    (tmp_path / ".mlflow.db.partial").write_bytes(b"SQLite format 3\0 and then the power went")
    assert connect(f"sqlite:///{tmp_path}/mlflow.db").search_experiments()


def one_line(error: pytest.ExceptionInfo[TrackingError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"this is not a database" * 1000)
    with pytest.raises(TrackingError) as caught:
        store(tmp_path).zoo("z")
    assert "file is not a database; move the file away" in one_line(caught)


def test_a_damaged_database(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "copy")
    with sqlite3.connect(tmp_path / "copy" / "mlflow.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(truncate)")
    connection.close()
    database = tmp_path / "copy" / "mlflow.db"
    content = bytearray(database.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    database.write_bytes(content)
    with pytest.raises(TrackingError) as caught:
        store(tmp_path / "copy").zoo("z").known()
    one_line(caught)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_to_write(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(TrackingError, match="permission"):
        train(tmp_path / "closed", zoo_spec())


def test_a_folder_that_can_not_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrackingError) as caught:
        train(tmp_path / "file", zoo_spec())
    one_line(caught)


def test_no_server_answers_at_once():
    start = time.monotonic()
    with pytest.raises(TrackingError) as caught:
        RunStore("http://127.0.0.1:9").zoo("z")
    assert "no tracking server answers" in one_line(caught)
    assert time.monotonic() - start < 30  # MLflow's own retries take minutes


def test_a_plain_folder_is_refused():
    with pytest.raises(TrackingError, match="use sqlite:///PATH"):
        RunStore("mlruns").zoo("z")


def test_a_password_is_not_shown():
    with pytest.raises(TrackingError) as caught:
        RunStore("postgresql://me:secret@127.0.0.1:9/db").zoo("z")
    assert "secret" not in one_line(caught)


def test_a_deleted_experiment_is_named(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "copy")
    runs = store(tmp_path / "copy").zoo("z")
    runs.store.client.delete_experiment(runs.experiment_id)
    with pytest.raises(TrackingError, match="restore it in MLflow or rename"):
        train(tmp_path / "copy", zoo_spec(epochs=2))


def test_a_checkpoint_by_run_or_member(trained):
    tracking = store(trained)
    ((run,), *_) = tracking.zoo("z").known().values()
    by_run = tracking.checkpoint(run.run_id, 1)
    assert {name: value.shape for name, value in by_run.items()} == dict(LAYOUT.parameters)
    for name, value in tracking.checkpoint(run.member, 1).items():
        assert value.tobytes() == by_run[name].tobytes()
    with pytest.raises(NotFoundError, match="epoch 3; the run has 0-2"):
        tracking.checkpoint(run.run_id, 3)


@pytest.mark.parametrize("name", ["0" * 32, "0" * 16, "", "x' or 'a", "../../etc"])
def test_an_unknown_run(trained, name):
    with pytest.raises(NotFoundError, match="weightzoo query"):
        store(trained).checkpoint(name, 0)


def test_a_run_without_artifacts(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "copy")
    ((run,), *_) = store(tmp_path / "copy").zoo("z").known().values()
    shutil.rmtree(run.artifacts)
    with pytest.raises(MissingError):
        store(tmp_path / "copy").checkpoint(run.run_id, 0)


def test_a_moved_project_keeps_its_artifacts(tmp_path, new_store):
    train(new_store("before"), zoo_spec(epochs=1))
    (tmp_path / "before").rename(tmp_path / "after")
    engine = DriftEngine()
    assert train(tmp_path / "after", zoo_spec(epochs=1), engine).reused == 12
    train(tmp_path / "after", zoo_spec(epochs=2), engine)
    for (run,) in store(tmp_path / "after").zoo("z").known().values():
        assert run.artifacts.is_relative_to(tmp_path / "after")
        assert checkpoints.read_checkpoints(run.artifacts, LAYOUT).epochs[-1] in (1, 2)
    assert not (tmp_path / "before").exists()


def test_a_copied_project_is_apart_from_the_original(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "copy")
    before = sorted(str(file) for file in trained.rglob("*.safetensors"))
    train(tmp_path / "copy", zoo_spec(epochs=3))
    assert sorted(str(file) for file in trained.rglob("*.safetensors")) == before


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a b"])
def test_a_zoo_that_can_not_be_a_folder(folder, name):
    with pytest.raises(SpecError, match="it names folders"):
        train_zoo(name, zoo_spec(), image_data(), store(folder), engine=DriftEngine())


def test_artifacts_elsewhere_than_beside_the_database(folder, tmp_path):
    tracking = RunStore(f"sqlite:///{folder}/mlflow.db", artifact_root=str(tmp_path / "else where"))
    summary = train_zoo("z", zoo_spec(epochs=1), image_data(), tracking, engine=DriftEngine())
    ((run,), *_) = tracking.zoo("z").known().values()
    assert run.artifacts == tmp_path / "else where" / "z" / run.run_id / "artifacts"
    assert [file.path for file in tracking.client.list_artifacts(run.run_id)] == ["checkpoints", "metrics.safetensors"]
    assert tracking.checkpoint(summary.members[0], 1)
    assert train_zoo("z", zoo_spec(epochs=1), image_data(), tracking, engine=DriftEngine()).trained == 0


def test_where_artifacts_are():
    assert local_artifacts("s3://bucket/z/r/artifacts", "sqlite:////p/m.db") is None
    assert local_artifacts("mlflow-artifacts:/1/r/artifacts", "http://host") is None
    assert local_artifacts("file:///a%20b/artifacts/z/r/artifacts", "postgresql://h/d") == Path(
        "/a b/artifacts/z/r/artifacts"
    )


def test_a_run_is_named_for_people():
    member = population(zoo_spec(), image_data().content_hash).ask()[0]
    assert run_name(member) == "tanh adam normal lr=0.01 wd=0 drop=0 seed=1"
    assert set(member_params(member)) == {
        *("init", "activation", "optimizer", "learning_rate", "weight_decay", "dropout", "epochs", "batch_size"),
        *("seed_init", "seed_order", "seed_dropout", "schedule", "momentum"),
    }


def test_a_point_that_is_logged_twice_is_there_once(folder):
    from weightzoo.zoo_runs import Point

    runs: ZooRuns = store(folder).zoo("z")
    member = population(zoo_spec(), image_data().content_hash).ask()[0]
    (run_id,) = runs.create([member], "drift", 1)
    points = [Point(name, value, 3, 1234567890123) for name, value in (("a", 0.1), ("b", float("nan")))]
    for _ in range(2):
        runs.log([Addition(run_id, points, {"last_epoch": "3"}, member)])
    for name in "ab":
        assert len(runs.store.client.get_metric_history(run_id, name)) == 1
    runs.log([Addition(run_id, [*points, Point("a", 0.2, 4, 1234567890124)])])
    assert [point.step for point in runs.store.client.get_metric_history(run_id, "a")] == [3, 4]


def test_more_points_than_mlflow_takes_at_once(folder):
    from weightzoo.zoo_runs import Point

    runs = store(folder).zoo("z")
    (run_id,) = runs.create([population(zoo_spec(), image_data().content_hash).ask()[0]], "drift", 1)
    runs.log([Addition(run_id, [Point("a", epoch / 7, epoch, 1) for epoch in range(2100)])])
    assert len(runs.store.client.get_metric_history(run_id, "a")) == 2100


def test_through_a_tracking_server(folder, new_store, tmp_path, capfd):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(tmp_path / "a")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(600):
            try:
                connect(uri)
                break
            except TrackingError:
                time.sleep(0.1)
        tracking = RunStore(uri, resume_folder=tmp_path / ".resume")
        summary = train_zoo("z", zoo_spec(epochs=1), image_data(), tracking, engine=DriftEngine())
        assert summary.trained == 12
        again = train_zoo("z", zoo_spec(epochs=1), image_data(), tracking, engine=DriftEngine())
        assert (again.trained, again.digest) == (0, summary.digest)
        local = new_store("local")
        train(local, zoo_spec(epochs=1))
        for member in summary.members[:2]:
            expected = store(local).checkpoint(member, 1)
            for name, value in tracking.checkpoint(member, 1).items():
                np.testing.assert_array_equal(value, expected[name])
        assert "View run" not in capfd.readouterr().out
    finally:
        os.killpg(server.pid, 9)
        server.wait()
