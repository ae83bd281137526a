"""MLflow's tracking server with authentication on."""

from __future__ import annotations

import base64
import importlib.util
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.servers.process import Server, free_port

CONFIGURATION = """\
[mlflow]
default_permission = READ
database_uri = {users}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
# a password is hashed once a minute and worker rather than at every request, which takes a tenth of a second
auth_cache_ttl_seconds = 60
"""


class MLflow(Server):
    """A tracking server at `url`: runs in the database `runs`, who may do what in the database `users`.

    Artifacts lie at `artifacts`, a folder or `s3://bucket/prefix`. With `proxy` clients send them through the server,
    which needs an S3 server's settings (`environment`) itself; without it, clients read and write them themselves.
    """

    admin = "admin"

    def __init__(
        self,
        folder: Path,
        *,
        runs: str,
        users: str,
        artifacts: str,
        proxy: bool = True,
        environment: Mapping[str, str] | None = None,
        password: str = "weightzoo-test-password",
        secret: str = "weightzoo-test-secret",
        port: int | None = None,
        workers: int = 1,
    ) -> None:
        super().__init__(folder)
        self.runs, self.users, self.artifacts, self.proxy = runs, users, artifacts, proxy
        self.password, self.secret, self.workers = password, secret, workers
        self.more = dict(environment or {})
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    @staticmethod
    def missing() -> str | None:
        found = all(importlib.util.find_spec(name) for name in ("mlflow", "flask_wtf"))
        return None if found else "MLflow's server with authentication is not installed: pip install 'mlflow[auth]'"

    def command(self) -> list[str]:
        where = ["--serve-artifacts"] if self.proxy else ["--no-serve-artifacts"]
        return [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port),
            "--workers", str(self.workers), "--app-name", "basic-auth", *where,
        ]  # fmt: skip

    def environment(self) -> Mapping[str, str]:
        """All that is secret goes by the environment and a file: a command line can be read by everybody."""
        configuration = self.folder / "basic_auth.ini"
        configuration.touch(0o600)
        configuration.chmod(0o600)
        configuration.write_text(CONFIGURATION.format(users=self.users.replace("%", "%%")))
        return {
            **self.more,
            "MLFLOW_BACKEND_STORE_URI": self.runs,
            "MLFLOW_ARTIFACTS_DESTINATION" if self.proxy else "MLFLOW_DEFAULT_ARTIFACT_ROOT": self.artifacts,
            "MLFLOW_AUTH_CONFIG_PATH": str(configuration),
            "MLFLOW_AUTH_ADMIN_USERNAME": self.admin,
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self.secret,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

    def ready(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/health", timeout=2).close()
        except OSError:
            return False
        return True

    def settings(self, user: str | None = None, password: str | None = None) -> dict[str, str]:
        """The environment in which MLflow's clients use it, by default as the administrator."""
        return {
            "MLFLOW_TRACKING_URI": self.url,
            "MLFLOW_TRACKING_USERNAME": user or self.admin,
            "MLFLOW_TRACKING_PASSWORD": password or self.password,
        }

    def user(self, name: str, password: str) -> None:
        """Make a user who may read everything and owns what they make, unless they are there."""
        try:
            self.ask(f"api/2.0/mlflow/users/get?username={name}")
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            self.ask("api/2.0/mlflow/users/create", {"username": name, "password": password})

    def ask(self, call: str, body: dict[str, Any] | None = None, *, password: str | None = None) -> dict[str, Any]:
        """Ask MLflow's REST interface as the administrator."""
        data = None if body is None else json.dumps(body).encode()
        key = base64.b64encode(f"{self.admin}:{password or self.password}".encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {key}"}
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/{call}", data, headers), timeout=30) as answer:
            return json.load(answer)
