"""MLflow's server with authentication, on PostgreSQL, with its artifacts on S3: the real programs, killed and started again."""

from __future__ import annotations

import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers import MLflow, PostgreSQL, SeaweedFS, require

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
