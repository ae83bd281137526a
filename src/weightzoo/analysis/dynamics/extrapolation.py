"""Learning curves extrapolated: the final accuracy from the first epochs' weights and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from weightzoo.analysis.dynamics.measures import scores
from weightzoo.analysis.dynamics.power_law import FEWEST_POINTS, fit_pow3
from weightzoo.analysis.dynamics.prediction import (
    EXTRA_TREES,
    bounded,
    fitted,
    last_epoch,
    shuffled_control,
    statistics_of,
    train_and_test,
)
from weightzoo.analysis.performance import metric_matrix
from weightzoo.analysis.results import Context, Figure, Result, Score
from weightzoo.errors import NotFoundError

if TYPE_CHECKING:
    from weightzoo.zoo import Zoo

METHOD, _KEY = "extrapolation", 6101
FIRST_EPOCHS, FIRST_EPOCHS_QUICK = (1, 2, 5, 10, 20), (1, 5)
SEEN = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")  # the test images are for scoring alone
TARGET = "test_accuracy"
LAST_VALUE, POWER_LAW = "last value", "power law"
SHOWN = 2  # the fewest epochs whose predictions are drawn


def extrapolate(zoo: Zoo, context: Context) -> Result:
    """The final test accuracy, predicted behind epoch 1, 2, 5, 10 and 20.

    From what a training run knows by then: weights (at epoch 0, at epoch k, and their difference, as layer statistics)
    and losses and accuracies on training and validation images. Trees are fitted on the train split and scored on the
    test split, beside two baselines that look at each model alone: its last validation accuracy, and the power law
    through its validation accuracies.

    Raises:
        NotFoundError: the zoo has too few models, or not the weights of the first epochs.
    """
    last = last_epoch(zoo)
    wanted = FIRST_EPOCHS_QUICK if context.quick else FIRST_EPOCHS
    first = [k for k in wanted if k < last and k in zoo.checkpoint_epochs]
    if not first:
        epochs = ", ".join(map(str, wanted))
        raise NotFoundError(f"zoo {zoo.name} holds the weights of none of the epochs {epochs} before its last")
    train, test = train_and_test(zoo, context)
    truth = metric_matrix(zoo, TARGET).to_numpy()[:, last]
    found: list[Score] = []
    rows: list[dict[str, object]] = []
    drawn: list[pd.DataFrame] = []
    for done, k in enumerate(first):
        predicted = {(LAST_VALUE, "metrics"): curve(zoo, test)[:, k]}
        if k >= FEWEST_POINTS:
            predicted[POWER_LAW, "metrics"] = power_law(zoo, test, k, last)
        evidence, unseen = evidence_of(zoo, train, k), evidence_of(zoo, test, k)
        for number, name in enumerate(evidence):
            trees = fitted(evidence[name], truth[train], context, key=_KEY + number)
            predicted[EXTRA_TREES, name] = trees.predict(unseen[name])
        if k == first[0]:
            found.append(
                shuffled_control(
                    f"final test accuracy from epoch {k}",
                    evidence["s(W)"],
                    truth[train],
                    unseen["s(W)"],
                    truth[test],
                    context,
                    key=_KEY,
                )
            )
        for (estimator, features), values in predicted.items():
            rng = np.random.default_rng([context.seed, _KEY, k])
            target = f"final test accuracy from epoch {k}"
            own = scores(target, truth[test], values, rng, features=features, estimator=estimator)
            found += own
            label = estimator if estimator != EXTRA_TREES else features
            for one in own:
                row = {"metric": one.metric, "value": one.value, "low": one.low, "high": one.high}
                rows.append({"epochs": k, "predictor": label, **row})
            if k == min(first, key=lambda epoch: abs(epoch - SHOWN)):
                drawn.append(pd.DataFrame({"predictor": label, "final": truth[test], "predicted": values}))
        context.on_progress(done + 1, len(first))
    table = pd.DataFrame(rows)
    by_rank = table.loc[table["metric"] == "Kendall tau"].reset_index(drop=True)
    by_error = table.loc[table["metric"] == "MAE"].reset_index(drop=True)
    shown = min(first, key=lambda epoch: abs(epoch - SHOWN))
    return Result(
        METHOD,
        "Learning curves extrapolated",
        _summary(found, first[0]),
        tuple(found),
        {"scores": table, "error": by_error, "ranking": by_rank, "predictions": pd.concat(drawn, ignore_index=True)},
        (
            Figure(
                "lines",
                "error",
                "Error of the predicted final accuracy",
                "Mean absolute error on models of the test "
                "split, by the number of epochs seen; bands are 95% bootstrap intervals.",
                "epochs",
                "value",
                "predictor",
                "low",
                "high",
                log_x=True,
            ),
            Figure(
                "lines",
                "ranking",
                "Ranking by predicted final accuracy",
                "Kendall's tau on models of the test split.",
                "epochs",
                "value",
                "predictor",
                "low",
                "high",
                log_x=True,
            ),
            Figure(
                "points",
                "predictions",
                f"Predicted behind epoch {shown}",
                "Each point is a model of the test split.",
                "final",
                "predicted",
                "predictor",
            ),
        ),
        (
            "Domhan et al. 2015, Speeding up automatic hyperparameter optimization of deep neural networks by "
            "extrapolation of learning curves",
            "Viering, Loog 2021, The shape of learning curves: a review, arXiv 2103.10948",
            "Unterthiner et al. 2020, Predicting neural network accuracy from weights, arXiv 2002.11448",
        ),
    )


def curve(zoo: Zoo, rows: np.ndarray) -> np.ndarray:
    """Validation accuracies of some models, float64 `[N, epochs]` from epoch 0 on."""
    return metric_matrix(zoo, "val_accuracy").to_numpy()[rows]


def power_law(zoo: Zoo, rows: np.ndarray, k: int, last: int) -> np.ndarray:
    """The validation accuracy at epoch `last` by the power law through epochs 1 to k, kept between 0 and 1."""
    return np.clip(fit_pow3(np.arange(1, k + 1), curve(zoo, rows)[:, 1 : k + 1]).at(last), 0, 1)


def evidence_of(zoo: Zoo, rows: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """What is known of some models behind epoch k, by the name of the features: `[N, F]`."""
    seen = np.concatenate([metric_matrix(zoo, name).to_numpy()[rows, : k + 1] for name in SEEN], axis=1)
    metrics, weights = bounded(seen), statistics_of(zoo, rows, k)
    return {"metrics": metrics, "s(W)": weights, "s(W) + metrics": np.concatenate([metrics, weights], axis=1)}


def _summary(found: list[Score], k: int) -> str:
    def value(estimator: str, features: str, metric: str) -> float:
        own = [one for one in found if (one.estimator, one.features, one.metric) == (estimator, features, metric)]
        return own[0].value if own else float("nan")

    error, rank = value(EXTRA_TREES, "s(W)", "MAE"), value(EXTRA_TREES, "s(W)", "Kendall tau")
    return (
        f"From the weights behind epoch {k} the final test accuracy of models of unseen configurations is told to "
        f"{100 * error:.1f} points on average (Kendall tau {rank:.2f}); the validation accuracy of that epoch is off "
        f"by {100 * value(LAST_VALUE, 'metrics', 'MAE'):.1f} points "
        f"(tau {value(LAST_VALUE, 'metrics', 'Kendall tau'):.2f})."
    )
