"""The reference engine: one model at a time, with PyTorch's own modules, gradients and optimisers.

It is the oracle that the other engines are tested against, and the baseline of every claim about their speed: the plain
loop that one would write, without avoidable overhead.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam, AdamW, Optimizer

from weightzoo import seeds
from weightzoo.architectures import Architecture
from weightzoo.architectures.module import build_module, parameters_of
from weightzoo.datasets.images import ImageData
from weightzoo.errors import EngineError
from weightzoo.members import Cohort, Member
from weightzoo.training.augmentation import augment, augmentation_plan
from weightzoo.training.devices import (
    DeviceData,
    autocast,
    resolve_device,
    to_tensor,
    torch_threads,
    unsupported_precision,
)
from weightzoo.training.evaluation import is_correct, measure, to_numpy
from weightzoo.training.initial import starting_state
from weightzoo.training.protocol import BETA1, BETA2, EPSILON, SLOTS, EpochResult, TrainState
from weightzoo.training.schedule import step_factors


class ReferenceEngine:
    """Any architecture, on one CPU thread or on CUDA. A member's result does not depend on its neighbours at all."""

    name = "reference"

    def __init__(self, device: str = "cpu") -> None:
        """Raises `EngineError` if there is no such device."""
        self.device = resolve_device(device)

    def supports(self, architecture: Architecture, cohort: Cohort, device: str) -> str | None:
        """None, but where members are made sparse, or the device lacks the precision."""
        if cohort.sparsification is not None:
            return "it makes no members sparse"
        return unsupported_precision(cohort.protocol.precision, self.device)

    def train(
        self, architecture: Architecture, cohort: Cohort, data: ImageData, *, resume: TrainState | None = None
    ) -> Iterator[EpochResult]:
        """Train one member after the other through an epoch, then yield the epoch of all; see `Engine.train`.

        Raises:
            EngineError: the data set does not fit the architecture.
            LayoutError: `resume` is not a state of this cohort.
        """
        device_data = DeviceData(data, architecture, self.device)
        state = starting_state(architecture, cohort, resume)
        models = [_Model(architecture, member, state, row, device_data) for row, member in enumerate(cohort.members)]
        clock = time.thread_time if self.device.type == "cpu" else time.perf_counter
        for epoch in range(0 if resume is None else resume.epoch + 1, cohort.protocol.epochs + 1):
            started = clock()
            with torch_threads(1):
                running = None
                if epoch > 0:
                    running = torch.tensor([model.train_epoch(epoch) for model in models]).T
                    slots = {name: np.stack([model.slot(name) for model in models]) for name in state.slots}
                    state = TrainState(epoch, np.stack([model.weights() for model in models]), slots)
                parameters = parameters_of(architecture, to_tensor(state.weights, self.device))
                metrics = measure(models[0].network, parameters, device_data, running)
            yield EpochResult(state, metrics, clock() - started)


