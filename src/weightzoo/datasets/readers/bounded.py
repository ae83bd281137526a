"""Reading no more than a file should hold."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Protocol

from weightzoo.errors import FormatError

BROKEN = (EOFError, OSError, zlib.error)  # what gzip, bz2 and tarfile raise when their content is broken


def foreign(path: Path | str, found: object, expected: object) -> FormatError:
    """The error about a file whose content is not what its name says."""
    line = f"{path}: {found}, expected {expected}; it is another file or altered, get it anew"
    return FormatError(" ".join(line.split()))  # what is quoted may have lines of its own


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_at_most(stream: _Stream, path: Path | str, limit: int) -> bytes:
    """All bytes that a (decompressing) stream gives.

    Raises:
        FormatError: there are more than `limit` of them, or they can't be decompressed.
    """
    try:
        content = stream.read(limit)
        more = stream.read(1)
    except BROKEN as error:
        raise foreign(path, f"can't be decompressed ({error})", "the whole file") from None
    if more:
        raise foreign(path, f"more than {limit:,} bytes", "no more")
    return content
