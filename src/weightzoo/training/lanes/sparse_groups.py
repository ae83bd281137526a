"""Groups whose members are made sparse: by variational dropout or by pruning the smallest weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from weightzoo import seeds
from weightzoo.architectures import Architecture
from weightzoo.architectures.graph import Conv, Linear
from weightzoo.spec import Magnitude, Sparsification, Variational
from weightzoo.training.lanes.dropout import DRAWS, MEMBER_KEY
from weightzoo.training.lanes.groups import Group, Tally, Workspace, aligned
from weightzoo.training.protocol import SLOTS, SparseMetrics
from weightzoo.training.sparse import magnitude
from weightzoo.training.sparse.state import LOG_VARIANCE, MASK
from weightzoo.training.sparse.variational import CONV_BOUND, EPSILON, LINEAR_BOUND, kl_weight


class SparseGroup(Group):
    """What both methods share: a mask by lane, with which the members are measured."""

    def __init__(self, architecture: Architecture, method: Sparsification, *parts: Any) -> None:
        super().__init__(*parts)
        self.architecture = architecture
        self.method = method
        self.spans = [architecture.layout.span(name) for name in architecture.prunable]

    def sparse_metrics(self, train_loss: np.ndarray) -> SparseMetrics:
        """How sparse each member is, and what it was trained to minimise."""
        dropped = [(self.slots[MASK][span, : self.size] == 0) for span in self.spans]
        return SparseMetrics(
            train_objective=train_loss,
            sparsity=np.concatenate(dropped).mean(0).astype(np.float32),
            layer_sparsity=np.stack([part.mean(0) for part in dropped], 1).astype(np.float32),
        )

    def _measured(self) -> np.ndarray:
        sparse = aligned(*self.weights.shape)
        sparse[:] = np.where(self.slots[MASK] > 0, self.weights, 0)
        return sparse


class MaskedGroup(SparseGroup):
    """Members whose smallest weights are set to zero before some epochs, and stay there."""

    def _more(self, epoch: int) -> tuple[np.ndarray, ...]:
        assert isinstance(self.method, Magnitude)
        mask = self.slots[MASK]
        sparsity = magnitude.target(self.method, epoch, self.plan.epochs)
        if sparsity is not None:
            mask[:] = magnitude.pruned(self.weights.T, mask.T, self.spans, sparsity, self.method.scope).T
            self.weights[mask == 0] = 0
        return (mask,)


class VariationalGroup(SparseGroup):
    """Members with a variance for each prunable weight, which is trained like the weight but for weight decay."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        layers = [layer for layer in self.architecture.weighted if isinstance(layer, Conv | Linear)]
        self.bounds = [CONV_BOUND if isinstance(layer, Conv) else LINEAR_BOUND for layer in layers]
        self.noise_draws = aligned(*DRAWS.shape, self.width, dtype=np.int32)
        members = [self.members[min(lane, self.size - 1)] for lane in range(self.width)]
        keys = np.array([seeds.noise_key(member.seeds.dropout) for member in members], np.uint32)
        self.noise_draws[MEMBER_KEY : MEMBER_KEY + 2] = keys.T.view(np.int32)
        self.penalty = aligned(2, self.width)

    def train_epoch(self, epoch: int, workspace: Workspace, stopped: Callable[[], bool]) -> Tally:
        """See `Group.train_epoch`; behind it, the weights with a large alpha are dropped."""
        assert isinstance(self.method, Variational)
        tally = super().train_epoch(epoch, workspace, stopped)
        for span, bound in zip(self.spans, self.bounds, strict=True):
            # in float64, so that no processor's logarithm has a say in it
            w, log_variance = (array[span].astype(np.float64) for array in (self.weights, self.slots[LOG_VARIANCE]))
            log_alpha = np.clip(log_variance - 2 * np.log(np.abs(w) + EPSILON), -bound, bound)
            self.slots[MASK][span] = ~(log_alpha >= self.method.threshold)
        return tally

    def sparse_metrics(self, train_loss: np.ndarray) -> SparseMetrics:
        """How sparse each member is, and what it was trained to minimise: its loss with the penalty."""
        penalty = (self.penalty[0].astype(np.float64) + self.penalty[1])[: self.size] / self.plan.samples
        return replace(super().sparse_metrics(train_loss), train_objective=train_loss + penalty.astype(np.float32))

    def _more(self, epoch: int) -> tuple[np.ndarray, ...]:
        assert isinstance(self.method, Variational)
        kl = kl_weight(self.method.kl_weight, epoch, self.plan.epochs)
        self.penalty[:] = 0
        names = SLOTS[self.plan.optimizer]
        first, second = (self.slots[f"{LOG_VARIANCE}.{name}"] for name in (names[0], names[-1]))
        own = (self.slots[LOG_VARIANCE], first, second, self.noise_draws)
        return (*own, np.array([kl], np.float32), self.penalty)


SPARSE_GROUPS: dict[str | None, type[SparseGroup]] = {"masked": MaskedGroup, "variational": VariationalGroup}
