"""How different the models of a zoo are in what they achieve: the spread of accuracy and of the generalisation gap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from weightzoo.analysis.bootstrap import bootstrap
from weightzoo.analysis.factors import levels, varied_factors
from weightzoo.analysis.performance import finished, metric_matrix
from weightzoo.analysis.results import Context, Figure, Result, Score
from weightzoo.errors import NotFoundError

if TYPE_CHECKING:
    from weightzoo.zoo import Zoo

_METRICS = {"test_accuracy": "test accuracy", "generalization_gap": "generalisation gap"}
_SPREADS = {"mean": np.mean, "std": lambda values, axis=-1: np.std(values, axis=axis, ddof=1)}


def spread(zoo: Zoo, context: Context) -> Result:
    """Mean and standard deviation of accuracy and gap over the models: at the end, by factor and over the epochs.

    The measures by which Schürholt et al. 2022 describe their zoos (section 4, Table 2). The standard deviation is the
    sample's (n - 1), an interval the 95% bootstrap over models. Only finished models count; over the epochs, all as far
    as they got.

    Raises:
        NotFoundError: fewer than two models finished with their accuracy known.
    """
    models = zoo.models
    values = np.asarray(models[list(_METRICS)], np.float64)
    done = finished(models) & np.isfinite(values).all(axis=1)
    if done.sum() < 2:
        raise NotFoundError(f"needs two finished models with their accuracy known, the zoo has {done.sum()}")
    scores: list[Score] = []
    for index, name in enumerate(_METRICS.values()):
        own = values[done, index]
        for place, (statistic, compute) in enumerate(_SPREADS.items()):
            rng = np.random.default_rng([context.seed, index, place])
            low, high = bootstrap(own, compute, rng)
            scores.append(Score(name, statistic, float(compute(own)), low, high, models=len(own)))
    tables = {"by_factor": _by_factor(zoo, done), "by_epoch": _by_epoch(zoo)}
    figures = [
        Figure(
            "lines",
            "by_epoch",
            "Spread over the epochs",
            "Standard deviation over the models that got that far.",
            x="epoch",
            y="standard_deviation",
            by="metric",
        )
    ]
    if len(tables["by_factor"]):
        figures.append(
            Figure(
                "bars",
                "by_factor",
                "Spread by factor",
                "Standard deviation of the final test accuracy over the finished models of each value.",
                x="value",
                y="standard_deviation",
            )
        )
    accuracy, gap = (np.asarray(values[done, index]) for index in (0, 1))
    summary = (
        f"Test accuracy {accuracy.mean():.3f} ± {accuracy.std(ddof=1):.3f}, generalisation gap {gap.mean():+.3f} ± "
        f"{gap.std(ddof=1):.3f} (mean and standard deviation of {len(accuracy):,} finished models)."
    )
    return Result(
        "spread",
        "Spread of accuracy and generalisation gap",
        summary,
        tuple(scores),
        tables,
        tuple(figures),
        ("Schürholt et al. 2022, Model Zoos: A Dataset of Diverse Populations of Neural Network Models, section 4",),
    )


def _by_factor(zoo: Zoo, done: np.ndarray) -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    for factor in varied_factors(zoo.models):
        of_model = levels(zoo.models, factor)
        for code, label in enumerate(of_model.categories):
            here = zoo.models.iloc[np.flatnonzero(done & (np.asarray(of_model.codes) == code))]
            if len(here) < 2:
                continue
            row: dict[str, object] = {"factor": factor, "value": f"{factor} {label}", "models": len(here)}
            accuracy, gap = (np.asarray(here[metric], np.float64) for metric in _METRICS)
            row |= {"mean": accuracy.mean(), "standard_deviation": accuracy.std(ddof=1)}
            row |= {"gap_mean": gap.mean(), "gap_standard_deviation": gap.std(ddof=1)}
            rows.append(row)
    columns = ["factor", "value", "models", "mean", "standard_deviation", "gap_mean", "gap_standard_deviation"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def _by_epoch(zoo: Zoo) -> pd.DataFrame:
    tables: list[pd.DataFrame] = []
    for metric, name in _METRICS.items():
        matrix = metric_matrix(zoo, metric)
        kept = matrix.loc[:, matrix.notna().sum() > 1]
        spread = {"mean": kept.mean(), "standard_deviation": kept.std(ddof=1)}
        tables.append(pd.DataFrame({"metric": name, "epoch": kept.columns, **spread}))
    return pd.concat(tables, ignore_index=True)
