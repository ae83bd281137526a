"""One trainer a zoo, and a last snapshot before the process is told to go."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
from collections.abc import Generator
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from weightzoo.checkpoints import write_atomically
from weightzoo.errors import TrackingError


@contextlib.contextmanager
def only_trainer(folder: Path, zoo: str) -> Generator[None]:
    """Hold the lock of a zoo; the operating system frees it when the process ends, however it ends.

    It keeps out other processes that share the folder, not those on other machines with a folder of their own.

    Raises:
        TrackingError: another process holds it, or the folder can't be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrackingError(f"{folder}: {error.strerror}; change its permissions or set MLFLOW_TRACKING_URI") from None
    lock, holder = folder / f"{zoo}.lock", folder / f"{zoo}.pid"
    try:
        with FileLock(lock, timeout=0):
            write_atomically(holder, f"{os.getpid()}\n".encode())
            try:
                yield
            finally:
                holder.unlink(missing_ok=True)
    except Timeout:
        pid = holder.read_text().strip() if holder.exists() else "unknown"
        raise TrackingError(
            f"{lock}: process {pid} is training {zoo!r}; wait for it, or end it and try again"
        ) from None


@contextlib.contextmanager
def settled_objects_uncollected() -> Generator[None]:
    """Spare the garbage collector the objects that are there already, hundreds of thousands after the imports.

    MLflow makes thousands of objects a run; that the collector looks through the others too each time costs a tenth.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def exit_on_terminate() -> Generator[None]:
    """Let SIGTERM end the process by `SystemExit`, so that what was trained is saved; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
