"""Downloading a file: what was interrupted goes on where it was, and nothing counts until its checksum is right."""

from __future__ import annotations

import hashlib
import http.client
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from functools import partial
from pathlib import Path

from weightzoo.console import Report
from weightzoo.datasets.record import RemoteFile
from weightzoo.errors import DownloadError

CHUNK = 1 << 16  # bytes
TIMEOUT = 30.0  # seconds without a byte
PAUSES = (0.0, 1.0, 4.0)  # seconds before each attempt in a row that brings nothing
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class _Failure(Exception):
    """What is wrong with one address."""


def download(
    file: RemoteFile,
    folder: Path,
    on_progress: Report | None = None,
    *,
    pauses: tuple[float, ...] = PAUSES,
    timeout: float = TIMEOUT,
) -> Path:
    """The file in `folder`, from the first of its addresses that gives it. Progress counts kilobytes.

    What arrives is kept in `.<name>.partial`, which the next call goes on with; the name is given once it is whole.

    Raises:
        DownloadError: no address gave the file, with what each did instead, or the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target, part = folder / file.name, folder / f".{file.name}.partial"
    failures: list[str] = []
    for url in file.urls:
        try:
            _verified(url, file, part, partial(_receive, on_progress=on_progress, timeout=timeout), pauses)
            part.replace(target)
            return target
        except _Failure as failure:
            failures.append(f"{urllib.parse.urlsplit(url).netloc} {failure}")
    raise DownloadError(f"can't download {file.name}: {'; '.join(failures)}; give files you have with --from DIR")


def md5_of(path: Path) -> str:
    """The MD5 of a file, hexadecimal; it tells files apart, it is no protection."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def _verified(url: str, file: RemoteFile, part: Path, receive: partial[None], pauses: tuple[float, ...]) -> None:
    """Complete `part` from one address; if what it went on with was no part of the file, once more from the start."""
    while True:
        resumed = _size(part) > 0
        _persistently(url, part, receive, pauses)
        found, size = md5_of(part), _size(part)
        if found == file.md5:
            return
        part.unlink()
        if not resumed:
            raise _Failure(f"gave {size:,} bytes with md5 {found}, expected {file.md5}")


def _persistently(url: str, part: Path, receive: partial[None], pauses: tuple[float, ...]) -> None:
    """Receive the rest of the file, in several attempts if need be; those that bring bytes don't count."""
    attempt = 0
    while True:
        before = _size(part)
        time.sleep(pauses[attempt])
        try:
            return receive(url, part)
        except DownloadError:
            raise
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500:
                raise _Failure(f"answers {error.code} {error.reason}") from None
            failure = f"answers {error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:  # OSError: URLError, timeouts, broken connections
            failure = f"can't be reached ({getattr(error, 'reason', None) or error or type(error).__name__})"
        attempt = attempt + 1 if _size(part) <= before else min(1, len(pauses) - 1)
        if attempt == len(pauses):
            raise _Failure(failure)


def _receive(url: str, part: Path, on_progress: Report | None, timeout: float) -> None:
    """Append what `part` lacks of the file, or write it anew if the server can't send a part."""
    have = _size(part)
    headers = {"User-Agent": "weightzoo"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # there is no more: the checksum says whether it is the file
            error.close()
            return
        raise
    with response:
        length = response.headers.get("Content-Length") or ""
        start, total = 0, int(length) if length.isdecimal() else 0
        if response.status == 206:
            span = _RANGE.fullmatch(response.headers.get("Content-Range") or "")
            start, total = (int(span[1]), int(span[2]) if span[2] != "*" else 0) if span else (-1, 0)
        if start not in (0, have):
            raise _Failure("sends another part than was asked for")
        done = start
        with part.open("ab" if start else "wb") as output:
            while chunk := response.read(CHUNK):
                try:
                    output.write(chunk)
                except OSError as error:
                    raise DownloadError(f"{part}: can't be written ({error.strerror})") from None
                done += len(chunk)
                if on_progress is not None:
                    on_progress(done // 1000, total // 1000, part.name.removeprefix(".").removesuffix(".partial"))
    if done < total:
        raise OSError(f"the connection ended after {done:,} of {total:,} bytes")


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0
