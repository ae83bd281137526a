"""MNIST's format (http://yann.lecun.com/exdb/mnist): two zero bytes, the type (8 is uint8), the number of dimensions,
each of them as a big-endian 32-bit integer, the values in C order; all of it in gzip."""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from weightzoo.datasets.readers.bounded import foreign, read_at_most
from weightzoo.datasets.record import Official, Part, Published

UINT8 = 8


def reader(class_names: Iterable[str]) -> Callable[[Mapping[str, Path], Published], Official]:
    """What reads MNIST or a successor of it with these classes, and raises FormatError for any other file."""

    def read(files: Mapping[str, Path], source: Published) -> Official:
        def part(prefix: str, count: int) -> Part:
            images = _idx(files[f"{prefix}-images-idx3-ubyte.gz"], (count, *source.stored[1:]))[:, None]
            labels = _idx(files[f"{prefix}-labels-idx1-ubyte.gz"], (count,))
            return Part(labels.astype(np.int32), images.__getitem__)

        return Official(part("train", source.train), part("t10k", source.test), tuple(class_names))

    return read


def _idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The uint8 array of a file that must have this shape."""
    header = struct.pack(f">BBBB{len(shape)}I", 0, 0, UINT8, len(shape), *shape)
    wanted = len(header) + math.prod(shape)
    with gzip.open(path) as stream:
        content = read_at_most(stream, path, wanted)
    if content[: len(header)] != header:
        raise foreign(path, _shape_said(content), f"bytes of shape {list(shape)}")
    if len(content) < wanted:
        raise foreign(path, f"{len(content):,} bytes unpacked", f"{wanted:,}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def _shape_said(content: bytes) -> str:
    dimensions = content[3] if content[:3] == bytes([0, 0, UINT8]) and len(content) > 3 else 0
    if not 1 <= dimensions <= 3 or len(content) < 4 + 4 * dimensions:
        return "no idx header of unsigned bytes"
    return f"bytes of shape {list(struct.unpack_from(f'>{dimensions}I', content, 4))}"
