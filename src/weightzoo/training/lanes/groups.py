"""A group of members, one in each lane: their state and constants in memory, an epoch of training, an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from weightzoo import seeds
from weightzoo.datasets.images import ImageData
from weightzoo.members import Member, Protocol
from weightzoo.training.lanes.compile import Compiled
from weightzoo.training.lanes.dropout import DRAWS, MEMBER_KEY, THRESHOLD
from weightzoo.training.lanes.train_program import INVERSE_BATCH, MOMENTUM, VARIANCE
from weightzoo.training.protocol import BETA2, PROBE_SIZE, SLOTS, SparseMetrics
from weightzoo.training.schedule import step_factors

ALIGNMENT = 64  # bytes of the widest register
CALL_SAMPLES = 2048  # samples of one call into machine code: about a tenth of a second, then it can be stopped


def aligned(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    """Zeros that vector loads may read: at a multiple of the register's size, 4 bytes an element."""
    size = 4 * int(np.prod(shape))
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


class Plan:
    """What all groups of a cohort share, and nobody writes to: the images, the steps' factors."""

    def __init__(self, protocol: Protocol, optimizer: str, data: ImageData) -> None:
        self.optimizer = optimizer
        self.samples = data.size("train")
        self.epochs = protocol.epochs
        self.batch = protocol.batch_size
        self.steps = -(-self.samples // self.batch)
        self.factors, self.momenta = step_factors(protocol, self.steps, optimizer)
        self.images = {split: np.ascontiguousarray(images, np.float32) for split, images in data.inputs.items()}
        self.labels = {split: np.ascontiguousarray(labels, np.int32) for split, labels in data.labels.items()}
        self.counts = {split: np.bincount(labels, minlength=data.classes) for split, labels in self.labels.items()}
        self.classes = data.classes

    def steps_of(self, epoch: int) -> slice:
        """The steps of an epoch among those of the whole training."""
        return slice((epoch - 1) * self.steps, epoch * self.steps)

    def shared(self, epoch: int) -> np.ndarray:
        """`momentum, variance, 1 / minibatch size` of each step (see `optimisers.Step`): float32 `[steps, 3]`."""
        span = self.steps_of(epoch)
        table = np.empty((self.steps, 3), np.float32)
        adaptive = self.optimizer != "sgd"
        table[:, MOMENTUM] = 1 - self.momenta[span] if adaptive else self.momenta[span]
        count = np.arange(span.start + 1, span.stop + 1)
        table[:, VARIANCE] = 1 / np.sqrt(1 - BETA2**count) if adaptive else 1
        sizes = np.minimum(self.samples - np.arange(self.steps) * self.batch, self.batch)
        table[:, INVERSE_BATCH] = 1 / sizes
        return table

    def rates(self, epoch: int, learning_rates: np.ndarray) -> np.ndarray:
        """Each step's `rate` by lane: float32 `[steps, lanes]`."""
        span = self.steps_of(epoch)
        factors = self.factors[span]
        if self.optimizer != "sgd":
            factors = factors / (1 - self.momenta[span] ** np.arange(span.start + 1, span.stop + 1))
        return self._by_lane(factors, learning_rates)

    def decays(self, epoch: int, learning_rates: np.ndarray, weight_decays: np.ndarray) -> np.ndarray:
        """Each step's `decay` by lane: float32 `[steps, lanes]`, but `[1, lanes]` where it is the same at all steps."""
        if self.optimizer != "adamw":
            return self._by_lane(np.ones(1), weight_decays)
        return self._by_lane(self.factors[self.steps_of(epoch)], -learning_rates * weight_decays, 1.0)

    @staticmethod
    def _by_lane(steps: np.ndarray, lanes: np.ndarray, offset: float = 0.0) -> np.ndarray:
        table = aligned(len(steps), len(lanes))
        table[:] = offset + np.outer(steps, lanes)  # in float64, rounded once
        return table


@dataclass
class Tally:
    """What a pass over images found, by lane: loss sum and correction `[2]`, right predictions `[classes]` or `[1]`."""

    loss: np.ndarray
    hits: np.ndarray
    logits: np.ndarray

    @classmethod
    def empty(cls, classes: int, width: int) -> Tally:
        """Of nothing."""
        return cls(aligned(2, width), aligned(classes, width, dtype=np.int32), aligned(PROBE_SIZE + 1, classes, width))

    def mean_loss(self, count: int) -> np.ndarray:
        """Float64 `[lanes]`; not finite if the sum is not."""
        return (self.loss[0].astype(np.float64) + self.loss[1]) / count


class Workspace:
    """The working memory of one thread."""

    def __init__(self, compiled: Compiled, width: int, parameters: int, samples: int) -> None:
        self.train = aligned(compiled.train_workspace, width)
        self.evaluate = aligned(compiled.evaluate_workspace, width)
        self.gradients = aligned(parameters, width)
        self.order = aligned(samples, width, dtype=np.int32)


class Group:
    """Up to `width` members. Lanes without a member repeat the last one; their results are dropped."""

    def __init__(
        self,
        plan: Plan,
        compiled: Compiled,
        members: tuple[Member, ...],
        rows: slice,
        width: int,
        weights: np.ndarray,
        slots: dict[str, np.ndarray],
    ) -> None:
        self.plan = plan
        self.compiled = compiled
        self.rows = rows
        self.members = members
        self.size = len(members)
        self.width = width
        lanes = [members[min(lane, self.size - 1)] for lane in range(width)]
        self.orders = [member.seeds.order for member in lanes]
        chosen = [member.hyperparameters for member in lanes]
        self.learning_rates = np.array([parameters.learning_rate for parameters in chosen])
        self.weight_decays = np.array([parameters.weight_decay for parameters in chosen])
        self.draws = aligned(*DRAWS.shape, width, dtype=np.int32)
        self.scale = aligned(1, width)
        for lane, member in enumerate(lanes):
            rate = member.hyperparameters.dropout
            key = np.array(seeds.dropout_key(member.seeds.dropout), np.uint32)
            self.draws[MEMBER_KEY : MEMBER_KEY + 2, lane] = key.view(np.int32)
            self.draws[THRESHOLD, lane] = int(rate * 2**31)
            self.scale[0, lane] = np.float32(1) / np.float32(1 - rate)
        self.weights = self._by_lane(weights)
        self.slots = {name: self._by_lane(slot) for name, slot in slots.items()}

    def train_epoch(self, epoch: int, workspace: Workspace, stopped: Callable[[], bool]) -> Tally:
        """Visit every training image once, unless stopped before; the weights move on in place."""
        plan, width = self.plan, self.width
        orders = {order: seeds.sample_order(order, epoch, plan.samples) for order in dict.fromkeys(self.orders)}
        for lane, order in enumerate(self.orders):
            workspace.order[:, lane] = orders[order]
        rates = plan.rates(epoch, self.learning_rates)
        decays = plan.decays(epoch, self.learning_rates, self.weight_decays)
        shared = plan.shared(epoch)
        first, second = self._slots()
        more = self._more(epoch)
        tally = Tally(aligned(2, width), aligned(1, width, dtype=np.int32), np.empty(0))
        arrays = (
            plan.images["train"], plan.labels["train"], workspace.order, self.weights, first, second,
            workspace.gradients, rates, decays, shared, self.draws, self.scale, tally.loss, tally.hits, workspace.train,
            *more,
        )  # fmt: skip
        stride = max(1, CALL_SAMPLES // plan.batch)
        for step in range(0, plan.steps, stride):
            if stopped():
                break
            last = min(step + stride, plan.steps)
            visit = (epoch - 1) * plan.samples
            self.compiled.train(*addresses(arrays), step, last, plan.samples, plan.batch, visit)
        return tally

    def evaluate(self, split: str, workspace: Workspace, stopped: Callable[[], bool]) -> Tally:
        """Measure the present weights on a split, without dropout."""
        plan = self.plan
        tally = Tally.empty(plan.classes, self.width)
        arrays = (
            plan.images[split], plan.labels[split], self._measured(), tally.loss, tally.hits, tally.logits,
            workspace.evaluate,
        )  # fmt: skip
        total = len(plan.labels[split])
        for start in range(0, total, CALL_SAMPLES):
            if stopped():
                break
            self.compiled.evaluate(*addresses(arrays), start, min(start + CALL_SAMPLES, total))
        return tally

    def sparse_metrics(self, train_loss: np.ndarray) -> SparseMetrics | None:
        """What else is measured on members that are made sparse; `train_loss` `[size]` is one of their metrics."""
        return None

    def _more(self, epoch: int) -> tuple[np.ndarray, ...]:
        """What the program takes besides, at the start of an epoch."""
        return ()

    def _measured(self) -> np.ndarray:
        """The weights that are evaluated."""
        return self.weights

    def _slots(self) -> tuple[np.ndarray, np.ndarray]:
        """The optimiser's two arrays; SGD has one, and its second is never touched."""
        names = SLOTS[self.plan.optimizer]
        return self.slots[names[0]], self.slots[names[-1]]

    def _by_lane(self, rows: np.ndarray) -> np.ndarray:
        """Vectors `[size, P]` as `[P, width]`."""
        table = aligned(rows.shape[1], self.width)
        table[:, : self.size] = rows.T
        table[:, self.size :] = rows[-1, :, None]
        return table


def addresses(arrays: tuple[np.ndarray, ...]) -> list[int]:
    """Where the arrays begin in memory, as machine code wants them."""
    return [array.ctypes.data for array in arrays]
