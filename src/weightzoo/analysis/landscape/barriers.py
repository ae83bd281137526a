"""Loss and accuracy on the straight line between two models, before and after their units are put in one order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from weightzoo.analysis.alignment import distances, match_activations, match_weights, repaired
from weightzoo.analysis.bootstrap import bootstrap
from weightzoo.analysis.landscape.pairs import CONFIGURATION, Pairs, draw_pairs
from weightzoo.analysis.landscape.population import LARGE, Losses, fewer, fewer_images, measure
from weightzoo.analysis.results import Context, Figure, Result, Score, images_of
from weightzoo.architectures import Architecture

if TYPE_CHECKING:
    from weightzoo.datasets.images import ImageData
    from weightzoo.zoo import Zoo

AS_THEY_ARE, BY_WEIGHTS, BY_ACTIVATIONS = "as they are", "weight matching", "activation matching"
_KEY = 7101
_PAIRS, _COPIES, _POINTS = (40, 10), (8, 4), (11, 7)  # full, quick
_TRAIN, _TEST = (1000, 400), (500, 200)  # images
_STARTS = 4  # of weight matching
_MATCHED_ON = 100  # training images
_STATISTICS_ON = 400  # training images for batch normalisation


def barrier(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """How far `values [..., T]`, at `shares [T]` of the way, rise above the straight line between their ends, `[...]`.

    At least 0. NaN if a value is not finite. The definition of Entezari, Sedghi, Saukh and Neyshabur 2022, "The Role of
    Permutation Invariance in Linear Mode Connectivity of Neural Networks", arXiv 2110.06296, equation 1; that of
    Frankle et al. 2020, arXiv 1912.05671, has the mean of both ends in place of the line.

    >>> barrier(np.array([1.0, 4.0, 3.0]), np.array([0.0, 0.5, 1.0])).item()
    2.0
    """
    line = values[..., :1] * (1 - shares) + values[..., -1:] * shares
    return np.maximum(values - line, 0).max(axis=-1)


def along(
    architecture: Architecture,
    activations: np.ndarray,
    points: np.ndarray,
    images: ImageData,
    context: Context,
) -> Losses:
    """What networks on N paths, `points [N, T, P]`, make of the images, `[N, T]`.

    Batch normalisation gets the statistics of each network on a path but at its ends (see `repaired`).
    """
    pairs, steps, size = points.shape
    if architecture.layout.buffers:
        inputs = images.inputs["train"][:_STATISTICS_ON]
        for row in range(pairs):
            points[row, 1:-1] = repaired(architecture, str(activations[row]), points[row, 1:-1], inputs)
    kinds = np.repeat(activations, steps).tolist()
    return measure(architecture, kinds, points.reshape(-1, size), images, context.threads).reshape(pairs, steps)


def straight(first: np.ndarray, second: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The points float32 `[N, T, P]` at `shares [T]` of the way from `first` to `second`, both `[N, P]`."""
    part = shares[None, :, None].astype(np.float32)
    return first[:, None] * (1 - part) + second[:, None] * part


def aligned_pairs(zoo: Zoo, pairs: Pairs, images: ImageData) -> dict[str, np.ndarray]:
    """The second network of each pair `[N, P]`: as it is, and with its units in the order of the first one's."""
    by_activation = np.array(pairs.second_weights)
    inputs = images.inputs["train"][:_MATCHED_ON]
    for kind in np.unique(pairs.activations):
        rows = np.flatnonzero(pairs.activations == kind)
        first, second = pairs.first_weights[rows], pairs.second_weights[rows]
        by_activation[rows] = match_activations(zoo.architecture, str(kind), first, second, inputs).apply(second)
    matching = match_weights(zoo.symmetries, pairs.first_weights, pairs.second_weights, starts=_STARTS)
    return {
        AS_THEY_ARE: pairs.second_weights,
        BY_WEIGHTS: matching.apply(pairs.second_weights),
        BY_ACTIVATIONS: by_activation,
    }


def barriers(zoo: Zoo, context: Context) -> Result:
    """Barriers between pairs of models that share a configuration, their initial weights, or nothing.

    A pair's loss and accuracy are measured at equal distances on the line between the two, first as they are, then
    with the second one's units put in the order of the first one's. As a check there are pairs of a model and a
    permuted copy of itself, between which no barrier may be left.

    Raises:
        NotFoundError: the images are not at hand, or no two models learned something.
    """
    quick, large = int(context.quick), zoo.layout.size > LARGE
    images = fewer_images(images_of(zoo, context), _TRAIN[quick or large], _TEST[quick or large])
    rng = np.random.default_rng([context.seed, _KEY])
    pairs = draw_pairs(zoo, rng, fewer(zoo.architecture, _PAIRS[quick]), copies=fewer(zoo.architecture, _COPIES[quick]))
    shares = np.linspace(0, 1, 5 if large else _POINTS[quick])
    found: list[pd.DataFrame] = []
    paths: list[pd.DataFrame] = []
    variants = aligned_pairs(zoo, pairs, images)
    for number, (name, second) in enumerate(variants.items()):
        context.on_progress(number, len(variants))
        points = straight(pairs.first_weights, second, shares)
        losses = along(zoo.architecture, pairs.activations, points, images, context)
        found.append(_rows(zoo, pairs, name, second, losses, shares))
        paths.append(_paths(pairs, name, losses, shares))
    context.on_progress(len(variants), len(variants))
    table = pd.concat(found, ignore_index=True)
    every = pd.concat(paths, ignore_index=True)
    scores = _scores(table, context)
    shown = CONFIGURATION if CONFIGURATION in pairs.kinds else str(pairs.kinds[0])
    by_kind = _by_kind(table, scores)
    return Result(
        "barriers",
        "Barriers between models, before and after alignment",
        _summary(by_kind, shown),
        tuple(scores),
        {"barriers": by_kind, "pairs": table, "paths": every, "path": every.loc[every["pairs"] == shown]},
        (
            Figure(
                "bars",
                "barriers",
                "Barriers of test accuracy",
                "Mean over the pairs of each kind, with its 95% bootstrap interval: how far the accuracy falls, on the "
                "line between two models, below the line between their accuracies.",
                x="pairs",
                y="accuracy_barrier",
                by="order",
                low="low",
                high="high",
            ),
            Figure(
                "lines",
                "path",
                f"Test accuracy from one model to the other, {shown}",
                "Mean over the pairs.",
                x="share",
                y="test_accuracy",
                by="order",
            ),
        ),
        (
            "Ainsworth, Hayase, Srinivasa 2023, Git Re-Basin: Merging Models modulo Permutation Symmetries",
            "Entezari et al. 2022, The Role of Permutation Invariance in Linear Mode Connectivity of Neural Networks",
            "Frankle et al. 2020, Linear Mode Connectivity and the Lottery Ticket Hypothesis",
            "Jordan et al. 2023, REPAIR: REnormalizing Permuted Activations for Interpolation Repair",
            "Li et al. 2016, Convergent Learning: Do different neural networks learn the same representations?",
        ),
    )


