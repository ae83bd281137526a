"""Training in float64, one member at a time, with every formula written out: what all engines are held against."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from weightzoo import seeds
from weightzoo.architectures.graph import Activation, Architecture, Conv, Dropout, Flatten, Linear, MaxPool
from weightzoo.datasets.images import ImageData, SplitName
from weightzoo.members import Member
from weightzoo.training.initial import initial_weights

ACTIVATIONS = {
    "tanh": torch.tanh,
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "relu": lambda x: x.clamp(min=0),
    "gelu": lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "silu": lambda x: x / (1 + torch.exp(-x)),
}


@dataclass
class OracleEpoch:
    weights: np.ndarray  # float64 [P]
    train_loss: float
    train_accuracy: float


def forward(
    architecture: Architecture, activation: str, weights: torch.Tensor, x: torch.Tensor, masks: dict[int, torch.Tensor]
) -> torch.Tensor:
    """Logits from a weight vector, layer by layer."""
    span = architecture.layout.span
    for index, layer in enumerate(architecture.layers):
        if isinstance(layer, Conv | Linear):
            name = layer.name
            bias = weights[span(f"{name}.bias")]
            weight = weights[span(f"{name}.weight")].view(len(bias), -1)
            if isinstance(layer, Linear):
                x = x @ weight.T + bias
            else:
                batch, height, width = len(x), *architecture.shapes[index][1:]
                patches = functional.unfold(x, layer.kernel, padding=layer.padding, stride=layer.stride)
                x = (weight @ patches + bias[:, None]).view(batch, -1, height, width)
        elif isinstance(layer, MaxPool):
            x = functional.max_pool2d(x, layer.size)
        elif isinstance(layer, Activation):
            x = ACTIVATIONS[activation](x)
        elif isinstance(layer, Dropout):
            x = x * masks[index] if index in masks else x
        elif isinstance(layer, Flatten):
            x = x.reshape(len(x), -1)
    return x


def masks_of(architecture: Architecture, member: Member, visits: np.ndarray) -> dict[int, torch.Tensor]:
    rate = member.hyperparameters.dropout
    key = seeds.dropout_key(member.seeds.dropout)
    return {
        index: torch.tensor(
            seeds.dropout_keep(key, visits, offset + np.arange(math.prod(architecture.shapes[index])), rate)
            / (1 - rate)
        ).view(len(visits), *architecture.shapes[index])
        for index, offset in architecture.dropout_offsets.items()
    }


def gradient(
    architecture: Architecture, member: Member, weights: np.ndarray, x: np.ndarray, y: np.ndarray, visits: np.ndarray
) -> tuple[np.ndarray, float, int]:
    """Gradient float64 `[P]`, mean loss and number of right answers of one minibatch."""
    leaf = torch.tensor(weights, dtype=torch.float64, requires_grad=True)
    masks = masks_of(architecture, member, visits)
    inputs = torch.tensor(x, dtype=torch.float64)
    logits = forward(architecture, member.hyperparameters.activation, leaf, inputs, masks)
    labels = torch.tensor(y, dtype=torch.long)
    loss = (logits.logsumexp(1) - logits[torch.arange(len(y)), labels]).mean()
    (found,) = torch.autograd.grad(loss, leaf)
    return found.numpy(), loss.item(), int((logits.argmax(1) == labels).sum())


def train(
    architecture: Architecture,
    member: Member,
    data: ImageData,
    rates: np.ndarray,
    momenta: np.ndarray,
    images_at: Callable[[int, np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> list[OracleEpoch]:
    """All epochs, with the learning rate and the momentum (or beta1) of each step.

    `images_at(epoch, positions, rows)` gives the training images as they are augmented.
    """
    images, labels = data.inputs["train"], data.labels["train"]
    chosen, batch_size, samples = member.hyperparameters, member.protocol.batch_size, len(labels)
    w = initial_weights(architecture, [member])[0].astype(np.float64)
    m, v = np.zeros_like(w), np.zeros_like(w)
    epochs: list[OracleEpoch] = []
    t = 0
    for epoch in range(1, member.protocol.epochs + 1):
        order = seeds.sample_order(member.seeds.order, epoch, samples)
        loss_sum, hits = 0.0, 0
        for start in range(0, samples, batch_size):
            rows = order[start : start + batch_size]
            visits = (epoch - 1) * samples + start + np.arange(len(rows))
            positions = start + np.arange(len(rows))
            x = images[rows] if images_at is None else images_at(epoch, positions, rows)
            g, loss, right = gradient(architecture, member, w, x, labels[rows], visits)
            loss_sum, hits = loss_sum + loss * len(rows), hits + right
            rate, beta1, beta2, decay = rates[t], momenta[t], 0.999, chosen.weight_decay
            t += 1
            if chosen.optimizer == "sgd":
                m = beta1 * m + g + decay * w
                w = w - rate * m
                continue
            if chosen.optimizer == "adam":
                g = g + decay * w
            else:
                w = w - rate * decay * w
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g**2
            w = w - rate * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + 1e-8)
        epochs.append(OracleEpoch(w, loss_sum / samples, hits / samples))
    return epochs


def evaluate(
    architecture: Architecture, member: Member, weights: np.ndarray, data: ImageData, split: SplitName
) -> float:
    """The mean loss on a split, without dropout."""
    inputs = torch.tensor(data.inputs[split], dtype=torch.float64)
    labels = torch.tensor(data.labels[split], dtype=torch.long)
    vector = torch.tensor(weights, dtype=torch.float64)
    logits = forward(architecture, member.hyperparameters.activation, vector, inputs, {})
    return (logits.logsumexp(1) - logits[torch.arange(len(labels)), labels]).mean().item()
