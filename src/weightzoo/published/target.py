"""The folder that an export goes to: it appears when it is complete, and an export that was cut off goes on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from weightzoo.checkpoints import write_atomically
from weightzoo.errors import FormatError
from weightzoo.zoo import Zoo
from weightzoo.zoo.format import HEADER
from weightzoo.zoo.place import MOST_HEADER

MARK = "weightzoo.json"  # says what was exported; part of the export


@contextmanager
def export_folder(zoo: Zoo, target: Path, layout: str, options: Mapping[str, Any]) -> Generator[Path | None]:
    """A folder beside `target` to fill, with what an earlier export of the same left in it; None if that was complete.

    It takes the name of `target` when the block ends, and is left for the next time if the block fails.

    Raises:
        FormatError: `target` is there and is something else, or another process is writing it.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100  (a link stays a link)
    digest = hashlib.blake2b(zoo.place.read(HEADER, MOST_HEADER), digest_size=16).hexdigest()
    mark = {"format": "weightzoo export 1", "layout": layout, "zoo": zoo.name, "digest": digest, **options}
    content = (json.dumps(mark, indent=1, sort_keys=True) + "\n").encode()
    if _is_something(target):
        if _marked(target) != content:
            raise FormatError(f"{target}: is there already and is no export of this zoo; choose another folder")
        yield None
        return
    partial = target.with_name(f".{target.name}.exporting")
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(partial.with_name(f"{partial.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise FormatError(f"{target}: another process is writing it; wait for it, or end it and try again") from None
    try:
        if _marked(partial) != content:
            shutil.rmtree(partial, ignore_errors=True)
            write_atomically(partial / MARK, content)
        yield partial
        partial.rename(target)
        Path(lock.lock_file).unlink(missing_ok=True)
    finally:
        lock.release()


def _is_something(target: Path) -> bool:
    return target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir())))


def _marked(folder: Path) -> bytes | None:
    try:
        return (folder / MARK).read_bytes()
    except OSError:
        return None
