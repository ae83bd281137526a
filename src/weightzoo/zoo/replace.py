"""Writing a folder so that it is there whole or not at all, also if the process is killed or the machine fails.

The folder is filled under a name of its own beside the target and renamed when complete. While a process fills it, it
holds a lock on it, which the kernel lets go of when the process ends, however it ends: so the next one can tell what
was left behind by a killed process from what another is writing just now.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_folder(target: Path) -> Generator[Path]:
    """An empty folder to fill; it takes the place of `target` when the block ends, and vanishes if the block fails.

    An existing `target` stays as it is until then. Leftovers of killed processes are removed.
    """
    parent = target.parent
    parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}.partial-"
    for leftover in parent.glob(f"{prefix}*"):
        _remove_unless_locked(leftover)
    partial, lock = _locked_folder(parent, prefix)
    try:
        yield partial
        _flush(partial)
        if target.exists() or target.is_symlink():
            former, former_lock = _locked_folder(parent, prefix)
            target.rename(former / target.name)  # killed between here and the next line, nothing is there: no half zoo
            try:
                partial.rename(target)
            except OSError:
                (former / target.name).rename(target)
                raise
            finally:
                shutil.rmtree(former, ignore_errors=True)
                os.close(former_lock)
        else:
            partial.rename(target)
        _flush(parent)
    finally:
        os.close(lock)
        shutil.rmtree(partial, ignore_errors=True)


def _locked_folder(parent: Path, prefix: str) -> tuple[Path, int]:
    while True:
        folder = parent / f"{prefix}{secrets.token_hex(8)}"
        folder.mkdir()
        lock = _lock(folder)
        if lock is not None:
            return folder, lock


def _remove_unless_locked(folder: Path) -> None:
    lock = _lock(folder)
    if lock is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the lock; None if another process holds it, or has removed the folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _flush(folder: Path) -> None:
    """Have the kernel write the folder's entries to the disk, so that a rename is never seen before what it renames."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
