"""The engine `torch`: the members of a cohort stacked along one axis, in PyTorch, for any architecture and device.

Small networks are trained many at once, where PyTorch would spend its time on starting operations rather than in them.
Large ones fill an operation by themselves, and a stack of convolutions (a grouped one) is slower than one after the
other, so they are trained one at a time, the images with their channels last in memory. `members_at_once` says which
are which.

Shape suffixes: M members, P parameters, N training images, B images of a minibatch, U units that dropout acts on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weightzoo import seeds
from weightzoo.architectures import Architecture
from weightzoo.architectures.module import parameters_of
from weightzoo.datasets.images import ImageData
from weightzoo.members import Cohort
from weightzoo.training.augmentation import augment, augmentation_plan
from weightzoo.training.devices import DeviceData, resolve_device, to_tensor, torch_threads, unsupported_precision
from weightzoo.training.dropout import DropoutMasks
from weightzoo.training.evaluation import is_correct, join, measure, to_numpy
from weightzoo.training.gradients import Dense
from weightzoo.training.initial import starting_state
from weightzoo.training.optimisers import update
from weightzoo.training.protocol import EpochResult, Metrics, SparseMetrics, TrainState
from weightzoo.training.schedule import step_factors

_WORKING_SET = {"cpu": 64e6, "cuda": 4e9}  # bytes of activations at a time: within reach of a CPU's cache, or of memory
_COPIES = 6  # of each activation: itself, its gradient, and what PyTorch makes on the way
_LARGE_LAYER = 20_000  # numbers that an average layer gives for a minibatch; on a CPU, alone is faster from there


class StackedEngine:
    """Trains many members in each PyTorch operation, by `torch.func`.

    A member's result does not depend on its neighbours but for rounding: PyTorch may choose another kernel for another
    number of members, which changes the last bits of a sum. On a CPU it was only seen to do so for a stack of one, so a
    last member that would be left by itself is trained beside a copy of itself.
    """

    name = "torch"

    def __init__(
        self,
        device: str = "cpu",
        threads: int | None = None,
        members_at_once: int | None = None,
        *,
        compile: bool = False,
    ) -> None:
        """`threads` bounds PyTorch's CPU threads, `members_at_once` the stack; None leaves both to the engine.

        `compile` has forward and backward pass compiled by `torch.compile`, which pays in long training only.

        Raises:
            EngineError: there is no such device.
        """
        self.device = resolve_device(device)
        self.threads = threads
        self.members_at_once = members_at_once
        self.compile = compile
        self._networks: dict[tuple[Any, ...], Dense] = {}

    def supports(self, architecture: Architecture, cohort: Cohort, device: str) -> str | None:
        """None, but where the device lacks the precision: there is no architecture that it can't train."""
        return unsupported_precision(cohort.protocol.precision, self.device)

    def train(
        self, architecture: Architecture, cohort: Cohort, data: ImageData, *, resume: TrainState | None = None
    ) -> Iterator[EpochResult]:
        """Train stack after stack through an epoch, then yield the epoch of all; see `Engine.train`.

        Raises:
            EngineError: the data set does not fit the architecture.
            LayoutError: `resume` is not a state of this cohort.
        """
        device_data = DeviceData(data, architecture, self.device)
        state = self._start(architecture, cohort, resume)
        at_once = self.members_at_once or members_at_once(architecture, cohort.protocol.batch_size, self.device)
        if cohort.protocol.precision != "float32":  # a stack of batch normalisations can't mix two precisions
            at_once = 1
        rows = np.arange(len(cohort))
        if at_once > 1 and len(cohort) % at_once == 1:
            rows = np.append(rows, rows[-1])
        parts = [rows[start : start + at_once] for start in range(0, len(rows), at_once)]
        dense = self._dense(architecture, cohort, alone=at_once == 1)
        cohorts = [cohort.select(part.tolist()) for part in parts]
        states = [state.select(part) for part in parts]
        stacks = [self._stack(architecture, *own, device_data, dense) for own in zip(cohorts, states, strict=True)]
        for epoch in range(0 if resume is None else resume.epoch + 1, cohort.protocol.epochs + 1):
            started = time.perf_counter()
            with torch_threads(self._threads(at_once)):
                threads = torch.get_num_threads() if self.device.type == "cpu" else 1
                running = [stack.train_epoch(epoch) if epoch > 0 else None for stack in stacks]
                metrics = [stack.measure(means) for stack, means in zip(stacks, running, strict=True)]
                states = [stack.state(epoch) for stack in stacks]
                sparse = [own for stack in stacks if (own := stack.sparse_metrics()) is not None]
            seconds = threads * (time.perf_counter() - started)
            measured = join(metrics, len(cohort)), seconds, join(sparse, len(cohort)) if sparse else None
            yield EpochResult(_join(states, len(cohort)), *measured)

    def _threads(self, at_once: int) -> int | None:
        return self.threads

    def _start(self, architecture: Architecture, cohort: Cohort, resume: TrainState | None) -> TrainState:
        return starting_state(architecture, cohort, resume)

    def _stack(
        self, architecture: Architecture, cohort: Cohort, state: TrainState, data: DeviceData, dense: Dense
    ) -> Stack:
        return Stack(architecture, cohort, state, data, dense)

    def _dense(self, architecture: Architecture, cohort: Cohort, *, alone: bool) -> Dense:
        """The network of a kind of cohort, made once: another one would have to be compiled again."""
        key = architecture, cohort.activation, cohort.protocol.precision, alone, cohort.sparsification
        if key not in self._networks:
            self._networks[key] = self._new_dense(architecture, cohort, alone=alone)
        return self._networks[key]

    def _new_dense(self, architecture: Architecture, cohort: Cohort, *, alone: bool) -> Dense:
        precision = cohort.protocol.precision
        return Dense(architecture, cohort.activation, self.device, precision, alone=alone, compile=self.compile)


