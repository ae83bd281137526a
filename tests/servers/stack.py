"""`make server`: PostgreSQL, SeaweedFS and MLflow with authentication on loopback, what they store in `.server`.

`make s3` (the argument `s3`) starts SeaweedFS alone, on the same store.

Passwords and ports are drawn when it is started first and kept in files that their owner alone can read, so that it can
be stopped and started again.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.servers.mlflow import MLflow
from tests.servers.postgresql import PostgreSQL
from tests.servers.process import Server, free, free_port
from tests.servers.seaweedfs import GRPC, PORTS, SeaweedFS

BUCKET, USER = "zoos", "weightzoo"
PASSWORDS = ("postgresql", "s3_key", "s3_secret", "mlflow_admin", "mlflow_sessions", "mlflow_user")


def settings(folder: Path) -> dict[str, Any]:
    """The passwords and ports of this folder, drawn when they are first asked for."""
    path = folder / "settings.json"
    if not path.exists():
        ports: dict[str, int] = {}
        for name, wanted in {"postgresql": 5432, "mlflow": int(os.environ.get("PORT", "5000"))}.items():
            ports[name] = wanted if free(wanted) else free_port()
        for name, wanted in zip(PORTS, (9333, 8080, 8888, 8333), strict=True):
            ports[name] = wanted if free(wanted) and free(wanted + GRPC) else free_port(GRPC)
        drawn = {"ports": ports, "passwords": {name: secrets.token_hex(20) for name in PASSWORDS}}
        write_private(path, json.dumps(drawn, indent=2))
    return json.loads(path.read_text())


def write_private(path: Path, text: str) -> None:
    """Write a file that its owner alone can read, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    partial.touch(0o600)
    partial.write_text(text)
    partial.replace(path)


def exports(variables: Mapping[str, str]) -> str:
    """What a shell has to source to use the servers."""
    return "".join(f"export {name}={value}\n" for name, value in variables.items())


@contextlib.contextmanager
def running(server: Server) -> Iterator[None]:
    """The server from its start to a stop that gives it time to write everything down."""
    print(f"starting {type(server).__name__}", flush=True)
    try:
        server.start()
        yield
    finally:
        server.stop()


def serve(folder: Path, *, only_s3: bool = False) -> int:
    """Run all three, or the object store alone, until one ends or this process is told to."""
    needed = (SeaweedFS,) if only_s3 else (PostgreSQL, SeaweedFS, MLflow)
    for missing in filter(None, (server.missing() for server in needed)):
        return refuse(missing)
    folder.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        folder.chmod(0o711)  # PostgreSQL runs as another user, who must get to its own folder
    drawn = settings(folder)
    ports, passwords = drawn["ports"], drawn["passwords"]
    used = PORTS if only_s3 else tuple(ports)
    taken = [str(ports[name]) for name in used if not free(ports[name])]
    if taken:
        return refuse(f"port {', '.join(taken)} is taken; is it running already? Ports are in {folder}/settings.json")
    objects = SeaweedFS(
        folder / "s3",
        ports={name: ports[name] for name in PORTS},
        key=passwords["s3_key"],
        secret=passwords["s3_secret"],
    )
    if only_s3:
        with running(objects):
            objects.bucket(BUCKET)
            write_private(folder / "env", exports(objects.settings()))
            return wait(folder, (objects,), f"S3          {objects.url}, bucket {BUCKET}\n")
    database = PostgreSQL(folder / "postgresql", port=ports["postgresql"], password=passwords["postgresql"])
    with running(database), running(objects):
        objects.bucket(BUCKET)
        tracking = MLflow(
            folder / "mlflow",
            runs=database.uri,
            users=database.create_once("users"),
            artifacts=f"s3://{BUCKET}/mlflow",
            environment=objects.settings(),
            password=passwords["mlflow_admin"],
            secret=passwords["mlflow_sessions"],
            port=ports["mlflow"],
            workers=2,
        )
        with running(tracking):
            tracking.user(USER, passwords["mlflow_user"])
            variables = {**tracking.settings(USER, passwords["mlflow_user"]), **objects.settings()}
            write_private(folder / "env", exports(variables))
            told = (
                f"MLflow      {tracking.url}, user {USER}\n"
                f"S3          {objects.url}, bucket {BUCKET}\n"
                f"PostgreSQL  127.0.0.1:{database.port}, database mlflow\n"
            )
            return wait(folder, (database, objects, tracking), told)


def wait(folder: Path, servers: Sequence[Server], told: str) -> int:
    """Say what is running, and return when it no longer is."""
    print(
        f"\n{told}\nIn another terminal: source {folder.name}/env\nCtrl-C stops it; what is stored stays.", flush=True
    )
    while all(server.process and server.process.poll() is None for server in servers):
        time.sleep(0.5)
    return refuse(f"a server ended; see the files {folder}/*/log")


def refuse(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return 1


def main() -> int:
    def leave(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # once is enough: stopping takes seconds
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    os.umask(0o077)
    try:
        return serve(Path(".server").absolute(), only_s3=sys.argv[1:] == ["s3"])
    except KeyboardInterrupt:
        print("stopped")
        return 0
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        return refuse(str(error))


if __name__ == "__main__":
    sys.exit(main())
