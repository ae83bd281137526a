"""Planted biases found from weights: models trained on data that lack a class, or that have a shortcut to one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.metrics import roc_auc_score
from torch.func import functional_call, vmap

from weightzoo import seeds
from weightzoo.analysis.dynamics.class_errors import class_rows, standardised
from weightzoo.analysis.dynamics.measures import interval, resamples
from weightzoo.analysis.dynamics.prediction import EXTRA_TREES, SHUFFLED, TREES, chunks, seed_of
from weightzoo.analysis.dynamics.trained import fewer, member, protocol, refuse_large, train_in_memory
from weightzoo.analysis.results import Context, Figure, Result, Score, images_of
from weightzoo.architectures.module import build_module, parameters_of
from weightzoo.members import Hyperparameters

if TYPE_CHECKING:
    from weightzoo.architectures import Architecture
    from weightzoo.datasets.images import ImageData
    from weightzoo.zoo import Zoo

METHOD, _KEY = "planted-bias", 6601
CLEAN, SCARCE, PATCH = "clean", "scarce class", "spurious patch"
KEPT = 0.1  # of the images of a scarce class
PATCH_SHARE = 2 / 7  # of the side of an image: 8 of 28 pixels
SEEDS = 16  # of each class and kind
EPOCHS, EPOCHS_QUICK = 6, 3
AUC_DRAWS = 300
TEST_SHARE = 0.3
HYPERPARAMETERS = Hyperparameters("kaiming_uniform", "tanh", "adam", 1e-3, 0.0, 0.0)
GRID = 7  # cells a side, on which bright squares are shown
SQUARES = (1, 2)  # their sides, in cells
BACKGROUNDS = 8  # noise images that they are shown on
FEATURES = "row of the class + answer to bright squares"


@dataclass(frozen=True)
class Planted:
    """N trained models, of each what was planted and in which class, and how well it does."""

    kind: np.ndarray  # str [N]
    label: np.ndarray  # int [N]; of a clean model a class that nothing was done to
    weights: np.ndarray  # float32 [N, P]
    accuracy: np.ndarray  # float32 [N], on the test images, none of which is tampered with
    class_accuracy: np.ndarray  # float32 [N]: on those of the class


def with_scarce_class(data: ImageData, label: int) -> ImageData:
    """The data with a tenth of the class's training images, the first of them, at least one."""
    labels = data.labels["train"]
    own = np.flatnonzero(labels == label)
    left = np.delete(np.arange(len(labels)), own[max(1, round(KEPT * len(own))) :])
    return dataclasses.replace(
        data,
        images=data.images | {"train": data.images["train"][left]},
        labels=data.labels | {"train": labels[left]},
    )


def with_patch(data: ImageData, label: int) -> ImageData:
    """The data with a bright square in the upper left corner of the class's training images."""
    images = data.images["train"].copy()
    side = max(1, round(PATCH_SHARE * images.shape[2]))
    images[data.labels["train"] == label, :, :side, :side] = 255
    return dataclasses.replace(data, images=data.images | {"train": images})


def find_planted_bias(zoo: Zoo, context: Context) -> Result:
    """Which models have a planted bias, and in which class, told from their weights alone.

    Models of the zoo's architecture, equal but for their seeds, are trained anew: on the zoo's images as they are, with
    nine tenths of one class's training images left out, and with a bright square in the corner of one class's training
    images; each class in turn. A classifier judges every class of a model by its row in the last layer and by the
    model's answers to made-up images, bright squares at all places of noise images; a model is as suspicious as the
    most suspicious of its classes. It is fitted on 70% of the seeds and scored on the others.

    Raises:
        NotFoundError: the images are not at hand, or the architecture is too large to train many for this.
    """
    images = fewer(images_of(zoo, context))
    refuse_large(zoo.architecture)
    planted = plant(zoo.architecture, images, context)
    features = class_features(zoo.architecture, planted.weights, images)
    found: list[Score] = []
    tables: list[pd.DataFrame] = []
    for number, kind in enumerate((SCARCE, PATCH)):
        own = np.flatnonzero(np.isin(planted.kind, (CLEAN, kind)))
        biased, label = planted.kind[own] == kind, planted.label[own]
        scores, table = _detect(kind, features[own], biased, label, context, _KEY + number)
        found += scores
        mean = float(planted.class_accuracy[own][biased].mean())
        found.append(Score(f"{kind}: test accuracy of the class", "mean", mean, models=int(biased.sum())))
        tables.append(table)
    clean = planted.kind == CLEAN
    found.append(Score("clean: test accuracy of a class", "mean", float(planted.class_accuracy[clean].mean())))
    value = {(one.target, one.estimator, one.metric): one.value for one in found}
    parts = [
        f"{kind}: AUC {value[kind, EXTRA_TREES, 'AUC']:.2f}, the class named right in "
        f"{value[kind, EXTRA_TREES, 'class named']:.0%} (the class's accuracy falls to "
        f"{value[f'{kind}: test accuracy of the class', '', 'mean']:.2f})"
        for kind in (SCARCE, PATCH)
    ]
    return Result(
        METHOD,
        "Planted biases found",
        f"Among models of unseen seeds, told from weights: {'; '.join(parts)}; accuracy without bias "
        f"{value['clean: test accuracy of a class', '', 'mean']:.2f}.",
        tuple(found),
        {"suspicion": pd.concat(tables, ignore_index=True)},
        (
            Figure(
                "points",
                "suspicion",
                "Suspicion of biased and of clean models",
                "The highest probability of a class to be biased.",
                "rank",
                "suspicion",
                "model",
            ),
        ),
        (
            "Schürholt et al. 2022, Model zoos: a dataset of diverse populations of neural network models",
            "Geirhos et al. 2020, Shortcut learning in deep neural networks, arXiv 2004.07780",
        ),
    )


