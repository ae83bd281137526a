"""How many images go to the train, val and test split, and which."""

from __future__ import annotations

import numpy as np

from weightzoo import seeds
from weightzoo.errors import SpecError
from weightzoo.spec import DatasetSpec


def split_counts(name: str, spec: DatasetSpec, *, pool: int, test: int, default_val: int) -> dict[str, int]:
    """The sizes of the splits: train and val share `pool` images, test has `test` of its own.

    Without `train`, the split takes what val leaves; without `val`, val takes `default_val` images or what train
    leaves, whichever is less; without `test`, test has all of its images. Images may be left over otherwise.

    Raises:
        SpecError: the counts ask for more images than there are, or leave none for one of the splits.
    """
    if spec.train is None:
        val = default_val if spec.val is None else spec.val
        train = pool - val
    else:
        train = spec.train
        val = min(default_val, pool - train) if spec.val is None else spec.val
    if train < 1 or val < 1 or train + val > pool:
        given = ", ".join(f"{key}: {value}" for key, value in (("train", spec.train), ("val", spec.val)) if value)
        raise SpecError(f"datasets.{name}: {given} does not fit; train and val share {pool} images, at least one each")
    if spec.test is not None and spec.test > test:
        raise SpecError(f"datasets.{name}: test: {spec.test} does not fit; there are {test} test images")
    return {"train": train, "val": val, "test": spec.test or test}


def official_split(spec: DatasetSpec, counts: dict[str, int], *, pool: int, test: int) -> dict[str, np.ndarray]:
    """The rows of each split: train and val of the official training set, test of the official test set.

    Val and then train take their images from one permutation, and fewer test images are a part of more of them: so zoos
    on fewer images are compared on the same ones. All test images stay in the official order.
    """
    drawn = seeds.permutation(spec.seed, "split", size=pool)
    shown = np.sort(seeds.permutation(spec.seed, "test", size=test)[: counts["test"]])
    return {"train": drawn[counts["val"] :][: counts["train"]], "val": drawn[: counts["val"]], "test": shown}
