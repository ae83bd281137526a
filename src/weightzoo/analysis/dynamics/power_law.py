"""The power law of learning curves, fitted to many curves at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EXPONENTS = np.geomspace(1e-2, 10, 61)
REFINEMENTS = 6  # each narrows the exponent eightfold
FEWEST_POINTS = 3  # as many as parameters


@dataclass(frozen=True)
class PowerLaw:
    """`c - a x^-alpha` of each of N curves: float64 `[N]` each."""

    c: np.ndarray
    a: np.ndarray
    alpha: np.ndarray

    def at(self, x: float) -> np.ndarray:
        """The curves at `x` > 0, `[N]`."""
        return self.c - self.a * x**-self.alpha


def fit_pow3(x: np.ndarray, y: np.ndarray) -> PowerLaw:
    """The least-squares fit of pow3, `c - a x^-alpha`, to the curves `y [N, K]` at `x [K]` > 0.

    c and a are the linear regression on x^-alpha, so that the search is one over alpha alone (variable projection): a
    grid from 0.01 to 10, then finer ones about its best point.

    References: Domhan, Springenberg, Hutter 2015, "Speeding up automatic hyperparameter optimization of deep neural
    networks by extrapolation of learning curves", table 1; Viering, Loog 2021, "The shape of learning curves: a
    review", arXiv 2103.10948; Golub, Pereyra 1973 (variable projection).

    Raises:
        ValueError: there are fewer than three points.
    """
    if len(x) < FEWEST_POINTS:
        raise ValueError(f"{len(x)} points, pow3 has {FEWEST_POINTS} parameters")
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    exponents = np.broadcast_to(EXPONENTS, (len(y), len(EXPONENTS)))
    step = np.log(EXPONENTS[1] / EXPONENTS[0])
    fitted = _best(x, y, exponents)
    for _ in range(REFINEMENTS):
        near = np.exp(np.log(fitted.alpha)[:, None] + np.linspace(-step, step, 17))
        fitted = _best(x, y, np.clip(near, EXPONENTS[0], EXPONENTS[-1]))
        step /= 8
    return fitted


def _best(x: np.ndarray, y: np.ndarray, exponents: np.ndarray) -> PowerLaw:
    """The best of the exponents `[N, G]` of each curve, with its regression."""
    basis = x ** -exponents[:, :, None]  # [N, G, K]
    centred, target = basis - basis.mean(2, keepdims=True), y - y.mean(1, keepdims=True)
    slope = np.einsum("ngk,nk->ng", centred, target) / np.maximum((centred**2).sum(2), 1e-300)
    error = ((target[:, None] - slope[:, :, None] * centred) ** 2).sum(2)
    rows, best = np.arange(len(y)), error.argmin(1)
    slope, alpha = slope[rows, best], exponents[rows, best]
    return PowerLaw(y.mean(1) - slope * basis[rows, best].mean(1), -slope, alpha)
