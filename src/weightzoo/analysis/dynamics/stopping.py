"""What early stopping, successive halving and Hyperband would have saved in a zoo, and at what price."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from weightzoo.analysis.dynamics.extrapolation import evidence_of
from weightzoo.analysis.dynamics.halving import (
    Choice,
    Judge,
    early_stopping,
    full_training,
    hyperband,
    random_search,
    rungs,
    successive_halving,
)
from weightzoo.analysis.dynamics.measures import mean_score
from weightzoo.analysis.dynamics.prediction import fitted, last_epoch, train_and_test
from weightzoo.analysis.performance import finished, metric_matrix
from weightzoo.analysis.results import Context, Figure, Result, Score
from weightzoo.errors import NotFoundError

if TYPE_CHECKING:
    from weightzoo.zoo import Zoo

METHOD, _KEY = "stopping", 6201
SUBSETS, SUBSETS_QUICK = 1000, 200
SUBSET = 27  # models that a search starts with: three rungs of a third each
REDUCTIONS = (2, 3, 4)
PATIENCES = (1, 2, 3, 5, 10, 20)
FEWEST_MODELS, FEWEST_EPOCHS = 8, 4
THIRDS, ONE = "successive halving, 1/3 go on", "only the best behind epoch 1 goes on"
RANDOM = "random search at the cost of halving by 3"
CUTS = {THIRDS: 3, ONE: SUBSET}  # which shares go on where weights have a say
UNSEEN, BY_WEIGHTS = " (unseen models)", ", by weights"


@dataclass(frozen=True)
class Outcome:
    """What a strategy of search comes to, as means over subsets of models with their 95% intervals."""

    strategy: str
    regret: float
    regret_low: float
    regret_high: float
    saved: float
    saved_low: float
    saved_high: float
    found_the_best: float  # the share of the subsets in which it did
    subsets: int
    models: int  # of a subset


def replay_stopping(zoo: Zoo, context: Context) -> Result:
    """Regret and epochs saved of stopping strategies, replayed on many random subsets of the zoo's finished models.

    The regret of a search is how much lower the final validation accuracy of the model that it takes is than that of
    the best model of the subset; its saving is the share of the epochs of full training that it does without. Random
    search at the cost of halving by three is the yardstick. Halving by extrapolation judges models by their final
    accuracy as predicted from weights and metrics; it is replayed on models of the val and test splits only, beside
    plain halving on the same subsets, since it is fitted on the train split.

    Early stopping is of single models: its regret is the test accuracy lost against the epoch of the best validation
    accuracy of the whole training.

    Raises:
        NotFoundError: the zoo has too few finished models, or epochs.
    """
    last = last_epoch(zoo)
    done = np.flatnonzero(finished(zoo.models))
    if len(done) < FEWEST_MODELS or last < FEWEST_EPOCHS:
        raise NotFoundError(
            f"zoo {zoo.name} has {len(done)} finished models of {last} epochs; stopping is replayed on at least "
            f"{FEWEST_MODELS} of {FEWEST_EPOCHS}"
        )
    curves, test = (metric_matrix(zoo, name).to_numpy() for name in ("val_accuracy", "test_accuracy"))
    rng = np.random.default_rng([context.seed, _KEY])
    searches = _searches(curves, done, context, rng)
    context.on_progress(1, 3)
    with contextlib.suppress(NotFoundError):  # too few models to fit on: plain halving is all that can be said
        searches += _searches_by_weights(zoo, curves, context, rng)
    context.on_progress(2, 3)
    patience = _patience(curves[done], test[done], rng)
    context.on_progress(3, 3)
    table = pd.DataFrame([vars(one) for one in searches])
    found: list[Score] = []
    for one in searches:
        found += [
            Score(one.strategy, "regret", one.regret, one.regret_low, one.regret_high, models=one.models),
            Score(one.strategy, "share of epochs saved", one.saved, one.saved_low, one.saved_high, models=one.models),
            Score(one.strategy, "share of best models found", one.found_the_best, models=one.models),
        ]
    for row in patience.to_dict("records"):
        stop = f"early stopping, patience {row['patience']:.0f}"
        found += [
            Score(stop, "regret", row["regret"], row["low"], row["high"], models=len(done)),
            Score(stop, "share of epochs saved", row["saved"], row["saved_low"], row["saved_high"], models=len(done)),
        ]
    return Result(
        METHOD,
        "Early stopping and successive halving replayed",
        _summary(table, patience),
        tuple(found),
        {"searches": table, "patience": patience},
        (
            Figure(
                "bars",
                "searches",
                "Searches: accuracy lost",
                f"Validation accuracy of the model taken, below that of the best; means over random subsets of up to "
                f"{SUBSET} models.",
                "strategy",
                "regret",
                low="regret_low",
                high="regret_high",
            ),
            Figure(
                "bars",
                "searches",
                "Searches: epochs saved",
                "As a share of those of training all models of the subset in full.",
                "strategy",
                "saved",
                low="saved_low",
                high="saved_high",
            ),
            Figure(
                "points",
                "patience",
                "Early stopping: accuracy lost against epochs saved",
                "Means over all models; regret in test accuracy against the best epoch of the whole training.",
                "saved",
                "regret",
                "patience",
                "low",
                "high",
            ),
        ),
        (
            "Jamieson, Talwalkar 2016, Non-stochastic best arm identification and hyperparameter optimization, "
            "arXiv 1502.07943",
            "Li et al. 2018, Hyperband: a novel bandit-based approach to hyperparameter optimization, arXiv 1603.06560",
            "Prechelt 1998, Early stopping - but when?",
        ),
    )


def _subsets(rows: np.ndarray, context: Context, rng: np.random.Generator) -> np.ndarray:
    """Random subsets of models, each in random order: `[S, n]`."""
    size = min(SUBSET, len(rows) // 2)
    count = SUBSETS_QUICK if context.quick else SUBSETS
    return np.stack([rng.permutation(rows)[:size] for _ in range(count)])


def _searches(curves: np.ndarray, rows: np.ndarray, context: Context, rng: np.random.Generator) -> list[Outcome]:
    subsets = _subsets(rows, context, rng)
    by_thirds = [successive_halving(curves[subset], 3) for subset in subsets]
    budget = int(np.mean([choice.epochs for choice in by_thirds]))
    strategies: dict[str, Callable[[np.ndarray], Choice]] = {"full training": full_training}
    strategies |= {
        f"successive halving, 1/{reduction} go on": lambda own, reduction=reduction: successive_halving(own, reduction)
        for reduction in REDUCTIONS
    }
    strategies["Hyperband, 1/3 go on"] = lambda own: hyperband(own, 3)
    strategies[RANDOM] = lambda own: random_search(own, budget)
    return [
        _outcome(name, curves, subsets, [strategy(curves[subset]) for subset in subsets])
        for name, strategy in strategies.items()
    ]


def _searches_by_weights(zoo: Zoo, curves: np.ndarray, context: Context, rng: np.random.Generator) -> list[Outcome]:
    """Halving by extrapolation and by the last value, on the same subsets of models that nothing was fitted on."""
    train, _ = train_and_test(zoo, context)
    unseen = np.flatnonzero(finished(zoo.models) & (zoo.models["split"] != "train").to_numpy())
    last = curves.shape[1] - 1
    epochs = {epoch for cut in CUTS.values() for epoch in rungs(1, last, cut)[:-1]} & set(zoo.checkpoint_epochs)
    looks = curves.copy()
    for epoch in sorted(epochs):
        known, ahead = (evidence_of(zoo, rows, epoch)["s(W) + metrics"] for rows in (train, unseen))
        looks[unseen, epoch] = fitted(known, curves[train, -1], context, key=_KEY + epoch).predict(ahead)
    subsets = _subsets(unseen, context, rng)

    def judge(subset: np.ndarray) -> Judge:
        return lambda alive, epoch: looks[subset[alive], epoch]

    rows: list[Outcome] = []
    for name, cut in CUTS.items():
        plain = [successive_halving(curves[subset], cut) for subset in subsets]
        by_weights = [successive_halving(curves[subset], cut, judge=judge(subset)) for subset in subsets]
        rows += [
            _outcome(f"{name}{UNSEEN}", curves, subsets, plain),
            _outcome(f"{name}{BY_WEIGHTS}", curves, subsets, by_weights),
        ]
    return rows


def _outcome(name: str, curves: np.ndarray, subsets: np.ndarray, choices: list[Choice]) -> Outcome:
    finals = curves[subsets, -1]
    taken = finals[np.arange(len(subsets)), [choice.model for choice in choices]]
    regret = finals.max(axis=1) - taken
    saved = 1 - np.array([choice.epochs for choice in choices]) / (subsets.shape[1] * (curves.shape[1] - 1))
    found = float((regret == 0).mean())
    return Outcome(name, *_mean(regret), *_mean(saved), found, len(subsets), subsets.shape[1])


def _mean(values: np.ndarray) -> tuple[float, float, float]:
    """The mean over subsets, and its 95% interval."""
    mean, error = float(values.mean()), 1.96 * float(values.std()) / math.sqrt(len(values))
    return mean, mean - error, mean + error


def _patience(curves: np.ndarray, test: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Early stopping by patience: a row each, with bootstrap intervals over models."""
    number, last = np.arange(len(curves)), curves.shape[1] - 1
    best = np.nanargmax(curves, axis=1)
    rows: list[dict[str, float | None]] = []
    for patience in [wait for wait in PATIENCES if wait < last]:
        stops = early_stopping(curves, patience)
        regret = mean_score("", "", test[number, best] - test[number, stops.best], rng)
        saved = mean_score("", "", 1 - stops.stopped / last, rng)
        rows.append(
            {
                "patience": patience,
                "regret": regret.value,
                "low": regret.low,
                "high": regret.high,
                "saved": saved.value,
                "saved_low": saved.low,
                "saved_high": saved.high,
            }
        )
    return pd.DataFrame(rows)


def _summary(searches: pd.DataFrame, patience: pd.DataFrame) -> str:
    by_name = searches.set_index("strategy")
    thirds, equal = by_name.loc[THIRDS], by_name.loc[RANDOM]
    text = (
        f"Successive halving saves {100 * thirds['saved']:.0f}% of the epochs and loses {100 * thirds['regret']:.1f} "
        "points of validation accuracy to the best model; random search at that cost loses "
        f"{100 * equal['regret']:.1f}."
    )
    if ONE + BY_WEIGHTS in by_name.index:
        weights, plain = by_name.loc[ONE + BY_WEIGHTS], by_name.loc[ONE + UNSEEN]
        text += (
            " Where one model alone goes on behind epoch 1, what weights predict finds the best one in "
            f"{weights['found_the_best']:.0%} of the searches, the validation accuracy in "
            f"{plain['found_the_best']:.0%}; they lose {100 * weights['regret']:.1f} and "
            f"{100 * plain['regret']:.1f} points."
        )
    return text
