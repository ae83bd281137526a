"""What a caller may say to choose models and epochs, as plain numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from weightzoo.checkpoints import ranges
from weightzoo.errors import NotFoundError

Models = int | slice | Sequence[int] | Sequence[bool] | np.ndarray | pd.Series
Epochs = int | slice | Iterable[int]


def model_numbers(models: Models, count: int) -> np.ndarray:
    """Int64 numbers below `count` from a number (negative from the end), a slice, a list of numbers or a boolean mask.

    Raises:
        NotFoundError: a number is out of range, or the choice is none of these.
    """
    if isinstance(models, slice):
        return np.arange(count)[models]
    chosen = np.atleast_1d(np.asarray(models))
    if chosen.size == 0:
        return np.empty(0, np.int64)
    if chosen.dtype == bool:
        if chosen.shape != (count,):
            raise NotFoundError(f"the mask has {chosen.size} entries for {count} models")
        return np.flatnonzero(chosen)
    if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer):
        raise NotFoundError(f"models are numbers from 0 to {count - 1}, a mask or a slice; got {models!r:.60}")
    outside = chosen[(chosen < -count) | (chosen >= count)]
    if len(outside):
        raise NotFoundError(f"no model {outside[0]}; there are {count}, numbered from 0")
    return np.where(chosen < 0, chosen + count, chosen).astype(np.int64)


def epoch_numbers(epochs: Epochs | None, kept: tuple[int, ...], zoo: str) -> list[int]:
    """The epochs that were chosen, all of them kept; a slice means the kept ones among its epoch numbers.

    Raises:
        NotFoundError: an epoch was not kept; the message names those that were.
    """
    if epochs is None:
        return list(kept)
    if isinstance(epochs, slice):
        wanted = range(kept[-1] + 1)[epochs]
        return [epoch for epoch in kept if epoch in wanted]
    given = [epochs] if isinstance(epochs, int | np.integer) else list(epochs)
    missing = [epoch for epoch in given if epoch not in kept]
    if missing:
        raise NotFoundError(f"the zoo {zoo} does not hold epoch {missing[0]}; it holds {ranges(kept)}")
    return [int(epoch) for epoch in given]