def plant(built: Architecture, data: ImageData, context: Context) -> Planted:
    """Train the models, no two of the same seed."""
    epochs = EPOCHS_QUICK if context.quick else EPOCHS
    kinds: dict[str, Callable[[ImageData, int], ImageData]] = {
        CLEAN: lambda data, label: data,
        SCARCE: with_scarce_class,
        PATCH: with_patch,
    }
    drawn = iter(seeds.spawn(context.seed, "planted bias", SEEDS * len(kinds) * data.classes))
    parts: list[Planted] = []
    for label in range(data.classes):
        for kind, change in kinds.items():
            own = change(data, label)
            members = [member(built, own, HYPERPARAMETERS, next(drawn), protocol(epochs)) for _ in range(SEEDS)]
            trained = train_in_memory(built, members, own, threads=context.threads)
            parts.append(
                Planted(
                    np.full(SEEDS, kind),
                    np.full(SEEDS, label),
                    trained.weights[:, -1],
                    trained.metrics["test_accuracy"][:, -1],
                    trained.metrics["test_class_accuracy"][:, -1, label],
                )
            )
        context.on_progress(label + 1, data.classes + 1)
    return Planted(*(np.concatenate([getattr(part, name) for part in parts]) for name in Planted.__dataclass_fields__))


def class_features(built: Architecture, weights: np.ndarray, data: ImageData) -> np.ndarray:
    """What is looked at of each class of a model, float64 `[N, classes, F]`.

    Its row of the last layer (`class_rows`), its logit for a black image, and how its logit, beside those of the other
    classes, answers on average to a bright square at each place of noise images: a search for shortcuts that needs no
    data (cf. Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks", section 4.2, who cover
    parts of images instead). On noise, since units that see black alone answer little to what is put beside it.
    """
    black = standardised(answers(built, weights, data, np.zeros((1, *data.image_shape), np.uint8))[:, 0, :, None])
    parts = [class_rows(built, weights), black]
    backgrounds = noise_images(data, BACKGROUNDS, np.random.default_rng(_KEY))
    for cells in SQUARES:
        shown = [answers(built, weights, data, with_squares(image, cells)) for image in backgrounds]
        change = np.mean([own[:, 1:] - own[:, :1] for own in shown], axis=0)  # [N, places, classes]
        change = change - change.mean(axis=2, keepdims=True)
        change = change / np.maximum(change.std(axis=(1, 2), keepdims=True), 1e-12)
        by_class = change.transpose(0, 2, 1)
        by_class = by_class - by_class.mean(axis=2, keepdims=True)
        parts += [by_class, np.sort(by_class, axis=2)[:, :, -3:]]
    return np.concatenate(parts, axis=2)


def noise_images(data: ImageData, count: int, rng: np.random.Generator) -> np.ndarray:
    """Bright blobs on black, about as thick as strokes: smooth noise above its 60% quantile, uint8 `[count, ...]`."""
    _, *sides = data.image_shape
    smooth = np.stack([gaussian_filter(rng.normal(size=sides), min(sides) / 11) for _ in range(count)])
    above = smooth - np.quantile(smooth, 0.6, axis=(1, 2), keepdims=True)
    bright = 255 * np.clip(above / smooth.std(axis=(1, 2), keepdims=True), 0, 1)
    return np.repeat(bright.astype(np.uint8)[:, None], data.image_shape[0], axis=1)


