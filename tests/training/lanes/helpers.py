"""Running single kernels and minibatches, and comparing what engines give."""

from __future__ import annotations

import ctypes
import dataclasses
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from weightzoo.architectures.graph import Architecture
from weightzoo.datasets.images import ImageData
from weightzoo.members import Cohort
from weightzoo.training.initial import initial_weights, starting_state
from weightzoo.training.lanes.compile import Target, compile_network, host_target, link_code, machine_code
from weightzoo.training.lanes.groups import Group, Plan, Workspace, aligned
from weightzoo.training.lanes.language import Array, ArrayType, Code, Program, Value
from weightzoo.training.lanes.network import Recipe
from weightzoo.training.lanes.program import Emitted
from weightzoo.training.protocol import EpochResult

AVX2 = "x86-64-v3"


def avx2_target() -> Target:
    """This machine without its 512-bit registers: other instructions, another tiling."""
    host = host_target(8)
    return Target(8, 16, host.triple, AVX2, "")


def has_avx2() -> bool:
    return bool(llvm.get_host_cpu_features().get("avx2"))


def random_weights(architecture: Architecture, cohort: Cohort) -> np.ndarray:
    """Fresh weights with noise on them, so that no two are equal, biases included: float32 `[M, P]`."""
    fresh = initial_weights(architecture, cohort.members)
    return fresh + np.random.default_rng(8).normal(0, 0.05, fresh.shape).astype(np.float32)


def first_gradients(
    architecture: Architecture,
    cohort: Cohort,
    weights: np.ndarray,
    data: ImageData,
    cache: Path,
    target: Target | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients float32 `[M, P]` and mean losses `[M]` of the first minibatch, which has all images."""
    target = target or host_target()
    assert cohort.protocol.batch_size >= data.size("train")
    assert len(cohort) <= target.width
    dropout = any(member.hyperparameters.dropout > 0 for member in cohort.members)
    compiled = compile_network(Recipe(architecture, cohort.activation, cohort.optimizer, dropout), target, cache)
    plan = Plan(cohort.protocol, cohort.optimizer, data)
    state = starting_state(architecture, cohort, None)
    rows = slice(0, len(cohort))
    group = Group(plan, compiled, cohort.members, rows, target.width, weights, state.slots)
    workspace = Workspace(compiled, target.width, architecture.layout.size, plan.samples)
    tally = group.train_epoch(1, workspace, lambda: False)
    return workspace.gradients[:, rows].T.copy(), tally.mean_loss(plan.samples)[rows]


def apply_elementwise(
    function: Callable[..., Value | tuple[Value, ...]],
    *arguments: np.ndarray,
    outputs: int = 1,
    target: Target | None = None,
    kind: str = "float",
) -> np.ndarray:
    """What a function of the language gives for float32 or int32 `[N]` arguments: `[outputs, N]`, the lanes in a row."""
    target = target or host_target()
    width = target.width
    blocks = math.ceil(len(arguments[0]) / width)
    dtype = np.float32 if kind == "float" else np.int32
    array_type: Any = ArrayType((blocks,), kind)  # pyright: ignore[reportArgumentType]
    program = Program(width, target.registers, target.triple)

    def body(code: Code, a: Any) -> None:
        inputs: list[Array] = [getattr(a, f"x{number}") for number in range(len(arguments))]
        for i in code.range(blocks):
            found = function(*(array[i] for array in inputs))
            for number, value in enumerate(found if isinstance(found, tuple) else (found,)):
                getattr(a, f"y{number}")[i] = value

    names = [f"x{number}" for number in range(len(arguments))] + [f"y{number}" for number in range(outputs)]
    program.function("run", dict.fromkeys(names, array_type), body, exported=True)
    engine = link_code(machine_code(Emitted(str(program.module), 0, 0), target), target)
    run = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(names))(engine.get_function_address("run"))
    memory = [aligned(blocks * width, dtype=dtype) for _ in names]
    for array, argument in zip(memory, arguments, strict=False):
        array[: len(argument)] = argument
    run(*(array.ctypes.data for array in memory))
    return np.stack(memory[len(arguments) :])[:, : len(arguments[0])]


def bytes_of(results: Iterable[EpochResult], rows: Any = slice(None)) -> list[dict[str, bytes]]:
    """Everything of some of the members in all epochs, as bytes."""
    return [
        {
            "weights": result.state.weights[rows].tobytes(),
            **{name: slot[rows].tobytes() for name, slot in result.state.slots.items()},
            **{f.name: getattr(result.metrics, f.name)[rows].tobytes() for f in dataclasses.fields(result.metrics)},
        }
        for result in results
    ]
