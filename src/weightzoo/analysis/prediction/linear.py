"""The published protocol: ridge regression in closed form, and a linear softmax, both tuned on val."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from weightzoo.analysis.prediction.study import Splits

LAMBDAS = tuple(10.0**power for power in range(3, -6, -1))
_INVERSE_PENALTIES = (1e-3, 1e-1, 1e1)
_SOFTMAX_STEPS = 100
_FAR = 3.0


@dataclass(frozen=True)
class Standardised:
    """Features `[N, F]` of three splits, scaled by mean and deviation of train; what is not finite becomes the mean.

    What does not vary in train is 0 throughout. Values beyond `_FAR` deviations are cut off.
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray

    @classmethod
    def of(cls, features: Splits) -> Standardised:
        """Scale the features of the three splits."""
        train, val, test = features
        known = np.where(np.isfinite(train), train, np.nan).astype(np.float64)
        count = np.maximum(np.isfinite(known).sum(axis=0), 1)
        mean = np.nansum(known, axis=0) / count
        deviation = np.sqrt(np.nansum((known - mean) ** 2, axis=0) / count)
        varies = deviation > 1e-9 * np.maximum(np.abs(mean), 1e-6)
        scale = np.where(varies, 1 / np.where(varies, deviation, 1), 0)

        def scaled(values: np.ndarray) -> np.ndarray:
            return np.where(np.isfinite(values), np.clip((values - mean) * scale, -_FAR, _FAR), 0)

        return cls(scaled(train), scaled(val), scaled(test))

    @cached_property
    def _spectrum(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues and eigenvectors of the smaller of X^T X and X X^T of train, its mean taken off."""
        centred = self.train - self.train.mean(axis=0)
        wide = centred.shape[1] > centred.shape[0]
        values, vectors = np.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
        return values, vectors

    def ridge(self, penalty: float, target: np.ndarray) -> tuple[np.ndarray, float]:
        """Coefficients `[F]` and intercept that minimise |y - X w - b|^2 + penalty |w|^2 on train."""
        mean = self.train.mean(axis=0)
        centred, level = self.train - mean, target.mean()
        values, vectors = self._spectrum
        damped = 1 / (np.maximum(values, 0) + penalty)
        if centred.shape[1] > centred.shape[0]:
            weights = centred.T @ (vectors @ (damped * (vectors.T @ (target - level))))
        else:
            weights = vectors @ (damped * (vectors.T @ (centred.T @ (target - level))))
        return weights, float(level - mean @ weights)


def ridge(features: Standardised, train: np.ndarray, val: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predictions on val and test of the lambda from 1e3 to 1e-5 that does best on val.

    They are kept to the range of train: a line that is extended to weights unlike all of train gives accuracies of 4.
    """
    found: list[tuple[float, np.ndarray, np.ndarray]] = []
    for penalty in LAMBDAS:
        weights, level = features.ridge(penalty, train)
        on_val, on_test = (
            np.clip(own @ weights + level, train.min(), train.max()) for own in (features.val, features.test)
        )
        found.append((float(((on_val - val) ** 2).mean()), on_val, on_test))
    _, on_val, on_test = min(found, key=lambda one: one[0])
    return on_val, on_test


def softmax(features: Standardised, train: np.ndarray, val: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities `[N, classes]` on val and test of the linear softmax whose penalty does best on val."""
    models = [LogisticRegression(C=inverse, max_iter=_SOFTMAX_STEPS) for inverse in _INVERSE_PENALTIES]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is stopped early on purpose
        for model in models:
            model.fit(features.train, train)
    best = max(models, key=lambda model: model.score(features.val, val))
    return best.predict_proba(features.val), best.predict_proba(features.test)
