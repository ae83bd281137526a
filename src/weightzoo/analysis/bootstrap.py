"""Intervals by the bootstrap over models."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

DRAWS = 1000
LEVEL = 0.95


def bootstrap(
    values: np.ndarray, statistic: Callable[..., np.ndarray], rng: np.random.Generator, draws: int = DRAWS
) -> tuple[float, float]:
    """The 95% percentile interval of `statistic(values)`, models drawn with replacement.

    `values` has a row a model, `[N]` or `[N, K]`. `statistic` takes `[draws, N]` or `[draws, N, K]` and `axis=1`, the
    axis of the models; draws for which it is not finite are left out, and both bounds are NaN if that leaves none.

    References: Efron 1979, "Bootstrap methods: another look at the jackknife".
    """
    picked = rng.integers(0, len(values), (draws, len(values)))
    found = np.asarray(statistic(values[picked], axis=1), np.float64)
    found = found[np.isfinite(found)]
    if not len(found):
        return np.nan, np.nan
    low, high = np.quantile(found, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)
