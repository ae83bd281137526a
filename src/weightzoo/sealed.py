"""Safetensors files with a header of ours and a checksum of all that is in them, header included.

The format itself notices a truncated file, but not a changed bit: here whatever changed is an error, never a number.
All metadata is one sorted JSON value under `weightzoo`, since safetensors keeps no order of keys: the same content is
always the same bytes. The `checksum` in the header is BLAKE2b over the rest of it, the list of tensors and their bytes.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save, save_file

from weightzoo.errors import FormatError, MissingError, WeightzooError

_LENGTH = 8  # bytes of a safetensors file that say how long its JSON is
_METADATA = "__metadata__"
_KEY, _CHECKSUM = "weightzoo", "checksum"


def sealed(tensors: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> bytes:
    """The bytes of a file of these tensors, of any shape and type, under a header with at least a `format`."""
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    listed, content = _parts(memoryview(save(contiguous)))
    checksum = _checksum(header, listed, content)
    return save(contiguous, {_KEY: json.dumps({**header, _CHECKSUM: checksum}, sort_keys=True)})


def save_large(path: Path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write tensors without a copy of them in memory, which may be a gigabyte.

    Raises:
        OSError: it can't be written, for a full disk say, which safetensors tells as if the tensors were wrong.
    """
    try:
        save_file(dict(tensors), path, metadata)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None


@contextmanager
def opened(path: Path, expected: str, *, remedy: str) -> Generator[tuple[Any, dict[str, Any]]]:
    """A file of the format `expected`, to be read by `get_tensor` and `get_slice`, and its header.

    Version 1 of a format had no checksum: such files are believed.

    Raises:
        MissingError: there is no such file.
        FormatError: it is truncated, altered or of another format.
    """
    if not path.is_file():
        raise MissingError(f"{path}: no such file; the run is not finished, or its artifacts were deleted")
    try:
        with safe_open(path, framework="numpy") as file:
            header: Any = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            given = header.get("format") if isinstance(header, dict) else None
            if given == expected:
                _require_unaltered(path, header, remedy)
            elif given != f"{expected.rpartition(' ')[0]} 1":
                raise FormatError(f"{path}: format {given!r}, expected {expected!r}; {remedy}")
            yield file, header
    except WeightzooError:
        raise
    except (SafetensorError, OSError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{path}: truncated or no safetensors file ({error}); {remedy}") from None


def _require_unaltered(path: Path, header: dict[str, Any], remedy: str) -> None:
    recorded = header.pop(_CHECKSUM, None)
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as whole,
    ):
        listed, content = _parts(whole)
        with content:
            found = _checksum(header, listed, content)
    if found != recorded:
        raise FormatError(f"{path}: altered since it was written, its checksum does not match; {remedy}")


def _parts(whole: memoryview) -> tuple[dict[str, Any], memoryview]:
    """The list of tensors, without metadata, and their bytes."""
    start = _LENGTH + int.from_bytes(whole[:_LENGTH], "little")
    listed = json.loads(bytes(whole[_LENGTH:start]))
    listed.pop(_METADATA, None)
    return listed, whole[start:]


def _checksum(header: Mapping[str, Any], listed: dict[str, Any], content: memoryview) -> str:
    digest = hashlib.blake2b(json.dumps([header, listed], sort_keys=True).encode(), digest_size=16)
    digest.update(content)
    return digest.hexdigest()
