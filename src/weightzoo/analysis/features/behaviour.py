"""What the models do with training images: units' activations and margins, for the whole population at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from weightzoo.analysis.features.states import Batch
from weightzoo.architectures.forward import forward_pass
from weightzoo.architectures.layers import Activation
from weightzoo.datasets.images import ImageData
from weightzoo.errors import NotFoundError

_WORKING_BYTES = 64 << 20  # of activations at a time


def training_images(batch: Batch, count: int) -> tuple[Tensor, np.ndarray]:
    """The first `count` training images as the networks see them, and their labels.

    Raises:
        NotFoundError: the images are not at hand.
    """
    if batch.images is None:
        raise NotFoundError(f"needs the images of {batch.zoo.dataset_info.name} that the models were trained on")
    data: ImageData = batch.images
    inputs = data.normalised(data.images["train"][:count])
    return torch.from_numpy(inputs), data.labels["train"][:count]


def population(batch: Batch, inputs: Tensor, *, gradients: bool = False) -> Iterator[tuple[np.ndarray, list[Tensor]]]:
    """Rows of the batch, and what the units of these models give: the images, each activation layer, the logits.

    Each is `[rows, images, units]` or `[rows, images, channels, height, width]`. With `gradients` the logits can be
    differentiated by all that comes before them.
    """
    per_model = 4 * len(inputs) * sum(batch.architecture.activation_sizes) * (3 if gradients else 1)
    step = max(1, _WORKING_BYTES // per_model)
    weights = torch.from_numpy(batch.weights)
    for activation in np.unique(batch.activations):
        alike = np.flatnonzero(batch.activations == activation)
        for rows in np.array_split(alike, -(-len(alike) // step)):
            with torch.set_grad_enabled(gradients):
                start = inputs.expand(len(rows), *inputs.shape).detach().clone().requires_grad_(gradients)
                given = [start]
                hidden = start
                for layer, hidden in forward_pass(batch.architecture, weights[rows], str(activation), start):
                    if isinstance(layer, Activation):
                        given.append(hidden)
                yield rows, [*given, hidden]
