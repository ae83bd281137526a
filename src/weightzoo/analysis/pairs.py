"""Pairs of models: the mean of a measure `[M, M]` over kinds of pairs, and between the values of factors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from weightzoo.analysis.bootstrap import DRAWS, LEVEL
from weightzoo.analysis.factors import levels, varied_factors
from weightzoo.analysis.performance import finished
from weightzoo.analysis.results import Figure, Score
from weightzoo.analysis.weights import evenly
from weightzoo.errors import NotFoundError

if TYPE_CHECKING:
    from weightzoo.zoo import Zoo

ALL, SAME = "all pairs", "same hyperparameters"


def compared(zoo: Zoo, most: int) -> np.ndarray:
    """Int64 numbers of the finished models, of an even sample if they are more than `most`.

    Raises:
        NotFoundError: they are fewer than two.
    """
    done = np.flatnonzero(finished(zoo.models))
    if len(done) < 2:
        raise NotFoundError(f"needs two finished models, the zoo has {len(done)}")
    return done[evenly(len(done), most)]


def kinds(models: pd.DataFrame) -> dict[str, np.ndarray]:
    """Bool `[M, M]` by kind of pair: all, and if these are some but not all of them, seeds of one configuration."""
    groups = models["group"].to_numpy()
    each = ~np.eye(len(models), dtype=bool)
    same = (groups[:, None] == groups[None, :]) & each
    return {ALL: each, SAME: same} if same.any() and not (same == each).all() else {ALL: each}


def pair_mean(measure: np.ndarray, pairs: np.ndarray) -> float:
    """Mean of a symmetric measure `[M, M]` over the pairs that `pairs` has and where it is finite; NaN of none."""
    known = measure[pairs & np.isfinite(measure)]
    return float(known.mean()) if len(known) else np.nan


def pair_interval(measure: np.ndarray, pairs: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The 95% bootstrap interval of `pair_mean` over models; a model that is drawn twice is not paired with itself.

    A pair is no independent sample, since a model is in M - 1 of them (Snijders and Borgatti 1999, "Non-parametric
    standard errors and tests for network statistics").
    """
    known = pairs & np.isfinite(measure) & ~np.eye(len(measure), dtype=bool)
    drawn = rng.multinomial(len(measure), np.full(len(measure), 1 / len(measure)), DRAWS).astype(np.float64)
    total = np.einsum("dm,dm->d", drawn @ np.where(known, measure, 0.0), drawn)
    count = np.einsum("dm,dm->d", drawn @ known.astype(np.float64), drawn)
    means = total[count > 0] / count[count > 0]
    if not len(means):
        return np.nan, np.nan
    low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def pair_scores(
    measure: np.ndarray, models: pd.DataFrame, metric: str, seed: list[int], *, features: str = "", estimator: str = ""
) -> list[Score]:
    """The mean over each kind of pairs, with its interval."""
    scores: list[Score] = []
    for number, (kind, pairs) in enumerate(kinds(models).items()):
        interval = pair_interval(measure, pairs, np.random.default_rng([*seed, number]))
        mean = pair_mean(measure, pairs)
        scores.append(Score(kind, metric, mean, *interval, features=features, estimator=estimator, models=len(models)))
    return scores


def between_levels(measure: np.ndarray, models: pd.DataFrame, name: str) -> pd.DataFrame:
    """The mean between and within the values of each factor: columns one_model, other_model, pairs and `name`."""
    rows: list[dict[str, object]] = []
    for factor in varied_factors(models):
        of_model = levels(models, factor)
        codes, labels = np.asarray(of_model.codes), [f"{factor} {label}" for label in of_model.categories]
        each = ~np.eye(len(models), dtype=bool) & np.isfinite(measure)
        for row, first in enumerate(labels):
            for column, second in enumerate(labels):
                pairs = (codes == row)[:, None] & (codes == column)[None, :] & each
                count = int(pairs.sum()) // (2 if row == column else 1)
                rows.append(
                    {"one_model": first, "other_model": second, "pairs": count, name: pair_mean(measure, pairs)}
                )
    return pd.DataFrame(rows, columns=pd.Index(["one_model", "other_model", "pairs", name]))


def between_figure(name: str) -> Figure:
    """How the table of `between_levels`, called `between_values`, is drawn."""
    title = "Between the values of each factor"
    words = name.replace("_", " ")
    caption = f"Mean {words} of two models with these values, whatever else differs; on the diagonal, with the same."
    return Figure("matrix", "between_values", title, caption, "one_model", "other_model", name)


def sampled_pairs(pairs: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """At most `count` of the pairs, drawn without replacement: int64 `[N, 2]`, the lower number first."""
    there = np.argwhere(np.triu(pairs, 1))
    if len(there) <= count:
        return there
    return there[np.sort(rng.choice(len(there), count, replace=False))]
