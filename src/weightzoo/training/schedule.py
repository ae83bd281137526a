"""Learning rate and momentum of every training step, for all schedules, as factors that all members share."""

from __future__ import annotations

import numpy as np

from weightzoo.members import Protocol
from weightzoo.spec import Constant, Cosine, OneCycle, StepDecay
from weightzoo.training.protocol import BETA1


def step_factors(protocol: Protocol, steps_per_epoch: int, optimizer: str) -> tuple[np.ndarray, np.ndarray]:
    """What to multiply a member's learning rate by, and the momentum, at each step of the whole training.

    Step t counts from 0 over all epochs: the first step of epoch e (from 1) is `(e - 1) * steps_per_epoch`. The values
    are those of PyTorch's `OneCycleLR`, `CosineAnnealingLR` (stepped after each minibatch, over all of training) and
    `StepLR` (stepped after each epoch). Momentum means that of SGD or the beta1 of Adam and AdamW; the one-cycle
    schedule moves it against the learning rate, the others leave it at `protocol.momentum` (SGD) or 0.9.

    Returns:
        The factors and the momenta, both float64 `[epochs * steps_per_epoch]`.
    """
    steps = np.arange(protocol.epochs * steps_per_epoch)
    momentum = np.full(len(steps), protocol.momentum if optimizer == "sgd" else BETA1)
    match protocol.schedule:
        case Constant():
            return np.ones(len(steps)), momentum
        case Cosine(end=end):
            return _cosine(1.0, end, steps / len(steps)), momentum
        case StepDecay(every=every, factor=factor):
            return factor ** (steps // steps_per_epoch // every).astype(np.float64), momentum
        case OneCycle() as cycle:
            return _one_cycle(cycle, steps)


def _one_cycle(cycle: OneCycle, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Up to the learning rate during the share `warmup` of the steps, then down to far below the start."""
    start, end = 1 / cycle.start_divisor, 1 / (cycle.start_divisor * cycle.end_divisor)
    peak, last = cycle.warmup * len(steps) - 1, len(steps) - 1  # `peak` lies between two steps in general
    rising = steps <= peak
    up = steps / peak if peak > 0 else np.ones(len(steps))  # a warm-up of a single step is at the peak already
    down = (steps - peak) / (last - peak)
    factor = np.where(rising, _cosine(start, 1.0, up), _cosine(1.0, end, down))
    low, high = cycle.base_momentum, cycle.max_momentum
    return factor, np.where(rising, _cosine(high, low, up), _cosine(low, high, down))


def _cosine(start: float, end: float, progress: np.ndarray) -> np.ndarray:
    """From `start` to `end` along half a cosine, as `progress` goes from 0 to 1."""
    return end + (start - end) / 2 * (1 + np.cos(np.pi * progress))
