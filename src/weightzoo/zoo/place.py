"""Where the files of a packed zoo lie: in a folder, or below a prefix on S3. Reading a zoo is the same from both."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from weightzoo.errors import FormatError, MissingError
from weightzoo.s3 import Folder, Location, Stored, is_s3
from weightzoo.s3.folder import digest
from weightzoo.workspace import Workspace
from weightzoo.zoo.ranged import RangedTensor
from weightzoo.zoo.tensors import HASH_BYTES, TensorRows, locate_tensor, mapped_tensor

MOST_HEADER = 100_000_000  # bytes of a zoo.json; that of a thousand ResNet-18 has 20 thousand
_FIRST_LOOK = 4096  # bytes of a shard that hold the header of any shard of ours


class Place(ABC):
    """The files of one zoo, by name.

    All methods raise MissingError if a file is not there, FormatError if it is damaged or of another size than
    recorded, and StorageError if S3 can't be reached or refuses.
    """

    def __init__(self, path: Path | Location) -> None:
        self.path = path
        self._recorded: dict[str, tuple[int, str]] = {}

    def expect(self, files: Iterable[tuple[str, int, str]]) -> None:
        """Require files: their names, sizes and hashes, as `zoo.json` has them."""
        for name, size, blake2b in files:
            found = self.size(name)
            if found is None:
                raise MissingError(f"{self.name(name)}: no such file; assemble or pull the zoo again")
            if found != size:
                raise FormatError(
                    f"{self.name(name)}: {found:,} bytes, expected {size:,}; assemble or pull the zoo again"
                )
            self._recorded[name] = (size, blake2b)

    def hash(self, name: str) -> str:
        """BLAKE2b of a file, by reading all of it."""
        found = hashlib.blake2b(digest_size=HASH_BYTES)
        for block in self.blocks(name):
            found.update(block)
        return found.hexdigest()

    def name(self, name: str) -> str:
        """A file as messages name it."""
        return str(self.path / name)

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Bytes of a file; None if it is not there."""

    @abstractmethod
    def read(self, name: str, most: int) -> bytes:
        """A file of at most so many bytes."""

    @abstractmethod
    def blocks(self, name: str) -> Iterator[bytes]:
        """A file of any size, block by block."""

    @abstractmethod
    def table(self, name: str) -> Any:
        """A file as a source for `pyarrow.parquet.read_table`, held against its recorded hash."""

    @abstractmethod
    def tensor(self, name: str, tensor: str) -> TensorRows:
        """A tensor of a file, of which nothing is read yet."""

    @abstractmethod
    def total(self) -> int:
        """Bytes of all files."""

    @abstractmethod
    def beside(self) -> Sequence[Path | Location]:
        """The other places of the same folder or prefix that may hold a zoo, in the order of their names."""


