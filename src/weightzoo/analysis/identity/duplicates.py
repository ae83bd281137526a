"""Models with equal weights, also where one has its units in another order."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import numpy as np

from weightzoo.analysis.alignment import match_weights
from weightzoo.zoo.permute import Symmetries

_STARTS = 4


def duplicates(symmetries: Symmetries, weights: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """Groups of rows of `weights [M, P]` that are equal in every bit, once the units of one are put in another order.

    A reordering leaves the values of each parameter what they are, so only models with the same ones are aligned. Rows
    that are not finite are left out.
    """
    alike: dict[bytes, list[int]] = defaultdict(list)
    for row, vector in enumerate(weights):
        if np.isfinite(vector).all():
            digest = hashlib.blake2b(digest_size=16)
            for tensor in symmetries.layout.unflatten(vector).values():
                digest.update(np.sort(tensor, axis=None).tobytes())
            alike[digest.digest()].append(row)
    found: list[tuple[int, ...]] = []
    for rows in alike.values():
        left = rows
        while len(left) > 1:
            first, others = left[0], left[1:]
            moved = match_weights(symmetries, weights[first], weights[others], starts=_STARTS).apply(weights[others])
            same = (moved == weights[first]).all(axis=1) | (weights[others] == weights[first]).all(axis=1)
            if same.any():
                found.append((first, *(row for row, is_same in zip(others, same, strict=True) if is_same)))
            left = [row for row, is_same in zip(others, same, strict=True) if not is_same]
    return tuple(sorted(found))
