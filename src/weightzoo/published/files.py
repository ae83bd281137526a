"""Reading files of a folder that somebody else made: nothing outside of it, no devices, nothing absurdly large."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from weightzoo.errors import FormatError, MissingError, UnsafeError


class SourceFolder:
    """A downloaded folder. Links within it are followed, links out of it are refused."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._real = os.path.realpath(path)

    def read(self, path: Path | str, limit: int) -> bytes:
        """The content of a file of the folder, of at most `limit` bytes.

        Raises:
            MissingError: there is no such file.
            UnsafeError: it is no plain file, larger than `limit`, or a link out of the folder.
            FormatError: it can't be read.
        """
        try:
            descriptor = self._open(path)
        except (FileNotFoundError, NotADirectoryError):
            raise MissingError(f"{self.name(path)}: no such file") from None
        except OSError as error:
            raise FormatError(f"{self.name(path)}: can't be read ({error.strerror})") from None
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise UnsafeError(f"{self.name(path)}: is no plain file; refused")
            if found.st_size > limit:
                raise UnsafeError(f"{self.name(path)}: {found.st_size:,} bytes, expected at most {limit:,}; refused")
            return file.read(min(found.st_size, limit))

    def refuse_outside(self, path: Path | str) -> None:
        """Refuse a path, file or folder, that leads out of the folder by a link.

        Raises:
            UnsafeError: it does.
        """
        real = os.path.realpath(path)
        if os.path.commonpath([real, self._real]) != self._real:
            raise UnsafeError(f"{self.name(path)}: is a link out of the folder, to {real}; refused")

    def name(self, path: Path | str) -> str:
        """How messages name a path: relative to the folder."""
        return os.path.relpath(path, self.path)

    def _open(self, path: Path | str) -> int:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a named pipe must not make us wait
        try:
            return os.open(path, flags | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
        self.refuse_outside(path)
        return os.open(os.path.realpath(path), flags)
