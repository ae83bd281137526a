"""The affine layer `z[o] = bias[o] + sum over i of x[i] * w[o, i]`, its weight gradient and its input gradient."""

from __future__ import annotations

from typing import Any

from weightzoo.training.lanes.activation import Pointwise
from weightzoo.training.lanes.dropout import DRAWS, SCALE, Masks
from weightzoo.training.lanes.language import ArrayType, Code, Function, Program, Value
from weightzoo.training.lanes.tiling import block_size, spans


def forward(
    program: Program,
    name: str,
    inputs: int,
    outputs: int,
    x: ArrayType,
    pointwise: Pointwise,
    activation: str,
    *,
    training: bool,
    dropout: bool,
) -> Function:
    """Emit `h = pointwise(z)`; in training also its derivative `d`."""
    size = block_size(outputs, program.registers // 3)

    def tile(code: Code, a: Any, o: Value, count: int) -> None:
        sums = [code.cell(a.bias[o + n]) for n in range(count)]
        for i in code.range(inputs):
            value = a.x[i]
            for n in range(count):
                sums[n].add_product(value, a.w[o + n, i])
        masks = Masks(a.draws, a.scale) if dropout else None
        for n in range(count):
            a.h[o + n], derivative = pointwise.apply(sums[n].value, o + n, activation, masks)
            if training and derivative is not None:
                a.d[o + n] = derivative

    def body(code: Code, a: Any) -> None:
        for start, stop, count in spans(outputs, size):
            for o in code.range(start, stop, count):
                tile(code, a, o, count)

    parameters = {
        "x": x,
        "w": ArrayType((outputs, inputs)),
        "bias": ArrayType((outputs,)),
        "h": ArrayType((outputs,)),
        "d": ArrayType((outputs,)),
        "draws": DRAWS,
        "scale": SCALE,
    }
    return program.function(name, parameters, body)


def weight_gradient(program: Program, name: str, inputs: int, outputs: int, x: ArrayType) -> Function:
    """Emit `gw[o, i] += g[o] * x[i]` and `gbias[o] += g[o]`."""

    def body(code: Code, a: Any) -> None:
        for o in code.range(outputs):
            g = a.g[o]
            a.gbias[o] = a.gbias[o] + g
            for start, stop, count in spans(inputs, 8):
                for i in code.range(start, stop, count):
                    for n in range(count):
                        cell = code.cell(a.gw[o, i + n])
                        cell.add_product(g, a.x[i + n])
                        a.gw[o, i + n] = cell.value

    parameters = {
        "x": x,
        "g": ArrayType((outputs,)),
        "gw": ArrayType((outputs, inputs)),
        "gbias": ArrayType((outputs,)),
    }
    return program.function(name, parameters, body)


def input_gradient(program: Program, name: str, inputs: int, outputs: int, *, derivative: bool) -> Function:
    """Emit `out[i] = d[i] * sum over o of g[o] * w[o, i]`; `d` counts as 1 if `derivative` is False."""
    size = block_size(inputs, program.registers // 2)

    def body(code: Code, a: Any) -> None:
        for start, stop, count in spans(inputs, size):
            for i in code.range(start, stop, count):
                sums = [code.cell(code.number(0.0)) for _ in range(count)]
                for o in code.range(outputs):
                    g = a.g[o]
                    for n in range(count):
                        sums[n].add_product(g, a.w[o, i + n])
                for n in range(count):
                    total = sums[n].value
                    a.out[i + n] = total * a.d[i + n] if derivative else total

    parameters = {
        "g": ArrayType((outputs,)),
        "w": ArrayType((outputs, inputs)),
        "out": ArrayType((inputs,)),
        "d": ArrayType((inputs,)),
    }
    return program.function(name, parameters, body)
