"""One large tensor in a safetensors file, written row by row and read in parts.

The library writes a file only from tensors that are all in memory, and a zoo need not fit there. The format is short
(https://github.com/huggingface/safetensors#format): 8 bytes with the header's length N as little-endian unsigned
integer; N bytes of JSON, `{name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {str: str}}`, padded
with spaces; then the data, row-major and little-endian. The header is padded so that the data begin at a multiple of 8.
Metadata is one value, sorted JSON under the key `weightzoo`, since several values have no fixed order in the library.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, cast

import numpy as np

from weightzoo.errors import FormatError, MissingError

METADATA_KEY = "weightzoo"
HASH_BYTES = 16
_DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "U8": np.dtype("u1")}
_LENGTH = 8  # bytes that say how long the header is
_MAX_HEADER = 100_000_000  # the library's own limit


class TensorWriter:
    """Writes tensor `name` of a known shape, given in blocks of rows, while holding one block in memory.

    A row has the axes behind the first `row_axes`. As a context manager: leaving it flushes to the disk. `digest` and
    `bytes` describe the file written so far.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        dtype: str,
        shape: tuple[int, ...],
        metadata: Mapping[str, Any],
        *,
        row_axes: int = 1,
    ) -> None:
        self.path = path
        self.shape = shape
        self._row_shape = shape[row_axes:]
        self._all_rows = math.prod(shape[:row_axes])
        self._dtype = _DTYPES[dtype]
        self._rows = 0
        self._hash = hashlib.blake2b(digest_size=HASH_BYTES)
        self.bytes = 0
        header = _header(name, dtype, shape, metadata)
        self._file = path.open("wb")
        self._write(struct.pack("<Q", len(header)))
        self._write(header)

    def append(self, rows: np.ndarray) -> None:
        """Write rows `[n, *shape[row_axes:]]`, exactly of the tensor's type."""
        if rows.dtype != self._dtype or rows.shape[1:] != self._row_shape:
            expected = f"{self._dtype} [n, {', '.join(map(str, self._row_shape))}]"
            raise ValueError(f"rows are {rows.dtype} {list(rows.shape)}, expected {expected}")
        if self._rows + len(rows) > self._all_rows:
            raise ValueError(f"the tensor has {self._all_rows} rows, {self._rows + len(rows)} were given")
        self._rows += len(rows)
        self._write(np.ascontiguousarray(rows).data.cast("B"))

    @property
    def full(self) -> bool:
        """Whether all rows are written."""
        return self._rows == self._all_rows

    @property
    def digest(self) -> str:
        """BLAKE2b of the file, hexadecimal."""
        return self._hash.hexdigest()

    def close(self) -> None:
        """Flush to the disk and close.

        Raises:
            ValueError: rows are missing.
        """
        try:
            if not self.full:
                raise ValueError(f"the tensor has {self._all_rows} rows, only {self._rows} were given")
            self._file.flush()
            os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def abandon(self) -> None:
        """Close an unfinished file, which is then no valid one."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close() if kind is None else self.abandon()

    def _write(self, content: bytes | memoryview) -> None:
        self._file.write(content)
        self._hash.update(content)
        self.bytes += len(content)


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor stands in a file: its first byte, its type and shape; and the file's metadata."""

    start: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    metadata: dict[str, Any]


class TensorRows(Protocol):
    """A tensor `[models, epochs, P, ...]` that is read in parts."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all of it."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its values."""
        ...

    def read_into(self, out: np.ndarray, rows: np.ndarray, positions: Sequence[int], span: slice) -> None:
        """Copy `[rows, positions, span]` to `out`, reading only that."""
        ...


@dataclass(frozen=True)
class _MappedTensor:
    """A tensor in a file on disk, as a memory map."""

    values: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.dtype

    def read_into(self, out: np.ndarray, rows: np.ndarray, positions: Sequence[int], span: slice) -> None:
        columns = _as_slice(positions)
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        for first, end in itertools.pairwise([0, *breaks.tolist(), len(rows)]) if len(rows) else ():
            out[first:end] = self.values[rows[first] : rows[first] + (end - first)][:, columns, span]


def mapped_tensor(path: Path, name: str) -> TensorRows:
    """The tensor `name` of a file on disk.

    Raises:
        MissingError, FormatError: as `open_tensor`.
    """
    return _MappedTensor(open_tensor(path, name)[0])


def open_tensor(path: Path, name: str) -> tuple[np.ndarray, dict[str, Any]]:
    """The tensor `name` of a file as a read-only memory map, and the metadata.

    Raises:
        MissingError: there is no such file.
        FormatError: it is no safetensors file, is truncated, or holds something else.
    """
    try:
        with path.open("rb") as file:

            def read(begin: int, end: int) -> bytes:
                file.seek(begin)
                return file.read(end - begin)

            entry = locate_tensor(read, path.stat().st_size, str(path), name)
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file; assemble or pull the zoo again") from None
    if 0 in entry.shape:
        return np.zeros(entry.shape, entry.dtype), entry.metadata
    mapped = np.memmap(path, dtype=entry.dtype, mode="r", offset=entry.start, shape=entry.shape)
    return cast("np.ndarray", mapped), entry.metadata


def locate_tensor(read: Callable[[int, int], bytes], size: int, path: str, name: str) -> TensorEntry:
    """Find the tensor `name`, the only one, of a file of so many bytes, of which `read(begin, end)` reads a range.

    Raises:
        FormatError: it is no safetensors file, is truncated, or holds something else.
    """
    try:
        start = read(0, _LENGTH)
        length = struct.unpack("<Q", start)[0] if len(start) == _LENGTH else 0
        if not 2 <= length <= min(_MAX_HEADER, size - _LENGTH):
            raise FormatError(f"{path}: no safetensors file, or truncated; assemble or pull the zoo again")
        header: dict[str, Any] = json.loads(read(_LENGTH, _LENGTH + length))
        entry = header[name]
        dtype, shape = _DTYPES[entry["dtype"]], tuple(int(side) for side in entry["shape"])
        begin, end = entry["data_offsets"]
        metadata = json.loads(header.get("__metadata__", {}).get(METADATA_KEY, "{}"))
    except FormatError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise FormatError(f"{path}: its header has no readable tensor {name!r}; assemble or pull again") from None
    first = _LENGTH + length
    if begin != 0 or end != math.prod(shape) * dtype.itemsize or first + end != size:
        raise FormatError(f"{path}: {size:,} bytes, expected {first + end:,}; truncated, assemble or pull again")
    return TensorEntry(first, dtype, shape, metadata)


def _as_slice(positions: Sequence[int]) -> slice | list[int]:
    """Ascending positions at equal distances as a slice, which the memory map reads without an intermediate copy."""
    step = positions[1] - positions[0] if len(positions) > 1 else 1
    if len(positions) and step > 0 and list(positions) == list(range(positions[0], positions[-1] + 1, step)):
        return slice(positions[0], positions[-1] + 1, step)
    return list(positions)


def _header(name: str, dtype: str, shape: tuple[int, ...], metadata: Mapping[str, Any]) -> bytes:
    content = {
        "__metadata__": {METADATA_KEY: json.dumps(metadata, sort_keys=True)},
        name: {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [0, math.prod(shape) * _DTYPES[dtype].itemsize],
        },
    }
    text = json.dumps(content, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


__all__ = ["HASH_BYTES", "TensorEntry", "TensorRows", "TensorWriter", "locate_tensor", "mapped_tensor", "open_tensor"]
