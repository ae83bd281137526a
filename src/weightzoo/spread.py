"""Some members of a grid that stand for all of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from weightzoo import seeds

CANDIDATES = 4096  # places that are compared for each choice, so that time grows with the number of choices alone


def spread(lengths: Sequence[int], count: int, seed: int) -> list[int]:
    """`count` places of a grid with axes of these lengths, ascending, as positions in its order (last axis fastest).

    Each choice takes the place whose values, and pairs of values, were chosen least often before, measured by how often
    they should come up; of several the first in an order drawn from `seed`. So the values of each axis come up about
    equally often, and no two axes move together, as they would at regular distances. A smaller choice is part of a
    larger one.
    """
    order = seeds.permutation(seed, "spread", size=math.prod(lengths))
    window, later = order[:CANDIDATES].copy(), iter(order[CANDIDATES:])
    rank = np.arange(len(window))  # of the candidates in the order
    values = _values(window, lengths)
    sizes = [*lengths, *(a * b for a, b in itertools.combinations(lengths, 2))]
    costs = [np.zeros(size, np.int64) for size in sizes]
    chosen: list[int] = []
    for turn in range(count):
        cost = np.sum([own[row] for own, row in zip(costs, values, strict=True)], axis=0)
        best = int(np.lexsort((rank, cost))[0])
        chosen.append(int(window[best]))
        for own, size, value in zip(costs, sizes, values[:, best], strict=True):
            own[value] += size
        following = next(later, None)
        if following is None:
            rank, window, values = (np.delete(array, best, axis=-1) for array in (rank, window, values))
        else:
            rank[best], window[best] = CANDIDATES + turn, following
            values[:, best] = _values(following, lengths)
    return sorted(chosen)


def _values(places: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """The value of places on each axis and, as one number, on each pair of axes: `[axes + pairs, places]`."""
    values = np.unravel_index(places, lengths)
    pairs = (values[a] * lengths[b] + values[b] for a, b in itertools.combinations(range(len(lengths)), 2))
    return np.stack([*values, *pairs])
