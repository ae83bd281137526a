"""Handwritten digits that come with scikit-learn, so that a first zoo needs no download.

1,797 images of 8x8 pixels with 16 grey levels (E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits",
UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49).
"""

from __future__ import annotations

import numpy as np

from weightzoo import seeds
from weightzoo.datasets.images import ImageData
from weightzoo.datasets.preprocess import fitted
from weightzoo.datasets.sources import SOURCES
from weightzoo.datasets.splits import split_counts
from weightzoo.spec import DatasetSpec

MAX_LEVEL = 16  # the grey levels are 0..16


def digits(name: str, spec: DatasetSpec) -> ImageData:
    """The digits, resized bilinearly to `spec.size`; by default 1,257 train, 180 val and 360 test images.

    The split is a permutation drawn from `spec.seed`. Test is the same 360 images, or the first of them, whatever
    `train` and `val` ask for, so that zoos trained on fewer images are compared on the same ones. Mean and deviation
    are the train images' own.

    Raises:
        SpecError: the counts ask for more images than there are.
    """
    source = SOURCES["digits"]
    levels, labels = _load()
    order = seeds.permutation(spec.seed, "split", size=len(labels))
    counts = split_counts(name, spec, pool=source.train, test=source.test, default_val=source.val)
    pool, train = order[source.test :], counts["train"]
    chosen = {
        "test": order[: counts["test"]],
        "train": pool[:train],
        "val": pool[train : train + counts["val"]],
    }
    grey = np.round(levels * (255 / MAX_LEVEL)).astype(np.uint8)[:, None]
    channels = spec.channels or source.channels
    pixels = fitted(grey, spec.size or source.size, channels)
    seen = pixels[chosen["train"]].astype(np.float64) / 255
    return ImageData(
        name=name,
        images={split: pixels[rows] for split, rows in chosen.items()},
        labels={split: labels[rows] for split, rows in chosen.items()},
        mean=(round(float(seen.mean()), 4),) * channels,
        std=(round(float(seen.std()), 4),) * channels,
        class_names=tuple(str(digit) for digit in range(10)),
        source="digits",
    )


def _load() -> tuple[np.ndarray, np.ndarray]:
    """Grey levels `[N, 8, 8]` in 0..16 and labels int32 `[N]`."""
    from sklearn.datasets import load_digits  # takes a second to import, which no reader of a zoo should pay

    bunch = load_digits()
    return np.asarray(bunch.images), np.asarray(bunch.target, np.int32)  # pyright: ignore[reportAttributeAccessIssue]
