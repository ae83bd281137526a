"""The objects below a prefix, as files of a folder: read in parts, several at once, and written whole.

S3 shows an object only when it is there as a whole, so that a killed writer leaves nothing half. What was read is held
against its length, its version (ETag) and the hash that `write` and `upload` store with it: a connection that breaks is
taken up where it broke, an object that was replaced meanwhile is noticed.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from weightzoo.errors import FormatError
from weightzoo.s3.connection import ATTEMPTS, THREADS, Connection
from weightzoo.s3.location import Location
from weightzoo.s3.settings import settings_for

BLOCK = 8_000_000  # bytes a request asks for at most
HASH = "blake2b"  # the name under which an object's BLAKE2b stands in its metadata
_HASH_BYTES = 16
_DELETED_AT_ONCE = 1000  # the interface takes no more
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Stored:
    """An object in the version that was seen."""

    bytes: int
    etag: str
    blake2b: str | None = None  # None where it was not stored with the object, or not asked for


class Folder:
    """The objects below a location. Names are keys relative to it."""

    def __init__(self, location: Location, connection: Connection) -> None:
        self.location, self.connection = location, connection

    @classmethod
    def at(cls, location: Location) -> Folder:
        """With the settings that hold for the location here."""
        return cls(location, Connection(settings_for(location)))

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.location / name, self.connection)

    @property
    def parent(self) -> Folder | None:
        """The folder that this one is in; None if it is the whole bucket."""
        if not self.location.key:
            return None
        above = self.location.key.rpartition("/")[0]
        return Folder(Location(self.location.bucket, above), self.connection)

    def __str__(self) -> str:
        return str(self.location)

    def list(self, *, deep: bool = True) -> dict[str, Stored]:
        """All objects below, or with `deep` false those of this level alone, by name, in order.

        Raises:
            StorageError: as `Connection.errors` says, also below.
        """
        start = len(self.location.prefix)
        level: dict[str, str] = {} if deep else {"Delimiter": "/"}
        found: dict[str, Stored] = {}
        with self.connection.errors(self.location):
            pages = self.connection.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.location.bucket, Prefix=self.location.prefix, **level):
                for entry in page.get("Contents", ()):
                    found[entry["Key"][start:]] = Stored(int(entry["Size"]), entry["ETag"])
        return found

    def folders(self) -> list[str]:
        """The names of this level that objects are below of, in order."""
        start = len(self.location.prefix)
        with self.connection.errors(self.location):
            pages = self.connection.client.get_paginator("list_objects_v2")
            found = pages.paginate(Bucket=self.location.bucket, Prefix=self.location.prefix, Delimiter="/")
            return [each["Prefix"][start:-1] for page in found for each in page.get("CommonPrefixes", ())]

    def look(self, name: str) -> Stored:
        """What an object is, without its content.

        Raises:
            MissingError: there is none.
            StorageError
        """
        there = self.location / name
        with self.connection.errors(there):
            answer = self.connection.client.head_object(Bucket=there.bucket, Key=there.key)
        return Stored(int(answer["ContentLength"]), answer["ETag"], answer["Metadata"].get(HASH))

    def read(self, name: str, *, most: int | None = None) -> tuple[bytes, Stored]:
        """An object as a whole, held against the hash that is stored with it.

        Raises:
            MissingError: there is none.
            FormatError: it is larger than `most` bytes, or not what was written.
            StorageError
        """
        content, stored = self.read_range(name, 0, None, most=most)
        if stored.blake2b is not None and digest(content) != stored.blake2b:
            raise FormatError(
                f"{self.location / name}: its hash is not the one that it was written with; push it again"
            )
        return content, stored

    def read_range(
        self, name: str, begin: int, end: int | None, *, etag: str | None = None, most: int | None = None
    ) -> tuple[bytes, Stored]:
        """The bytes `[begin, end)` of an object, or what there is of them, in the version `etag` if that is given.

        Raises:
            MissingError: there is no such object.
            FormatError: it was replaced; or there are more than `most` bytes; or none at `begin`.
            StorageError
        """
        reading = _Reading(self.connection, self.location / name, begin, end, etag, most)
        attempt = 1
        while True:
            with self.connection.errors(reading.place):
                try:
                    return reading.go_on()
                except _broken():
                    if attempt >= ATTEMPTS:
                        raise
            time.sleep(0.1 * 2**attempt)
            attempt += 1

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]], *, etag: str | None = None) -> Iterator[bytes]:
        """Several ranges of one object, in order, some of them at once."""

        def read(one: tuple[int, int]) -> bytes:
            content, _ = self.read_range(name, *one, etag=etag)
            if len(content) != one[1] - one[0]:
                raise FormatError(f"{self.location / name}: ends before byte {one[1]:,}; push it again")
            return content

        return in_order(read, ranges)

    def blocks(self, name: str, stored: Stored) -> Iterator[bytes]:
        """An object in blocks, the next ones on their way while one is looked at."""
        starts = range(0, stored.bytes, BLOCK)
        ranges = [(start, min(start + BLOCK, stored.bytes)) for start in starts]
        return self.read_ranges(name, ranges, etag=stored.etag)

    def write(self, name: str, content: bytes) -> None:
        """Store an object, whole or not at all."""
        there = self.location / name
        with self.connection.errors(there):
            self.connection.client.put_object(
                Bucket=there.bucket, Key=there.key, Body=content, Metadata={HASH: digest(content)}
            )

    def write_all(self, files: Mapping[str, bytes]) -> None:
        """Store several objects, some of them at once."""
        for _ in in_order(lambda file: self.write(*file), list(files.items())):
            pass

    def upload(self, name: str, path: Path, blake2b: str) -> None:
        """Store a file of any size, in parts if it is large, and see that it arrived.

        Raises:
            StorageError: it did not.
        """
        from boto3.s3.transfer import TransferConfig

        there = self.location / name
        with self.connection.errors(there):
            self.connection.client.upload_file(
                str(path),
                there.bucket,
                there.key,
                ExtraArgs={"Metadata": {HASH: blake2b}},
                Config=TransferConfig(
                    multipart_threshold=2 * BLOCK, multipart_chunksize=BLOCK, max_concurrency=THREADS
                ),
            )
        size, found = path.stat().st_size, self.look(name)
        if found.bytes != size:
            raise FormatError(f"{there}: {found.bytes:,} bytes arrived of {size:,}; upload it again")

    def fetch(self, names: Iterable[str], to: Path) -> None:
        """Copy objects into a local folder, some of them at once.

        Raises:
            MissingError: one is not there.
            FormatError: one is not what was written.
            StorageError
        """

        def copy(name: str) -> None:
            content, _ = self.read(name)
            path = to / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

        for _ in in_order(copy, list(names)):
            pass

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that are not there are none."""
        keys = [(self.location / name).key for name in names]
        with self.connection.errors(self.location):
            for start in range(0, len(keys), _DELETED_AT_ONCE):
                some = [{"Key": key} for key in keys[start : start + _DELETED_AT_ONCE]]
                answer = self.connection.client.delete_objects(
                    Bucket=self.location.bucket, Delete={"Objects": some, "Quiet": True}
                )
                refused = answer.get("Errors", [])
                if refused:
                    from botocore.exceptions import ClientError

                    raise ClientError({"Error": refused[0]}, "DeleteObjects")


