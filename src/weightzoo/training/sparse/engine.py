"""The engine that makes members sparse while it trains them, in PyTorch, for any architecture and device.

Shape suffixes: M members, P parameters, B images of a minibatch, L prunable parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weightzoo.architectures import Architecture
from weightzoo.architectures.module import parameters_of
from weightzoo.members import Cohort
from weightzoo.spec import Magnitude, Variational
from weightzoo.training.devices import DeviceData
from weightzoo.training.evaluation import measure, to_numpy
from weightzoo.training.gradients import Dense
from weightzoo.training.protocol import SLOTS, Metrics, SparseMetrics, TrainState
from weightzoo.training.sparse import magnitude, variational
from weightzoo.training.sparse.noise import Noise
from weightzoo.training.sparse.state import LOG_VARIANCE, MASK, starting_sparse_state
from weightzoo.training.stacked import Stack, StackedEngine


class SparseEngine(StackedEngine):
    """Trains stacks of members by variational dropout or magnitude pruning, as each cohort has it."""

    def supports(self, architecture: Architecture, cohort: Cohort, device: str) -> str | None:
        """None for members that are made sparse, in a precision that the device has."""
        if cohort.sparsification is None:
            return "its members are not made sparse"
        return super().supports(architecture, cohort, device)

    def _threads(self, at_once: int) -> int | None:
        """One by default where members are stacked: a second one gained a tenth, and cost tenfold on busy cores."""
        return self.threads or (1 if at_once > 1 and self.device.type == "cpu" else None)

    def _start(self, architecture: Architecture, cohort: Cohort, resume: TrainState | None) -> TrainState:
        return starting_sparse_state(architecture, cohort, resume)

    def _new_dense(self, architecture: Architecture, cohort: Cohort, *, alone: bool) -> Dense:
        kind = Noisy if isinstance(cohort.sparsification, Variational) else Dense
        precision = cohort.protocol.precision
        return kind(architecture, cohort.activation, self.device, precision, alone=alone, compile=self.compile)

    def _stack(
        self, architecture: Architecture, cohort: Cohort, state: TrainState, data: DeviceData, dense: Dense
    ) -> Stack:
        if isinstance(dense, Noisy):
            return _VariationalStack(architecture, cohort, state, data, dense)
        return _MagnitudeStack(architecture, cohort, state, data, dense)


class _SparseStack(Stack):
    """What both methods share: a mask for each member, which what is measured is measured with."""

    def __init__(
        self, architecture: Architecture, cohort: Cohort, state: TrainState, data: DeviceData, dense: Dense
    ) -> None:
        super().__init__(architecture, cohort, state, data, dense)
        self.kept_MP = self.slots.pop(MASK).bool()
        self.spans = {name: architecture.layout.span(name) for name in architecture.prunable}
        self.objective_M = np.full(len(cohort), np.nan, np.float32)

    def state(self, epoch: int) -> TrainState:
        """Copies of the weights, also of those that are dropped, and of all slots."""
        dense = super().state(epoch)
        return replace(dense, slots=dense.slots | {MASK: self.kept_MP.to("cpu", torch.uint8).numpy()})

    def measure(self, running_2M: Tensor | None) -> Metrics:
        """The metrics of the sparse networks."""
        sparse_MP = torch.where(self.kept_MP, self.weights_MP, 0)
        metrics = measure(self.dense.network, parameters_of(self.architecture, sparse_MP), self.data, running_2M)
        self.objective_M = metrics.train_loss.copy()
        return metrics

    def sparse_metrics(self) -> SparseMetrics:
        """How sparse each member is, and what it was trained to minimise; behind `measure`."""
        dropped = [(~self.kept_MP[:, span]).double() for span in self.spans.values()]
        return SparseMetrics(
            train_objective=self.objective_M,
            sparsity=to_numpy(torch.cat(dropped, 1).mean(1)),
            layer_sparsity=to_numpy(torch.stack([part.mean(1) for part in dropped], 1)),
        )


class _MagnitudeStack(_SparseStack):
    """Members whose smallest weights are set to zero before some epochs, and stay there."""

    def train_epoch(self, epoch: int) -> Tensor:
        """Prune if it is time, then train; see `Stack.train_epoch`."""
        method, epochs = self.cohort.sparsification, self.cohort.protocol.epochs
        assert isinstance(method, Magnitude)
        sparsity = magnitude.target(method, epoch, epochs)
        if sparsity is not None:
            masks = self.kept_MP.cpu().numpy().astype(np.uint8)
            masks = magnitude.pruned(to_numpy(self.weights_MP), masks, [*self.spans.values()], sparsity, method.scope)
            self.kept_MP = torch.from_numpy(masks).to(self.device).bool()
            self.weights_MP.masked_fill_(~self.kept_MP, 0)
        return super().train_epoch(epoch)

    def update(
        self, values_MP: Tensor, gradients_MP: Tensor, slots: Mapping[str, Tensor], step: int, decay: Tensor
    ) -> None:
        """One step of the optimiser on the weights that are left."""
        super().update(values_MP, gradients_MP.masked_fill_(~self.kept_MP, 0), slots, step, decay)
        values_MP.masked_fill_(~self.kept_MP, 0)


class Noisy(Dense):
    """The network of a cohort with noise behind its convolutions and linear layers, and the loss of that."""

    def __init__(
        self,
        architecture: Architecture,
        activation: str,
        device: torch.device,
        precision: str = "float32",
        *,
        alone: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__(architecture, activation, device, precision, alone=alone, compile=compile)
        shapes = variational.output_shapes(self.network, architecture.input_shape)
        self.shapes = {layer: shapes[layer] for layer in map(_layer, architecture.prunable)}
        self.bounds = variational.add_noise(self.network)

    def loss(
        self,
        parameters: Mapping[str, Tensor],
        inputs: Tensor,
        labels: Tensor,
        masks: Mapping[int, Tensor],
        *others: Any,
    ) -> tuple[Tensor, Any]:
        """Cross-entropy of one member with the weighted divergence; beside it, that without it, and the logits.

        `others` are the noise by the name of its buffer, and the weight of the divergence.
        """
        noise, kl_weight = others
        given, divergences = {**parameters, **noise}, list[Tensor]()
        for layer, bound in self.bounds.items():
            weight = given[f"{layer}.weight"]
            log_alpha = variational.log_alpha(weight, given.pop(f"{layer}.{LOG_VARIANCE}"), bound)
            given[f"{layer}.variance"] = log_alpha.exp() * weight.square()
            divergences.append(variational.divergence(log_alpha).sum())
        loss, logits = super().loss(given, inputs, labels, masks)
        return loss + kl_weight * torch.stack(divergences).sum(), (loss, logits)


class _VariationalStack(_SparseStack):
    """Members with a variance for each prunable weight, which is trained like the weight but for weight decay."""

    def __init__(
        self, architecture: Architecture, cohort: Cohort, state: TrainState, data: DeviceData, noisy: Noisy
    ) -> None:
        super().__init__(architecture, cohort, state, data, noisy)
        assert isinstance(cohort.sparsification, Variational)
        self.method = cohort.sparsification
        self.noisy = noisy
        self.noise = Noise(noisy.shapes, cohort.members, self.device)
        self.log_variance_MP = self.slots.pop(LOG_VARIANCE)
        self.variance_slots = {name: self.slots.pop(f"{LOG_VARIANCE}.{name}") for name in SLOTS[cohort.optimizer]}
        self.no_decay = torch.zeros_like(self.decay)
        self.log_variances = {  # views, as the parameters are
            f"{_layer(name)}.{LOG_VARIANCE}": values
            for name, values in parameters_of(architecture, self.log_variance_MP).items()
            if name in self.spans
        }
        self.kl_weight_M = torch.zeros(len(cohort), device=self.device)
        self.sum_M = torch.zeros(len(cohort), dtype=torch.float64, device=self.device)

    def train_epoch(self, epoch: int) -> Tensor:
        """See `Stack.train_epoch`; behind it, the weights with a large alpha are dropped."""
        self.kl_weight_M.fill_(variational.kl_weight(self.method.kl_weight, epoch, self.cohort.protocol.epochs))
        self.sum_M.zero_()
        running = super().train_epoch(epoch)
        for name, span in self.spans.items():
            weights_M, log_variances_M = self.weights_MP[:, span], self.log_variance_MP[:, span]
            log_alpha = variational.log_alpha(weights_M, log_variances_M, self.noisy.bounds[_layer(name)])
            self.kept_MP[:, span] = variational.is_kept(log_alpha, self.method.threshold)
        return running

    def train_step(
        self, step: int, inputs: Tensor, labels_MB: Tensor, masks: Mapping[int, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Train weights and variances on one minibatch; see `Stack.train_step`."""
        epoch, number = divmod(step, self.steps)
        first_visit = epoch * len(self.labels) + number * self.cohort.protocol.batch_size
        batch = labels_MB.shape[1]
        noise = {f"{layer}.noise": drawn for layer, drawn in self.noise.draw(first_visit, batch).items()}
        gradients, objective_M, (loss_M, logits_MBC), buffers = self.noisy.gradients(
            self.parameters | self.log_variances, inputs, labels_MB, masks, noise, self.kl_weight_M
        )
        self.sum_M += objective_M * batch
        of_variances_MP = torch.zeros_like(self.log_variance_MP)
        for name, span in self.spans.items():
            of_variances_MP[:, span] = gradients[f"{_layer(name)}.{LOG_VARIANCE}"].flatten(1)
        self.update(self.weights_MP, self.vectors(gradients), self.slots, step, self.decay)
        self.update(self.log_variance_MP, of_variances_MP, self.variance_slots, step, self.no_decay)
        for name, buffer in buffers.items():
            self.parameters[name].copy_(buffer)
        return loss_M, logits_MBC

    def measure(self, running_2M: Tensor | None) -> Metrics:
        """The metrics of the sparse networks."""
        metrics = super().measure(running_2M)
        if running_2M is not None:
            mean_M = self.sum_M / len(self.labels)
            self.objective_M = to_numpy(torch.where(mean_M.isfinite(), mean_M, torch.nan))
        return metrics

    def state(self, epoch: int) -> TrainState:
        """Copies of the weights and of all slots, the variances' included."""
        own = {f"{LOG_VARIANCE}.{name}": to_numpy(slot) for name, slot in self.variance_slots.items()}
        state = super().state(epoch)
        return replace(state, slots=state.slots | {LOG_VARIANCE: to_numpy(self.log_variance_MP)} | own)


def _layer(weight: str) -> str:
    """The name of the layer of a weight."""
    return weight.removesuffix(".weight")
