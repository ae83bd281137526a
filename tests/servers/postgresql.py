"""PostgreSQL from the system's packages, as an unprivileged user where the tests run as root."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from tests.servers.process import Server, free_port


def program(name: str) -> str | None:
    """The path of a program of PostgreSQL; Debian keeps them outside of PATH. None if it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return str(found[-1]) if found else shutil.which(name)


class PostgreSQL(Server):
    """A database server with the database `mlflow`; `uri` is what SQLAlchemy and MLflow call it by.

    Without a `folder` it has a temporary one, since another user could not enter the one that pytest gives; that is
    removed when the `with` block ends.
    """

    user = "zoo"

    def __init__(
        self, folder: Path | None = None, *, port: int | None = None, password: str = "weightzoo-test-password"
    ) -> None:
        super().__init__(folder or Path(tempfile.mkdtemp(prefix="postgresql-")))
        self._temporary = folder is None
        self.password = password
        self.port = port or free_port()
        self.uri = self.database("mlflow")

    @staticmethod
    def missing() -> str | None:
        found = all(program(name) for name in ("postgres", "initdb", "pg_isready"))
        return None if found else "PostgreSQL is not installed: apt-get install postgresql"

    def database(self, name: str) -> str:
        return f"postgresql+psycopg://{self.user}:{self.password}@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        if not (self.folder / "data").exists():
            self._initialise()
        super().start()
        self.create_once("mlflow")

    def command(self) -> list[str]:
        settings = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "logging_collector=off")
        options = [argument for setting in settings for argument in ("-c", setting)]
        return self._as_user(
            program("postgres") or "postgres", "-D", str(self.folder / "data"), "-p", str(self.port), *options
        )

    def ready(self) -> bool:
        command = [program("pg_isready") or "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def stop(self, with_signal: signal.Signals = signal.SIGINT, seconds: float = 30.0) -> None:
        super().stop(with_signal, seconds)  # SIGINT: close connections and write everything down

    def kill(self) -> None:
        super().kill()
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)

    def create(self, name: str, like: str = "template1") -> str:
        """Make a database, empty or a copy of one that nobody is connected to, and return its URI."""
        self.run(f'CREATE DATABASE "{name}" TEMPLATE "{like}"', "postgres")
        return self.database(name)

    def create_once(self, name: str) -> str:
        """The same, unless it is there."""
        found = self.run(f"SELECT 1 FROM pg_database WHERE datname = '{name}'", "postgres")
        return self.database(name) if found else self.create(name)

    def run(self, statement: str, database: str = "mlflow") -> list[tuple[object, ...]]:
        """Run an SQL statement; the rows that it gives."""
        import psycopg

        uri = self.database(database).replace("+psycopg", "")
        with psycopg.connect(uri, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        super().__exit__(kind, error, trace)
        if self._temporary:
            shutil.rmtree(self.folder)

    def _initialise(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        secret = self.folder / "password"
        secret.touch(0o600)
        secret.write_text(self.password)
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
            shutil.chown(secret, "postgres")
            if subprocess.run(self._as_user("test", "-x", str(self.folder)), check=False).returncode:
                raise RuntimeError(f"the user postgres can't enter {self.folder}; do not run this as root")
        initdb = program("initdb") or "initdb"
        partial = self.folder / "data.partial"  # initdb may be interrupted
        shutil.rmtree(partial, ignore_errors=True)
        options = ["-D", str(partial), "-U", self.user, "-A", "scram-sha-256", f"--pwfile={secret}"]
        command = self._as_user(initdb, *options, "-E", "UTF8", "--locale=C", "-N")
        try:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        finally:
            secret.unlink()
        partial.replace(self.folder / "data")

    def _as_user(self, *command: str) -> list[str]:
        """PostgreSQL refuses to run as root."""
        if os.geteuid() != 0:
            return [*command]
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command]