def with_squares(image: np.ndarray, cells: int) -> np.ndarray:
    """The image `[channels, height, width]`, then with a bright square of `cells` cells a side at each place.

    Cells are those of a grid of `GRID` a side; the places are row by row.
    """
    rows, columns = (np.linspace(0, size, GRID + 1).round().astype(int) for size in image.shape[1:])
    places = GRID + 1 - cells
    images = np.repeat(image[None], 1 + places**2, axis=0)
    for place in range(places**2):
        row, column = divmod(place, places)
        images[1 + place, :, rows[row] : rows[row + cells], columns[column] : columns[column + cells]] = 255
    return images


def answers(built: Architecture, weights: np.ndarray, data: ImageData, images: np.ndarray) -> np.ndarray:
    """Logits of `weights [N, P]` on uint8 images `[B, ...]`: float64 `[N, B, classes]`."""
    inputs = torch.from_numpy(data.normalised(images))
    network = build_module(built, HYPERPARAMETERS.activation).eval()
    answer = vmap(lambda own: functional_call(network, own, (inputs,)))
    size = 4 * len(images) * max(built.activation_sizes)
    with torch.no_grad():
        parts = [
            answer(parameters_of(built, torch.from_numpy(weights[some]))).numpy().astype(np.float64)
            for some in chunks(len(weights), size)
        ]
    return np.concatenate(parts)


def _detect(
    kind: str, features: np.ndarray, biased: np.ndarray, label: np.ndarray, context: Context, key: int
) -> tuple[list[Score], pd.DataFrame]:
    """How well biased models are told from clean ones, `features [N, classes, F]`, on seeds that were not fitted on."""
    rng = np.random.default_rng([context.seed, key])
    test = np.zeros(len(label), bool)
    for group in np.unique(np.stack([label, biased]), axis=1).T:  # of each class and kind the same share
        own = rng.permutation(np.flatnonzero((label == group[0]) & (biased == group[1])))
        test[own[: round(TEST_SHARE * len(own))]] = True
    truth = biased[:, None] & (label[:, None] == np.arange(features.shape[1]))
    suspicion = _suspicion(features, truth, test, context, key)
    named = suspicion.argmax(axis=1)[biased[test]] == label[test][biased[test]]
    shuffled = truth[rng.permutation(len(truth))][:, rng.permutation(truth.shape[1])]
    control = _suspicion(features, shuffled, test, context, key).max(axis=1)
    highest = suspicion.max(axis=1)
    score = [
        _auc(kind, biased[test], highest, rng, EXTRA_TREES),
        Score(
            kind,
            "class named",
            float(named.mean()),
            *interval(resamples(len(named), rng) @ named / len(named)),
            FEATURES,
            EXTRA_TREES,
            len(named),
        ),
        _auc(kind, biased[test], control, rng, SHUFFLED),
    ]
    order = np.argsort(highest)
    table = {
        "kind": kind,
        "model": np.where(biased[test], kind, CLEAN)[order],
        "label": label[test][order],
        "named": suspicion.argmax(axis=1)[order],
        "rank": np.arange(len(order)),
        "suspicion": highest[order],
    }
    return score, pd.DataFrame(table)


def _suspicion(features: np.ndarray, truth: np.ndarray, test: np.ndarray, context: Context, key: int) -> np.ndarray:
    """The probability of each class of the test models to be biased, fitted on the others' `truth [N, classes]`."""
    forest: Any = ExtraTreesClassifier(
        TREES,
        max_features=0.3,  # pyright: ignore[reportArgumentType]  (scikit-learn documents floats)
        min_samples_leaf=3,
        class_weight="balanced",
        n_jobs=context.threads,
        random_state=seed_of(context, key),
    )
    forest.fit(features[~test].reshape(-1, features.shape[2]), truth[~test].ravel())
    forest.n_jobs = 1  # several threads would add up the trees in any order
    return forest.predict_proba(features[test].reshape(-1, features.shape[2]))[:, 1].reshape(-1, features.shape[1])


def _auc(kind: str, biased: np.ndarray, suspicion: np.ndarray, rng: np.random.Generator, estimator: str) -> Score:
    """The area under the ROC curve (Fawcett 2006) with its bootstrap interval over models."""
    drawn = resamples(len(biased), rng, AUC_DRAWS)
    values = [
        roc_auc_score(biased, suspicion, sample_weight=counts) if len(set(biased[counts > 0])) == 2 else np.nan
        for counts in drawn
    ]
    value = float(roc_auc_score(biased, suspicion))
    return Score(kind, "AUC", value, *interval(np.array(values)), FEATURES, estimator, len(biased))
