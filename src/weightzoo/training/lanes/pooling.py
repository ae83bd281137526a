"""Max-pooling on its own, where it does not follow a convolution directly; with size 1, the identity.

`pooled[c, y, x] = max over i, j < P of x[c, P y + i, P x + j]`, the first of equals.
"""

from __future__ import annotations

from typing import Any

from weightzoo.training.lanes.activation import Pointwise
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
    """Emit `h = pointwise(pooled)`; in training also its derivative `d` and `choice`, `P i + j` of the maximum."""
    channels, height, width = pooled_shape(shape, size)

    def body(code: Code, a: Any) -> None:
        for c in code.range(channels):
            for y in code.range(height):
                for x in code.range(width):
                    best, choice = a.x[c, y * size, x * size].spread(), code.integer(0)
                    for number in range(1, size**2):
                        i, j = divmod(number, size)
                        candidate = a.x[c, y * size + i, x * size + j].spread()
                        wins = candidate.beats(best)
                        best, choice = wins.select(candidate, best), wins.select(number, choice)
                    if training:
                        a.choice[c, y, x] = choice
                    unit = (c * height + y) * width + x
                    masks = Masks(a.draws, a.scale) if dropout else None
                    a.h[c, y, x], derivative = pointwise.apply(best, unit, activation, masks)
                    if training and derivative is not None:
                        a.d[c, y, x] = derivative

    out = (channels, height, width)
    parameters = {
        "x": x, "h": output, "d": ArrayType(out), "choice": ArrayType(out, "int"), "draws": DRAWS, "scale": SCALE,
    }  # fmt: skip
    return program.function(name, parameters, body)


def input_gradient(program: Program, name: str, shape: Shape, size: int, *, derivative: bool) -> Function:
    """Emit `out = d * (g where it was chosen, else 0)`; what fills no window holds zeros from the start."""
    channels, height, width = pooled_shape(shape, size)

    def body(code: Code, a: Any) -> None:
        for c in code.range(channels):
            for y in code.range(height):
                for x in code.range(width):
                    g, choice = a.g[c, y, x], a.choice[c, y, x]
                    for number in range(size**2):
                        i, j = divmod(number, size)
                        place = (c, y * size + i, x * size + j)
                        value = choice.equals(number).select(g, 0.0)
                        a.out[place] = value * a.d[place] if derivative else value

    out = (channels, height, width)
    parameters = {
        "g": ArrayType(out), "choice": ArrayType(out, "int"), "out": ArrayType(shape), "d": ArrayType(shape),
    }  # fmt: skip
    return program.function(name, parameters, body)
