"""How the loss rises around a model, in random directions and in the steepest one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata

from weightzoo.analysis.bootstrap import bootstrap
from weightzoo.analysis.landscape.population import LARGE, fewer, fewer_images, learned, measure
from weightzoo.analysis.results import Context, Figure, Result, Score, images_of
from weightzoo.architectures import Architecture
from weightzoo.architectures.module import parameters_of
from weightzoo.training.devices import to_tensor, torch_threads
from weightzoo.training.gradients import Dense

if TYPE_CHECKING:
    from weightzoo.datasets.images import ImageData
    from weightzoo.zoo import Zoo

RADII = (0.05, 0.1, 0.2, 0.4, 0.8)  # of random directions, as a share of each filter's norm
RHO = 0.05  # Euclidean length of the step against the gradient, as in the paper
_KEY = 7103
_MODELS, _DIRECTIONS = (64, 16), (6, 3)  # full, quick
_TRAIN, _TEST = (600, 300), (360, 200)  # images
_GRADIENT_ON = 256  # training images
_SHOWN = 0.2  # the radius at which sharpness is compared with what models achieve


def filter_normalised(architecture: Architecture, weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random direction float32 `[N, P]` for each of N models, as long as the model in each filter.

    Normal random numbers, scaled so that the part of every output unit or channel has the norm of that of the weights;
    zero for biases and for batch normalisation (Li, Xu, Taylor, Studer and Goldstein 2018, "Visualizing the Loss
    Landscape of Neural Nets", arXiv 1712.09913, section 4).
    """
    direction = np.zeros(weights.shape, np.float32)
    parts, own = architecture.layout.unflatten(direction), architecture.layout.unflatten(weights)
    for name in architecture.prunable:
        drawn = rng.standard_normal(parts[name].shape)
        axes = tuple(range(2, drawn.ndim))
        lengths = np.sqrt((drawn**2).sum(axis=axes, keepdims=True))
        norms = np.sqrt((own[name].astype(np.float64) ** 2).sum(axis=axes, keepdims=True))
        parts[name][...] = drawn / np.maximum(lengths, 1e-30) * norms
    return direction


def steepest(
    architecture: Architecture, activation: str, weights: np.ndarray, images: ImageData, threads: int = 1
) -> np.ndarray:
    """The direction float32 `[N, P]` of length 1 in which each model's training loss rises most.

    The first-order solution of the inner problem of sharpness-aware minimisation (Foret, Kleiner, Mobahi and Neyshabur
    2021, arXiv 2010.01412, equation 2), on the first training images. Zero where there is no finite gradient.
    """
    device = torch.device("cpu")
    dense = Dense(architecture, activation, device)  # in evaluation mode batch normalisation has its running statistics
    dense.network.eval()
    inputs = to_tensor(images.inputs["train"][:_GRADIENT_ON], device)
    labels = to_tensor(images.labels["train"][:_GRADIENT_ON], device, torch.int64)
    parameters = parameters_of(architecture, to_tensor(weights, device))
    count = len(weights)
    own = inputs.expand(count, *[-1] * inputs.ndim)
    with torch_threads(threads):
        found, _, _, _ = dense.gradients(parameters, own, labels.expand(count, -1), {})
    direction = np.zeros(weights.shape, np.float32)
    parts = architecture.layout.unflatten(direction)
    for name, gradient in found.items():
        parts[name][...] = gradient.numpy()
    lengths = np.linalg.norm(direction.astype(np.float64), axis=1, keepdims=True)
    usable = np.isfinite(lengths) & (lengths > 0)
    return np.where(usable, direction / np.where(usable, lengths, 1), 0).astype(np.float32)