class Stack:
    """Members that are trained in the same operations: weights and optimiser state on the device, and the loop."""

    def __init__(
        self, architecture: Architecture, cohort: Cohort, state: TrainState, data: DeviceData, dense: Dense
    ) -> None:
        self.architecture, self.layout, self.cohort, self.data = architecture, architecture.layout, cohort, data
        self.dense = dense
        self.inputs, self.labels = data.inputs["train"], data.labels["train"]
        self.device = self.labels.device
        self.steps = math.ceil(len(self.labels) / cohort.protocol.batch_size)
        self.rate_factors, self.momenta = step_factors(cohort.protocol, self.steps, cohort.optimizer)

        self.weights_MP = to_tensor(state.weights, self.device).clone()
        self.slots = {name: to_tensor(slot, self.device).clone() for name, slot in state.slots.items()}
        self.parameters = parameters_of(architecture, self.weights_MP)  # views: an update of the weights shows in them
        chosen = [member.hyperparameters for member in cohort.members]
        self.rate_M1 = torch.tensor([[own.learning_rate] for own in chosen], dtype=torch.float64, device=self.device)
        self.decay = torch.tensor([[own.weight_decay] for own in chosen], dtype=torch.float32, device=self.device)
        if self.layout.buffers:  # [M, P], zero at the buffers; else [M, 1]
            self.decay = self.decay * to_tensor(self.layout.is_trained, self.device)
        self.masks = DropoutMasks(architecture, cohort.members, self.device)

    def train_epoch(self, epoch: int) -> Tensor:
        """Visit every training image once: the mean losses and the accuracies on the way, float64 `[2, M]`.

        Nothing in the loop waits for the device.
        """
        self.dense.training_mode()
        samples, batch_size = len(self.labels), self.cohort.protocol.batch_size
        orders = [seeds.sample_order(member.seeds.order, epoch, samples) for member in self.cohort.members]
        orders_MN = torch.from_numpy(np.stack(orders)).to(self.device)
        plans = self._augmentation_plans(epoch)
        sums_2M = torch.zeros(2, len(orders), dtype=torch.float64, device=self.device)
        for number, batch_MB in enumerate(orders_MN.split(batch_size, dim=1)):
            step = (epoch - 1) * self.steps + number
            first_visit = (epoch - 1) * samples + number * batch_size
            inputs, labels_MB = self.inputs[batch_MB], self.labels[batch_MB]
            if plans is not None:
                inputs = augment(inputs, self.data.black, plans[:, number * batch_size :][:, : batch_MB.shape[1]])
            masks = self.masks.draw(first_visit, batch_MB.shape[1])

            loss_M, logits_MBC = self.train_step(step, inputs, labels_MB, masks)

            sums_2M += torch.stack([loss_M * batch_MB.shape[1], is_correct(logits_MBC, labels_MB).sum(1)])
        return sums_2M / samples

    def train_step(
        self, step: int, inputs: Tensor, labels_MB: Tensor, masks: Mapping[int, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Train on one minibatch: the mean losses `[M]` and the logits `[M, B, C]` before the update."""
        gradients, loss_M, logits_MBC, buffers = self.dense.gradients(self.parameters, inputs, labels_MB, masks)
        self.update(self.weights_MP, self.vectors(gradients), self.slots, step, self.decay)
        for name, buffer in buffers.items():
            self.parameters[name].copy_(buffer)
        return loss_M, logits_MBC

    def update(
        self, values_MP: Tensor, gradients_MP: Tensor, slots: Mapping[str, Tensor], step: int, decay: Tensor
    ) -> None:
        """One step of the optimiser on the weights, or on what else is trained like them."""
        momentum, rate_M1 = float(self.momenta[step]), self.rate_M1 * float(self.rate_factors[step])
        update(self.cohort.optimizer, values_MP, gradients_MP, slots, rate_M1, decay, momentum, step)

    def vectors(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Tensors `[M, *shape]` by name as vectors `[M, P]`, zero where there is none."""
        parts = (tensors[n] if n in tensors else torch.zeros_like(self.parameters[n]) for n in self.layout.names)
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def state(self, epoch: int) -> TrainState:
        """Copies of the weights and of the optimiser state as they are."""
        slots = {name: to_numpy(slot) for name, slot in self.slots.items()}
        return TrainState(epoch, to_numpy(self.weights_MP), slots)

    def measure(self, running_2M: Tensor | None) -> Metrics:
        """The metrics of the weights as they are."""
        return measure(self.dense.network, self.parameters, self.data, running_2M)

    def sparse_metrics(self) -> SparseMetrics | None:
        """What is measured beside `Metrics` on members that are made sparse; behind `measure`."""
        return None

    def _augmentation_plans(self, epoch: int) -> Tensor | None:
        """What happens to the images of the epoch, int32 `[M, N, 5]`."""
        augmentation = self.cohort.protocol.augmentation
        if augmentation is None:
            return None
        orders = [member.seeds.order for member in self.cohort.members]
        plans = [augmentation_plan(augmentation, seed, epoch, len(self.labels)) for seed in orders]
        return torch.from_numpy(np.stack(plans)).to(self.device)


def _join(parts: Sequence[TrainState], members: int) -> TrainState:
    slots = {name: np.concatenate([part.slots[name] for part in parts])[:members] for name in parts[0].slots}
    return TrainState(parts[0].epoch, np.concatenate([part.weights for part in parts])[:members], slots)


def members_at_once(architecture: Architecture, batch_size: int, device: torch.device) -> int:
    """How many members are trained at once: as many as fit the working set with a minibatch each, or one at a time.

    On a CPU one at a time also where an average layer gives `_LARGE_LAYER` numbers or more for a minibatch. Measured on
    one core of a Xeon with AVX-512 (thousand numbers a layer: model-samples a second stacked / alone), SGD, 8 members,
    ResNets 4: CNN(s) at batch 10, 6: 9,000 / 7,000; at 32, 19: 9,800 / 10,400; at 128, 76: 9,600 / 15,900. CNN(m) at
    batch 10, 20: 4,200 / 5,500. ResNet-18 of 4 channels on 16 pixels at batch 32, 15: 3,300 / 2,300; of 8 channels on
    32 pixels, 120: 850 / 990.
    """
    sizes = architecture.activation_sizes
    if device.type == "cpu" and sum(sizes) * batch_size >= _LARGE_LAYER * len(sizes):
        return 1
    return stack_size(architecture, batch_size, device)


def stack_size(architecture: Architecture, batch_size: int, device: torch.device) -> int:
    """How many members fit the working set with a minibatch each."""
    activations = sum(architecture.activation_sizes) * batch_size
    return max(1, int(_WORKING_SET[device.type] / (4 * _COPIES * activations)))
