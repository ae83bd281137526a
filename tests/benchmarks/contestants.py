"""Ways to train a population on a CPU. Each trains for a while when told to, and says how many model-samples it did."""

from __future__ import annotations

import dataclasses
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.benchmarks.cases import LEARNING_RATE, Case
from weightzoo.architectures.graph import Activation, Conv, Flatten, Linear, MaxPool
from weightzoo.architectures.module import build_module
from weightzoo.training.devices import DeviceData
from weightzoo.training.gradients import Dense
from weightzoo.training.initial import starting_state
from weightzoo.training.lanes.compile import compile_network, host_target
from weightzoo.training.lanes.groups import Group, Plan, Workspace
from weightzoo.training.lanes.network import Recipe
from weightzoo.training.stacked import Stack, stack_size


class Contestant(Protocol):
    """A training in one process."""

    def train(self, seconds: float) -> tuple[int, float]:
        """Train for about so long: model-samples done (forward, backward and update), and the wall time they took."""
        ...


def until(seconds: float, rounds: Callable[[], int]) -> tuple[int, float]:
    """Call `rounds` until the time is over: the sum of what it gave, and the time."""
    started, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds:
        done += rounds()
    return done, passed


def minibatches(case: Case) -> Iterator[Tensor]:
    """Endless shuffled minibatches of positions."""
    generator = torch.Generator().manual_seed(0)
    while True:
        yield from torch.randperm(case.images, generator=generator).split(case.batch)


class ReferenceLoop:
    """The loop that the published zoos were trained with: one module, one optimiser, one thread a process."""

    def __init__(self, case: Case, threads: int) -> None:
        torch.set_num_threads(threads)
        data = case.data()
        self.inputs = torch.from_numpy(data.inputs["train"])
        self.labels = torch.from_numpy(data.labels["train"]).long()
        self.network = build_module(case.graph, "tanh")
        self.optimizer = torch.optim.Adam(self.network.parameters(), LEARNING_RATE)
        self.batches = minibatches(case)

    def step(self) -> int:
        batch = next(self.batches)
        self.optimizer.zero_grad()
        functional.cross_entropy(self.network(self.inputs[batch]), self.labels[batch]).backward()
        self.optimizer.step()
        return len(batch)

    def train(self, seconds: float) -> tuple[int, float]:
        return until(seconds, self.step)


class TorchStacked:
    """The engine `torch`, members stacked by `torch.func.vmap`: its training without the evaluation behind each epoch."""

    def __init__(self, case: Case, threads: int) -> None:
        torch.set_num_threads(threads)
        case = dataclasses.replace(case, images=max(case.batch, 40))  # an epoch of it is short enough for a round
        cohort, device = case.cohort(epochs=100_000), torch.device("cpu")
        data, state = DeviceData(case.data(), case.graph, device), starting_state(case.graph, cohort, None)
        at_once = stack_size(case.graph, case.batch, device)
        dense = Dense(case.graph, cohort.activation, device)
        parts = [np.arange(start, min(start + at_once, len(cohort))) for start in range(0, len(cohort), at_once)]
        self.stacks = [Stack(case.graph, cohort.select(p.tolist()), state.select(p), data, dense) for p in parts]
        self.order = itertools.cycle(self.stacks)
        self.images = case.images

    def epoch(self) -> int:
        stack = next(self.order)
        stack.train_epoch(1)
        return len(stack.cohort) * self.images

    def train(self, seconds: float) -> tuple[int, float]:
        return until(seconds, self.epoch)


class GroupedConvolutions:
    """All members as one network: convolutions with a group for each, and batched matrix products."""

    def __init__(self, case: Case, threads: int) -> None:
        torch.set_num_threads(threads)
        data = case.data()
        self.case = case
        self.inputs = torch.from_numpy(data.inputs["train"])
        self.labels = torch.from_numpy(data.labels["train"]).long()
        weights = starting_state(case.graph, case.cohort(), None).weights
        tensors = case.graph.layout.unflatten(weights)
        self.parameters = {name: nn.Parameter(torch.from_numpy(tensor.copy())) for name, tensor in tensors.items()}
        self.optimizer = torch.optim.Adam(self.parameters.values(), LEARNING_RATE)
        self.batches = [minibatches(case) for _ in range(case.members)]

    def logits(self, inputs_MB: Tensor) -> Tensor:
        """`[M, B, C, H, W]` to `[M, B, classes]`."""
        members, batch = inputs_MB.shape[:2]
        hidden = inputs_MB.transpose(0, 1).flatten(1, 2)  # [B, M * C, H, W]
        for layer in self.case.graph.layers:
            match layer:
                case Conv(name=name):
                    weight, bias = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
                    hidden = functional.conv2d(
                        hidden, weight.flatten(0, 1), bias.flatten(), layer.stride, layer.padding, groups=members
                    )
                case MaxPool(size=size):
                    hidden = functional.max_pool2d(hidden, size)
                case Activation():
                    hidden = torch.tanh(hidden)
                case Flatten():
                    hidden = hidden.reshape(batch, members, -1).transpose(0, 1)  # [M, B, F]
                case Linear(name=name):
                    weight, bias = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
                    hidden = torch.baddbmm(bias[:, None], hidden, weight.mT)
                case _:  # dropout, at rate 0
                    pass
        return hidden

    def step(self) -> int:
        batch_MB = torch.stack([next(own) for own in self.batches])
        self.optimizer.zero_grad()
        logits = self.logits(self.inputs[batch_MB])
        losses = functional.cross_entropy(logits.flatten(0, 1), self.labels[batch_MB].flatten(), reduction="sum")
        (losses / batch_MB.shape[1]).backward()
        self.optimizer.step()
        return batch_MB.numel()

    def train(self, seconds: float) -> tuple[int, float]:
        return until(seconds, self.step)


