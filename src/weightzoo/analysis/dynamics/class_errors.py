"""Which classes a model gets wrong, told from its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from weightzoo.analysis.dynamics.measures import scores
from weightzoo.analysis.dynamics.prediction import (
    EXTRA_TREES,
    bounded,
    chunks,
    fitted,
    shuffled_control,
    train_and_test,
    weight_statistics,
)
from weightzoo.analysis.results import Context, Figure, Result, Score
from weightzoo.errors import NotFoundError

if TYPE_CHECKING:
    from weightzoo.architectures import Architecture
    from weightzoo.zoo import Zoo

METHOD, _KEY = "class-errors", 6501
FEATURES = "s(W) + row of the class"
ACCURACY, DEVIATION = "test accuracy of a class", "test accuracy of a class, less the model's"
LEARNT = 0.5  # accuracy from which a model counts as trained: below, all classes but one or two are simply unknown


def class_rows(architecture: Architecture, weights: np.ndarray) -> np.ndarray:
    """What the last layer has for each class, of `weights [N, P]`: float64 `[N, classes, 6]`.

    Bias, and norm, mean, mean size, minimum and maximum of the class's row of weights, each standardised over the
    classes of the model. The same whatever the order of the hidden units.
    """
    layout = architecture.layout
    head = layout.layers[-1]
    rows = weights[:, layout.span(f"{head}.weight")].reshape(len(weights), architecture.classes, -1).astype(np.float64)
    bias = weights[:, layout.span(f"{head}.bias")].astype(np.float64)
    parts = (bias, np.linalg.norm(rows, axis=2), rows.mean(2), np.abs(rows).mean(2), rows.min(2), rows.max(2))
    return standardised(np.stack(parts, axis=2))


def standardised(values: np.ndarray) -> np.ndarray:
    """`values [N, classes, F]` less the mean over the classes, by their deviation; 0 where they are equal."""
    deviation = values.std(axis=1, keepdims=True)
    centred = values - values.mean(axis=1, keepdims=True)
    return bounded(np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0))


def predict_class_errors(zoo: Zoo, context: Context) -> Result:
    """The accuracy on each class, predicted from the final weights.

    A row for each model and class: the statistics of all layers, which all classes share, and those of the class's row
    of the last layer. Trees are fitted on the train split and scored on the test split, on the accuracy itself and on
    what it differs by from the model's accuracy on all classes, which is the bias; the latter also on those models
    alone that have learnt the task.

    Raises:
        NotFoundError: the zoo has too few models, or no accuracies of single classes.
    """
    train, test = train_and_test(zoo, context)
    last = zoo.checkpoint_epochs[-1]
    table = zoo.epochs.loc[zoo.epochs["epoch"] == last].set_index("model")
    train, test = (rows[np.isin(rows, table.index)] for rows in (train, test))
    splits = {"train": train, "test": test}
    accuracy = {name: _class_accuracy(zoo, table, rows) for name, rows in splits.items()}
    features = {name: _features(zoo, rows, last) for name, rows in splits.items()}
    whole = table["test_accuracy"].to_numpy(np.float64)
    overall = {name: whole[table.index.get_indexer(rows)] for name, rows in splits.items()}
    classes = zoo.architecture.classes
    of_model = np.repeat(test, classes)
    learnt = np.repeat(overall["test"] >= LEARNT, classes)
    found: list[Score] = []
    drawn = pd.DataFrame({"class": np.tile(zoo.dataset_info.class_names, len(test)), "model": of_model})
    rng = np.random.default_rng([context.seed, _KEY])
    for number, target in enumerate((ACCURACY, DEVIATION)):
        truth = {name: (own - overall[name][:, None] * (target == DEVIATION)).ravel() for name, own in accuracy.items()}
        there = np.isfinite(truth["train"])
        trees = fitted(features["train"][there], truth["train"][there], context, key=_KEY + number)
        predicted = trees.predict(features["test"])
        groups = [(target, np.isfinite(truth["test"]))]
        if target == DEVIATION and np.unique(of_model[learnt]).size > 1:
            groups.append((f"{target}, of models that have learnt", np.isfinite(truth["test"]) & learnt))
        for name, own in groups:
            found += scores(
                name,
                truth["test"][own],
                predicted[own],
                rng,
                features=FEATURES,
                estimator=EXTRA_TREES,
                models=of_model[own],
            )
        there_too = np.isfinite(truth["test"])
        found.append(
            shuffled_control(
                target,
                features["train"][there],
                truth["train"][there],
                features["test"][there_too],
                truth["test"][there_too],
                context,
                key=_KEY + number,
                names=FEATURES,
            )
        )
        column = "accuracy" if target == ACCURACY else "deviation"
        drawn[column], drawn[f"predicted_{column}"] = truth["test"], predicted
        context.on_progress(number + 1, 2)
    r2 = {one.target: one.value for one in found if one.metric == "R2"}
    among = f"{DEVIATION}, of models that have learnt"
    also = f", among models that have learnt the task with {r2[among]:.2f}" if among in r2 else ""
    bias = Figure(
        "points",
        "learnt",
        "Bias of classes",
        f"Accuracy of a class less the model's, of models with an accuracy of at least {LEARNT}.",
        "deviation",
        "predicted_deviation",
        "class",
    )
    return Result(
        METHOD,
        "Errors by class from weights",
        f"The accuracy on single classes is told from weights with R² {r2.get(ACCURACY, np.nan):.2f}; how far a "
        f"class lies from the model's accuracy with R² {r2.get(DEVIATION, np.nan):.2f}{also}.",
        tuple(found),
        {"classes": drawn, "learnt": drawn.loc[learnt].reset_index(drop=True)},
        (
            Figure(
                "points",
                "classes",
                "Accuracy of classes",
                "Each point is a class of a model of the test split.",
                "accuracy",
                "predicted_accuracy",
                "class",
            ),
            *([bias] if learnt.any() else []),
        ),
        ("Schürholt et al. 2022, Model zoos: a dataset of diverse populations of neural network models",),
    )


def _class_accuracy(zoo: Zoo, table: pd.DataFrame, rows: np.ndarray) -> np.ndarray:
    """Test accuracies of the classes, float64 `[N, classes]`; NaN for a class without images."""
    listed = table.loc[rows, "test_class_accuracy"]
    if listed.isna().any():
        raise NotFoundError(f"zoo {zoo.name} has no accuracies of single classes")
    return np.stack([np.asarray(own, np.float64) for own in listed])


def _features(zoo: Zoo, rows: np.ndarray, epoch: int) -> np.ndarray:
    """A row for each model and class, float64 `[N * classes, F]`."""
    parts: list[np.ndarray] = []
    for some in chunks(len(rows), 4 * zoo.layout.size):
        weights = zoo.weights(models=rows[some].tolist(), epochs=[epoch])[:, 0]
        own = class_rows(zoo.architecture, weights)
        shared = np.repeat(weight_statistics(zoo.layout, weights)[:, None], own.shape[1], axis=1)
        parts.append(np.concatenate([own, shared], axis=2).reshape(-1, own.shape[2] + shared.shape[2]))
    return np.concatenate(parts)
