"""Distributions of margins: how far images are from another class, in the outputs and in the hidden layers."""

from __future__ import annotations

import numpy as np
import torch

from weightzoo.analysis.features.behaviour import population, training_images
from weightzoo.analysis.features.states import Batch

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
IMAGES = 100
_TINY = 1e-12


def probe_margins(batch: Batch) -> dict[str, np.ndarray]:
    """Of the stored logits on test images: how they are distributed, and, with labels at hand, the share that is right.

    Margins are of the largest logit over the second and, with labels, of the label's over the largest other, as logits
    and as a share of the logits' deviation; beside them entropy, the shares of the classes, accuracy and loss. That is
    behaviour on *test* images: it is a measurement more than a prediction, and shown apart.

    Raises:
        NotFoundError: the zoo holds no probe outputs.
    """
    logits = np.where(np.isfinite(batch.logits), batch.logits, 0).astype(np.float64)
    ordered = np.sort(logits, axis=2)
    spread = np.maximum(logits.std(axis=(1, 2)), _TINY)
    top = ordered[..., -1] - ordered[..., -2]
    log_probability = logits - ordered[..., -1:]
    log_probability -= np.log(np.exp(log_probability).sum(axis=2, keepdims=True))
    probability = np.exp(log_probability)
    columns = {**_distribution("top", top), **_distribution("top.scaled", top / spread[:, None])}
    columns["entropy"] = -(probability * log_probability).sum(axis=2).mean(axis=1)
    columns["log_spread"] = np.log10(spread)
    columns["log_between"] = np.log10(np.maximum(logits.std(axis=1).mean(axis=1), _TINY))
    chosen = logits.argmax(axis=2)
    shares = np.stack([(chosen == label).mean(axis=1) for label in range(logits.shape[2])], axis=1)
    columns |= {f"chosen[{label}]": shares[:, label] for label in range(logits.shape[2])}
    columns["chosen.largest"] = shares.max(axis=1)
    if batch.images is not None:
        labels = batch.images.labels["test"][: logits.shape[1]]
        margin = _label_margin(logits, labels)
        columns |= _distribution("label", margin) | _distribution("label.scaled", margin / spread[:, None])
        columns["accuracy"] = (margin > 0).mean(axis=1)
        columns["loss"] = -log_probability[:, np.arange(len(labels)), labels].mean(axis=1)
    return columns


def hidden_margins(batch: Batch, count: int = IMAGES) -> dict[str, np.ndarray]:
    """Of `count` training images: margins in the images, each hidden layer and the logits, by their distribution.

    At a layer h the margin is (f_label - f_other) / |gradient by h of (f_label - f_other)|, other being the class with
    the largest logit beside the label, over the square root of the layer's total variation: the trace of the covariance
    of h over the images (equations 3 to 5). At the logits the gradient is the square root of 2.

    Raises:
        NotFoundError: the images are not at hand.

    References: Jiang et al. 2019, "Predicting the Generalization Gap in Deep Networks with Margin Distributions", arXiv
    1810.00113.
    """
    inputs, labels = training_images(batch, count)
    table: dict[str, np.ndarray] = {}
    picked, of_label = np.arange(len(labels)), torch.from_numpy(labels.astype(np.int64))
    for rows, given in population(batch, inputs, gradients=True):
        logits = given[-1]
        others = logits.detach().clone()
        others[:, picked, of_label] = -torch.inf
        other = others.argmax(2)
        difference = logits[:, picked, of_label] - logits.gather(2, other[..., None])[..., 0]
        slopes = [*torch.autograd.grad(difference.sum(), given[:-1]), torch.full_like(logits[..., :1], 2**0.5)]
        for place, (hidden, slope) in enumerate(zip(given, slopes, strict=True)):
            steepness = slope.flatten(2).norm(dim=2)
            variation = hidden.detach().flatten(2).var(1, correction=0).sum(1, keepdim=True).sqrt()
            margin = difference.detach() / ((steepness + _TINY) * (variation + _TINY))
            margin = torch.where(steepness > _TINY, margin, 0)  # where nothing that changes h would change the class
            name = "logits" if place == len(given) - 1 else f"layer{place}"
            for column, values in _distribution(name, np.arcsinh(margin.double().numpy())).items():
                table.setdefault(column, np.full(len(batch), np.nan))[rows] = values
    return table


def _label_margin(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    picked = np.arange(len(labels))
    others = logits.copy()
    others[:, picked, labels] = -np.inf
    return logits[:, picked, labels] - others.max(axis=2)


def _distribution(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Mean, standard deviation and quantiles of each row."""
    found = np.quantile(values, SHARES, axis=1)
    columns = {f"{name}.mean": values.mean(axis=1), f"{name}.deviation": values.std(axis=1)}
    return columns | {f"{name}.q{100 * share:g}": found[index] for index, share in enumerate(SHARES)}