class JaxVmap:
    """`jax.vmap` over members of a compiled step; needs JAX, which the project itself does not use."""

    def __init__(self, case: Case, threads: int) -> None:
        import jax
        import jax.numpy as jnp

        del threads  # XLA takes all cores
        data, graph = case.data(), case.graph
        self.case = case
        self.inputs, self.labels = jnp.asarray(data.inputs["train"]), jnp.asarray(data.labels["train"])
        tensors = graph.layout.unflatten(starting_state(graph, case.cohort(), None).weights)
        self.parameters = {name: jnp.asarray(tensor) for name, tensor in tensors.items()}
        self.means = {name: jnp.zeros_like(tensor) for name, tensor in self.parameters.items()}
        self.squares = dict(self.means)
        self.steps = 0
        self.batches = [minibatches(case) for _ in range(case.members)]

        def logits(parameters: dict[str, Any], hidden: Any) -> Any:
            for layer in graph.layers:
                match layer:
                    case Conv(name=name):
                        padding = [(layer.padding, layer.padding)] * 2
                        hidden = jax.lax.conv_general_dilated(
                            hidden, parameters[f"{name}.weight"], (layer.stride, layer.stride), padding
                        )
                        hidden = hidden + parameters[f"{name}.bias"][:, None, None]
                    case MaxPool(size=size):
                        window = (1, 1, size, size)
                        hidden = jax.lax.reduce_window(hidden, -jnp.inf, jax.lax.max, window, window, "VALID")
                    case Activation():
                        hidden = jnp.tanh(hidden)
                    case Flatten():
                        hidden = hidden.reshape(len(hidden), -1)
                    case Linear(name=name):
                        hidden = hidden @ parameters[f"{name}.weight"].T + parameters[f"{name}.bias"]
                    case _:
                        pass
            return hidden

        def loss(parameters: dict[str, Any], x: Any, y: Any) -> Any:
            log_probabilities = jax.nn.log_softmax(logits(parameters, x))
            return -jnp.take_along_axis(log_probabilities, y[:, None], 1).mean()

        def adam(w: Any, g: Any, m: Any, v: Any, t: Any) -> tuple[Any, Any, Any]:
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            return w - LEARNING_RATE * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8), m, v

        def step(parameters: Any, means: Any, squares: Any, t: Any, x: Any, y: Any) -> Any:
            gradients = jax.grad(loss)(parameters, x, y)
            moved = {
                name: adam(parameters[name], gradients[name], means[name], squares[name], t) for name in parameters
            }
            return tuple({name: parts[i] for name, parts in moved.items()} for i in range(3))

        def steps(parameters: Any, means: Any, squares: Any, t: Any, inputs: Any, labels: Any, batch: Any) -> Any:
            stacked = jax.vmap(step, in_axes=(0, 0, 0, None, 0, 0))
            return stacked(parameters, means, squares, t, inputs[batch], labels[batch])

        self.compiled = jax.jit(steps)
        self.wait = jax.block_until_ready
        for _ in range(1 + math.ceil(case.images / case.batch)):  # compiles for the last, smaller minibatch too
            self.step()

    def step(self) -> int:
        batch = np.stack([next(own).numpy() for own in self.batches])
        self.steps += 1
        moved = self.compiled(
            self.parameters, self.means, self.squares, float(self.steps), self.inputs, self.labels, batch
        )
        self.parameters, self.means, self.squares = self.wait(moved)
        return batch.size

    def train(self, seconds: float) -> tuple[int, float]:
        return until(seconds, self.step)


class Lanes:
    """The kernels of the engine `lanes`, a group of members a thread at a time: what its threads do, but evaluation."""

    def __init__(self, case: Case, threads: int) -> None:
        target = host_target()
        data, cohort = case.data(), case.cohort(epochs=100_000)
        compiled = compile_network(Recipe(case.graph, "tanh", "adam", False), target)
        state = starting_state(case.graph, cohort, None)
        plan = Plan(case.cohort().protocol, "adam", data)
        plan.factors, plan.momenta = np.ones(plan.steps), np.full(plan.steps, 0.9)
        self.threads = threads
        self.groups: list[Group] = []
        for start in range(0, case.members, target.width):
            rows = slice(start, min(start + target.width, case.members))
            slots = {name: slot[rows] for name, slot in state.slots.items()}
            members = cohort.members[rows]
            self.groups.append(Group(plan, compiled, members, rows, target.width, state.weights[rows], slots))
        parameters = case.graph.layout.size
        self.workspaces = [Workspace(compiled, target.width, parameters, case.images) for _ in range(threads)]

    def train(self, seconds: float) -> tuple[int, float]:
        started = time.perf_counter()
        queue = itertools.cycle(self.groups)
        lock = threading.Lock()
        done = [0] * self.threads
        busy: set[int] = set()

        def work(number: int) -> None:
            while time.perf_counter() - started < seconds:
                with lock:
                    group = next(own for own in queue if id(own) not in busy)
                    busy.add(id(group))
                group.train_epoch(1, self.workspaces[number], lambda: False)
                done[number] += group.size * group.plan.samples
                with lock:
                    busy.discard(id(group))

        workers = [
            threading.Thread(target=work, args=(number,)) for number in range(min(self.threads, len(self.groups)))
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return sum(done), time.perf_counter() - started


# name -> how to build it, and whether it wants a process of its own on each core
CONTESTANTS: dict[str, tuple[Callable[[Case, int], Contestant], bool]] = {
    "reference loop": (ReferenceLoop, True),
    "torch stacked": (TorchStacked, False),
    "grouped convolutions": (GroupedConvolutions, False),
    "jax vmap": (JaxVmap, False),
    "lanes": (Lanes, False),
}
