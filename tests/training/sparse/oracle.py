"""Sparse training in float64, one member at a time, with every formula written out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from tests.training.oracle import ACTIVATIONS, masks_of
from weightzoo import seeds
from weightzoo.architectures.graph import Activation, Architecture, Conv, Dropout, Flatten, Linear, MaxPool
from weightzoo.datasets.images import ImageData
from weightzoo.members import Member


@dataclass
class Epoch:
    weights: np.ndarray  # float64 [P]
    log_variance: np.ndarray  # float64 [P]
    mask: np.ndarray  # bool [P]
    train_loss: float
    train_objective: float


def noisy_logits(architecture: Architecture, activation: str, w, log_variance, x, visits, member):
    """Logits, and the sum of the divergences, layer by layer."""
    span, counter, penalty = architecture.layout.span, 0, torch.zeros((), dtype=torch.float64)
    masks = masks_of(architecture, member, visits) if member.hyperparameters.dropout else {}
    key = seeds.noise_key(member.seeds.dropout)
    for index, layer in enumerate(architecture.layers):
        shape = architecture.shapes[index]
        if isinstance(layer, Conv | Linear):
            bias = w[span(f"{layer.name}.bias")]
            mean = w[span(f"{layer.name}.weight")].view(len(bias), -1)
            own = log_variance[span(f"{layer.name}.weight")].view(len(bias), -1)
            bound = 8 if isinstance(layer, Conv) else 10
            log_alpha = torch.clamp(own - 2 * torch.log(torch.abs(mean) + 1e-8), -bound, bound)
            penalty = (
                penalty
                - (
                    0.63576 / (1 + torch.exp(-(1.8732 + 1.48695 * log_alpha)))
                    - 0.5 * torch.log(1 + torch.exp(-log_alpha))
                    - 0.63576
                ).sum()
            )
            size = math.prod(shape)
            noise = torch.tensor(seeds.noise(key, visits, counter, size)).view(len(visits), *shape)
            counter += size + size % 2
            variance = torch.exp(log_alpha) * mean**2
            if isinstance(layer, Linear):
                x, spread = x @ mean.T + bias, x**2 @ variance.T
            else:
                patches = functional.unfold(x, layer.kernel, padding=layer.padding, stride=layer.stride)
                x = (mean @ patches + bias[:, None]).view(len(visits), *shape)
                spread = (variance @ patches**2).view(len(visits), *shape)
            x = x + torch.sqrt(spread + 1e-8) * noise
        elif isinstance(layer, MaxPool):
            x = functional.max_pool2d(x, layer.size)
        elif isinstance(layer, Activation):
            x = ACTIVATIONS[activation](x)
        elif isinstance(layer, Dropout):
            x = x * masks[index] if index in masks else x
        elif isinstance(layer, Flatten):
            x = x.reshape(len(x), -1)
    return x, penalty


class Optimizer:
    """SGD with momentum, Adam or AdamW on one vector."""

    def __init__(self, kind: str, size: int, decay: float) -> None:
        self.kind, self.decay = kind, decay
        self.m, self.v, self.t = np.zeros(size), np.zeros(size), 0

    def step(self, w: np.ndarray, g: np.ndarray, rate: float, momentum: float) -> np.ndarray:
        self.t += 1
        if self.kind == "adamw":
            w = w - rate * self.decay * w
        else:
            g = g + self.decay * w
        if self.kind == "sgd":
            self.m = momentum * self.m + g
            return w - rate * self.m
        self.m = momentum * self.m + (1 - momentum) * g
        self.v = 0.999 * self.v + 0.001 * g**2
        return w - rate * (self.m / (1 - momentum**self.t)) / (np.sqrt(self.v / (1 - 0.999**self.t)) + 1e-8)


def minibatches(member: Member, data: ImageData, epoch: int):
    """Images, labels and visits of each minibatch of an epoch."""
    images, labels, size = data.inputs["train"], data.labels["train"], member.protocol.batch_size
    order = seeds.sample_order(member.seeds.order, epoch, len(labels))
    for start in range(0, len(labels), size):
        rows = order[start : start + size]
        visits = (epoch - 1) * len(labels) + start + np.arange(len(rows))
        yield torch.tensor(images[rows], dtype=torch.float64), torch.tensor(labels[rows], dtype=torch.long), visits


def variational(architecture: Architecture, member: Member, data: ImageData, start: np.ndarray) -> list[Epoch]:
    """A loop of variational dropout for one member, from weights float [P]; a constant learning rate."""
    chosen, method, epochs = member.hyperparameters, member.sparsification, member.protocol.epochs
    prunable = np.concatenate([np.full(math.prod(s), n.endswith("weight")) for n, s in architecture.layout.parameters])
    bounds = np.concatenate(
        [np.full(math.prod(s), 8.0 if "conv" in n else 10.0) for n, s in architecture.layout.parameters]
    )
    w, log_variance = start.astype(np.float64), np.where(prunable, float(method.log_variance), 0.0)
    on_weights = Optimizer(chosen.optimizer, len(w), chosen.weight_decay)
    on_variances = Optimizer(chosen.optimizer, len(w), 0.0)
    momentum = member.protocol.momentum if chosen.optimizer == "sgd" else 0.9
    found: list[Epoch] = []
    for epoch in range(1, epochs + 1):
        loss_sum = objective_sum = 0.0
        for x, y, visits in minibatches(member, data, epoch):
            leaf = torch.tensor(w, requires_grad=True)
            spread = torch.tensor(log_variance, requires_grad=True)
            logits, penalty = noisy_logits(architecture, chosen.activation, leaf, spread, x, visits, member)
            loss = (logits.logsumexp(1) - logits[torch.arange(len(y)), y]).mean()
            objective = loss + min(1.0, method.kl_weight * epoch / epochs) * penalty
            g, h = torch.autograd.grad(objective, (leaf, spread))
            w = on_weights.step(w, g.numpy(), chosen.learning_rate, momentum)
            log_variance = on_variances.step(log_variance, h.numpy(), chosen.learning_rate, momentum)
            loss_sum, objective_sum = loss_sum + loss.item() * len(y), objective_sum + objective.item() * len(y)
        log_alpha = np.clip(log_variance - 2 * np.log(np.abs(w) + 1e-8), -bounds, bounds)
        mask = ~prunable | (log_alpha < method.threshold)
        samples = len(data.labels["train"])
        found.append(Epoch(w, log_variance, mask, loss_sum / samples, objective_sum / samples))
    return found


def masked(
    architecture: Architecture,
    member: Member,
    data: ImageData,
    start: np.ndarray,
    mask_of_epoch: Callable[[int, np.ndarray], np.ndarray],
    gradient: Callable,
) -> list[np.ndarray]:
    """The weights behind each epoch of a loop that keeps those at zero that `mask_of_epoch` (bool [P]) drops."""
    chosen = member.hyperparameters
    w = start.astype(np.float64)
    optimizer = Optimizer(chosen.optimizer, len(w), chosen.weight_decay)
    momentum = member.protocol.momentum if chosen.optimizer == "sgd" else 0.9
    found: list[np.ndarray] = []
    for epoch in range(1, member.protocol.epochs + 1):
        mask = mask_of_epoch(epoch, w)
        w = w * mask
        for x, y, visits in minibatches(member, data, epoch):
            g, _, _ = gradient(architecture, member, w, x.numpy(), y.numpy(), visits)
            w = optimizer.step(w, g * mask, chosen.learning_rate, momentum) * mask
        found.append(w)
    return found
