"""The ways that models take through weight space, and when it is known which of them end up best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from weightzoo.analysis.dynamics.measures import interval, kendall_tau, mean_score, resamples
from weightzoo.analysis.dynamics.prediction import chunks
from weightzoo.analysis.factors import levels, varied_factors
from weightzoo.analysis.performance import finished, metric_matrix
from weightzoo.analysis.results import Context, Figure, Result, Score
from weightzoo.analysis.weights import evenly
from weightzoo.errors import NotFoundError

if TYPE_CHECKING:
    from weightzoo.zoo import Zoo

METHOD, _KEY = "trajectories", 6301
MOST_MODELS, MOST_MODELS_QUICK = 1000, 200
FEWEST_MODELS, FEWEST_STATES = 4, 3
DRAWS = 200
KNOWN = 0.8  # Kendall's tau from which a ranking counts as known: nine of ten pairs of models are in order
ALL = "all models"
SHOWN = ("optimizer", "learning_rate", "activation", "init")  # the first of these that varies is drawn
CAPTIONS = {
    "speed": ("Speed", "Median length of an epoch's step, as a share of the norm of the weights at epoch 0."),
    "angle": ("Curvature", "Median angle between successive steps, in degrees; 90 is a turn at random."),
    "distance": (
        "Distance from the start",
        "Median distance from the weights at epoch 0, as a share of their norm.",
    ),
}


@dataclass(frozen=True)
class Paths:
    """The ways of M models through the weights of K states, ascending in epoch. What ends in NaN weights is NaN."""

    length: np.ndarray  # [M], the norm of the first state
    distance: np.ndarray  # [M, K], from the first state
    step: np.ndarray  # [M, K - 1], the length of the step to the next state
    angle: np.ndarray  # [M, K - 2], between successive steps, degrees; NaN where one has no length

    @property
    def directness(self) -> np.ndarray:
        """How far a model got as a share of the way that it went, `[M]`; 1 is a straight line."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.distance[:, -1] / self.step.sum(axis=1)


