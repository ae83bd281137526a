"""Convolution with the max-pooling behind it.

For the image of one sample, `x[c, y, x]` with its zero border, stride s and windows of P x P conv outputs:

    z[o, y, x] = bias[o] + sum over c, ky, kx of x[c, s y + ky, s x + kx] * w[o, c, ky, kx]
    pooled[o, y, x] = max over i, j < P of z[o, P y + i, P x + j]      (choice: i and j of the first maximum)

Each sum runs over its indices in the written order, starting from the bias, whatever the tiling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from weightzoo.training.lanes.activation import Pointwise
from weightzoo.training.lanes.choice import choose, store
from weightzoo.training.lanes.dropout import DRAWS, SCALE, Masks
from weightzoo.training.lanes.geometry import Geometry
from weightzoo.training.lanes.language import ArrayType, Cell, Code, Function, Program, Value
from weightzoo.training.lanes.tiling import L1_BYTES, block_size, spans


class _Tile:
    """`outputs` channels x `columns` windows at a time, over `channels` input channels a pass."""

    def __init__(self, geometry: Geometry, program: Program) -> None:
        window = geometry.pool**2
        accumulators = program.registers * 3 // 4
        self.columns = block_size(geometry.out_width, 4) if geometry.pool == 1 else 1
        self.outputs = block_size(geometry.out_channels, accumulators // (window * self.columns))
        rows = geometry.kernel + (geometry.pool - 1) * geometry.stride
        reused = self.outputs * geometry.kernel**2 + rows * geometry.padded[2]  # of an input channel: weights, rows
        self.channels = block_size(geometry.in_channels, L1_BYTES // (reused * program.width * 4))


def scratch_type(program: Program, geometry: Geometry) -> ArrayType:
    """What `forward` needs to carry sums from one pass over input channels to the next."""
    tile = _Tile(geometry, program)
    if tile.channels >= geometry.in_channels:
        return ArrayType((1, 1, 1))
    return ArrayType((geometry.out_height, geometry.out_width, tile.outputs * geometry.pool**2))


def window_end(
    geometry: Geometry, pointwise: Pointwise, activation: str, *, training: bool, dropout: bool
) -> Callable[[Code, Any, tuple[Value, Value, Value], list[list[Value]]], None]:
    """`finish(code, a, (o, y, x), outputs)`: what pools the conv outputs of a window and goes on to `a.h`."""

    def finish(code: Code, a: Any, index: tuple[Value, Value, Value], window: list[list[Value]]) -> None:
        best, choice = choose(code, window)
        if training:
            store(a.choice, index, choice)
        unit = (index[0] * geometry.out_height + index[1]) * geometry.out_width + index[2]
        masks = Masks(a.draws, a.scale) if dropout else None
        a.h[index], derivative = pointwise.apply(best, unit, activation, masks)
        if training and derivative is not None:
            a.d[index] = derivative

    return finish


def forward(
    program: Program,
    name: str,
    geometry: Geometry,
    x: ArrayType,
    output: ArrayType,
    pointwise: Pointwise,
    activation: str,
    *,
    training: bool,
    dropout: bool,
) -> Function:
    """Emit `h = pointwise(pooled)`; in training also its derivative `d` and `choice`."""
    k, s, pool = geometry.kernel, geometry.stride, geometry.pool
    tile_size = _Tile(geometry, program)
    finish = window_end(geometry, pointwise, activation, training=training, dropout=dropout)

    def tile(code: Code, a: Any, o: Value, y: Value, x: Value, outputs: int, columns: int, c0: int, c1: int) -> None:
        places = [(i, j) for i in range(pool) for j in range(pool * columns)]
        keys = [(n, place) for n in range(outputs) for place in places]
        stored = a.scratch.part(y, x)
        sums: dict[Any, Cell] = {}
        for number, (n, place) in enumerate(keys):
            sums[n, place] = code.cell(a.bias[o + n] if c0 == 0 else stored[number])
        top, left = y * (pool * s), x * (pool * s)
        for c in code.range(c0, c1):
            for ky in code.range(k):
                inputs = {
                    (i, column): a.x[c, top + ky + i * s, left + column]
                    for i in range(pool)
                    for column in sorted({j * s + kx for _, j in places for kx in range(k)})
                }
                for kx in range(k):
                    for n in range(outputs):
                        weight = a.w[o + n, c, ky, kx]
                        for i, j in places:
                            sums[n, (i, j)].add_product(inputs[i, j * s + kx], weight)
        if c1 < geometry.in_channels:
            for number, key in enumerate(keys):
                stored[number] = sums[key].value
            return
        for n in range(outputs):
            for column in range(columns):
                window = [[sums[n, (i, column * pool + j)].value for j in range(pool)] for i in range(pool)]
                finish(code, a, (o + n, y, x + column), window)

    def body(code: Code, a: Any) -> None:
        for o_start, o_stop, outputs in spans(geometry.out_channels, tile_size.outputs):
            for o in code.range(o_start, o_stop, outputs):
                for c0, c_stop, channels in spans(geometry.in_channels, tile_size.channels):
                    for c in range(c0, c_stop, channels):
                        for y in code.range(geometry.out_height):
                            for x_start, x_stop, columns in spans(geometry.out_width, tile_size.columns):
                                for x in code.range(x_start, x_stop, columns):
                                    tile(code, a, o, y, x, outputs, columns, c, c + channels)

    parameters = {
        "x": x,
        "w": geometry.weight,
        "bias": ArrayType((geometry.out_channels,)),
        "h": output,
        "d": ArrayType(geometry.output),
        "choice": geometry.choice,
        "scratch": scratch_type(program, geometry),
        "draws": DRAWS,
        "scale": SCALE,
    }
    return program.function(name, parameters, body)
