"""One large tensor in a safetensors file, written row by row and read as a memory map.

The library writes a file only from tensors that are all in memory, and a zoo need not fit there. The format is short
(https://github.com/huggingface/safetensors#format): 8 bytes with the header's length N as little-endian unsigned
integer; N bytes of JSON, `{name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {str: str}}`, padded
with spaces; then the data, row-major and little-endian. The header is padded so that the data begin at a multiple of 8.
Metadata is one value, sorted JSON under the key `weightzoo`, since several values have no fixed order in the library.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np

from weightzoo.errors import FormatError, MissingError

METADATA_KEY = "weightzoo"
HASH_BYTES = 16
_DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "U8": np.dtype("u1")}
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


def open_tensor(path: Path, name: str) -> tuple[np.ndarray, dict[str, Any]]:
    """The tensor `name` of a file as a read-only memory map, and the metadata.

    Raises:
        MissingError: there is no such file.
        FormatError: it is no safetensors file, is truncated, or holds something else.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(_MAX_HEADER, size - 8):
                raise FormatError(f"{path}: no safetensors file, or truncated; assemble or pull the zoo again")
            header: dict[str, Any] = json.loads(file.read(length))
        entry = header[name]
        dtype, shape = _DTYPES[entry["dtype"]], tuple(int(side) for side in entry["shape"])
        begin, end = entry["data_offsets"]
        metadata = json.loads(header.get("__metadata__", {}).get(METADATA_KEY, "{}"))
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file; assemble or pull the zoo again") from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path}: its header has no readable tensor {name!r}; assemble or pull again") from None
    if begin != 0 or end != math.prod(shape) * dtype.itemsize or 8 + length + end != size:
        raise FormatError(f"{path}: {size:,} bytes, expected {8 + length + end:,}; truncated, assemble or pull again")
    if end == 0:
        return np.zeros(shape, dtype), metadata
    mapped = cast("np.ndarray", np.memmap(path, dtype=dtype, mode="r", offset=8 + length, shape=shape))
    return mapped, metadata


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