def _rows(zoo: Zoo, pairs: Pairs, order: str, second: np.ndarray, losses: Losses, shares: np.ndarray) -> pd.DataFrame:
    euclidean, cosine = distances(zoo.layout, pairs.first_weights, second)
    return pd.DataFrame(
        {
            "pairs": pairs.kinds,
            "order": order,
            "first": pairs.first,
            "second": pairs.second,
            "activation": pairs.activations,
            "distance": euclidean,
            "cosine_distance": cosine,
            "train_loss_barrier": barrier(losses.train_loss, shares),
            "test_loss_barrier": barrier(losses.test_loss, shares),
            "train_accuracy_barrier": barrier(-losses.train_accuracy, shares),
            "accuracy_barrier": barrier(-losses.test_accuracy, shares),
            "accuracy_of_ends": losses.test_accuracy[:, [0, -1]].mean(axis=1),
        }
    )


def _paths(pairs: Pairs, order: str, losses: Losses, shares: np.ndarray) -> pd.DataFrame:
    """The means over the pairs of a kind; of the losses medians, since some models' are thousands."""
    tables: list[pd.DataFrame] = []
    for kind in dict.fromkeys(pairs.kinds.tolist()):
        own = pairs.kinds == kind
        columns = {
            "train_loss": np.median(losses.train_loss[own], axis=0),
            "test_loss": np.median(losses.test_loss[own], axis=0),
            "train_accuracy": losses.train_accuracy[own].mean(axis=0),
            "test_accuracy": losses.test_accuracy[own].mean(axis=0),
        }
        tables.append(pd.DataFrame({"pairs": kind, "order": order, "share": shares, **columns}))
    return pd.concat(tables, ignore_index=True)


def _scores(table: pd.DataFrame, context: Context) -> list[Score]:
    """Of each kind of pairs and each order: mean barrier of the test accuracy, median one of the train loss."""
    measures = (
        ("barrier of test accuracy", "accuracy_barrier", "mean", np.mean),
        ("barrier of train loss", "train_loss_barrier", "median", np.median),
        ("cosine distance", "cosine_distance", "mean", np.mean),
    )
    scores: list[Score] = []
    for place, (target, column, metric, statistic) in enumerate(measures):
        for number, (kind, order, own) in enumerate(_groups(table)):
            values = own[column].to_numpy(np.float64)
            values = values[np.isfinite(values)]
            if not len(values):
                continue
            low, high = bootstrap(values, statistic, np.random.default_rng([context.seed, _KEY, place, number]))
            scores.append(Score(target, metric, float(statistic(values)), low, high, kind, order, len(values)))
    return scores


def _groups(table: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """The rows of each kind of pairs and order of units."""
    keys: list[tuple[str, str]] = list(zip(table["pairs"], table["order"], strict=True))
    return [
        (kind, order, table.loc[(table["pairs"] == kind) & (table["order"] == order)])
        for kind, order in dict.fromkeys(keys)
    ]


def _by_kind(table: pd.DataFrame, scores: list[Score]) -> pd.DataFrame:
    """A row a kind of pairs and order of units."""
    values = {(score.target, score.features, score.estimator): score for score in scores}
    rows: list[dict[str, object]] = []
    for kind, order, own in _groups(table):
        accuracy = values["barrier of test accuracy", kind, order]
        loss = values.get(("barrier of train loss", kind, order))
        rows.append(
            {
                "pairs": kind,
                "order": order,
                "number": len(own),
                "accuracy_of_ends": own["accuracy_of_ends"].mean(),
                "accuracy_barrier": accuracy.value,
                "low": accuracy.low,
                "high": accuracy.high,
                "train_loss_barrier": np.nan if loss is None else loss.value,
                "distance": own["distance"].mean(),
                "cosine_distance": own["cosine_distance"].mean(),
            }
        )
    return pd.DataFrame(rows)


def _summary(table: pd.DataFrame, kind: str) -> str:
    own = table.loc[table["pairs"] == kind]
    falls: dict[str, float] = dict(zip(own["order"], own["accuracy_barrier"], strict=True))
    ends = float(own["accuracy_of_ends"].mean())
    return (
        f"Between models of the {kind} (mean accuracy {ends:.3f}) the accuracy falls by {falls[AS_THEY_ARE]:.3f} on "
        f"the straight line, by {falls[BY_WEIGHTS]:.3f} after weight matching and by {falls[BY_ACTIVATIONS]:.3f} after "
        "activation matching."
    )
