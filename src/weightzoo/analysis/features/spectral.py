"""Spectra of the weight matrices: the shape of their tails, and norms."""

from __future__ import annotations

import numpy as np

from weightzoo.analysis.features.states import Batch

LEAST = 8  # eigenvalues, for a tail to be fitted
_ZERO = 1e-5  # of the largest: an eigenvalue below it is rounding
_TABLE_BYTES = 32 << 20


def spectral(batch: Batch) -> dict[str, np.ndarray]:
    """Of each weight tensor: alpha, its distance, alpha-weighted, log norms, stable rank, entropy; then the means.

    The spectrum is that of X = W^T W; of a convolution, those of all its kernel positions together, as `weightwatcher`
    has it. `alpha` is the exponent of the tail, NaN where fewer than `LEAST` eigenvalues are not zero; `alpha_weighted`
    is alpha times the log of the largest eigenvalue, `log_frobenius` the log10 of the squared norm, `log_spectral` that
    of the largest eigenvalue, `log_alpha` of the sum of all to the power alpha, `stable_rank` their ratio, `entropy`
    that of the spectrum over its largest possible.

    References: Martin & Mahoney 2021, "Implicit Self-Regularization in Deep Neural Networks", JMLR 22; Martin, Peng &
    Mahoney 2021, "Predicting trends in the quality of state-of-the-art neural networks", Nature Communications 12.
    """
    columns: dict[str, np.ndarray] = {}
    for name, shape in batch.zoo.layout.parameters:
        if len(shape) < 2:
            continue
        found = spectral_metrics(eigenvalues(batch.tensors[name]))
        columns |= {f"{name}.{metric}": values for metric, values in found.items()}
    metrics = dict.fromkeys(column.rpartition(".")[2] for column in columns)
    for metric in metrics:
        own = np.stack([values for column, values in columns.items() if column.endswith(f".{metric}")])
        known = np.isfinite(own)
        mean = np.where(known, own, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        columns[f"mean.{metric}"] = np.where(known.any(axis=0), mean, np.nan)
    return columns


def eigenvalues(tensors: np.ndarray) -> np.ndarray:
    """Of W^T W, ascending, float64 `[N, E]`, for weights `[N, out, in]` or `[N, out, in, height, width]`."""
    matrices = np.moveaxis(tensors.reshape(*tensors.shape[:3], -1), 3, 1).astype(np.float64)  # [N, positions, out, in]
    if matrices.shape[2] > matrices.shape[3]:
        matrices = matrices.swapaxes(2, 3)
    found = np.linalg.eigvalsh(matrices @ matrices.swapaxes(2, 3))
    return np.sort(np.maximum(found, 0).reshape(len(tensors), -1), axis=1)


def spectral_metrics(spectra: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics of spectra `[N, E]`, ascending; those of one that is all zero are NaN."""
    total, largest = spectra.sum(axis=1), spectra[:, -1]
    alpha, distance, _ = fit_power_law(spectra)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = spectra / total[:, None]
        entropy = -np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1)), 0).sum(axis=1)
        log_largest = np.log10(largest)
        scaled = (spectra / largest[:, None]) ** alpha[:, None]
        metrics = {
            "alpha": alpha,
            "distance": distance,
            "alpha_weighted": alpha * log_largest,
            "log_alpha": np.log10(scaled.sum(axis=1)) + alpha * log_largest,
            "log_frobenius": np.log10(total),
            "log_spectral": log_largest,
            "stable_rank": total / largest,
            "entropy": entropy / np.log(max(spectra.shape[1], 2)),
        }
    return {name: np.where(np.isfinite(values), values, np.nan) for name, values in metrics.items()}


def fit_power_law(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exponent, Kolmogorov-Smirnov distance and start of a power-law tail, each float64 `[N]`, of ascending `[N, E]`.

    p(x) ~ x^-alpha for x >= xmin. For every candidate xmin, alpha = 1 + n / sum(log(x / xmin)) over the n values from
    it on (maximum likelihood, equation 3.1); that xmin is taken whose fitted distribution is nearest the empirical one
    (section 3.3). Values below 1e-5 of the largest are left out. NaN where fewer than `LEAST` are left.

    References: Clauset, Shalizi & Newman 2009, "Power-law distributions in empirical data", SIAM Review 51.
    """
    count = values.shape[1]
    result = np.full((3, len(values)), np.nan)
    if count < LEAST:
        return result[0], result[1], result[2]
    step = max(1, _TABLE_BYTES // (8 * count * count))
    for start in range(0, len(values), step):
        result[:, start : start + step] = _fit(values[start : start + step])
    return result[0], result[1], result[2]


def _fit(values: np.ndarray) -> np.ndarray:
    number, count = values.shape
    usable = values > _ZERO * np.maximum(values[:, -1:], 1e-300)
    log = np.log(np.where(usable, values, 1.0))
    sizes = np.arange(count, 0, -1)
    above = np.cumsum(log[:, ::-1], axis=1)[:, ::-1] - sizes * log  # sum of log(x / xmin) over the tail
    best = np.full((3, number), np.nan)
    best[1] = np.inf
    enough = usable.sum(axis=1) >= LEAST
    for first in range(count - 1):
        here = enough & usable[:, first] & (above[:, first] > 1e-12 * sizes[first])
        if not here.any():
            continue
        alpha = 1 + np.where(here, sizes[first] / np.where(here, above[:, first], 1), 0)
        fitted = 1 - np.exp((1 - alpha)[:, None] * (log[:, first:] - log[:, first, None]))
        distance = np.abs(fitted - np.arange(sizes[first]) / sizes[first]).max(axis=1)
        better = here & (distance < best[1])
        best[:, better] = np.stack([alpha, distance, values[:, first]])[:, better]
    best[:, ~np.isfinite(best[1])] = np.nan
    return best
