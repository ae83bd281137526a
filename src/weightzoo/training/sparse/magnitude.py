"""Iterative magnitude pruning: when, and which weights (Han et al. 2015, arXiv 1506.02626)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from weightzoo.spec import Magnitude


def target(method: Magnitude, epoch: int, epochs: int) -> float | None:
    """The sparsity that is pruned to before epoch `epoch` (1 is the first) of `epochs`; None in most.

    The steps lie at equal distances, the first one before epoch 1.
    """
    steps = len(method.sparsities)
    starts = {1 + step * epochs // steps: sparsity for step, sparsity in enumerate(method.sparsities)}
    return starts.get(epoch)


def pruned(weights: np.ndarray, masks: np.ndarray, tensors: Sequence[slice], sparsity: float, scope: str) -> np.ndarray:
    """Masks uint8 `[M, P]` with the smallest weights dropped too, until `sparsity` of the prunable ones are.

    `tensors` are the parts of the weight vector float32 `[M, P]` that can be pruned; `scope` says whether the share
    holds for each of them (`layer`) or for all together (`network`). Dropped weights stay dropped, a NaN counts as
    largest, and of equal weights the earlier ones go first.
    """
    places = [np.arange(part.start, part.stop) for part in tensors]
    masks = masks.copy()
    for group in places if scope == "layer" else [np.concatenate(places)]:
        size = np.where(masks[:, group] == 0, -1.0, np.abs(weights[:, group]))
        smallest = np.argsort(size, axis=1, kind="stable")[:, : round(sparsity * len(group))]
        np.put_along_axis(masks, group[smallest], 0, axis=1)
    return masks
