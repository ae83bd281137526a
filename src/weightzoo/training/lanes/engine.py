"""The lanes engine: groups of members, trained by threads that take what has got the least far."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from weightzoo.architectures import Architecture
from weightzoo.architectures.graph import Activation, Conv, Dropout, Flatten, Linear, MaxPool
from weightzoo.datasets.images import ImageData
from weightzoo.errors import EngineError
from weightzoo.members import Cohort
from weightzoo.spec import Variational
from weightzoo.training.initial import starting_state
from weightzoo.training.lanes.activation import ACTIVATIONS
from weightzoo.training.lanes.compile import Compiled, Target, compile_network, host_target, unsupported_host
from weightzoo.training.lanes.groups import Group, Plan, Tally, Workspace
from weightzoo.training.lanes.network import Recipe
from weightzoo.training.lanes.sparse_groups import SPARSE_GROUPS, SparseGroup
from weightzoo.training.protocol import PROBE_SIZE, SLOTS, EpochResult, Metrics, SparseMetrics, TrainState
from weightzoo.training.sparse.state import starting_sparse_state

RUN_AHEAD = 2  # epochs that a group may be ahead of the slowest: each costs a copy of all weights and slots
MAX_PARAMETERS = 500_000  # there it is still 1.3 times as fast as a PyTorch loop; weights no longer fit the caches
_LAYERS = (Activation, Conv, Dropout, Flatten, Linear, MaxPool)


class LanesEngine:
    """CNNs on the CPU, one model in each lane of its vector registers.

    A member's result is the same bytes alone or among others, in any lane, with any number of threads, at any vector
    width and on any processor with the same arithmetic. A group without dropout runs kernels without masks.
    """

    name = "lanes"

    def __init__(
        self,
        threads: int | None = None,
        width: int | None = None,
        *,
        target: Target | None = None,
        cache: Path | None = None,
    ) -> None:
        """One thread a core, the processor's own vector width, and the user's cache folder unless told otherwise.

        `target` compiles for another processor than the host's kind, which has to understand its instructions.

        Raises:
            EngineError: there is no such width, or less than one thread.
        """
        if threads is not None and threads < 1:
            raise EngineError(f"threads: {threads}; the lanes engine wants at least 1, or none given for one a core")
        self.threads = threads or _cores()
        self._width = width
        self._target = target
        self._cache = cache
        if width is not None:
            host_target(width)

    def supports(self, architecture: Architecture, cohort: Cohort, device: str) -> str | None:
        """None if it can train this cohort, else why not."""
        if device != "cpu":
            return f"it runs on the CPU, not on {device}"
        if (reason := unsupported_host()) is not None:
            return reason
        for layer in architecture.layers:
            if type(layer) not in _LAYERS:
                return f"it has no kernel for the layer {type(layer).__name__}"
            if isinstance(layer, Conv) and not layer.bias:
                return "it has no kernel for a convolution without bias"
        if len(architecture.shapes[-1]) != 1:
            return f"the last layer gives {list(architecture.shapes[-1])}, no vector of logits"
        if not architecture.layout.parameters:
            return "there is nothing to train in it"
        if architecture.layout.size > MAX_PARAMETERS:
            return f"{architecture.layout.size:,} parameters are too many for it (at most {MAX_PARAMETERS:,})"
        if cohort.activation not in ACTIVATIONS:
            return f"it has no activation {cohort.activation!r}"
        if cohort.optimizer not in SLOTS:
            return f"it has no optimiser {cohort.optimizer!r}"
        if cohort.protocol.augmentation is not None:
            return "it trains on the images as they are, without augmentation"
        if cohort.protocol.precision != "float32":
            return f"it computes in float32, not in {cohort.protocol.precision}"
        return None

    def train(
        self, architecture: Architecture, cohort: Cohort, data: ImageData, *, resume: TrainState | None = None
    ) -> Iterator[EpochResult]:
        """Epochs as they are finished by all groups; see `Engine.train`.

        Raises:
            EngineError: the engine does not support this, or the data do not fit the architecture.
            LayoutError: `resume` does not fit the cohort and architecture.
        """
        if (reason := self.supports(architecture, cohort, "cpu")) is not None:
            raise EngineError(f"engine lanes can't train {architecture.name}: {reason}; use engine: auto")
        if data.image_shape != architecture.input_shape or data.classes != architecture.classes:
            given, wanted = (
                (list(data.image_shape), data.classes),
                (list(architecture.input_shape), architecture.classes),
            )
            raise EngineError(f"{architecture.name} takes images and classes {wanted}, {data.name} has {given}")
        start = starting_state if cohort.sparsification is None else starting_sparse_state
        state = start(architecture, cohort, resume)
        return self._train(architecture, cohort, data, state, 0 if resume is None else resume.epoch + 1)

    def _train(
        self, architecture: Architecture, cohort: Cohort, data: ImageData, state: TrainState, first: int
    ) -> Iterator[EpochResult]:
        last = cohort.protocol.epochs
        if first > last:
            return
        groups = self._groups(architecture, cohort, data, state)
        dtypes = {name: slot.dtype for name, slot in state.slots.items()}
        run = _Run(groups, architecture, data, len(cohort), dtypes, first, last)
        workers = [
            threading.Thread(target=run.work, name=f"lanes-{number}", daemon=True)
            for number in range(min(self.threads, len(groups)))
        ]
        for worker in workers:
            worker.start()
        try:
            for epoch in range(first, last + 1):
                yield run.wait(epoch)
        finally:
            run.stop()
            for worker in workers:
                worker.join()

    def _groups(self, architecture: Architecture, cohort: Cohort, data: ImageData, state: TrainState) -> list[Group]:
        target = self._target or host_target(self._width)
        plan = Plan(cohort.protocol, cohort.optimizer, data)
        method = cohort.sparsification
        sparse = None if method is None else "variational" if isinstance(method, Variational) else "masked"
        programs: dict[bool, Compiled] = {}
        groups: list[Group] = []
        for start in range(0, len(cohort), target.width):
            rows = slice(start, min(start + target.width, len(cohort)))
            members = cohort.members[rows]
            dropout = any(member.hyperparameters.dropout > 0 for member in members)
            if dropout not in programs:
                recipe = Recipe(architecture, cohort.activation, cohort.optimizer, dropout, sparse)
                programs[dropout] = compile_network(recipe, target, self._cache)
            slots = {name: slot[rows] for name, slot in state.slots.items()}
            parts = (plan, programs[dropout], members, rows, target.width, state.weights[rows], slots)
            groups.append(Group(*parts) if method is None else SPARSE_GROUPS[sparse](architecture, method, *parts))
        return groups


@dataclass
class _Pending:
    """An epoch while its groups come in."""

    result: EpochResult
    missing: int
    seconds: float = 0.0


class _Run:
    """The work of one call of `train`, shared by its threads and the iterator."""

    def __init__(
        self,
        groups: list[Group],
        architecture: Architecture,
        data: ImageData,
        members: int,
        dtypes: Mapping[str, np.dtype],
        first: int,
        last: int,
    ) -> None:
        self._groups = groups
        self._parameters = architecture.layout.size
        self._classes = data.classes
        self._probes = min(PROBE_SIZE, data.size("test"))
        self._members = members
        self._dtypes = dtypes  # of the slots
        self._prunable = architecture.prunable
        self._is_sparse = isinstance(groups[0], SparseGroup)
        self._last = last
        self._next = [first] * len(groups)  # the epoch that each group has to do
        self._busy: set[int] = set()
        self._first_wanted = first  # the epoch that the iterator hands out next
        self._pending: dict[int, _Pending] = {}
        self._stopped = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    def wait(self, epoch: int) -> EpochResult:
        """The outcome of an epoch, once all groups have it; the threads may then go on by one more."""
        with self._changed:
            self._first_wanted = epoch
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._failure is not None or self._is_complete(epoch))
            if self._failure is not None:
                raise self._failure
            pending = self._pending.pop(epoch)
            return replace(pending.result, seconds=pending.seconds)

    def stop(self) -> None:
        """Let the threads end after their present call into machine code."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def work(self) -> None:
        """What each thread does: take the group that has got the least far, do its next epoch, hand it in."""
        workspaces: dict[int, Workspace] = {}
        try:
            while (number := self._take()) is not None:
                group, epoch = self._groups[number], self._next[number]
                workspace = workspaces.get(id(group.compiled))
                if workspace is None:
                    workspace = Workspace(group.compiled, group.width, self._parameters, group.plan.samples)
                    workspaces[id(group.compiled)] = workspace
                started = time.thread_time()
                self._do(number, epoch, workspace, started)
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._stopped = True
                self._changed.notify_all()

    def _do(self, number: int, epoch: int, workspace: Workspace, started: float) -> None:
        group = self._groups[number]
        trained = group.evaluate("train", workspace, self._is_stopped) if epoch == 0 else None
        if trained is None:
            trained = group.train_epoch(epoch, workspace, self._is_stopped)
        val = group.evaluate("val", workspace, self._is_stopped)
        test = group.evaluate("test", workspace, self._is_stopped)
        if self._stopped:
            return
        with self._changed:
            pending = self._pending.get(epoch)
            if pending is None:
                pending = self._pending[epoch] = _Pending(self._blank(epoch), len(self._groups))
        _record(pending.result, group, trained, val, test)
        with self._changed:
            pending.missing -= 1
            pending.seconds += time.thread_time() - started
            self._next[number] = epoch + 1
            self._busy.discard(number)
            self._changed.notify_all()

    def _take(self) -> int | None:
        with self._changed:
            while not self._stopped:
                free = [number for number in range(len(self._groups)) if number not in self._busy]
                number = min(free, key=lambda free_number: self._next[free_number], default=None)
                if number is not None and self._next[number] <= min(self._first_wanted + RUN_AHEAD, self._last):
                    self._busy.add(number)
                    return number
                if min(self._next) > self._last:
                    return None
                self._changed.wait()
            return None

    def _is_complete(self, epoch: int) -> bool:
        return epoch in self._pending and self._pending[epoch].missing == 0

    def _is_stopped(self) -> bool:
        return self._stopped

    def _blank(self, epoch: int) -> EpochResult:
        """Room for an epoch's outcome."""

        def floats(*shape: int) -> np.ndarray:
            return np.empty((self._members, *shape), np.float32)

        slots = {name: np.empty((self._members, self._parameters), dtype) for name, dtype in self._dtypes.items()}
        state = TrainState(epoch, floats(self._parameters), slots)
        metrics = Metrics(
            train_loss=floats(),
            train_accuracy=floats(),
            val_loss=floats(),
            val_accuracy=floats(),
            test_loss=floats(),
            test_accuracy=floats(),
            val_class_accuracy=floats(self._classes),
            test_class_accuracy=floats(self._classes),
            probe_logits=np.empty((self._members, self._probes, self._classes), np.float16),
        )
        layers = len(self._prunable)
        sparse = SparseMetrics(floats(), floats(), floats(layers)) if self._is_sparse else None
        return EpochResult(state, metrics, 0.0, sparse)


