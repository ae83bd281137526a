"""Fitting the equivariant network to many properties at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from weightzoo.analysis.prediction.equivariant import EquivariantNetwork
from weightzoo.architectures.units import WeightGraph

BATCH = 64
RATE = 3e-3
DECAY = 1e-2
_AT_ONCE = 512
_CLASSES, _KINDS = 3.0, 0.5  # weights in the loss


@dataclass(frozen=True)
class Inputs:
    """What the network is shown of N states: weights `[N, P]`, features `[N, F]` of zero mean and unit deviation."""

    weights: np.ndarray
    features: np.ndarray


@dataclass(frozen=True)
class Truth:
    """What it is to say of N states.

    `numbers` `[N, R]` of zero mean and unit deviation, NaN where not known; `kinds` `[N, K]` int64, -1 where not known,
    with `sizes` values each; `classes` `[N, C]` accuracies of each class of images, NaN where not known; `emphasis`
    `[R]` is the weight of each number in the loss.
    """

    numbers: np.ndarray
    kinds: np.ndarray
    sizes: tuple[int, ...]
    classes: np.ndarray
    emphasis: np.ndarray


@dataclass(frozen=True)
class Said:
    """What it says: numbers `[N, R]`, probabilities of each kind `[N, size]`, accuracies of each class `[N, C]`."""

    numbers: np.ndarray
    kinds: tuple[np.ndarray, ...]
    classes: np.ndarray


def fit_network(
    graph: WeightGraph,
    inputs: Inputs,
    truth: Truth,
    *,
    rounds: int,
    seed: int,
    width: int = 32,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Callable[[Inputs], Said]:
    """Train on all targets at once, `rounds` times through the states; what the network says is a function of `seed`.

    AdamW with one cycle of the learning rate. Squared error for numbers, cross-entropy for kinds and classes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights, features, numbers, classes = (
            torch.from_numpy(np.ascontiguousarray(values, np.float32))
            for values in (inputs.weights, inputs.features, truth.numbers, truth.classes)
        )
        kinds, emphasis = torch.from_numpy(truth.kinds), torch.from_numpy(truth.emphasis.astype(np.float32))
        outputs = numbers.shape[1] + sum(truth.sizes)
        network = EquivariantNetwork(graph, weights, features.shape[1], outputs, width)
        optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
        steps = rounds * -(-len(weights) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.15)
        done = 0
        for _ in range(rounds):
            for rows in torch.randperm(len(weights)).split(BATCH):
                said, by_class = network(weights[rows], features[rows])
                loss = _loss(said, numbers[rows], kinds[rows], truth.sizes, emphasis)
                loss = loss + _CLASSES * _class_loss(by_class, classes[rows])
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimiser.step()
                schedule.step()
                done += 1
            on_progress(done, steps)
    network.eval()
    return lambda asked: _say(network, asked, numbers.shape[1], truth.sizes)


def _loss(said: Tensor, numbers: Tensor, kinds: Tensor, sizes: tuple[int, ...], emphasis: Tensor) -> Tensor:
    known = torch.isfinite(numbers)
    error = torch.where(known, said[:, : numbers.shape[1]] - torch.nan_to_num(numbers), 0).square()
    loss = (error.mean(0) * emphasis).sum()
    for index, logits in enumerate(said[:, numbers.shape[1] :].split(sizes, 1)):
        if (kinds[:, index] >= 0).any():
            loss = loss + _KINDS * functional.cross_entropy(logits, kinds[:, index], ignore_index=-1)
    return loss


def _class_loss(said: Tensor, classes: Tensor) -> Tensor:
    known = torch.isfinite(classes)
    entropy = functional.binary_cross_entropy_with_logits(said, torch.nan_to_num(classes), reduction="none")
    return torch.where(known, entropy, 0).mean()


def _say(network: EquivariantNetwork, asked: Inputs, numbers: int, sizes: tuple[int, ...]) -> Said:
    parts: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        for start in range(0, len(asked.weights), _AT_ONCE):
            both = (np.asarray(each[start : start + _AT_ONCE], np.float32) for each in (asked.weights, asked.features))
            parts.append(network(*map(torch.from_numpy, both)))
    said, by_class = (torch.cat(each) for each in zip(*parts, strict=True))
    kinds = tuple(logits.softmax(1).double().numpy() for logits in said[:, numbers:].split(sizes, 1)) if sizes else ()
    return Said(said[:, :numbers].double().numpy(), kinds, by_class.sigmoid().double().numpy())