class _Model:
    """One member in training: its module, its optimiser, and the loop."""

    def __init__(
        self, architecture: Architecture, member: Member, state: TrainState, row: int, data: DeviceData
    ) -> None:
        self.architecture, self.member = architecture, member
        self.inputs, self.labels = data.inputs["train"], data.labels["train"]
        self.device, self.black = data.black.device, data.black
        batch_size = member.protocol.batch_size
        self.steps = math.ceil(len(self.labels) / batch_size)
        self.rates, self.momenta = step_factors(member.protocol, self.steps, member.hyperparameters.optimizer)
        self.rates = self.rates * member.hyperparameters.learning_rate

        self.network = build_module(architecture, member.hyperparameters.activation).to(self.device)
        self.network.load_state_dict(self._parameters(state.weights[row]))
        self.optimizer = _optimizer(member, self.network)
        slots = {name: self._parameters(slot[row]) for name, slot in state.slots.items()}
        for name, parameter in self.network.named_parameters():
            self.optimizer.state[parameter] = {slot: values[name].clone() for slot, values in slots.items()}
            if "exp_avg" in slots:  # only Adam counts its steps
                self.optimizer.state[parameter]["step"] = torch.tensor(float(state.epoch * self.steps))

    def train_epoch(self, epoch: int) -> tuple[float, float]:
        """Visit every training image once: the mean loss and the accuracy on the way."""
        samples, batch_size = len(self.labels), self.member.protocol.batch_size
        order = torch.from_numpy(seeds.sample_order(self.member.seeds.order, epoch, samples)).to(self.device)
        plan = self._augmentation_plan(epoch)
        loss_sum, hits = 0.0, 0
        self.network.train()
        for number, batch in enumerate(order.split(batch_size)):
            step = (epoch - 1) * self.steps + number
            first_visit = (epoch - 1) * samples + number * batch_size
            self._set_rate(self.rates[step], self.momenta[step])
            inputs, labels = self.inputs[batch], self.labels[batch]
            if plan is not None:
                inputs = augment(inputs, self.black, plan[number * batch_size :][: len(batch)])

            self.optimizer.zero_grad()
            with autocast(self.member.protocol.precision, self.device):
                logits = self.network(inputs, self._masks(first_visit + np.arange(len(batch)))).float()
            loss = cross_entropy(logits, labels)
            loss.backward()
            self.optimizer.step()

            loss_sum += loss.item() * len(batch)
            hits += int(is_correct(logits, labels).sum())
        return loss_sum / samples, hits / samples

    def weights(self) -> np.ndarray:
        """The weight vector, float32 `[P]`."""
        return self._vector(self.network.state_dict())

    def slot(self, name: str) -> np.ndarray:
        """One part of the optimiser's state, float32 `[P]`, zero at the buffers."""
        zeros = {key: torch.zeros_like(buffer) for key, buffer in self.network.named_buffers()}
        return self._vector(zeros | {key: self.optimizer.state[p][name] for key, p in self.network.named_parameters()})

    def _set_rate(self, learning_rate: float, momentum: float) -> None:
        group = self.optimizer.param_groups[0]
        group["lr"] = float(learning_rate)
        if isinstance(self.optimizer, SGD):
            group["momentum"] = float(momentum)
        else:
            group["betas"] = (float(momentum), BETA2)

    def _augmentation_plan(self, epoch: int) -> Tensor | None:
        augmentation = self.member.protocol.augmentation
        if augmentation is None:
            return None
        return torch.from_numpy(augmentation_plan(augmentation, self.member.seeds.order, epoch, len(self.labels))).to(
            self.device
        )

    def _masks(self, visits: np.ndarray) -> Mapping[int, Tensor] | None:
        """The factor 0 or 1/(1 - rate) of each unit `[B, *shape]`, by the position of the dropout layer."""
        rate = self.member.hyperparameters.dropout
        if rate == 0:
            return None
        key = seeds.dropout_key(self.member.seeds.dropout)
        masks: dict[int, Tensor] = {}
        for layer, offset in self.architecture.dropout_offsets.items():
            shape = self.architecture.shapes[layer]
            keep = seeds.dropout_keep(key, visits, offset + np.arange(math.prod(shape)), rate)
            factors = keep.astype(np.float32) / np.float32(1 - rate)
            masks[layer] = torch.from_numpy(factors).view(-1, *shape).to(self.device)
        return masks

    def _parameters(self, vector: np.ndarray) -> dict[str, Tensor]:
        return parameters_of(self.architecture, to_tensor(vector, self.device))

    def _vector(self, tensors: Mapping[str, Tensor]) -> np.ndarray:
        return to_numpy(torch.cat([tensors[name].flatten() for name in self.architecture.layout.names]))


def _optimizer(member: Member, network: nn.Module) -> Optimizer:
    chosen = member.hyperparameters
    rate, decay = chosen.learning_rate, chosen.weight_decay
    match chosen.optimizer:
        case "adam":  # with L2 regularisation in the gradient
            return Adam(network.parameters(), rate, (BETA1, BETA2), EPSILON, decay)
        case "adamw":
            return AdamW(network.parameters(), rate, (BETA1, BETA2), EPSILON, decay)
        case "sgd":
            return SGD(network.parameters(), rate, member.protocol.momentum, weight_decay=decay)
        case kind:
            raise EngineError(f"unknown optimiser {kind!r}; there are {', '.join(SLOTS)}")