class _Reading:
    """The way through a range of an object, which may be taken up again where a connection broke."""

    def __init__(
        self, connection: Connection, place: Location, begin: int, end: int | None, etag: str | None, most: int | None
    ) -> None:
        self.place = place
        self._connection, self._begin, self._end, self._etag, self._most = connection, begin, end, etag, most
        self._content = bytearray()

    def go_on(self) -> tuple[bytes, Stored]:
        from botocore import exceptions as boto

        start = self._begin + len(self._content)
        answer = self._ask(start)
        size = int(answer.get("ContentRange", "").rpartition("/")[2] or answer["ContentLength"])
        if self._etag not in (None, answer["ETag"]):  # not every server heeds IfMatch
            raise self._replaced()
        self._etag = answer["ETag"]
        missing = (size if self._end is None else min(self._end, size)) - start
        if self._most is not None and missing > self._most:
            answer["Body"].close()
            raise FormatError(
                f"{self.place}: {missing:,} bytes, expected at most {self._most:,}; this is something else"
            )
        try:
            for chunk in answer["Body"].iter_chunks(1_000_000):
                self._content += chunk
                missing -= len(chunk)
        except boto.FlexibleChecksumError:
            self._content.clear()
            raise
        if missing:
            raise boto.IncompleteReadError(actual_bytes=len(self._content), expected_bytes=len(self._content) + missing)
        return bytes(self._content), Stored(size, answer["ETag"], answer["Metadata"].get(HASH))

    def _ask(self, start: int) -> dict[str, Any]:
        from botocore.exceptions import ClientError

        from weightzoo.s3.faults import code_of

        options: dict[str, str] = {}
        if start or self._end is not None:
            options["Range"] = f"bytes={start}-{'' if self._end is None else self._end - 1}"
        if self._etag is not None:
            options["IfMatch"] = self._etag
        try:
            return self._connection.client.get_object(Bucket=self.place.bucket, Key=self.place.key, **options)
        except ClientError as error:
            if code_of(error) == "PreconditionFailed":
                raise self._replaced() from None
            if code_of(error) == "InvalidRange":
                raise FormatError(f"{self.place}: ends before byte {start:,}; push it again") from None
            raise

    def _replaced(self) -> FormatError:
        return FormatError(f"{self.place}: was replaced while it was being read; open it again")


def digest(content: bytes) -> str:
    """BLAKE2b, as `zoo.json` has it of each file."""
    return hashlib.blake2b(content, digest_size=_HASH_BYTES).hexdigest()


def in_order(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """`map` in `THREADS` threads, never more than so many results ahead of the one that is taken."""
    if isinstance(items, Sequence) and len(items) < 2:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(THREADS) as pool:
        waiting: deque[Future[_Result]] = deque()
        try:
            for item in items:
                if len(waiting) >= THREADS:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(work, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for left in waiting:
                left.cancel()


def _broken() -> tuple[type[Exception], ...]:
    """What boto3 raises if a connection breaks while a body is read, which it does not try again by itself."""
    from botocore import exceptions as boto

    return (boto.IncompleteReadError, boto.ReadTimeoutError, boto.ResponseStreamingError, boto.FlexibleChecksumError)
