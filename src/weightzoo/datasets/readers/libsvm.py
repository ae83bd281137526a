"""USPS's format (https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets): lines `label index:value ...` in bz2, labels
from 1, an index for each pixel from 1, values from -1 to 1."""

from __future__ import annotations

import bz2
import io
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from weightzoo.datasets.readers.bounded import foreign, read_at_most
from weightzoo.datasets.record import Official, Part, Published

MAX_BYTES_A_PIXEL = 32  # of text


def read(files: Mapping[str, Path], source: Published) -> Official:
    """USPS; its label 1 is the digit 0.

    Raises:
        FormatError: a file is no bz2 of such lines, or holds another number of images than it should.
    """
    train = _part(files["usps.bz2"], source.train, source)
    return Official(train, _part(files["usps.t.bz2"], source.test, source), tuple("0123456789"))


def _part(path: Path, count: int, source: Published) -> Part:
    from sklearn.datasets import load_svmlight_file  # takes a second to import, which no reader of a zoo should pay

    pixels = math.prod(source.stored)
    with bz2.open(path) as stream:
        text = read_at_most(stream, path, (count * pixels + count) * MAX_BYTES_A_PIXEL)
    try:
        sparse, labels = load_svmlight_file(io.BytesIO(text), n_features=pixels, zero_based=False)[:2]  # pyright: ignore[reportArgumentType]
    except (ValueError, OverflowError) as error:
        raise foreign(path, f"no lines `label index:value` ({error})", f"{count:,} images of {pixels} pixels") from None
    if len(labels) != count:
        raise foreign(path, f"{len(labels):,} images", f"{count:,}")
    values = np.asarray(sparse.todense(), np.float32)
    if not (np.abs(values) <= 1).all():
        raise foreign(path, f"pixels from {values.min()} to {values.max()}", "-1 to 1")
    images = (
        ((values + 1) / 2 * 255).astype(np.uint8).reshape(count, *source.stored)
    )  # rounded down, like torchvision's
    return Part(np.asarray(labels, np.int32) - 1, images.__getitem__)