class DiskPlace(Place):
    """A folder."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._folder = path

    def size(self, name: str) -> int | None:
        path = self._folder / name
        return path.stat().st_size if path.is_file() else None

    def read(self, name: str, most: int) -> bytes:
        path = self._folder / name
        try:
            with path.open("rb") as file:
                content = file.read(most + 1)
        except (FileNotFoundError, NotADirectoryError):
            raise MissingError(f"{path}: no such file; assemble or pull the zoo, or check the path") from None
        except OSError as error:
            raise FormatError(f"{path}: can't be read ({error.strerror}); assemble or pull the zoo again") from None
        if len(content) > most:
            raise FormatError(f"{path}: more than {most:,} bytes; this is something else")
        return content

    def blocks(self, name: str) -> Iterator[bytes]:
        with (self._folder / name).open("rb") as file:
            while block := file.read(2**20):
                yield block

    def table(self, name: str) -> Path:
        path = self._folder / name
        if not path.is_file():
            raise MissingError(f"{path}: no such file; assemble or pull the zoo again")
        _, blake2b = self._recorded.get(name, (0, None))
        if blake2b not in (None, self.hash(name)):
            raise FormatError(f"{path}: altered since it was written; assemble or pull the zoo again")
        return path

    def tensor(self, name: str, tensor: str) -> TensorRows:
        return mapped_tensor(self._folder / name, tensor)

    def total(self) -> int:
        return sum(file.stat().st_size for file in self._folder.iterdir())

    def beside(self) -> list[Path]:
        others = sorted(self._folder.parent.iterdir())
        return [folder for folder in others if folder != self._folder and (folder / "zoo.json").is_file()]


class S3Place(Place):
    """Objects below a prefix, each in the version that was there when the zoo was opened."""

    def __init__(self, path: Location) -> None:
        super().__init__(path)
        self._objects = Folder.at(path)

    @cached_property
    def _there(self) -> dict[str, Stored]:
        return self._objects.list(deep=False)

    def size(self, name: str) -> int | None:
        stored = self._there.get(name)
        return None if stored is None else stored.bytes

    def read(self, name: str, most: int) -> bytes:
        content, stored = self._objects.read(name, most=most)  # first of all: the path may be wrong
        if self._stored(name).etag != stored.etag:
            raise FormatError(f"{self.name(name)}: was replaced while it was being read; open it again")
        return content

    def blocks(self, name: str) -> Iterator[bytes]:
        return self._objects.blocks(name, self._stored(name))

    def table(self, name: str) -> pa.BufferReader:
        content = b"".join(self.blocks(name))
        _, blake2b = self._recorded.get(name, (0, None))
        if blake2b not in (None, digest(content)):
            raise self._another(name)
        return pa.BufferReader(content)

    def tensor(self, name: str, tensor: str) -> TensorRows:
        etag = self._stored(name).etag
        first, stored = self._objects.read_range(name, 0, _FIRST_LOOK, etag=etag)
        _, blake2b = self._recorded.get(name, (0, None))
        if None not in (stored.blake2b, blake2b) and stored.blake2b != blake2b:
            raise self._another(name)

        def read(begin: int, end: int) -> bytes:
            return first[begin:end] if end <= len(first) else self._objects.read_range(name, begin, end, etag=etag)[0]

        place = locate_tensor(read, stored.bytes, self.name(name), tensor)
        return RangedTensor(place, lambda ranges: self._objects.read_ranges(name, ranges, etag=etag))

    def total(self) -> int:
        return sum(stored.bytes for stored in self._there.values())

    def beside(self) -> list[Location]:
        parent = self._objects.parent
        names = [] if parent is None else parent.folders()
        return [parent.location / name for name in names if parent is not None and name != self._objects.location.name]

    def _stored(self, name: str) -> Stored:
        if name not in self._there:
            raise MissingError(f"{self.name(name)}: no such object; upload the zoo again")
        return self._there[name]

    def _another(self, name: str) -> FormatError:
        return FormatError(
            f"{self.name(name)}: is not the file that zoo.json names; wait for the upload that is under way, or upload "
            "the zoo again"
        )


def place_of(path: Path | Location | str) -> Place:
    """The place of a zoo that is given by a folder or by `s3://bucket/prefix`.

    Raises:
        FormatError: it is a URL of another kind.
        SpecError: its bucket can't be one.
    """
    if isinstance(path, Location):
        return S3Place(path)
    if is_s3(path):
        return S3Place(Location.parse(str(path)))
    if "://" in str(path):
        raise FormatError(f"{path}: a zoo is opened from a folder or from s3://BUCKET/PREFIX; pull or copy it first")
    return DiskPlace(Path(path).absolute())


def named_place(zoo: str, workspace: Workspace) -> Path | Location:
    """A packed zoo that was given by name, by path, or as `s3://bucket/prefix`.

    Raises:
        MissingError: there is none of that name or path.
        SpecError: it is no place on S3.
    """
    return Location.parse(zoo) if is_s3(zoo) else workspace.packed_zoo(zoo)


__all__ = ["MOST_HEADER", "Place", "named_place", "place_of"]
