"""MLflow's server with authentication, on PostgreSQL, with its artifacts on S3: the real programs, killed and started again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import urllib.error
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from tests.conftest import commit, inside, make_project, run
from tests.execution import support
from tests.servers import MLflow, PostgreSQL, SeaweedFS, free_port, listening, require
from tests.servers.seaweedfs import GRPC
from tests.test_pipeline import zoo_bytes
from weightzoo.errors import TrackingError
from weightzoo.execution import Progress, TrainSummary, train_zoo
from weightzoo.registry import Registry
from weightzoo.tracking import RunStore
from weightzoo.zoo_runs import ZooRuns

ROOT = Path(__file__).parent.parent
USER, PASSWORD = "zoo-keeper", "zoo-keeper-password"


@dataclass(frozen=True)
class Servers:
    database: PostgreSQL
    objects: SeaweedFS
    tracking: MLflow


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    require(PostgreSQL, SeaweedFS, MLflow)
    folder = tmp_path_factory.mktemp("servers")
    with PostgreSQL() as database, SeaweedFS(folder / "s3") as objects:
        objects.bucket("zoos")
        tracking = MLflow(
            folder / "mlflow",
            runs=database.uri,
            users=database.create("users"),
            artifacts="s3://zoos/mlflow",
            environment=objects.settings(),
        )
        with tracking:
            tracking.user(USER, PASSWORD)
            yield Servers(database, objects, tracking)


def test_strangers_are_refused_and_no_secret_is_on_a_command_line(servers: Servers) -> None:
    ask = servers.tracking.ask
    assert ask("api/2.0/mlflow/users/get?username=" + USER)["user"]["is_admin"] is False
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask("api/2.0/mlflow/experiments/search?max_results=1", password="wrong")
    process = servers.tracking.process
    assert process is not None
    assert servers.database.password not in Path(f"/proc/{process.pid}/cmdline").read_text()
    assert listening(servers.tracking.port) == listening(servers.database.port) == {"127.0.0.1"}
    for port in servers.objects.ports.values():
        assert listening(port) == listening(port + GRPC) == {"127.0.0.1"}
    assert (servers.tracking.folder / "basic_auth.ini").stat().st_mode & 0o077 == 0


@pytest.fixture
def as_user(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The test is a client of the server, as a user who is no administrator."""
    monkeypatch.delenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", raising=False)
    for name, value in servers.tracking.settings(USER, PASSWORD).items():
        monkeypatch.setenv(name, value)
    return monkeypatch


class Meddler:
    """Does something to the servers when training gets so far."""

    def __init__(self, at: int, act: Callable[[], None]) -> None:
        self.at, self.act = at, act

    def __call__(self, progress: Progress) -> None:
        if progress.done >= self.at and progress.total:
            self.at = 10**9
            self.act()


def recorded(runs: ZooRuns, place: Path) -> dict[str, tuple[dict[str, bytes], dict[str, list[tuple[int, float]]]]]:
    """Of every member its artifacts and metric curves; a member with several runs is an error, as is a run that is open."""
    client, found = runs.store.client, {}
    for member, own in runs.known().items():
        (run,) = own
        assert run.ended
        files = dict[str, bytes]()
        if run.artifacts is None:
            client.download_artifacts(run.run_id, "", str(place / run.run_id))
        folder = run.artifacts or place / run.run_id
        for file in sorted(folder.rglob("*.safetensors")):
            files[str(file.relative_to(folder))] = file.read_bytes()
        curves = {
            name: [(point.step, repr(point.value)) for point in client.get_metric_history(run.run_id, name)]
            for name in ("train_loss", "generalization_gap")
        }
        found[member] = files, curves
    return found


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Any:
    """What a build in SQLite records."""
    folder = tmp_path_factory.mktemp("local")
    shutil.copy(empty_database, folder / "mlflow.db")
    support.train(folder, support.zoo_spec())
    return recorded(support.store(folder).zoo("z"), folder)


def train(zoo: str, store: RunStore, **settings: Any) -> TrainSummary:
    engine = support.DriftEngine(settings.pop("pause", 0.0))
    options = {"shard_size": 4, "snapshot_seconds": 0.05, "log_seconds": 0.1, **settings}
    return train_zoo(zoo, support.zoo_spec(), support.image_data(), store, engine=engine, **options)


