"""How well predictions are: R², mean absolute error and Kendall's tau, each with a bootstrap over the models."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from weightzoo.analysis.bootstrap import DRAWS, LEVEL, bootstrap
from weightzoo.analysis.results import Score

Measure = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def r2(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """1 - SS_residual / SS_total of `[N]` models, counted as often as each row of `weights [B, N]` says: `[B]`.

    NaN where all counted models have the same truth.
    """
    total = weights.sum(1)
    mean = weights @ truth / total
    spread = weights @ truth**2 - total * mean**2
    with np.errstate(divide="ignore", invalid="ignore"):
        found = 1 - weights @ (truth - predicted) ** 2 / spread
    return np.where(spread > 1e-12 * total, found, np.nan)


def mae(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean absolute error, as of `r2`."""
    return weights @ np.abs(truth - predicted) / weights.sum(1)


def kendall_tau(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Kendall's tau-b, as of `r2`: two copies of a model are a tie in both, as in any resample.

    References: Kendall 1945, "The treatment of ties in ranking problems".
    """
    one, other = (np.sign(np.subtract.outer(values, values)) for values in (truth, predicted))

    def pairs(signs: np.ndarray) -> np.ndarray:
        return np.einsum("bn,bn->b", weights @ signs, weights)

    with np.errstate(divide="ignore", invalid="ignore"):
        return pairs(one * other) / np.sqrt(pairs(one**2) * pairs(other**2))


MEASURES: dict[str, Measure] = {"R2": r2, "MAE": mae, "Kendall tau": kendall_tau}


def interval(values: np.ndarray) -> tuple[float | None, float | None]:
    """The central 95% of `values [B]`, those that are NaN apart; None if there are none."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None, None
    low, high = np.quantile(finite, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def resamples(count: int, rng: np.random.Generator, draws: int = DRAWS) -> np.ndarray:
    """How often each of `count` models is drawn, float64 `[draws, count]`, for a bootstrap by weights."""
    return rng.multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)


def scores(
    target: str,
    truth: np.ndarray,
    predicted: np.ndarray,
    rng: np.random.Generator,
    *,
    features: str = "",
    estimator: str = "",
    metrics: Iterable[str] = tuple(MEASURES),
    models: np.ndarray | None = None,
) -> tuple[Score, ...]:
    """The scores of N predictions, both float64 `[N]`, with 95% intervals. Those that are NaN are left out.

    One resampling serves all metrics. Where several predictions are of one model, `models [N]` says of which, and
    whole models are resampled.
    """
    truth, predicted = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    numbers = np.arange(len(truth)) if models is None else np.unique(models, return_inverse=True)[1]
    every, drawn = np.ones((1, len(truth))), resamples(int(numbers.max()) + 1, rng)[:, numbers]
    made: list[Score] = []
    for name in metrics:
        value = float(MEASURES[name](truth, predicted, every)[0])
        if np.isfinite(value):
            low, high = interval(MEASURES[name](truth, predicted, drawn))
            made.append(Score(target, name, value, low, high, features, estimator, int(numbers.max()) + 1))
    return tuple(made)


def mean_score(
    target: str,
    metric: str,
    values: np.ndarray,
    rng: np.random.Generator,
    *,
    features: str = "",
    estimator: str = "",
) -> Score:
    """The mean of `values [N]` with its bootstrap interval."""
    values = np.asarray(values, np.float64)
    low, high = bootstrap(values, np.mean, rng)
    return Score(target, metric, float(values.mean()), low, high, features, estimator, len(values))
