"""Curves of low loss between two models, trained for many pairs at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from weightzoo.analysis.alignment import match_weights
from weightzoo.analysis.bootstrap import bootstrap
from weightzoo.analysis.landscape.barriers import AS_THEY_ARE, BY_WEIGHTS, along, barrier, straight
from weightzoo.analysis.landscape.pairs import CONFIGURATION, Pairs, draw_pairs
from weightzoo.analysis.landscape.population import LARGE, Losses, fewer, fewer_images
from weightzoo.analysis.results import Context, Figure, Result, Score, images_of
from weightzoo.architectures import Architecture
from weightzoo.architectures.module import parameters_of
from weightzoo.training.devices import to_tensor, torch_threads
from weightzoo.training.gradients import Dense
from weightzoo.training.optimisers import update
from weightzoo.training.protocol import BETA1

if TYPE_CHECKING:
    from weightzoo.datasets.images import ImageData
    from weightzoo.zoo import Zoo

LINE, CURVE = "straight line", "curve"
_KEY = 7102
_PAIRS, _STEPS, _POINTS = (10, 4), (250, 60), (11, 7)  # full, quick
_BATCH, _RATE = 32, 1e-2
_TRAIN, _TEST = (1000, 400), (500, 200)  # images


def bezier(first: np.ndarray, middle: np.ndarray, second: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Points float32 `[N, T, P]` of quadratic Bézier curves with ends and control points `[N, P]`, at `shares [T]`."""
    t = shares[None, :, None]
    points = (1 - t) ** 2 * first[:, None] + 2 * t * (1 - t) * middle[:, None] + t**2 * second[:, None]
    return points.astype(np.float32)


def train_curves(
    architecture: Architecture,
    activation: str,
    first: np.ndarray,
    second: np.ndarray,
    images: ImageData,
    rng: np.random.Generator,
    *,
    steps: int,
    batch_size: int = _BATCH,
    learning_rate: float = _RATE,
    threads: int = 1,
) -> np.ndarray:
    """The control points float32 `[N, P]` of curves of low loss from `first` to `second`, both `[N, P]`.

    They start half way on the straight line, and minimise the mean loss over the curve by Adam, whose rate falls to
    zero along a cosine: each step takes a minibatch of training images, the same for all curves, and of every curve one
    point at random. All curves are one population, each step one operation.

    References: Garipov, Izmailov, Podoprikhin, Vetrov and Wilson 2018, "Loss Surfaces, Mode Connectivity, and Fast
    Ensembling of DNNs", arXiv 1802.10026, sections 3.1 and 3.2.
    """
    device = torch.device("cpu")
    dense = Dense(architecture, activation, device)
    dense.training_mode()
    start, end = to_tensor(first, device), to_tensor(second, device)
    middle = (start + end) / 2
    slots = {name: torch.zeros_like(middle) for name in ("exp_avg", "exp_avg_sq")}
    inputs, labels = to_tensor(images.inputs["train"], device), to_tensor(images.labels["train"], device, torch.int64)
    decay = torch.zeros(1, 1)
    with torch_threads(threads):
        for step in range(steps):
            batch = torch.from_numpy(rng.integers(0, len(labels), batch_size))
            t = to_tensor(rng.random((len(middle), 1)), device)
            points = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
            own = inputs[batch].expand(len(middle), *[-1] * inputs.ndim)
            found, _, _, _ = dense.gradients(
                parameters_of(architecture, points), own, labels[batch].expand(len(middle), -1), {}
            )
            parts = (
                found[name].flatten(1) if name in found else torch.zeros(len(middle), int(np.prod(shape)))
                for name, shape in architecture.layout.parameters
            )
            gradient = torch.cat(list(parts), dim=1) * 2 * t * (1 - t)
            rate = learning_rate * (1 + np.cos(np.pi * step / steps)) / 2
            rates = torch.full((len(middle), 1), rate, dtype=torch.float64)
            update("adam", middle, gradient, slots, rates, decay, BETA1, step)
    return middle.numpy()