def test_a_build_outlives_all_servers(
    servers: Servers, as_user: pytest.MonkeyPatch, local: Any, tmp_path: Path
) -> None:
    """All are killed at once in the middle of it, and come back one after the other."""
    all_of_them = (servers.database, servers.objects, servers.tracking)
    down = threading.Event()

    def kill() -> None:
        for server in reversed(all_of_them):
            server.kill()
        down.set()

    def start() -> None:
        down.wait()
        for server in all_of_them:
            server.start()

    helper = threading.Thread(target=start, daemon=True)
    helper.start()
    store = RunStore(resume_folder=tmp_path)
    summary = train("outlives", store, pause=0.05, on_progress=Meddler(20, kill))
    helper.join(60)
    assert (summary.trained, summary.reused) == (12, 0)
    assert recorded(store.zoo("outlives"), tmp_path / "there") == local


KILLED = """
import sys
from pathlib import Path
from tests.test_tracking_server import train
from weightzoo.tracking import RunStore

print("go", flush=True)
train("killed", RunStore(resume_folder=sys.argv[1]), pause=0.1, on_progress=lambda now: print(now.done, flush=True))
"""


def test_a_trainer_that_is_killed_goes_on_with_artifacts_straight_on_s3(
    servers: Servers, as_user: pytest.MonkeyPatch, local: Any, tmp_path: Path
) -> None:
    for name, value in {**servers.objects.settings(), "MLFLOW_DEFAULT_ARTIFACT_ROOT": "s3://zoos/straight"}.items():
        as_user.setenv(name, value)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "resume")]
    trainer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert trainer.stdout is not None
    for line in trainer.stdout:
        if line.strip().isdigit() and int(line) >= 40:
            break
    trainer.kill()
    trainer.wait()
    store = RunStore(resume_folder=tmp_path / "resume")
    before = store.zoo("killed").known()
    assert 4 <= len(before) <= 12
    summary = train("killed", store)
    assert summary.trained + summary.reused == 12
    runs = store.zoo("killed")
    assert store.client.get_experiment(runs.experiment_id).artifact_location == "s3://zoos/straight/killed"
    assert recorded(runs, tmp_path / "there") == local
    assert servers.objects.client().list_objects_v2(Bucket="zoos", Prefix="straight/killed/")["KeyCount"] >= 24


