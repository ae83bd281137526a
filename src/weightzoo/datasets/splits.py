"""How many images of the training pool go to the train and the val split."""

from __future__ import annotations

from weightzoo.errors import SpecError
from weightzoo.spec import DatasetSpec


def train_and_val_counts(name: str, spec: DatasetSpec, pool: int, default_val: int) -> tuple[int, int]:
    """The sizes of train and val, drawn from `pool` images; the test split is never part of the pool.

    Without `train`, the split takes what val leaves; without `val`, val takes `default_val` images or what train
    leaves, whichever is less. Images may be left over when both are given.

    Raises:
        SpecError: the counts ask for more than `pool` images, or leave none for one of the splits.
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
    return train, val
