"""A way to a server that counts what passes, and breaks where a test wants it to."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class Proxy:
    """Passes connections on to a port of loopback; `url` is where.

    With `breaks_after` set, a connection is cut once the server sent so many bytes on it, as many times as `breaks`
    says. `sent` and `received` count all bytes that clients sent and received, headers included.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent = self.received = 0
        self.breaks_after: int | None = None
        self.breaks = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                client.close()
                continue
            for source, target, up in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pass, args=(source, target, up), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, up: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                passed += len(content)
                with self._lock:
                    if up:
                        self.sent += len(content)
                    else:
                        self.received += len(content)
                    cut = not up and self.breaks > 0 and self.breaks_after is not None and passed > self.breaks_after
                    self.breaks -= cut
                if cut:
                    break
                target.sendall(content)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
