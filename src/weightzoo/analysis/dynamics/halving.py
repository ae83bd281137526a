"""Successive halving, Hyperband and early stopping, replayed on curves that have been measured to the end.

Every function takes the curves `[N, E + 1]` of the models that take part, validation accuracies behind epochs 0 to E,
and gives which model is taken and how many epochs it took to find out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Judge = Callable[[np.ndarray, int], np.ndarray]
"""How good models `[n]` look behind an epoch: their numbers and the epoch to `[n]`, the larger the better."""


@dataclass(frozen=True)
class Choice:
    """The model that a strategy takes, and the epochs that all models were trained for together."""

    model: int
    epochs: int


def full_training(curves: np.ndarray) -> Choice:
    """All models trained to the end, the best taken."""
    models, last = len(curves), curves.shape[1] - 1
    return Choice(int(curves[:, -1].argmax()), models * last)


def rungs(first: int, last: int, reduction: int) -> list[int]:
    """The epochs behind which models are stopped, and the last: `first` times powers of `reduction`.

    >>> rungs(1, 50, 3)
    [1, 3, 9, 27, 50]
    """
    epochs: list[int] = []
    while first < last:
        epochs.append(first)
        first *= reduction
    return [*epochs, last]


def successive_halving(curves: np.ndarray, reduction: int, first: int = 1, judge: Judge | None = None) -> Choice:
    """Behind each rung the best 1/`reduction` of the models go on, at least one; of those at the end the best is taken.

    `judge` looks at the models behind each rung but the last, by default at the validation accuracy. Of equals the
    first go on.

    References: Jamieson, Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization",
    arXiv 1502.07943, algorithm 1.
    """
    alive, before, spent = np.arange(len(curves)), 0, 0
    for epoch in rungs(first, curves.shape[1] - 1, reduction):
        spent += len(alive) * (epoch - before)
        before = epoch
        if epoch < curves.shape[1] - 1:
            looks = curves[alive, epoch] if judge is None else judge(alive, epoch)
            kept = max(1, len(alive) // reduction)
            alive = alive[np.argsort(-looks, kind="stable")[:kept]]
    return Choice(int(alive[curves[alive, -1].argmax()]), spent)


def hyperband(curves: np.ndarray, reduction: int) -> Choice:
    """Brackets of successive halving, from many models stopped early to few trained to the end.

    Bracket s of s_max + 1, s_max = floor(log_reduction E), has its first rung at E / reduction^s; the models are dealt
    to the brackets in order, in proportion to the sizes of the paper, ceil((s_max + 1) / (s + 1) * reduction^s).

    References: Li, Jamieson, DeSalvo, Rostamizadeh, Talwalkar 2018, "Hyperband: a novel bandit-based approach to
    hyperparameter optimization", arXiv 1603.06560, algorithm 1.
    """
    last = curves.shape[1] - 1
    most = math.floor(math.log(last, reduction) + 1e-9)
    sizes = np.array([math.ceil((most + 1) / (s + 1) * reduction**s) for s in range(most, -1, -1)], np.float64)
    bounds = np.round(np.cumsum(sizes) / sizes.sum() * len(curves)).astype(int)
    spent, best, start = 0, -1, 0
    for s, end in zip(range(most, -1, -1), bounds, strict=True):
        if end > start:
            own = successive_halving(curves[start:end], reduction, max(1, last // reduction**s))
            spent += own.epochs
            taken = start + own.model
            best = taken if best < 0 or curves[taken, -1] > curves[best, -1] else best
        start = int(end)
    return Choice(best, spent)


def random_search(curves: np.ndarray, budget: int) -> Choice:
    """The first models that `budget` epochs are enough for are trained to the end, at least one, and the best taken."""
    last = curves.shape[1] - 1
    count = max(1, min(len(curves), budget // last))
    return Choice(int(curves[:count, -1].argmax()), count * last)


@dataclass(frozen=True)
class Stops:
    """Where N models stop: the last epoch trained, and the best one until then, the earliest of equals; int `[N]`."""

    stopped: np.ndarray
    best: np.ndarray


def early_stopping(curves: np.ndarray, patience: int) -> Stops:
    """Each model stops once it was `patience` epochs without a new best, its best epoch's weights are kept.

    References: Prechelt 1998, "Early stopping - but when?".
    """
    last = curves.shape[1] - 1
    values = np.nan_to_num(curves, nan=-np.inf)
    record = np.maximum.accumulate(values, axis=1)
    is_best = np.column_stack([np.ones(len(values), bool), values[:, 1:] > record[:, :-1]])
    best = np.maximum.accumulate(np.where(is_best, np.arange(last + 1), 0), axis=1)  # so far, [N, E + 1]
    waits = np.arange(last + 1) - best >= patience
    stopped = np.where(waits.any(axis=1), waits.argmax(axis=1), last)
    return Stops(stopped, best[np.arange(len(values)), stopped])
