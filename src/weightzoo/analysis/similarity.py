"""Whether models represent images alike: linear centred kernel alignment of logits and of hidden activations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from weightzoo.analysis.pairs import ALL, between_figure, between_levels, compared, kinds, pair_mean, pair_scores
from weightzoo.analysis.results import Context, Figure, Result, Score, images_of
from weightzoo.analysis.weights import evenly
from weightzoo.architectures import Architecture
from weightzoo.architectures.graph import Activation, Conv, Linear, Residual
from weightzoo.architectures.module import build_module
from weightzoo.errors import NotFoundError

if TYPE_CHECKING:
    from weightzoo.zoo import Zoo

MOST, MOST_QUICK = 400, 100  # models
IMAGES, IMAGES_QUICK = 128, 64  # test images for hidden activations
_MOST_EPOCHS = 26
_KORNBLITH, _UNBIASED = "as published", "unbiased"
_COLUMNS = {_KORNBLITH: "CKA_as_published", _UNBIASED: "CKA"}
_REFERENCES = (
    "Kornblith et al. 2019, Similarity of Neural Network Representations Revisited, eq. 4",
    "Song et al. 2012, Feature Selection via Dependence Maximization, eq. 5 (the unbiased estimate of HSIC)",
)


def output_similarity(zoo: Zoo, context: Context) -> Result:
    """Linear CKA of the logits of each two finished models on the probe images, at the end and over the epochs.

    Raises:
        NotFoundError: the zoo holds no probe outputs, or has fewer than two finished models.
    """
    rows = compared(zoo, MOST_QUICK if context.quick else MOST)
    models = zoo.models.iloc[rows].reset_index(drop=True)
    epochs = [zoo.checkpoint_epochs[index] for index in evenly(len(zoo.checkpoint_epochs), _MOST_EPOCHS)]
    over_epochs: list[dict[str, object]] = []
    found: dict[str, np.ndarray] = {}
    for done, epoch in enumerate(epochs):
        context.on_progress(done, len(epochs))
        grams = np.stack([gram(own) for own in zoo.probe(rows.tolist(), [epoch])[:, 0].astype(np.float64)])
        found = {name: cka(kernel, kernel) for name, kernel in _both(grams).items()}
        for kind, pairs in kinds(models).items():
            means = {_COLUMNS[name]: pair_mean(own, pairs) for name, own in found.items()}
            over_epochs.append({"epoch": epoch, "pairs": kind, **means})
    features = f"logits on {zoo.header.probe_images} images"
    scores = [
        score
        for number, (name, own) in enumerate(found.items())
        for score in pair_scores(own, models, "linear CKA", [context.seed, number], features=features, estimator=name)
    ]
    means = "; ".join(f"{score.target} {score.value:.2f}" for score in scores if score.estimator == _UNBIASED)
    between = between_levels(found[_UNBIASED], models, "CKA")
    over_time = Figure(
        "lines",
        "by_epoch",
        "Linear CKA of logits over the epochs",
        f"Unbiased, mean over pairs of {len(rows):,} models.",
        "epoch",
        _COLUMNS[_UNBIASED],
        "pairs",
    )
    summary = f"Linear CKA of the logits, 0 for nothing in common, 1 for the same up to rotation and scale: {means}."
    tables = {"by_epoch": pd.DataFrame(over_epochs), "between_values": between}
    figures = (over_time, between_figure("CKA")) if len(between) else (over_time,)
    return Result("output-similarity", "Similarity of outputs", summary, tuple(scores), tables, figures, _REFERENCES)


def hidden_similarity(zoo: Zoo, context: Context) -> Result:
    """Linear CKA of the activations of each two finished models behind every layer, on test images, at the last epoch.

    Between all layers, so that it also shows whether layers of the same depth correspond.

    Raises:
        NotFoundError: the images are not at hand, fewer than two models finished, or the activation function of one is
            not known.
    """
    images = images_of(zoo, context)
    rows = compared(zoo, MOST_QUICK if context.quick else MOST)
    models = zoo.models.iloc[rows].reset_index(drop=True)
    if models["activation"].isna().any():
        raise NotFoundError("needs the activation function of every model, and the zoo does not say it of all")
    chosen = evenly(images.size("test"), IMAGES_QUICK if context.quick else IMAGES)
    inputs = images.normalised(images.images["test"][chosen])
    grams: dict[str, list[np.ndarray]] = {}
    for done, (row, activation) in enumerate(zip(rows.tolist(), models["activation"].tolist(), strict=True)):
        context.on_progress(done, len(rows))
        weights = zoo.weights([row], [zoo.checkpoint_epochs[-1]])[0, 0]
        for layer, features in activations(zoo.architecture, activation, weights, inputs):
            grams.setdefault(layer, []).append(gram(features).astype(np.float32))
    kernels = {layer: _both(np.stack(own)) for layer, own in grams.items()}
    between: list[dict[str, object]] = []
    by_layer: list[dict[str, object]] = []
    scores: list[Score] = []
    for number, (first, own_kernels) in enumerate(kernels.items()):
        for second in kernels:
            measure = cka(own_kernels[_UNBIASED], kernels[second][_UNBIASED])
            between.append({"layer": first, "other": second, "CKA": pair_mean(measure, kinds(models)[ALL])})
        own, published = (cka(own_kernels[name], own_kernels[name]) for name in (_UNBIASED, _KORNBLITH))
        features, seed = f"activations of {first}", [context.seed, number]
        for one in pair_scores(own, models, "linear CKA", seed, features=features, estimator=_UNBIASED):
            scores.append(one)
            entry: dict[str, object] = {"layer": first, "pairs": one.target}
            entry |= {"CKA": one.value, "low": one.low, "high": one.high}
            by_layer.append({**entry, _COLUMNS[_KORNBLITH]: pair_mean(published, kinds(models)[one.target])})
    tables = {"by_layer": pd.DataFrame(by_layer), "between_layers": pd.DataFrame(between)}
    of = f"{len(rows):,} models on {len(chosen)} test images"
    said = f"Unbiased linear CKA of pairs, {of}."
    figures = (
        Figure("bars", "by_layer", "By layer", said, "layer", "CKA", "pairs", "low", "high"),
        Figure("matrix", "between_layers", "Between layers", f"Mean over all pairs, {of}.", "layer", "other", "CKA"),
    )
    means = ", ".join(f"{one.features.split()[-1]} {one.value:.2f}" for one in scores if one.target == ALL)
    summary = f"Linear CKA of two models' activations behind each layer (unbiased, all pairs): {means}."
    title = "Similarity of hidden activations"
    return Result("hidden-similarity", title, summary, tuple(scores), tables, figures, _REFERENCES)


@torch.no_grad()
def activations(
    architecture: Architecture, activation: str, weights: np.ndarray, inputs: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """What a model `[P]` makes of images behind each hidden layer and at the end: its name and float64 `[B, features]`.

    Behind a layer is behind its activation function, or of a residual block behind the sum.
    """
    network = build_module(architecture, activation).eval()
    state = architecture.layout.unflatten(np.array(weights, np.float32))
    network.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    hidden, name = torch.from_numpy(np.ascontiguousarray(inputs, np.float32)), ""
    for layer, module in zip(architecture.layers, network, strict=True):
        hidden = module(hidden)
        if isinstance(layer, Conv | Linear | Residual):
            name = layer.name
        if isinstance(layer, Activation | Residual):
            yield name, hidden.flatten(1).double().numpy()
    yield name, hidden.flatten(1).double().numpy()


def gram(features: np.ndarray) -> np.ndarray:
    """The linear kernel `[B, B]` of features `[B, F]`, each centred before; NaN if one is not finite.

    A feature that is the same for all images but for the rounding of float32 counts as constant.
    """
    with np.errstate(invalid="ignore"):
        centred = features - features.mean(axis=0)
        constant = np.abs(centred).max(axis=0) <= 1e-6 * np.abs(features).max(axis=0)
        return np.where(constant, 0, centred) @ np.where(constant, 0, centred).T


def cka(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """CKA float64 `[M, N]` of kernels `[M, B*B]` and `[N, B*B]` of unit length; NaN of a kernel that has none."""
    found = (first @ second.T).astype(np.float64)
    dead, other = (~(np.abs(kernels).sum(axis=1) > 0) for kernels in (first, second))
    found[dead], found[:, other] = np.nan, np.nan
    return found


def centred_kernels(grams: np.ndarray, *, unbiased: bool) -> np.ndarray:
    """Kernels `[M, B, B]` so centred and scaled, float32 `[M, B*B]`, that the inner product of two is their CKA.

    `unbiased` centres as Székely and Rizzo 2014 ("Partial distance correlation with methods for dissimilarities", eq.
    2.2), the inner product of which is the unbiased estimate of HSIC by Song et al. 2012, eq. 5, but for a factor. A
    kernel that is zero, of activations that do not depend on the image, stays so.
    """
    images = grams.shape[1]
    kernels = np.array(grams, np.float64)
    if unbiased:
        diagonal = np.arange(images)
        kernels[:, diagonal, diagonal] = 0
        sums = kernels.sum(axis=2)
        kernels -= (sums[:, :, None] + sums[:, None, :]) / (images - 2)
        kernels += (sums.sum(axis=1) / ((images - 1) * (images - 2)))[:, None, None]
        kernels[:, diagonal, diagonal] = 0
    else:
        means = kernels.mean(axis=2)
        kernels -= means[:, :, None] + means[:, None, :] - means.mean(axis=1)[:, None, None]
    flat = kernels.reshape(len(kernels), -1)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(flat / lengths, posinf=0, neginf=0).astype(np.float32)


def _both(grams: np.ndarray) -> dict[str, np.ndarray]:
    return {
        _KORNBLITH: centred_kernels(grams, unbiased=False),
        _UNBIASED: centred_kernels(grams, unbiased=True),
    }
