"""Max-pooling on its own, where it does not follow a convolution directly; with size 1, the identity.

`pooled[c, y, x] = max over i, j < P of x[c, P y + i, P x + j]`, the first of equals.
"""

from __future__ import annotations

from typing import Any

from weightzoo.training.lanes.activation import Pointwise
from weightzoo.training.lanes.choice import choice_type, choose, is_chosen, load, store
from weightzoo.training.lanes.dropout import DRAWS, SCALE, Masks
from weightzoo.training.lanes.language import ArrayType, Code, Function, Program

Shape = tuple[int, int, int]


def pooled_shape(shape: Shape, size: int) -> Shape:
    """The shape behind pooling."""
    return shape[0], shape[1] // size, shape[2] // size


def forward(
    program: Program,
    name: str,
    shape: Shape,
    size: int,
    x: ArrayType,
    output: ArrayType,
    pointwise: Pointwise,
    activation: str,
    *,
    training: bool,
    dropout: bool,
) -> Function:
    """Emit `h = pointwise(pooled)`; in training also its derivative `d` and `choice` (see `choice`)."""
    channels, height, width = pooled_shape(shape, size)

    def body(code: Code, a: Any) -> None:
        for c in code.range(channels):
            for y in code.range(height):
                for x in code.range(width):
                    rows = [[a.x[c, y * size + i, x * size + j] for j in range(size)] for i in range(size)]
                    best, choice = choose(code, [[value.spread() for value in row] for row in rows])
                    if training:
                        store(a.choice, (c, y, x), choice)
                    unit = (c * height + y) * width + x
                    masks = Masks(a.draws, a.scale) if dropout else None
                    a.h[c, y, x], derivative = pointwise.apply(best, unit, activation, masks)
                    if training and derivative is not None:
                        a.d[c, y, x] = derivative

    out = (channels, height, width)
    parameters = {
        "x": x, "h": output, "d": ArrayType(out), "choice": choice_type(out, size), "draws": DRAWS, "scale": SCALE,
    }  # fmt: skip
    return program.function(name, parameters, body)


def input_gradient(program: Program, name: str, shape: Shape, size: int, *, derivative: bool) -> Function:
    """Emit `out = d * (g where it was chosen, else 0)`; what fills no window holds zeros from the start."""
    channels, height, width = pooled_shape(shape, size)

    def body(code: Code, a: Any) -> None:
        for c in code.range(channels):
            for y in code.range(height):
                for x in code.range(width):
                    g, choice = a.g[c, y, x], load(a.choice, (c, y, x), size)
                    for i in range(size):
                        for j in range(size):
                            place = (c, y * size + i, x * size + j)
                            value = is_chosen(code, *choice, i, j).select(g, 0.0)
                            a.out[place] = value * a.d[place] if derivative else value

    out = (channels, height, width)
    parameters = {
        "g": ArrayType(out), "choice": choice_type(out, size), "out": ArrayType(shape), "d": ArrayType(shape),
    }  # fmt: skip
    return program.function(name, parameters, body)
