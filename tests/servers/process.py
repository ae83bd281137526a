"""A server as a process: start it, wait until it answers, stop or kill it, start it again on the same folder."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

START_SECONDS = 60.0
CLIENTS = ("MLFLOW_", "AWS_")  # settings of whoever asks, which are none of a server


def require(*servers: type[Server]) -> None:
    """Skip the test, with the reason, if one of these can't run here."""
    import pytest

    for missing in filter(None, (server.missing() for server in servers)):
        pytest.skip(missing)


def free_port(*offsets: int) -> int:
    """A port of loopback that nothing listens on, nor on the ports so far above it."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if all(port + offset < 65536 and free(port + offset) for offset in offsets):
            return port


def free(port: int) -> bool:
    """Whether nothing listens on a port of loopback."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def listening(port: int) -> set[str]:
    """The addresses of this machine on which a port is listened on."""
    found: set[str] = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            (address, _, used), state = line.split()[1].partition(":"), line.split()[3]
            if state == "0A" and int(used, 16) == port:
                words = [address[start : start + 8] for start in range(0, len(address), 8)]
                packed = b"".join(bytes.fromhex(word)[::-1] for word in words)
                found.add(str(ipaddress.ip_address(packed)))
    return found


class Server(ABC):
    """One server; `with` runs it. What it stores lies in `folder`, what it says in `folder/log`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]: ...

    @abstractmethod
    def ready(self) -> bool:
        """Whether it answers."""

    @staticmethod
    @abstractmethod
    def missing() -> str | None:
        """What has to be installed before it can run; None if all is there."""

    def environment(self) -> Mapping[str, str]:
        return {}

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(CLIENTS)}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, env=inherited | dict(self.environment()), start_new_session=True
            )
        end = time.monotonic() + START_SECONDS
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > end:
                said = (self.folder / "log").read_text(errors="replace")[-2000:]
                self.kill()
                raise RuntimeError(f"{type(self).__name__} did not start: {said}")
            time.sleep(0.1)

    def stop(self, with_signal: signal.Signals = signal.SIGTERM, seconds: float = 30.0) -> None:
        """End it gracefully, or by force if it takes too long."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(with_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        self.kill()

    def kill(self) -> None:
        """As by a power failure: the process and its children are gone at once."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.kill()