def test_a_build_straight_on_postgresql_that_is_interrupted_goes_on(
    servers: Servers, local: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def interrupt() -> None:
        servers.database.kill()  # who interrupts does not wait for it to come back
        raise KeyboardInterrupt

    store = RunStore(servers.database.uri, artifact_root=str(tmp_path / "artifacts"), resume_folder=tmp_path / "resume")
    with pytest.raises(KeyboardInterrupt):
        train("interrupted", store, pause=0.05, on_progress=Meddler(20, interrupt))
    with pytest.raises(TrackingError) as refused:
        RunStore(servers.database.uri).zoo("interrupted")
    assert servers.database.password not in str(refused.value)
    servers.database.start()
    assert train("interrupted", store).trained == 12
    assert recorded(store.zoo("interrupted"), tmp_path) == local


def test_refusals_are_one_line_without_a_secret(servers: Servers, as_user: pytest.MonkeyPatch, project: Path) -> None:
    tracking = servers.tracking
    tracking.user("stranger", "stranger-password")
    train("own", RunStore(resume_folder=project / "resume"))  # the keeper's
    with inside(project):
        (project / "params.yaml").write_text((project / "params.yaml").read_text().replace("digits-seed", "own"))
        assert run("prepare", "own")[0] == 0
        wrong = tracking.settings(USER, "guessed-password")
        cases = [
            (wrong, f"the server refuses user '{USER}' or the password; set MLFLOW_TRACKING_USERNAME"),
            ({"MLFLOW_TRACKING_URI": tracking.url}, "the server refuses requests without a user"),
            (tracking.settings("stranger", "stranger-password"), "does not permit that to user 'stranger'"),
            ({"MLFLOW_TRACKING_URI": f"http://me:guessed-password@127.0.0.1:{free_port()}"}, "no tracking server answers"),
            ({"MLFLOW_TRACKING_URI": servers.database.uri.replace(servers.database.password, "guessed-password")}, "password authentication failed"),
        ]  # fmt: skip
        for settings, expected in cases:
            for name in tracking.settings():
                as_user.delenv(name, raising=False)
            for name, value in settings.items():
                as_user.setenv(name, value)
            code, said = run("train", "own")
            assert (code, said.count("\n")) == (1, 1), said
            assert expected in said
            assert "guessed-password" not in said


OTHERS = {"HF_TOKEN": "hf_planted0123456789", "AWS_SESSION_TOKEN": "session-planted-9876"}


def test_dvc_repro_against_the_servers_gives_the_bytes_of_a_local_build(
    servers: Servers, as_user: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And what then is done with it works too, and leaves no secret anywhere."""
    (tmp_path / "local").mkdir()
    here, there = make_project(tmp_path / "local", epochs=3, images=60), make_project(tmp_path, epochs=3, images=60)
    for folder in (here, there):
        params = folder / "params.yaml"
        params.write_text(params.read_text().replace("build: [digits-seed, digits-hyp]", "build: [digits-seed]"))
    for name, value in OTHERS.items():
        as_user.setenv(name, value)
    heard: list[str] = []
    environment = dict(os.environ)  # that of a client of the servers
    with inside(here):
        for name in servers.tracking.settings():
            as_user.delenv(name, raising=False)
        for verb in ("prepare", "train", "assemble"):
            assert run(verb, "digits-seed") == (0, ANY)
    for name, value in servers.tracking.settings(USER, PASSWORD).items():
        as_user.setenv(name, value)
    commit(there, "start")
    done = subprocess.run(["dvc", "repro"], cwd=there, env=environment, capture_output=True, text=True, check=True)
    heard += [done.stdout, done.stderr]
    assert zoo_bytes(there, "digits-seed") == zoo_bytes(here, "digits-seed")
    assert not (there / "mlruns" / "mlflow.db").exists()

    as_user.chdir(there)
    (member, *_) = [record.member for record in Registry().query("zoo == 'digits-seed' and test_accuracy >= 0")]
    for arguments in (
        ["verify", "digits-seed", "--sample", "2"],
        ["retrain", member],
        ["checkpoint", member, "--epoch", "2", "--to", "epoch.pt"],
        ["assemble", "--where", "zoo == 'digits-seed' and seed_init <= 2", "--to", "zoos/two"],
        ["finetune", "tuned"],
        ["export", "digits-seed", "--layout", "ray-tune", "--to", "exported"],
        ["import", "exported", "--to", "imported", "--workers", "1"],
    ):
        if arguments[0] == "finetune":
            section = (
                "{tuned: {start: {zoo: two}, factors: {}, dataset: digits, training: {epochs: 1, batch_size: 10}}}"
            )
            params = there / "params.yaml"
            params.write_text(params.read_text().replace("finetune: {}", f"finetune: {section}"))
        code, said = run(*arguments)
        assert code == 0, said
        heard.append(said)
    as_user.setenv("MLFLOW_TRACKING_URI", servers.tracking.url.replace("//", f"//{USER}:{PASSWORD}@"))
    for arguments in (
        ["query", "nothing == 1"],
        ["checkpoint", "0" * 16, "--epoch", "1"],
        ["assemble", "--where", "zoo == 'nothing'", "--to", "zoos/none"],
        ["assemble", "digits-hyp"],
        ["train", "digits-hyp"],
        ["import", "zoos", "--to", "nothing"],
        ["verify", "nothing"],
    ):
        code, said = run(*arguments)
        assert code == 1, arguments
        heard.append(said)
    commit(there, "built")
    require_no_secret(there, servers, "\n".join(heard))
    counted = Counter(record.zoo for record in Registry().runs)
    assert counted.items() >= {"digits-seed": 5, "tuned": 2, "imported": 5}.items()


def require_no_secret(project: Path, servers: Servers, heard: str) -> None:
    """Look for every secret in all that a build left: what it said, files, git, runs in the database, artifacts on S3."""
    secrets = [PASSWORD, servers.database.password, servers.objects.secret, servers.tracking.secret, *OTHERS.values()]
    places = {"output": heard.encode()}
    for file in project.rglob("*"):
        if file.is_file():
            places[str(file)] = file.read_bytes()
    git = ["git", "cat-file", "--batch-all-objects", "--batch"]
    places["git"] = subprocess.run(git, cwd=project, capture_output=True, check=True).stdout
    rows = servers.database.run("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
    for (table,) in rows:
        places[f"table {table}"] = repr(servers.database.run(f'SELECT t::text FROM "{table}" t')).encode()
    client = servers.objects.client()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="zoos"):
        for entry in page["Contents"]:
            places[entry["Key"]] = client.get_object(Bucket="zoos", Key=entry["Key"])["Body"].read()
    assert len(places) > 100
    assert {"git", "table tags", "table params", "table experiments"} <= places.keys()
    assert [
        (place, secret) for place, content in places.items() for secret in secrets if secret.encode() in content
    ] == []
