"""Statistics of the weights of each parameter: s(W), and more of the same kind."""

from __future__ import annotations

import numpy as np

from weightzoo.analysis.features.states import Batch

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)
MORE_QUANTILES = (0.0, 0.05, 0.1, 0.4, 0.6, 0.9, 0.95, 1.0)
_TINY = 1e-12


def statistics(batch: Batch) -> dict[str, np.ndarray]:
    """s(W): mean, variance and five percentiles of each weight tensor and each bias, 7 columns a parameter.

    Percentiles are interpolated linearly, the variance is that of the population.

    References: Unterthiner et al. 2020, "Predicting Neural Network Accuracy from Weights", arXiv 2002.11448, section 3.
    """
    columns: dict[str, np.ndarray] = {}
    for name in batch.zoo.layout.names:
        values = batch.weights[:, batch.zoo.layout.span(name)]
        mean, centred = _centred(values)
        columns[f"{name}.mean"] = mean
        columns[f"{name}.variance"] = np.einsum("np,np->n", centred, centred) / values.shape[1]
        columns |= _quantiles(name, values, QUANTILES)
    return columns


def more_statistics(batch: Batch) -> dict[str, np.ndarray]:
    """Of each parameter: more quantiles, log standard deviation, skewness, excess kurtosis, mean size, share near 0.

    A parameter whose entries are all alike has skewness and kurtosis 0.
    """
    columns: dict[str, np.ndarray] = {}
    for name in batch.zoo.layout.names:
        values = batch.weights[:, batch.zoo.layout.span(name)]
        mean, centred = _centred(values)
        size = np.abs(values)
        deviation = np.sqrt(np.einsum("np,np->n", centred, centred) / values.shape[1])
        scaled = centred / np.maximum(deviation, _TINY)[:, None]
        square = scaled * scaled
        varies = deviation > 1e-6 * np.abs(mean) + _TINY
        columns[f"{name}.log_deviation"] = np.log10(np.maximum(deviation, _TINY))
        columns[f"{name}.skewness"] = np.where(varies, np.einsum("np,np->n", square, scaled) / values.shape[1], 0)
        columns[f"{name}.kurtosis"] = np.where(varies, np.einsum("np,np->n", square, square) / values.shape[1] - 3, 0)
        columns[f"{name}.mean_size"] = size.mean(axis=1)
        for bound in (1e-3, 1e-2):
            columns[f"{name}.below_{bound:g}"] = (size < bound).mean(axis=1)
        columns |= _quantiles(name, values, MORE_QUANTILES)
    return columns


def _centred(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = values.mean(axis=1, dtype=np.float64)
    return mean, values - mean.astype(np.float32)[:, None]


def _quantiles(name: str, values: np.ndarray, shares: tuple[float, ...]) -> dict[str, np.ndarray]:
    ordered = np.sort(values, axis=1)
    places = np.asarray(shares) * (values.shape[1] - 1)
    low = np.floor(places).astype(int)
    below, above = ordered[:, low], ordered[:, np.minimum(low + 1, values.shape[1] - 1)]
    found = below + (above - below) * (places - low)
    return {f"{name}.q{100 * share:g}": found[:, index] for index, share in enumerate(shares)}
