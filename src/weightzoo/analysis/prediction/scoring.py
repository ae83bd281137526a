"""How well values are predicted, with intervals by the bootstrap over models: a model's states are drawn together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from weightzoo.analysis.weights import evenly

DRAWS = 1000
_MOST_STATES = 5000  # that each two of are compared for tau's interval


@dataclass(frozen=True)
class Estimate:
    """A score and its 95% bootstrap interval."""

    value: float
    low: float
    high: float


def regression_scores(
    truth: np.ndarray, predicted: np.ndarray, models: np.ndarray, rng: np.random.Generator
) -> dict[str, Estimate]:
    """R2, MAE and Kendall's tau-b of predictions `[N]` for states of `models [N]`.

    A model drawn k times counts k times with all its states. All three are functions of sums over models, or over pairs
    of models, so that a draw needs no more than its counts; tau's interval is from an even sample of the states if they
    are more than `_MOST_STATES`.

    References: Kendall 1945, "The treatment of ties in ranking problems".
    """
    _, of = np.unique(models, return_inverse=True)
    count = of.max() + 1
    draws = _draws(count, rng)
    error = predicted - truth
    size, total, square, squared_error, absolute = (
        np.bincount(of, values) for values in (np.ones(len(of)), truth, truth**2, error**2, np.abs(error))
    )

    def r2(counts: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1 - counts @ squared_error / (counts @ square - (counts @ total) ** 2 / (counts @ size))

    def mae(counts: np.ndarray) -> np.ndarray:
        return counts @ absolute / (counts @ size)

    tau: Any = kendalltau(truth, predicted)
    some = evenly(len(of), _MOST_STATES)
    agreement = _pairs(truth[some], predicted[some], of[some], count)
    everyone = np.ones((1, count))
    return {
        "R2": _estimate(r2(everyone)[0], r2(draws)),
        "MAE": _estimate(mae(everyone)[0], mae(draws)),
        "tau": _estimate(float(np.nan_to_num(tau.statistic)), _tau(draws, *agreement)),
    }


def classification_scores(
    truth: np.ndarray, predicted: np.ndarray, models: np.ndarray, rng: np.random.Generator
) -> dict[str, Estimate]:
    """The share of the states that is right."""
    _, of = np.unique(models, return_inverse=True)
    right, size = np.bincount(of, (truth == predicted).astype(float)), np.bincount(of)
    draws = _draws(len(size), rng)
    return {"accuracy": _estimate(right.sum() / size.sum(), draws @ right / (draws @ size))}


def _draws(models: int, rng: np.random.Generator) -> np.ndarray:
    """How often each model is drawn in each draw, float64 `[draws, models]`."""
    return rng.multinomial(models, np.full(models, 1 / models), DRAWS).astype(np.float64)


def _pairs(first: np.ndarray, second: np.ndarray, of: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
    """Of the pairs of states of each two models, `[M, M]`: agreeing less disagreeing, not tied in first, in second."""
    order = np.argsort(of, kind="stable")
    starts = np.searchsorted(of[order], np.arange(count))
    signs = [np.sign(values[order, None] - values[order]).astype(np.float32) for values in (first, second)]
    products = signs[0] * signs[1], signs[0] ** 2, signs[1] ** 2
    empty = np.bincount(of, minlength=count) == 0
    sums: list[np.ndarray] = []
    for product in products:
        own = np.add.reduceat(
            np.add.reduceat(product, np.minimum(starts, len(of) - 1), 0), np.minimum(starts, len(of) - 1), 1
        )
        own[empty], own[:, empty] = 0, 0
        sums.append(own.astype(np.float64))
    return tuple(sums)


def _tau(counts: np.ndarray, agreement: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    total, untied, others = (((counts @ matrix) * counts).sum(axis=1) for matrix in (agreement, first, second))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((untied > 0) & (others > 0), total / np.sqrt(untied * others), 0.0)


def _estimate(value: float, drawn: np.ndarray) -> Estimate:
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, (0.025, 0.975)) if len(drawn) else (np.nan, np.nan)
    return Estimate(float(value), float(low), float(high))
