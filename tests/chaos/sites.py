"""Where builds are killed: in one process on SQLite, against three servers, on a Ray cluster. Each is the real thing."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Self

from tests.servers import MLflow, PostgreSQL, SeaweedFS, Server, free_port

RUNS = (
    "SELECT r.status, t.value FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'weightzoo.member' "
    "WHERE r.lifecycle_stage = 'active'"
)
POINTS = (
    "SELECT count(*) FROM metrics m JOIN runs r ON r.run_uuid = m.run_uuid WHERE r.lifecycle_stage = 'active' "
    "AND m.key NOT IN ('seconds')"
)


class Site(ABC):
    """A place to build zoos; `with` holds what it needs."""

    name: ClassVar[str]
    options: tuple[str, ...] = ()  # of `weightzoo train`

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held = contextlib.ExitStack()

    @staticmethod
    def missing() -> str | None:
        """Why builds can't be made here; None if they can."""
        return None

    def begin(self, project: Path) -> None:
        """Make ready for a build in a new folder, with an empty tracking store."""
        self.project = project

    def environment(self) -> Mapping[str, str]:
        """Of the commands."""
        return {}

    def victims(self) -> Mapping[str, Callable[[random.Random], bool]]:
        """What else than the trainer can be killed; each says whether there was something to kill."""
        return {}

    @abstractmethod
    def ask(self, query: str) -> list[tuple[object, ...]]:
        """Ask the tracking store's database."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()


class Local(Site):
    """One process; SQLite and artifacts beside the project."""

    name = "local"

    def ask(self, query: str) -> list[tuple[object, ...]]:
        with contextlib.closing(sqlite3.connect(self.project / "mlruns" / "mlflow.db")) as database:
            return database.execute(query).fetchall()


class Servers(Site):
    """MLflow with authentication on PostgreSQL, artifacts on S3; each server can be killed, and comes back."""

    name = "servers"

    @staticmethod
    def missing() -> str | None:
        return next(filter(None, (server.missing() for server in (PostgreSQL, SeaweedFS, MLflow))), None)

    def __enter__(self) -> Self:
        self.database = self._held.enter_context(PostgreSQL())
        self.objects = self._held.enter_context(SeaweedFS(self.folder / "s3"))
        self.objects.bucket("zoos")
        self.tracking = MLflow(
            self.folder / "mlflow",
            runs=self.database.create("empty"),
            users=self.database.create("users"),
            artifacts="s3://zoos/mlflow",
            environment=self.objects.settings(),
        )
        self.tracking.start()  # makes the tables
        self._held.callback(self.tracking.kill)
        return self

    def begin(self, project: Path) -> None:
        super().begin(project)
        self._runs = f"runs-{project.name}"
        self.tracking.kill()
        self.tracking.runs = self.database.create(self._runs, like="empty")
        self.tracking.start()

    def environment(self) -> Mapping[str, str]:
        return self.tracking.settings()

    def victims(self) -> Mapping[str, Callable[[random.Random], bool]]:
        servers: dict[str, Server] = {
            "tracking server": self.tracking,
            "PostgreSQL": self.database,
            "S3 server": self.objects,
        }

        def killer(server: Server) -> Callable[[random.Random], bool]:
            def kill(draw: random.Random) -> bool:
                server.kill()
                time.sleep(draw.uniform(0, 3))
                server.start()
                return True

            return kill

        return {name: killer(server) for name, server in servers.items()}

    def ask(self, query: str) -> list[tuple[object, ...]]:
        return self.database.run(query, self._runs)


class Cluster(Site):
    """A Ray cluster of one node with two CPUs; the trainer records, and the workers can be killed."""

    name = "ray"

    @staticmethod
    def missing() -> str | None:
        import importlib.util

        return None if importlib.util.find_spec("ray") else "Ray is not installed: pip install weightzoo[ray]"

    def __enter__(self) -> Self:
        token = self.folder / "token"
        token.touch(0o600)
        token.write_text(secrets.token_hex(32))
        self._environment = {
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0",
        }  # fmt: skip
        self._port = free_port()
        command = [
            str(Path(sys.prefix, "bin", "ray")), "start", "--head", "--port", str(self._port), "--num-cpus", "2",
            "--node-ip-address", "127.0.0.1", "--include-dashboard", "false", "--block",
        ]  # fmt: skip
        with (self.folder / "ray.log").open("ab") as log:
            self._head = subprocess.Popen(command, env=os.environ | self._environment, stdout=log, stderr=log)
        self._held.callback(self._stop)
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self._port), timeout=5).close()
                break
            if self._head.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"Ray did not start: {(self.folder / 'ray.log').read_text()[-2000:]}")
            time.sleep(0.2)
        self.options = ("--execution", "ray", "--address", f"127.0.0.1:{self._port}")
        return self

    def environment(self) -> Mapping[str, str]:
        return self._environment

    def victims(self) -> Mapping[str, Callable[[random.Random], bool]]:
        return {"worker": self._kill_a_worker}

    def ask(self, query: str) -> list[tuple[object, ...]]:
        return Local.ask(self, query)  # type: ignore[arg-type]

    def _kill_a_worker(self, draw: random.Random) -> bool:
        """One that trains, of the processes below the head."""
        import psutil

        with contextlib.suppress(psutil.Error):
            below = psutil.Process(self._head.pid).children(recursive=True)
            busy = [one for one in below if (one.cmdline() or [""])[0].startswith("ray::train")]
            if busy:
                draw.choice(sorted(busy, key=lambda one: one.pid)).kill()
                return True
        return False

    def _stop(self) -> None:
        self._head.send_signal(signal.SIGTERM)
        try:
            self._head.wait(30)
        except subprocess.TimeoutExpired:
            self._head.kill()
            self._head.wait()


SITES: tuple[type[Site], ...] = (Local, Servers, Cluster)