def _record(result: EpochResult, group: Group, trained: Tally, val: Tally, test: Tally) -> None:
    """Copy a group's outcome into its rows of the epoch's; every NaN becomes the one of NumPy."""
    rows, size, plan, metrics = group.rows, group.size, group.plan, result.metrics
    for name, slot in group.slots.items():
        _copy(result.state.slots[name][rows], slot)
    weights = result.state.weights[rows]
    _copy(weights, group.weights)
    finite = np.isfinite(weights).all(1)

    def losses(tally: Tally, split: str) -> np.ndarray:
        loss = tally.mean_loss(len(plan.labels[split]))[:size].astype(np.float32)
        return np.where(np.isfinite(loss), loss, np.float32(np.nan))

    def accuracies(tally: Tally, split: str) -> np.ndarray:
        return (tally.hits.sum(0)[:size] / len(plan.labels[split])).astype(np.float32)

    def class_accuracies(tally: Tally, split: str) -> np.ndarray:
        counts = plan.counts[split]
        found = tally.hits.T[:size] / np.maximum(counts, 1)
        return np.where(counts > 0, found, np.nan).astype(np.float32)

    nan = np.float32(np.nan)
    train_loss = losses(trained, "train")
    metrics.train_loss[rows] = train_loss if result.epoch > 0 else np.where(finite, train_loss, nan)
    metrics.train_accuracy[rows] = accuracies(trained, "train")
    metrics.val_loss[rows] = np.where(finite, losses(val, "val"), nan)
    metrics.val_accuracy[rows] = accuracies(val, "val")
    metrics.val_class_accuracy[rows] = class_accuracies(val, "val")
    metrics.test_loss[rows] = np.where(finite, losses(test, "test"), nan)
    metrics.test_accuracy[rows] = accuracies(test, "test")
    metrics.test_class_accuracy[rows] = class_accuracies(test, "test")
    with np.errstate(over="ignore", invalid="ignore"):  # a diverging model's logits may pass float16's 65,504
        probes = metrics.probe_logits.shape[1]
        logits = test.logits[:probes, :, :size].transpose(2, 0, 1).astype(np.float16)
    logits[np.isnan(logits)] = np.float16(np.nan)
    metrics.probe_logits[rows] = logits
    own = group.sparse_metrics(metrics.train_loss[rows])
    if result.sparse is not None and own is not None:
        result.sparse.train_objective[rows] = own.train_objective
        result.sparse.sparsity[rows] = own.sparsity
        result.sparse.layer_sparsity[rows] = own.layer_sparsity


def _copy(target: np.ndarray, by_lane: np.ndarray) -> None:
    target[:] = by_lane[:, : len(target)].T
    if target.dtype.kind == "f":
        target[np.isnan(target)] = np.nan


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
