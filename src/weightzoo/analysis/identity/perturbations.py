"""What may happen to a checkpoint before somebody asks where it is from."""

from __future__ import annotations

import numpy as np

from weightzoo.architectures import Architecture
from weightzoo.layout import Layout
from weightzoo.zoo.permute import Symmetries


def noisy(layout: Layout, weights: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Weights float32 `[N, P]` with normal noise, its deviation a `share` of that of the parameter's own values.

    Of a parameter with one value only, of the size of that. Means and variances of batch normalisation stay.
    """
    changed = np.array(weights, np.float32)
    for name, tensor in layout.unflatten(changed).items():
        if name not in layout.buffers:
            axes = tuple(range(1, tensor.ndim))
            spread = tensor.std(axis=axes, keepdims=True, dtype=np.float64)
            size = np.abs(tensor).mean(axis=axes, keepdims=True, dtype=np.float64)
            spread = np.where(spread > 0, spread, size)
            tensor += (share * spread * rng.standard_normal(tensor.shape)).astype(np.float32)
    return changed


def pruned(architecture: Architecture, weights: np.ndarray, share: float) -> np.ndarray:
    """Weights float32 `[N, P]` with the smallest `share` of each network's prunable weights at zero.

    The smallest of the whole network (Han, Pool, Tran and Dally 2015, "Learning both Weights and Connections for
    Efficient Neural Networks"); biases and batch normalisation stay.
    """
    changed = np.array(weights, np.float32)
    spans = [architecture.layout.span(name) for name in architecture.prunable]
    own = np.concatenate([changed[:, span] for span in spans], axis=1)
    count = round(share * own.shape[1])
    dropped = np.argsort(np.abs(own), axis=1, kind="stable")[:, :count]
    np.put_along_axis(own, dropped, 0, axis=1)
    start = 0
    for span in spans:
        changed[:, span] = own[:, start : start + span.stop - span.start]
        start += span.stop - span.start
    return changed


def shuffled(symmetries: Symmetries, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Weights `[N, P]`, each network's units in a random order of its own: they compute what they did."""
    orders = ({group.name: rng.permutation(group.size) for group in symmetries} for _ in weights)
    return np.stack([own[symmetries.index(order)] for own, order in zip(weights, orders, strict=True)])
