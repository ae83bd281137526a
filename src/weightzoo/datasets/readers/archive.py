"""Single files out of a tar.gz, or out of the folder that it was unpacked in. Nothing is ever unpacked to the disk."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from weightzoo.datasets.readers.bounded import BROKEN, foreign
from weightzoo.errors import MissingError

MAX_MEMBERS = 10_000
MAX_HEADER = 1_000_000  # bytes of a member's extended header, e.g. a long name


class _Bounded(gzip.GzipFile):
    """A gzip file of which no single read takes more than `limit` bytes, whatever a header in it says of its length."""

    limit = MAX_HEADER

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= self.limit:
            raise foreign(str(self.name), f"a part of {size} bytes", f"at most {self.limit:,}")
        return super().read(size)


def members(path: Path, wanted: Mapping[str, int]) -> dict[str, bytes]:
    """The content of files by their paths in the archive; `wanted` gives the most bytes that each may have.

    Raises:
        FormatError: the archive is broken, names a file outside of its own folder, or a wanted file is larger.
        MissingError: a wanted file is not there.
    """
    found = _of_folder(path, wanted) if path.is_dir() else _of_archive(path, wanted)
    for name in wanted:
        if name not in found:
            raise MissingError(f"{path}: no {name} in it; it is another file or incomplete, get it anew")
    return found


def check_inside(path: Path, name: str) -> None:
    """Refuse an archive in which a file's path leads out of the folder that it would be unpacked in.

    Raises:
        FormatError: `name` does.
    """
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in (parts.parts or ("",))[0]:
        raise foreign(path, f"a file {name!r} outside of its folder", "files inside")


def _of_folder(folder: Path, wanted: Mapping[str, int]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, limit in wanted.items():
        file = folder / name
        if file.is_file():
            _check_size(folder, name, file.stat().st_size, limit)
            found[name] = file.read_bytes()
    return found


def _of_archive(path: Path, wanted: Mapping[str, int]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        with _Bounded(path) as stream:
            stream.limit = max(MAX_HEADER, *wanted.values())
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                for number, member in enumerate(archive):
                    if number >= MAX_MEMBERS:
                        raise foreign(path, f"more than {MAX_MEMBERS:,} files", "a data set's own")
                    check_inside(path, member.name)
                    if member.name in wanted and member.isreg():
                        _check_size(path, member.name, member.size, wanted[member.name])
                        content = archive.extractfile(member)
                        found[member.name] = content.read() if content else b""
                    if len(found) == len(wanted):
                        break
    except (tarfile.TarError, *BROKEN) as error:
        raise foreign(path, f"no whole tar.gz ({error})", ", ".join(wanted)) from None
    return found


def _check_size(path: Path, name: str, size: int, limit: int) -> None:
    if size > limit:
        raise foreign(path, f"{size:,} bytes of {name}", f"at most {limit:,}")
