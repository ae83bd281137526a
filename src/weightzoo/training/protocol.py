"""What every training engine takes and gives: the one protocol behind which they are interchangeable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from weightzoo.architectures import Architecture
from weightzoo.datasets.images import ImageData
from weightzoo.members import Cohort

PROBE_SIZE = 50
UNMEASURED = -1  # the epoch of a state that was given from outside: behind it comes epoch 0


@dataclass(frozen=True)
class Metrics:
    """What is measured on each of M members in one epoch. A diverged member has NaN losses, and goes on being measured.

    `train_*` are running means over the epoch's minibatches, as training sees them: before each update, dropout active.
    In epoch 0 they are an evaluation of the fresh weights on the training images. `val_*` and `test_*` are evaluations
    behind the epoch, without dropout. Accuracies are fractions, losses cross-entropies in nats.
    """

    train_loss: np.ndarray  # float32 [M]
    train_accuracy: np.ndarray  # float32 [M]
    val_loss: np.ndarray  # float32 [M]
    val_accuracy: np.ndarray  # float32 [M]
    test_loss: np.ndarray  # float32 [M]
    test_accuracy: np.ndarray  # float32 [M]
    val_class_accuracy: np.ndarray  # float32 [M, classes]; NaN for a class without images
    test_class_accuracy: np.ndarray  # float32 [M, classes]
    probe_logits: np.ndarray  # float16 [M, PROBE_SIZE, classes], on the first images of the test split


@dataclass(frozen=True)
class SparseMetrics:
    """What is measured beside `Metrics` on M members that are made sparse, with L prunable weight tensors.

    `val_*`, `test_*` and the probe of `Metrics` are then those of the sparse network, with the dropped weights at zero.
    """

    train_objective: np.ndarray  # float32 [M]; what is minimised, the train loss and the Kullback-Leibler term
    sparsity: np.ndarray  # float32 [M]; the share of the prunable weights that are dropped
    layer_sparsity: np.ndarray  # float32 [M, L]; of each of `Architecture.prunable`


@dataclass(frozen=True)
class TrainState:
    """All that training needs to go on behind `epoch`: weights and optimiser state, each float32 `[M, P]`.

    The weights include the buffers, of which the optimiser knows nothing: their slots are zero.
    `slots` holds `exp_avg` and `exp_avg_sq` (Adam, AdamW) or `momentum_buffer` (SGD); before the first step all zeros.
    For members that are made sparse also `mask`, uint8 `[M, P]`, 0 where a weight is dropped, which `weights` need not
    show; and with variational dropout `log_variance`, 0 where there is none, and its own `log_variance.exp_avg`, ...
    """

    epoch: int
    weights: np.ndarray
    slots: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])

    @property
    def nbytes(self) -> int:
        """The memory that this takes."""
        return self.weights.nbytes + sum(slot.nbytes for slot in self.slots.values())

    @classmethod
    def given(cls, weights: np.ndarray, optimizer: str) -> TrainState:
        """Weights float32 `[M, P]` that training is to start from instead of fresh ones.

        To resume from this state gives epoch 0, which measures them, and all epochs behind it.
        """
        return cls(UNMEASURED, weights, {name: np.zeros_like(weights) for name in SLOTS[optimizer]})

    def select(self, rows: np.ndarray) -> TrainState:
        """The state of some of the members."""
        return TrainState(self.epoch, self.weights[rows], {name: slot[rows] for name, slot in self.slots.items()})


@dataclass(frozen=True)
class EpochResult:
    """One epoch of a cohort. The arrays belong to the receiver; the engine does not write to them again."""

    state: TrainState
    metrics: Metrics
    seconds: float  # compute time of this epoch, over all threads, in seconds
    sparse: SparseMetrics | None = None

    @property
    def epoch(self) -> int:
        """0 for the fresh weights, then 1, 2, ..."""
        return self.state.epoch


class Engine(Protocol):
    """Trains the members of a cohort together, and yields each epoch's outcome."""

    name: str

    def supports(self, architecture: Architecture, cohort: Cohort, device: str) -> str | None:
        """None if the engine can train this, else the reason why not."""
        ...

    def train(
        self, architecture: Architecture, cohort: Cohort, data: ImageData, *, resume: TrainState | None = None
    ) -> Iterator[EpochResult]:
        """Epochs 0, 1, ..., `protocol.epochs`; with `resume`, those behind `resume.epoch` (see `TrainState.given`).

        A member's result is a function of its own record alone. Closing the iterator early frees all threads.
        """
        ...


SLOTS = {"adam": ("exp_avg", "exp_avg_sq"), "adamw": ("exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",)}
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # PyTorch's defaults, which the published zoos used
