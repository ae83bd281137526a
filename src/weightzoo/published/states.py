"""State dicts out of files that `torch.save` wrote, without free unpickling, many small ones quickly.

Such a file is a ZIP archive of a pickle, `data.pkl`, which says how tensors lie in the other entries, and these
entries, raw bytes. `torch.load(weights_only=True)` reads it safely but takes half a millisecond, however small it is,
nearly all of it for the pickle. The checkpoints of one model have the same pickle to the byte, though, and usually
those of thousands: so each pickle is read by `torch.load` once, and what it says is kept as a list of places. A file
with the same pickle is then read from these places, in a tenth of the time, and no pickle is interpreted at all.

What a pickle says is learnt from `torch.load` itself rather than by interpreting it: the archive is loaded once more
with every 4 bytes of data replaced by their own number, so that each tensor consists of the places of its elements.
Unlike `torch.load`, this compares the checksums that the archive has of its entries.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from weightzoo.errors import FormatError, UnsafeError

MAX_PICKLE = 16_000_000  # bytes of data.pkl; that of a ResNet-18 has 20,000
_LOCAL_HEADER = 30  # bytes before the name in an entry's local header
_KNOWN_PICKLES = 1000  # kept; an experiment has one or two
_ALLOWED = re.compile(r"GLOBAL ([\w.]+)")


@dataclass(frozen=True)
class _Place:
    """A tensor: `shape` float32 elements of the entry `entry`, from byte `start` of it on, in C order."""

    name: str
    entry: str
    start: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Entry:
    start: int
    size: int
    crc: int


_Key = tuple[bytes, tuple[tuple[str, int], ...], tuple[bytes, ...]]


class StateReader:
    """Reads state dicts; knows the pickles that it has met. Not to be shared between threads."""

    def __init__(self) -> None:
        self._known: dict[_Key, tuple[_Place, ...] | None] = {}

    def read(self, content: bytes, where: str) -> dict[str, np.ndarray]:
        """The tensors of a file by name, in its order; read-only where they are views of `content`.

        Raises:
            UnsafeError: its pickle holds more than tensors, or it would grow when read.
            FormatError: it is truncated or corrupt, or holds anything but tensors by name. Messages begin with `where`.
        """
        archive = _entries(content, where)
        if archive is None:
            return _load(content, where)
        pickled = _only_pickle(archive, where)
        sizes = tuple((name, entry.size) for name, entry in archive.items() if _is_data(name))
        order = tuple(
            content[entry.start : entry.start + entry.size] for name, entry in archive.items() if _is_order(name)
        )
        key = (content[pickled.start : pickled.start + pickled.size], sizes, order)
        if key not in self._known:
            state = _load(content, where)  # refuses what is not allowed before anything is learnt from it
            if len(self._known) >= _KNOWN_PICKLES:
                self._known.clear()
            self._known[key] = _learn(content, archive, state)
            return state
        places = self._known[key]
        if places is None:
            return _load(content, where)
        return {place.name: _tensor(content, archive[place.entry], place) for place in places}


def _entries(content: bytes, where: str) -> dict[str, _Entry] | None:
    """The entries of the archive, with their checksums verified; None if this is the older format without archive.

    Raises:
        FormatError: the archive is damaged, or not such as `torch.save` writes.
    """
    if not content.startswith(b"PK"):
        return None
    try:
        infos = zipfile.ZipFile(io.BytesIO(content)).infolist()
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError) as error:
        raise FormatError(f"{where}: truncated or corrupt ({error})") from None
    entries: dict[str, _Entry] = {}
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.filename in entries:
            raise UnsafeError(f"{where}: entry {info.filename!r} is not such as torch.save writes; refused")
        header = content[info.header_offset : info.header_offset + _LOCAL_HEADER]
        if len(header) < _LOCAL_HEADER or not header.startswith(b"PK\x03\x04"):
            raise FormatError(f"{where}: entry {info.filename!r} is corrupt")
        name_size, extra_size = struct.unpack("<HH", header[26:30])
        start = info.header_offset + _LOCAL_HEADER + name_size + extra_size
        data = memoryview(content)[start : start + info.file_size]
        if len(data) < info.file_size or zlib.crc32(data) != info.CRC:
            raise FormatError(f"{where}: entry {info.filename!r} is corrupt, its checksum differs")
        entries[info.filename] = _Entry(start, info.file_size, info.CRC)
    return entries


def _only_pickle(archive: Mapping[str, _Entry], where: str) -> _Entry:
    found = [entry for name, entry in archive.items() if name.endswith("/data.pkl")]
    if len(found) != 1:
        raise FormatError(f"{where}: an archive with {len(found)} data.pkl, expected one; torch.save did not write it")
    if found[0].size > MAX_PICKLE:
        raise UnsafeError(f"{where}: data.pkl has {found[0].size:,} bytes, expected at most {MAX_PICKLE:,}; refused")
    return found[0]


def _is_data(name: str) -> bool:
    return name.rpartition("/")[0].endswith("/data")


def _is_order(name: str) -> bool:
    return name.endswith("/byteorder")


def _load(content: bytes, where: str) -> dict[str, np.ndarray]:
    """What `torch.load(weights_only=True)` finds, if it is tensors by name."""
    try:
        loaded: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = _ALLOWED.search(str(error))
        what = f"its pickle calls {wanted[1]}" if wanted else "its pickle is corrupt or no plain one"
        raise (UnsafeError if wanted else FormatError)(f"{where}: {what}; only tensors are read, refused") from None
    except (
        Exception
    ) as error:  # PyTorch raises whatever comes up in a damaged file: RuntimeError, EOFError, KeyError ...
        reason = (str(error).splitlines() or [""])[0][:120]
        raise FormatError(f"{where}: truncated or corrupt ({type(error).__name__}: {reason})") from None
    if not isinstance(loaded, Mapping):
        raise FormatError(f"{where}: holds a {type(loaded).__name__}, expected tensors by name")
    state: dict[str, np.ndarray] = {}
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise FormatError(f"{where}: holds a {type(tensor).__name__} as {name!r:.60}, expected tensors by name")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.dtype in (torch.bfloat16, torch.complex32):
            raise FormatError(f"{where}: {name} is a {tensor.dtype} tensor of layout {tensor.layout}, expected float32")
        if tensor.numel() * tensor.element_size() > len(content):
            raise UnsafeError(f"{where}: {name} has {tensor.numel():,} elements, more than the file; refused")
        state[name] = tensor.detach().numpy()
    return state


def _learn(content: bytes, archive: Mapping[str, _Entry], state: Mapping[str, np.ndarray]) -> tuple[_Place, ...] | None:
    """Where the tensors of a file lie in it; None if they are not all float32 in C order."""
    data = {name: entry.size for name, entry in archive.items() if _is_data(name)}
    if any(each.dtype != np.float32 or not each.size for each in state.values()) or any(n % 4 for n in data.values()):
        return None
    first = dict(zip(data, np.cumsum([0, *data.values()])[:-1].tolist(), strict=True))
    numbered = io.BytesIO()
    with zipfile.ZipFile(numbered, "w") as copy:
        for name, entry in archive.items():
            old = content[entry.start : entry.start + entry.size]
            numbers = (first.get(name, 0) + np.arange(0, entry.size, 4)) // 4
            copy.writestr(name, numbers.astype("<i4").tobytes() if name in data else old)
    places: list[_Place] = []
    for name, tensor in _load(numbered.getvalue(), "").items():
        numbers = np.ascontiguousarray(tensor).view("<i4").ravel()
        start = 4 * int(numbers[0])
        if not np.array_equal(numbers, start // 4 + np.arange(numbers.size)):
            return None
        entry = max((each for each in data if first[each] <= start), key=lambda each: first[each])
        places.append(_Place(name, entry, start - first[entry], tensor.shape))
    return tuple(places)


def _tensor(content: bytes, entry: _Entry, place: _Place) -> np.ndarray:
    return np.frombuffer(content, "<f4", math.prod(place.shape), entry.start + place.start).reshape(place.shape)