def paths(weights: np.ndarray) -> Paths:
    """The ways of `weights [M, K, P]`."""
    weights = np.asarray(weights, np.float64)
    steps = np.diff(weights, axis=1)
    size = np.linalg.norm(steps, axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = np.einsum("mkp,mkp->mk", steps[:, 1:], steps[:, :-1]) / (size[:, 1:] * size[:, :-1])
    return Paths(
        np.linalg.norm(weights[:, 0], axis=1),
        np.linalg.norm(weights - weights[:, :1], axis=2),
        size,
        np.degrees(np.arccos(np.clip(cosine, -1, 1))),
    )


def describe_trajectories(zoo: Zoo, context: Context) -> Result:
    """Speed, curvature and distance from the start by epoch and factor, and when the final ranking is known.

    Speed is the length of an epoch's step in weight space and distance that from epoch 0, both as shares of the norm of
    the weights at epoch 0; curvature is the angle between successive steps. Medians over models. The ranking of an
    epoch is compared with the final one by Kendall's tau of the validation accuracies.

    Raises:
        NotFoundError: the zoo has too few finished models or kept epochs.
    """
    rows = evenly(len(zoo), MOST_MODELS_QUICK if context.quick else MOST_MODELS)
    rows = rows[finished(zoo.models)[rows] & zoo.present[rows].all(axis=1)]
    epochs = np.asarray(zoo.checkpoint_epochs)
    if len(rows) < FEWEST_MODELS or len(epochs) < FEWEST_STATES:
        raise NotFoundError(
            f"zoo {zoo.name} has {len(rows)} finished models with {len(epochs)} kept epochs; trajectories want at "
            f"least {FEWEST_MODELS} with {FEWEST_STATES}"
        )
    found = _paths_of(zoo, rows, context)
    models = zoo.models.iloc[rows]
    groups = {(ALL, ALL): np.ones(len(rows), bool)}
    for factor in varied_factors(models):
        of_model = levels(models, factor)
        codes = np.asarray(of_model.codes)
        groups |= {(factor, str(one)): codes == code for code, one in enumerate(of_model.categories)}
    geometry = pd.concat([_geometry(found, epochs, *key, own) for key, own in groups.items()], ignore_index=True)
    curves = metric_matrix(zoo, "val_accuracy").to_numpy()[rows]
    ranking = _ranking(curves, context)
    known = pd.DataFrame([_known(curves[own], *key) for key, own in groups.items() if own.sum() >= FEWEST_MODELS])
    rng = np.random.default_rng([context.seed, _KEY, 1])
    direct = mean_score("distance over length of way", "mean", found.directness[np.isfinite(found.directness)], rng)
    last = curves.shape[1] - 1
    scores = [
        Score(
            f"final ranking, from epoch {epoch}",
            "Kendall tau",
            *ranking.loc[epoch, ["tau", "low", "high"]],
            features="val_accuracy",
            estimator="last value",
            models=len(rows),
        )
        for epoch in sorted({max(1, round(share * last)) for share in (0.02, 0.1, 0.2, 0.5)})
    ]
    from_epoch = int(np.asarray(known["known_from"])[0])
    scores += [Score("final ranking known", f"first epoch with tau from {KNOWN} on", float(from_epoch)), direct]
    overall = geometry[geometry["factor"] == ALL].reset_index(drop=True)
    steps, angles = (np.asarray(overall[name], np.float64) for name in ("speed", "angle"))
    summary = (
        f"The ranking by validation accuracy agrees with the final one (tau {KNOWN} and more) from epoch {from_epoch} "
        f"of {last} on. The first step is {steps[1] / steps[-1]:.1f} times as long as the last; successive steps are "
        f"at {np.nanmedian(angles):.0f} degrees; models end {direct.value:.2f} of the length of their way from where "
        "they began."
    )
    figures = [
        Figure(
            "lines",
            "ranking",
            "When the final ranking is known",
            "Kendall's tau between the validation accuracies of an epoch and of the last.",
            "epoch",
            "tau",
            None,
            "low",
            "high",
        ),
    ]
    if len(known) > 1:
        caption = f"From where tau stays at {KNOWN} or more, within the models of each value of a factor."
        title = "Epoch from which the final ranking is known"
        figures.append(Figure("bars", "known", title, caption, "models_with", "known_from"))
    shown = next((factor for factor in SHOWN if factor in set(geometry["factor"])), ALL)
    for column, (title, caption) in CAPTIONS.items():
        name = "geometry" if shown == ALL else f"geometry_by_{shown}"
        figures.append(Figure("lines", name, title, caption, "epoch", column, "level"))
    tables = {
        "geometry" if factor == ALL else f"geometry_by_{factor}": own.reset_index(drop=True)
        for factor, own in geometry.groupby("factor", sort=False)
    }
    return Result(
        METHOD,
        "Trajectories through weight space",
        summary,
        tuple(scores),
        {"ranking": ranking.reset_index(), "known": known, **tables},
        tuple(figures),
        ("Schürholt et al. 2022, Model zoos: a dataset of diverse populations of neural network models",),
    )


def _paths_of(zoo: Zoo, rows: np.ndarray, context: Context) -> Paths:
    parts: list[Paths] = []
    for some in chunks(len(rows), 16 * zoo.layout.size * len(zoo.checkpoint_epochs)):
        parts.append(paths(zoo.weights(models=rows[some].tolist())))
        context.on_progress(some.stop, len(rows))
    return Paths(*(np.concatenate([getattr(part, name) for part in parts]) for name in Paths.__dataclass_fields__))


def _geometry(found: Paths, epochs: np.ndarray, factor: str, level: str, own: np.ndarray) -> pd.DataFrame:
    """Medians over the models `own [M]` at each kept epoch. A step over several epochs counts as that many."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 1 / found.length[own, None]
        speed = found.step[own] / np.diff(epochs) * scale
        distance = found.distance[own] * scale
    missing = np.full(int(own.sum()), np.nan)[:, None]
    columns = {
        "speed": np.column_stack([missing, speed]),
        "angle": np.column_stack([missing, missing, found.angle[own]]),
        "distance": distance,
    }
    table = {"factor": factor, "level": level, "epoch": epochs, "models": int(own.sum())}
    return pd.DataFrame(table | {name: _medians(values) for name, values in columns.items()})


def _medians(values: np.ndarray) -> np.ndarray:
    """Medians over the finite entries of each column; NaN where there are none."""
    return np.array([np.median(own[np.isfinite(own)]) if np.isfinite(own).any() else np.nan for own in values.T])


def _ranking(curves: np.ndarray, context: Context) -> pd.DataFrame:
    """Tau of each epoch against the last: `tau`, `low`, `high` by `epoch`."""
    drawn = resamples(len(curves), np.random.default_rng([context.seed, _KEY, 0]), DRAWS)
    rows: list[dict[str, float | None]] = []
    for values in curves.T:
        low, high = interval(kendall_tau(curves[:, -1], values, drawn))
        rows.append({"tau": _tau(curves[:, -1], values), "low": low, "high": high})
    return pd.DataFrame(rows).rename_axis("epoch")


def _known(curves: np.ndarray, factor: str, level: str) -> dict[str, object]:
    """The first epoch from which tau stays at `KNOWN` or more."""
    tau = np.array([_tau(curves[:, -1], values) for values in curves.T])
    short = np.flatnonzero(~(tau >= KNOWN))
    return {
        "factor": factor,
        "level": level,
        "models_with": level if factor == ALL else f"{factor} {level}",
        "models": len(curves),
        "known_from": min(int(short[-1]) + 1, curves.shape[1] - 1) if len(short) else 0,
        "tau_halfway": tau[len(tau) // 2],
    }


def _tau(truth: np.ndarray, predicted: np.ndarray) -> float:
    return float(kendall_tau(truth, predicted, np.ones((1, len(truth))))[0])