def regions(zoo: Zoo, context: Context) -> Result:
    """How far the loss and the accuracy of models change around them, and whether sharp models do worse.

    In random filter-normalised directions at some distances, and one step of length 0.05 up the gradient. Sharpness is
    the mean rise of the training loss over the directions.

    Raises:
        NotFoundError: the images are not at hand, or no two models learned something.
    """
    quick, large = int(context.quick), zoo.layout.size > LARGE
    images = fewer_images(images_of(zoo, context), _TRAIN[quick or large], _TEST[quick or large])
    rng = np.random.default_rng([context.seed, _KEY])
    candidates = np.flatnonzero(learned(zoo))
    rows = np.sort(rng.permutation(candidates)[: fewer(zoo.architecture, _MODELS[quick])])
    weights = zoo.weights(rows, [zoo.checkpoint_epochs[-1]])[:, 0]
    activations = zoo.models["activation"].iloc[rows].to_numpy(str)
    count = _DIRECTIONS[quick]

    directions = [filter_normalised(zoo.architecture, weights, rng) for _ in range(count)]
    up = np.zeros_like(weights)
    for kind in np.unique(activations):
        own = np.flatnonzero(activations == kind)
        for some in np.array_split(own, max(1, len(own) // 8)):
            up[some] = steepest(zoo.architecture, str(kind), weights[some], images, context.threads if large else 1)
    points = [weights, weights + RHO * up]
    points += [weights + np.float32(radius) * direction for radius in RADII for direction in directions]
    total = len(points) * len(rows)
    found = measure(
        zoo.architecture,
        activations.tolist() * len(points),
        np.concatenate(points),
        images,
        context.threads,
        lambda done: context.on_progress(done, total),
    ).reshape(len(points), len(rows))
    around = found.train_loss[2:].reshape(len(RADII), count, len(rows)) - found.train_loss[0]
    fallen = found.test_accuracy[0] - found.test_accuracy[2:].reshape(len(RADII), count, len(rows))
    adaptive = found.train_loss[1] - found.train_loss[0]

    models = pd.DataFrame({"model": rows, "activation": activations, "train_loss": found.train_loss[0]})
    models["steepest"] = adaptive
    for place, radius in enumerate(RADII):
        models[f"loss_rise_{radius}"] = around[place].mean(axis=0)
        models[f"accuracy_fall_{radius}"] = fallen[place].mean(axis=0)
    for name in ("test_accuracy", "generalization_gap"):
        models[name] = zoo.models[name].iloc[rows].to_numpy(np.float64)
    radii = _by_radius(activations, around, fallen)
    scores = _scores(models, fallen.mean(axis=1), context)
    values = {(score.target, score.features): score.value for score in scores}
    at = f"random directions, radius {_SHOWN}"
    gap, accuracy = (values.get((name, at), np.nan) for name in ("generalisation gap", "test accuracy"))
    summary = (
        f"At {_SHOWN} of each filter's norm in a random direction, the test accuracy of {len(rows)} models falls by "
        f"{values['fall of test accuracy', at]:.3f}. The rise of the train loss there has rank correlation {gap:+.2f} "
        f"with the generalisation gap and {accuracy:+.2f} with the test accuracy."
    )
    return Result(
        "regions",
        "The loss around models",
        summary,
        tuple(scores),
        {"models": models, "radii": radii},
        (
            Figure(
                "lines",
                "radii",
                "How far the test accuracy falls around models",
                f"Mean over models and {count} random directions each; the radius is a share of each filter's norm.",
                x="radius",
                y="accuracy_fall",
                by="activation",
                log_x=True,
            ),
            Figure(
                "points",
                "models",
                "Sharpness and test accuracy",
                f"A point a model; sharpness is the mean rise of its train loss at {_SHOWN} of each filter's norm.",
                x=f"loss_rise_{_SHOWN}",
                y="test_accuracy",
                by="activation",
                log_x=True,
            ),
        ),
        (
            "Li et al. 2018, Visualizing the Loss Landscape of Neural Nets",
            "Foret et al. 2021, Sharpness-Aware Minimization for Efficiently Improving Generalization",
            "Keskar et al. 2017, On Large-Batch Training for Deep Learning: Generalization Gap and Sharp Minima",
        ),
    )


def _by_radius(activations: np.ndarray, around: np.ndarray, fallen: np.ndarray) -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    for kind in np.unique(activations):
        own = activations == kind
        for place, radius in enumerate(RADII):
            rise = np.median(around[place][:, own].mean(axis=0))
            fall = fallen[place][:, own].mean()
            rows.append({"activation": str(kind), "radius": radius, "loss_rise": rise, "accuracy_fall": fall})
    return pd.DataFrame(rows)


def _scores(models: pd.DataFrame, fallen: np.ndarray, context: Context) -> list[Score]:
    """Mean falls of the accuracy `fallen [radii, N]`, and rank correlations of sharpness with what models achieve."""
    scores: list[Score] = []
    for place, radius in enumerate(RADII):
        rng = np.random.default_rng([context.seed, _KEY, 1, place])
        interval = bootstrap(fallen[place], np.mean, rng)
        at = f"random directions, radius {radius}"
        value = float(fallen[place].mean())
        scores.append(Score("fall of test accuracy", "mean", value, *interval, at, models=len(models)))
    sharpness = {f"random directions, radius {_SHOWN}": f"loss_rise_{_SHOWN}", f"gradient, radius {RHO}": "steepest"}
    for place, (at, column) in enumerate(sharpness.items()):
        for number, target in enumerate(("test_accuracy", "generalization_gap")):
            values = models[[column, target]].to_numpy(np.float64)
            values = values[np.isfinite(values).all(axis=1)]
            if len(values) < 3 or (np.ptp(values, axis=0) == 0).any():
                continue
            rng = np.random.default_rng([context.seed, _KEY, 2, place, number])
            name = "test accuracy" if target == "test_accuracy" else "generalisation gap"
            value = float(_rank_correlations(values[None], axis=1)[0])
            interval = bootstrap(values, _rank_correlations, rng)
            scores.append(Score(name, "Spearman rho", value, *interval, at, models=len(values)))
    return scores


def _rank_correlations(values: np.ndarray, axis: int) -> np.ndarray:
    """Of `[draws, N, 2]`, `[draws]`; NaN where a column is constant."""
    ranks = rankdata(values, axis=axis)
    centred = ranks - ranks.mean(axis=axis, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = np.sqrt((centred**2).sum(axis=axis)).prod(axis=-1)
        return centred.prod(axis=-1).sum(axis=axis) / lengths
