"""How long each method takes for the forward pass of a 3x3 convolution with pooling: what `fits` of both is drawn from.

python -m tests.benchmarks.methods
"""

from __future__ import annotations

import ctypes
import time
from types import ModuleType
from typing import Any

import numpy as np

from weightzoo.training.lanes import convolution, winograd, winograd_rows
from weightzoo.training.lanes.activation import Pointwise
from weightzoo.training.lanes.compile import host_target, link_code, machine_code
from weightzoo.training.lanes.geometry import Geometry
from weightzoo.training.lanes.groups import aligned
from weightzoo.training.lanes.language import Array, ArrayType, Code, Program
from weightzoo.training.lanes.program import Emitted

METHODS = {"sums": convolution, "rows": winograd_rows, "rows and columns": winograd}
SIZES = (  # channels in and out, side of the image
    (1, 4, 28), (1, 16, 30), (2, 8, 28), (3, 4, 32), (3, 16, 8), (3, 16, 32), (3, 16, 64), (4, 32, 64), (5, 5, 64),
    (5, 32, 32), (6, 12, 16), (8, 8, 16), (8, 8, 32), (8, 16, 15), (8, 16, 16), (10, 10, 16), (12, 12, 16), (16, 16, 15),
    (16, 32, 15), (16, 16, 32), (32, 15, 6),
)  # fmt: skip
VISITS = 400


def measure(method: ModuleType, geometry: Geometry) -> float:
    """Microseconds for one image of a group of models on one core: the first decile of 400 visits."""
    target = host_target()
    program = Program(target.width, target.registers, target.triple)
    kernel = method.forward(
        program, "forward", geometry, ArrayType(geometry.padded), ArrayType(geometry.output), Pointwise((None,)), "tanh",
        training=True, dropout=False,
    )  # fmt: skip
    weight = "w" if method is convolution else "u"
    scratch = (
        convolution.scratch_type(program, geometry) if method is convolution else method.scratch(program, geometry)
    )
    types = {
        "x": ArrayType(geometry.padded),
        weight: geometry.weight if method is convolution else method.transformed_weight(geometry),
        "bias": ArrayType((geometry.out_channels,)),
        "h": ArrayType(geometry.output),
        "d": ArrayType(geometry.output),
        "choice": geometry.choice,
        "scratch": ArrayType((scratch.size,)),
        "draws": ArrayType((1,)),
        "scale": ArrayType((1,)),
    }

    def body(code: Code, a: Any) -> None:
        given: dict[str, Array] = vars(a)
        kernel(code, **given)

    program.function("run", types, body, exported=True)
    engine = link_code(machine_code(Emitted(str(program.module), 0, 0), target), target)
    random = np.random.default_rng(0)
    memory = [aligned(max(1, each.vectors(target.width)), target.width) for each in types.values()]
    for array in memory:
        array[:] = random.standard_normal(array.shape, np.float32)
    run = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(memory))(engine.get_function_address("run"))
    addresses = [array.ctypes.data for array in memory]
    seconds: list[float] = []
    for _ in range(VISITS):
        start = time.perf_counter()
        run(*addresses)
        seconds.append(time.perf_counter() - start)
    return float(np.quantile(seconds, 0.1)) * 1e6


def main() -> None:
    """Print the table."""
    print(f"{'in, out, side':>14} " + "".join(f"{name:>18}" for name in METHODS) + "   used")
    for channels, outputs, side in SIZES:
        geometry = Geometry(channels, side, side, outputs, 3, 1, 0, 2)
        found = [measure(method, geometry) for method in METHODS.values()]
        used = "rows and columns" if winograd.fits(geometry) else "rows" if winograd_rows.fits(geometry) else "sums"
        name = f"{channels}, {outputs}, {side}"
        print(f"{name:>14} " + "".join(f"{one:15.1f} us" for one in found) + f"   {used}")


if __name__ == "__main__":
    main()