def connectivity(zoo: Zoo, context: Context) -> Result:
    """Barriers on trained curves between models, beside those on the straight line, before and after alignment.

    Raises:
        NotFoundError: the images are not at hand, or no two models learned something.
    """
    quick, large = int(context.quick), zoo.layout.size > LARGE
    images = fewer_images(images_of(zoo, context), _TRAIN[quick or large], _TEST[quick or large])
    rng = np.random.default_rng([context.seed, _KEY])
    drawn = draw_pairs(zoo, rng, fewer(zoo.architecture, _PAIRS[quick]))
    kind = CONFIGURATION if (drawn.kinds == CONFIGURATION).any() else str(drawn.kinds[0])
    pairs = drawn.select(np.flatnonzero(drawn.kinds == kind))
    shares = np.linspace(0, 1, 5 if large else _POINTS[quick])
    moved = match_weights(zoo.symmetries, pairs.first_weights, pairs.second_weights).apply(pairs.second_weights)
    ends = {AS_THEY_ARE: pairs.second_weights, BY_WEIGHTS: moved}
    first, second = np.concatenate([pairs.first_weights] * 2), np.concatenate([*ends.values()])
    both = Pairs(*(np.concatenate([values, values]) for values in vars(pairs).values()))

    threads = context.threads if large else 1  # operations on a small network are too short to be shared
    middle = np.empty_like(first)
    kinds = list(dict.fromkeys(both.activations.tolist()))
    for number, name in enumerate(kinds):
        context.on_progress(number, len(kinds))
        rows = np.flatnonzero(both.activations == name)
        own = np.random.default_rng([context.seed, _KEY, number])
        middle[rows] = train_curves(
            zoo.architecture, name, first[rows], second[rows], images, own, steps=_STEPS[quick], threads=threads
        )
    measured = {
        path: along(zoo.architecture, both.activations, points, images, context)
        for path, points in (
            (LINE, straight(first, second, shares)),
            (CURVE, bezier(first, middle, second, shares)),
        )
    }
    orders = np.repeat(np.array(list(ends)), len(pairs))
    table = pd.concat(
        [_rows(both, orders, path, losses, shares) for path, losses in measured.items()], ignore_index=True
    )
    paths = pd.concat([_paths(orders, path, losses, shares) for path, losses in measured.items()], ignore_index=True)
    scores = _scores(table, context)
    values = {(score.features, score.estimator): score.value for score in scores if score.metric == "mean"}
    context.on_progress(len(kinds), len(kinds))
    summary = (
        f"Between {len(pairs)} pairs of models ({kind}) the test accuracy falls by "
        f"{values[LINE, AS_THEY_ARE]:.3f} on the straight line and by {values[CURVE, AS_THEY_ARE]:.3f} on a trained "
        f"curve; after weight matching by {values[LINE, BY_WEIGHTS]:.3f} and {values[CURVE, BY_WEIGHTS]:.3f}."
    )
    return Result(
        "connectivity",
        "Curves of low loss between models",
        summary,
        tuple(scores),
        {"connectivity": table, "curves": paths},
        (
            Figure(
                "lines",
                "curves",
                "Test accuracy from one model to the other",
                f"Mean over {len(pairs)} pairs of models of the {kind}, on the straight line and on a quadratic Bézier "
                f"curve trained for {_STEPS[quick]} steps.",
                x="share",
                y="test_accuracy",
                by="path",
            ),
        ),
        (
            "Garipov et al. 2018, Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs",
            "Draxler et al. 2018, Essentially No Barriers in Neural Network Energy Landscape",
        ),
    )


def _rows(pairs: Pairs, orders: np.ndarray, path: str, losses: Losses, shares: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "path": path,
            "order": orders,
            "first": pairs.first,
            "second": pairs.second,
            "activation": pairs.activations,
            "train_loss_barrier": barrier(losses.train_loss, shares),
            "accuracy_barrier": barrier(-losses.test_accuracy, shares),
            "mean_train_loss": losses.train_loss.mean(axis=1),
        }
    )


def _paths(orders: np.ndarray, path: str, losses: Losses, shares: np.ndarray) -> pd.DataFrame:
    tables = [
        pd.DataFrame(
            {
                "path": f"{path}, {order}",
                "share": shares,
                "train_loss": np.median(losses.train_loss[orders == order], axis=0),
                "test_accuracy": losses.test_accuracy[orders == order].mean(axis=0),
            }
        )
        for order in dict.fromkeys(orders.tolist())
    ]
    return pd.concat(tables, ignore_index=True)


def _scores(table: pd.DataFrame, context: Context) -> list[Score]:
    scores: list[Score] = []
    keys: list[tuple[str, str]] = list(zip(table["path"], table["order"], strict=True))
    for number, (path, order) in enumerate(dict.fromkeys(keys)):
        own = table.loc[(table["path"] == path) & (table["order"] == order)]
        for place, (target, column, metric, statistic) in enumerate(
            (
                ("barrier of test accuracy", "accuracy_barrier", "mean", np.mean),
                ("barrier of train loss", "train_loss_barrier", "median", np.median),
            )
        ):
            values = own[column].to_numpy(np.float64)
            values = values[np.isfinite(values)]
            if len(values):
                rng = np.random.default_rng([context.seed, _KEY, 1, number, place])
                interval = bootstrap(values, statistic, rng)
                value = float(statistic(values))
                scores.append(Score(target, metric, value, *interval, path, order, len(values)))
    return scores
