"""CIFAR's format (https://www.cs.toronto.edu/~kriz/cifar.html): pickled batches in a tar.gz, each a dictionary of
`data`, bytes [n, 3072] in the order of channel, row, column, and a list of labels; the classes' names in one more."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from weightzoo.datasets.readers.archive import members
from weightzoo.datasets.readers.bounded import foreign
from weightzoo.datasets.readers.unpickle import unpickle
from weightzoo.datasets.record import Official, Part, Published

BYTES_BESIDE_AN_IMAGE = 256  # its label, its file's name and what the pickle puts between them
BYTES_OF_NAMES = 100_000


def read_cifar10(files: Mapping[str, Path], source: Published) -> Official:
    """CIFAR-10.

    Raises:
        FormatError: the archive is broken, a pickle is no batch, or the number of images is another.
        MissingError: a file is not in the archive.
    """
    batches = tuple(f"data_batch_{number}" for number in range(1, 6))
    return _read(
        files, source, _Layout("cifar-10-batches-py", batches, "test_batch", "labels", "batches.meta", "label_names")
    )


def read_cifar100(files: Mapping[str, Path], source: Published) -> Official:
    """CIFAR-100 with its fine labels; raises like `read_cifar10`."""
    layout = _Layout("cifar-100-python", ("train",), "test", "fine_labels", "meta", "fine_label_names")
    return _read(files, source, layout)


class _Layout(NamedTuple):
    """Names of files, and of keys in them."""

    folder: str
    train: tuple[str, ...]
    test: str
    labels: str
    meta: str
    class_names: str


def _read(files: Mapping[str, Path], source: Published, layout: _Layout) -> Official:
    (path,) = files.values()
    limit = (math.prod(source.stored) + BYTES_BESIDE_AN_IMAGE) * max(source.train, source.test)
    limits = {f"{layout.folder}/{name}": limit for name in (*layout.train, layout.test)}
    content = members(path, limits | {f"{layout.folder}/{layout.meta}": BYTES_OF_NAMES})

    def opened(name: str) -> tuple[str, dict[str, Any]]:
        what = f"{path}: {layout.folder}/{name}"
        return what, unpickle(content.pop(f"{layout.folder}/{name}"), what)

    def part(names: tuple[str, ...], count: int) -> Part:
        batches = [_batch(*opened(name), layout.labels, source) for name in names]
        images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
        if len(images) != count:
            raise foreign(path, f"{len(images):,} images in {', '.join(names)}", f"{count:,}")
        return Part(labels, images.__getitem__)

    train, test = part(layout.train, source.train), part((layout.test,), source.test)
    what, meta = opened(layout.meta)
    class_names: object = meta.get(layout.class_names)
    if not isinstance(class_names, list) or len(class_names) != source.classes:
        raise foreign(what, f"no list `{layout.class_names}` of {source.classes}", "one")
    return Official(train, test, tuple(map(str, class_names)))


def _batch(what: str, batch: Mapping[str, Any], key: str, source: Published) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `[n, channels, height, width]` and labels int32 `[n]` of one pickle."""
    data: object = batch.get("data")
    labels: object = batch.get(key)
    if not isinstance(data, np.ndarray) or data.shape[1:] != (math.prod(source.stored),):
        raise foreign(what, f"no array `data` with {math.prod(source.stored)} bytes an image", "one")
    if not isinstance(labels, list) or len(labels) != len(data):
        raise foreign(what, f"no list `{key}` of {len(data):,} labels", "one")
    if not all(isinstance(label, int) and 0 <= label < source.classes for label in labels):
        raise foreign(what, f"`{key}` beyond 0 to {source.classes - 1}", "class numbers")
    return data.reshape(-1, *source.stored), np.array(labels, np.int32)
