"""The local files of a source: those that the user gives, or downloads that all zoos share, each with its checksum."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from weightzoo.console import Report
from weightzoo.datasets.download import download, md5_of
from weightzoo.datasets.record import Published, RemoteFile
from weightzoo.datasets.sources import SOURCES
from weightzoo.errors import DownloadError, FormatError, MissingError


def downloaded_files(name: str, source: Published, downloads: Path, on_progress: Report | None) -> dict[str, Path]:
    """The local path of each file of the source `name` below `downloads`, which is downloaded unless it is there.

    Raises:
        DownloadError: a file can't be downloaded, or there is no place for it.
        FormatError: a file that is there is not the published one.
    """
    folder = downloads / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(
            f"{folder}: can't be made ({error.strerror}); give files you have with --from DIR"
        ) from None
    paths: dict[str, Path] = {}
    with FileLock(folder / ".lock"):  # two zoos of one data set may be prepared at the same time
        for file in source.files():
            path = folder / file.name
            if path.is_file():
                _check(path, file.md5, source, remedy="remove it to have it downloaded again")
            else:
                path = download(file, folder, on_progress)
            paths[file.name] = path
    return paths


def given_files(name: str, source: Published, folder: Path) -> dict[str, Path]:
    """The local path of each file of the source `name` in a folder of the user's, where nothing is changed.

    Files are looked for in the folder itself, in `folder/<name>`, and where torchvision keeps them below its root;
    archives also as the folder that torchvision unpacks them in.

    Raises:
        MissingError: a file is nowhere there.
        FormatError: a file is there, but is not the published one.
    """
    if not folder.is_dir():
        raise MissingError(f"{folder}: no such folder; give the one that has the files of {name}")
    try:
        return {file.name: _given(file, source, folder, name) for file in source.files()}
    except PermissionError as error:
        raise MissingError(
            f"{error.filename}: can't be read ({error.strerror}); allow it, or leave out --from"
        ) from None


def _given(file: RemoteFile, source: Published, folder: Path, name: str) -> Path:
    roots = list(dict.fromkeys([folder / source.folder, folder / name, folder]))
    refusal: FormatError | None = None
    for path, checked in _candidates(file, roots):
        try:
            for part, md5 in checked.items():
                _check(part, md5, source, remedy="put the right file there, or leave out --from to download it")
        except FormatError as error:
            refusal = refusal or error
        else:
            return path
    if refusal is not None:
        raise refusal
    there = ", ".join(str(root) for root in roots)
    unpacked = " nor its files unpacked" if file.unpacked else ""
    raise MissingError(f"no {file.name}{unpacked} in {there}; put it there, or leave out --from to download it")


def _candidates(file: RemoteFile, roots: list[Path]) -> Iterator[tuple[Path, dict[Path, str]]]:
    """What may stand for a file: its path for the reader, and the files to check with their checksums."""
    for root in roots:
        if (root / file.name).is_file():
            yield root / file.name, {root / file.name: file.md5}
    for root in roots:
        parts = {root / part: md5 for part, md5 in file.unpacked.items()}
        if parts and all(part.is_file() for part in parts):
            yield root, parts


def _check(path: Path, md5: str, source: Published, remedy: str) -> None:
    try:
        found, size = md5_of(path), path.stat().st_size
    except OSError as error:
        raise FormatError(f"{path}: can't be read ({error.strerror}); {remedy}") from None
    if found != md5:
        what = _known(found, source) or f"{size:,} bytes that are truncated, altered or of another file"
        raise FormatError(f"{path}: {what} (md5 {found}), expected md5 {md5}; {remedy}")


def _known(md5: str, source: Published) -> str | None:
    """What a file is that was taken for another one."""
    for title, other in {"this data set": source, **SOURCES}.items():
        for file in other.files() if isinstance(other, Published) else ():
            if file.md5 == md5:
                return f"{file.name} of {title}"
    return None
