"""How well a model can be transferred, told from its weights before anything is trained."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from weightzoo import architectures
from weightzoo.analysis.dynamics.measures import scores
from weightzoo.analysis.dynamics.prediction import (
    EXTRA_TREES,
    fitted,
    shuffled_control,
    statistics_of,
    train_and_test,
)
from weightzoo.analysis.dynamics.trained import fewer, member, protocol, refuse_large, taken_over, train_in_memory
from weightzoo.analysis.performance import metric_matrix
from weightzoo.analysis.results import Context, Figure, Result, Score, images_of
from weightzoo.analysis.weights import evenly
from weightzoo.members import Hyperparameters

if TYPE_CHECKING:
    from weightzoo.datasets.images import ImageData
    from weightzoo.zoo import Zoo

METHOD, _KEY = "transfer", 6401
MOST_SOURCES, MOST_SOURCES_QUICK = 240, 96  # models, each behind several epochs
SOURCE_SHARES = (0.1, 1.0)  # of the source's training
EPOCHS = 2
FINETUNING = Hyperparameters("kaiming_uniform", "", "adam", 1e-3, 0.0, 0.0)  # of all alike, but for the activation
SOURCE_ACCURACY = "source val accuracy"


@dataclass(frozen=True)
class Task:
    """A task made of the same images."""

    name: str
    describe: str
    data: ImageData


def tasks_of(data: ImageData) -> tuple[Task, ...]:
    """The images turned by 90 degrees, with the same classes; and as they are, with classes of even and odd number."""
    turned = {split: np.ascontiguousarray(np.rot90(images, axes=(2, 3))) for split, images in data.images.items()}
    parity = {split: (labels % 2).astype(np.int32) for split, labels in data.labels.items()}
    names = tuple(", ".join(data.class_names[rest::2]) for rest in (0, 1))
    return (
        Task(
            "rotated",
            "images turned by 90 degrees",
            dataclasses.replace(data, name=f"{data.name}-rotated", images=turned),
        ),
        Task(
            "parity",
            "even against odd class numbers",
            dataclasses.replace(data, name=f"{data.name}-parity", labels=parity, class_names=names),
        ),
    )


def predict_transfer(zoo: Zoo, context: Context) -> Result:
    """The test accuracy that fine-tuning reaches on another task, predicted from the source model's weights.

    Source models, each behind some epochs of its training, are fine-tuned for two epochs, all in the same way (Adam at
    1e-3 without weight decay and dropout): on the images turned by 90 degrees, and on telling even classes from odd
    ones, where the last layer starts anew. Trees on s(W) of the source are fitted on models of the train split and
    scored on the test split, beside trees on the source's validation accuracy alone.

    Raises:
        NotFoundError: the zoo has too few models or too large ones, or the images are not at hand.
    """
    images = fewer(images_of(zoo, context))
    refuse_large(zoo.architecture)
    train, test = train_and_test(zoo, context)
    most = MOST_SOURCES_QUICK if context.quick else MOST_SOURCES
    train, test = train[evenly(len(train), most * 3 // 4)], test[evenly(len(test), most // 4)]
    rows = np.concatenate([train, test])
    kept = [epoch for epoch in zoo.checkpoint_epochs if epoch > 0]
    epochs = sorted({min(kept, key=lambda one, at=share * kept[-1]: abs(one - at)) for share in SOURCE_SHARES})
    accuracy = metric_matrix(zoo, "val_accuracy").to_numpy()
    source = {
        SOURCE_ACCURACY: np.concatenate([accuracy[rows, epoch] for epoch in epochs])[:, None],
        "s(W)": np.concatenate([statistics_of(zoo, rows, epoch) for epoch in epochs]),
    }
    of_model = np.tile(rows, len(epochs))
    known, ahead = (np.isin(of_model, own) for own in (train, test))
    found: list[Score] = []
    drawn: list[pd.DataFrame] = []
    sentences: list[str] = []
    tasks = tasks_of(images)
    for number, task in enumerate(tasks):
        reached = _finetuned(zoo, rows, epochs, task.data, context)
        rng = np.random.default_rng([context.seed, _KEY, number])
        target = f"accuracy fine-tuned on {task.name}"
        predicted: dict[str, np.ndarray] = {}
        for features, values in source.items():
            trees = fitted(values[known], reached[known], context, key=_KEY + number)
            predicted[features] = trees.predict(values[ahead])
            found += scores(
                target,
                reached[ahead],
                predicted[features],
                rng,
                features=features,
                estimator=EXTRA_TREES,
                models=of_model[ahead],
            )
        weights = source["s(W)"]
        found.append(
            shuffled_control(
                target, weights[known], reached[known], weights[ahead], reached[ahead], context, key=_KEY + number
            )
        )
        table = pd.DataFrame(
            {
                "task": task.name,
                "model": of_model,
                "epoch": np.repeat(epochs, len(rows)),
                "source_accuracy": source[SOURCE_ACCURACY][:, 0],
                "reached": reached,
                "split": np.where(known, "train", "test"),
            }
        )
        table.loc[ahead, "predicted"] = predicted["s(W)"]
        drawn.append(table)
        value = {(one.features, one.metric): one.value for one in found if one.target == target}
        sentences.append(
            f"{task.describe}: R² {value.get(('s(W)', 'R2'), np.nan):.2f} from weights, "
            f"{value.get((SOURCE_ACCURACY, 'R2'), np.nan):.2f} from the source's accuracy"
        )
        context.on_progress(number + 1, len(tasks))
    table = pd.concat(drawn, ignore_index=True)
    return Result(
        METHOD,
        "Transfer predicted from source weights",
        f"What {EPOCHS} epochs of fine-tuning reach, for models of unseen configurations: {'; '.join(sentences)}.",
        tuple(found),
        {"reached": table, "predicted": table.loc[table["split"] == "test"].reset_index(drop=True)},
        (
            Figure(
                "points",
                "reached",
                "Accuracy of the source and after transfer",
                "Each point is a model behind one of the source epochs.",
                "source_accuracy",
                "reached",
                "task",
            ),
            Figure(
                "points",
                "predicted",
                "Transfer, predicted from source weights",
                "Models of the test split.",
                "reached",
                "predicted",
                "task",
            ),
        ),
        (
            "Schürholt et al. 2022, Model zoos: a dataset of diverse populations of neural network models",
            "Yosinski et al. 2014, How transferable are features in deep neural networks?, arXiv 1411.1792",
        ),
    )


def _finetuned(zoo: Zoo, rows: np.ndarray, epochs: list[int], data: ImageData, context: Context) -> np.ndarray:
    """The test accuracy reached by each model behind each source epoch, epochs outermost: float64 `[epochs * N]`."""
    built = architectures.architecture(zoo.architecture.name, data.image_shape, data.classes)
    activations: list[str] = zoo.models["activation"].tolist()
    how = protocol(EPOCHS)
    members = [
        member(built, data, dataclasses.replace(FINETUNING, activation=activations[row]), int(row), how) for row in rows
    ]
    reached: list[np.ndarray] = []
    for epoch in epochs:
        start = taken_over(zoo.architecture, zoo.weights(models=rows.tolist(), epochs=[epoch])[:, 0], built, members)
        trained = train_in_memory(built, members, data, start=start, threads=context.threads)
        reached.append(trained.metrics["test_accuracy"][:, -1].astype(np.float64))
    return np.concatenate(reached)
