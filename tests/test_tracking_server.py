"""MLflow's server with authentication, on PostgreSQL, with its artifacts on S3: the real programs, killed and started again."""

from __future__ import annotations

import shutil
import threading
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.execution import support
from tests.servers import MLflow, PostgreSQL, SeaweedFS, require
from weightzoo.execution import Progress, TrainSummary, train_zoo
from weightzoo.tracking import RunStore, ZooRuns

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
