"""SVHN's format (http://ufldl.stanford.edu/housenumbers): MATLAB files of images `X` [32, 32, 3, N] and labels `y`.

SciPy checks little of what stands in such a file, down to type numbers that make it read beyond its own tables. So the
shapes are looked at before the arrays are read, and a file gets here only if its checksum is that of the published one.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from weightzoo.datasets.readers.bounded import foreign
from weightzoo.datasets.record import Official, Part, Published


def read(files: Mapping[str, Path], source: Published) -> Official:
    """SVHN's cropped digits; its label 10 is the digit 0.

    Raises:
        FormatError: a file is no MATLAB file, or holds other arrays than it should.
    """
    train = _part(files["train_32x32.mat"], source.train, source)
    return Official(train, _part(files["test_32x32.mat"], source.test, source), tuple("0123456789"))


def _part(path: Path, count: int, source: Published) -> Part:
    from scipy.io import loadmat, whosmat  # takes a while to import, which no reader of a zoo should pay
    from scipy.io.matlab import MatReadError

    channels, height, width = source.stored
    expected = {"X": (height, width, channels, count), "y": (count, 1)}
    try:
        shapes = {name: tuple(shape) for name, shape, _ in whosmat(path)}  # reads the headers alone
        content = loadmat(path, variable_names=list(expected)) if shapes == expected else {}
    except (
        MatReadError,
        NotImplementedError,
        OSError,
        zlib.error,
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        raise foreign(path, f"no MATLAB file that can be read ({error})", f"arrays {_listed(expected)}") from None
    if not content:
        raise foreign(path, f"arrays {_listed(shapes)}", _listed(expected))
    images, labels = np.asarray(content["X"]), np.asarray(content["y"])
    if images.dtype != np.uint8 or labels.dtype.kind not in "ui":
        raise foreign(path, f"images of {images.dtype}, labels of {labels.dtype}", "unsigned bytes")
    digits = labels[:, 0].astype(np.int32)
    digits[digits == 10] = 0
    return Part(digits, images.transpose(3, 2, 0, 1).__getitem__)


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items())) or "none"
