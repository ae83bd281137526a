"""STL-10's format (https://cs.stanford.edu/~acoates/stl10): images as bytes [N, 3, width, height], labels as bytes from
1, in files of a tar.gz."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from weightzoo.datasets.readers.archive import members
from weightzoo.datasets.readers.bounded import foreign
from weightzoo.datasets.record import Official, Part, Published

CLASS_NAMES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


def read(files: Mapping[str, Path], source: Published) -> Official:
    """The labelled images of STL-10.

    Raises:
        FormatError: the archive is broken, or holds another number of images than it should.
        MissingError: it lacks a file.
    """
    path = files["stl10_binary.tar.gz"]
    channels, height, width = source.stored
    counts = {"train": source.train, "test": source.test}
    sizes = {f"stl10_binary/{part}_X.bin": count * math.prod(source.stored) for part, count in counts.items()}
    sizes |= {f"stl10_binary/{part}_y.bin": count for part, count in counts.items()}
    content = members(path, sizes)
    for name, size in sizes.items():
        if len(content[name]) != size:
            raise foreign(path, f"{len(content[name]):,} bytes of {name}", f"{size:,}")

    def part(name: str) -> Part:
        columns = np.frombuffer(content[f"stl10_binary/{name}_X.bin"], np.uint8).reshape(-1, channels, width, height)
        labels = np.frombuffer(content[f"stl10_binary/{name}_y.bin"], np.uint8).astype(np.int32) - 1
        return Part(labels, columns.transpose(0, 1, 3, 2).__getitem__)

    return Official(part("train"), part("test"), CLASS_NAMES)
