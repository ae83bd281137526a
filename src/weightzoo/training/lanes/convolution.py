"""Convolution with the max-pooling behind it: output, weight gradient and input gradient.

For the image of one sample, `x[c, y, x]` with its zero border, stride s and windows of P x P conv outputs:

    z[o, y, x] = bias[o] + sum over c, ky, kx of x[c, s y + ky, s x + kx] * w[o, c, ky, kx]
    pooled[o, y, x] = max over i, j < P of z[o, P y + i, P x + j]      (choice: i and j of the first maximum)

Each sum runs over its indices in the written order, starting from the bias or from zero, whatever the tiling.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from weightzoo.training.lanes.activation import Pointwise
from weightzoo.training.lanes.choice import choice_type, choose, is_chosen, load, pick, store
from weightzoo.training.lanes.dropout import DRAWS, SCALE, Masks
from weightzoo.training.lanes.language import Array, ArrayType, Cell, Code, Function, Index, Program, Value
from weightzoo.training.lanes.tiling import block_size, spans

L1_BYTES = 32 * 1024  # what one pass over channels may reuse of the first-level cache


@dataclass(frozen=True)
class Geometry:
    """The sizes of a convolution. `pool` is 1 without pooling; what fills no window is never computed."""

    in_channels: int
    height: int
    width: int
    out_channels: int
    kernel: int
    stride: int
    padding: int
    pool: int

    @property
    def out_height(self) -> int:
        """Rows behind pooling."""
        return (1 + (self.height + 2 * self.padding - self.kernel) // self.stride) // self.pool

    @property
    def out_width(self) -> int:
        """Columns behind pooling."""
        return (1 + (self.width + 2 * self.padding - self.kernel) // self.stride) // self.pool

    @property
    def output(self) -> tuple[int, int, int]:
        """The shape behind pooling."""
        return self.out_channels, self.out_height, self.out_width

    @property
    def padded(self) -> tuple[int, int, int]:
        """The shape of the input with its zero border."""
        return self.in_channels, self.height + 2 * self.padding, self.width + 2 * self.padding

    @property
    def weight(self) -> ArrayType:
        """`[out, in, kernel, kernel]`."""
        return ArrayType((self.out_channels, self.in_channels, self.kernel, self.kernel))

    @property
    def choice(self) -> ArrayType:
        """Which conv output of each window is the greatest (see `choice`)."""
        return choice_type(self.output, self.pool)

    @property
    def spread(self) -> ArrayType:
        """The gradient of the conv outputs, `stride` apart and zero in between (see `spread_gradient`)."""
        rows, columns = (1 + (size * self.pool - 1) * self.stride for size in (self.out_height, self.out_width))
        return ArrayType((self.out_channels, rows, columns))

    @property
    def is_spread(self) -> bool:
        """Whether the input gradient needs `spread_gradient` first."""
        return self.pool > 1 or self.stride > 1

    def scratch(self, program: Program) -> ArrayType:
        """What `forward` needs to carry sums from one pass over input channels to the next."""
        tile = _ForwardTile(self, program)
        if tile.channels >= self.in_channels:
            return ArrayType((1, 1, 1))
        return ArrayType((self.out_height, self.out_width, tile.outputs * self.pool**2))


class _ForwardTile:
    """`outputs` channels x `columns` windows at a time, over `channels` input channels a pass."""

    def __init__(self, geometry: Geometry, program: Program) -> None:
        window = geometry.pool**2
        accumulators = program.registers * 3 // 4
        self.columns = block_size(geometry.out_width, 4) if geometry.pool == 1 else 1
        self.outputs = block_size(geometry.out_channels, accumulators // (window * self.columns))
        rows = geometry.kernel + (geometry.pool - 1) * geometry.stride
        reused = self.outputs * geometry.kernel**2 + rows * geometry.padded[2]  # of an input channel: weights, rows
        self.channels = block_size(geometry.in_channels, L1_BYTES // (reused * program.width * 4))


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
    tile_size = _ForwardTile(geometry, program)
    scratch_type = geometry.scratch(program)

    def finish(code: Code, a: Any, index: tuple[Value, Value, Value], window: list[list[Value]]) -> None:
        best, choice = choose(code, window)
        if training:
            store(a.choice, index, choice)
        unit = (index[0] * geometry.out_height + index[1]) * geometry.out_width + index[2]
        masks = Masks(a.draws, a.scale) if dropout else None
        a.h[index], derivative = pointwise.apply(best, unit, activation, masks)
        if training and derivative is not None:
            a.d[index] = derivative

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
        "scratch": scratch_type,
        "draws": DRAWS,
        "scale": SCALE,
    }
    return program.function(name, parameters, body)


def weight_gradient(program: Program, name: str, geometry: Geometry, x: ArrayType) -> Function:
    """Emit `gw[o, c, ky, kx] += sum over y, x of g[o, y, x] * (the input under the chosen conv output)[ky, kx]`.

    And `gbias[o] += sum of g[o]`. Without pooling, the chosen output is the only one. With it, each lane selects its
    own input patch, which costs fewer operations than multiply-adds with the zero gradients of the other outputs.
    """
    k, s, pool = geometry.kernel, geometry.stride, geometry.pool
    limit = program.registers * 5 // 8
    outputs = block_size(geometry.out_channels, limit // k**2) if pool == 1 else 1
    rows = block_size(k, limit // (k * outputs))
    inputs = block_size(geometry.in_channels, limit // (k**2 * outputs))
    line = inputs * geometry.padded[2] * program.width * 4  # bytes of a row of the input channels of a tile
    heights = block_size(geometry.out_height, (L1_BYTES // line - k) // (pool * s))

    def patch(code: Code, a: Any, o: Value, c: Value, y: Value, x: Value, ky: int, count: int) -> dict[Any, Value]:
        """The chosen input patch, rows ky to ky + count, as `{(row, kx): value}`."""
        top, left = y * (pool * s) + ky, x * (pool * s)
        columns = sorted({j * s + kx for j in range(pool) for kx in range(k)})
        if pool == 1:
            return {(i, j): a.x[c, top + i, left + j] for i in range(count) for j in columns}
        in_row, in_column = load(a.choice, (o, y, x), pool)
        loaded = {
            (i, j): a.x[c, top + i, left + j]
            for i in sorted({i + p * s for i in range(count) for p in range(pool)})
            for j in columns
        }
        chosen: dict[Any, Value] = {}
        for i in range(count):
            line = {j: pick(in_row, [loaded[i + p * s, j] for p in range(pool)]) for j in columns}
            for kx in range(k):
                chosen[i, kx] = pick(in_column, [line[kx + p * s] for p in range(pool)])
        return chosen

    def band(
        code: Code, a: Any, o: Value, c: Value, block: tuple[int, int], y0: Value, height: int, ky: int, count: int
    ) -> None:
        keys = list(itertools.product(*map(range, (*block, count, k))))
        sums = {(n, m, i, j): code.cell(a.gw[o + n, c + m, ky + i, j]) for n, m, i, j in keys}
        for y in code.range(y0, y0 + height):
            for x in code.range(geometry.out_width):
                patches = [patch(code, a, o, c + m, y, x, ky, count) for m in range(block[1])]
                gradients = [a.g[o + n, y, x] for n in range(block[0])]
                for n, m, i, j in keys:
                    sums[n, m, i, j].add_product(gradients[n], patches[m][i, j])
        for n, m, i, j in keys:
            a.gw[o + n, c + m, ky + i, j] = sums[n, m, i, j].value

    def bias(code: Code, a: Any) -> None:
        for start, stop, count in spans(geometry.out_channels, 8):
            for o in code.range(start, stop, count):
                sums = [code.cell(a.gbias[o + n]) for n in range(count)]
                for y in code.range(geometry.out_height):
                    for x in code.range(geometry.out_width):
                        for n in range(count):
                            sums[n].value += a.g[o + n, y, x]
                for n in range(count):
                    a.gbias[o + n] = sums[n].value

    def body(code: Code, a: Any) -> None:
        bias(code, a)
        for c_start, c_stop, c_block in spans(geometry.in_channels, inputs):
            for c in code.range(c_start, c_stop, c_block):
                for y_start, y_stop, height in spans(geometry.out_height, heights):
                    for y in code.range(y_start, y_stop, height):  # rows of x that stay in the cache for all o
                        for o_start, o_stop, o_block in spans(geometry.out_channels, outputs):
                            for o in code.range(o_start, o_stop, o_block):
                                for ky, last, count in spans(k, rows):
                                    for first_row in range(ky, last, count):
                                        band(code, a, o, c, (o_block, c_block), y, height, first_row, count)

    parameters = {
        "x": x,
        "g": ArrayType(geometry.output),
        "choice": geometry.choice,
        "gw": geometry.weight,
        "gbias": ArrayType((geometry.out_channels,)),
    }
    return program.function(name, parameters, body)


def spread_gradient(program: Program, name: str, geometry: Geometry) -> Function:
    """Emit the gradient of the conv outputs: that of the pooled outputs where they were chosen, zero elsewhere.

    Outputs stand `stride` apart in `spread`, so that the input gradient is a convolution of stride 1; the rows and
    columns in between hold zeros from the start.
    """
    pool, s = geometry.pool, geometry.stride

    def body(code: Code, a: Any) -> None:
        for o in code.range(geometry.out_channels):
            for y in code.range(geometry.out_height):
                for x in code.range(geometry.out_width):
                    g, choice = a.g[o, y, x], load(a.choice, (o, y, x), pool)
                    for i in range(pool):
                        for j in range(pool):
                            value = is_chosen(code, *choice, i, j).select(g, 0.0)
                            a.spread[o, (y * pool + i) * s, (x * pool + j) * s] = value

    parameters = {"g": ArrayType(geometry.output), "choice": geometry.choice, "spread": geometry.spread}
    return program.function(name, parameters, body)


def input_gradient(program: Program, name: str, geometry: Geometry, *, derivative: bool) -> Function:
    """Emit `out[c, y, x] = d[c, y, x] * sum over o, ky, kx of spread[o, y + p - ky, x + p - kx] * w[o, c, ky, kx]`.

    `d` is the derivative of what stands before the convolution, 1 if `derivative` is False. A tile is a row's run of
    columns; only gradients inside of `spread` take part.
    """
    k, padding = geometry.kernel, geometry.padding
    _, rows, columns = geometry.spread.shape
    size = block_size(geometry.width, 16 if program.registers >= 32 else 8)
    reused = k * columns + k**2  # of an output channel: rows of its gradient, weights
    channels = block_size(geometry.out_channels, L1_BYTES // (reused * program.width * 4))
    one_pass = channels == geometry.out_channels

    def tile(code: Code, a: Any, c: Value, y: Value, x0: int, count: int, o_start: Index, o_stop: Index) -> None:
        begins = isinstance(o_start, int)
        sums = [code.cell(code.number(0.0) if begins else a.out[c, y, x0 + n]) for n in range(count)]
        bottom = y + padding
        first = (bottom - (rows - 1) > 0).select(bottom - (rows - 1), 0)
        last = (bottom + 1 < k).select(bottom + 1, k)
        for o in code.range(o_start, o_stop):
            for ky in code.range(first, last):
                row: Array = a.spread.part(o, bottom - ky)
                gradients: dict[int, Value] = {}
                for kx in range(k):
                    weight = a.w[o, c, ky, kx]
                    for n in range(count):
                        column = x0 + n + padding - kx
                        if 0 <= column < columns:
                            if column not in gradients:
                                gradients[column] = row[column]
                            sums[n].add_product(gradients[column], weight)
        for n in range(count):
            total = sums[n].value
            a.out[c, y, x0 + n] = total * a.d[c, y, x0 + n] if derivative and one_pass else total

    def sweep(code: Code, a: Any, o_start: Index, o_stop: Index) -> None:
        for c in code.range(geometry.in_channels):
            for y in code.range(geometry.height):
                for start, stop, count in spans(geometry.width, size):
                    for x0 in range(start, stop, count):
                        tile(code, a, c, y, x0, count, o_start, o_stop)

    def body(code: Code, a: Any) -> None:
        sweep(code, a, 0, channels)
        if one_pass:
            return
        for start, stop, block in spans(geometry.out_channels, channels):
            for o in code.range(max(start, channels), stop, block):
                sweep(code, a, o, o + block)
        if derivative:
            for c in code.range(geometry.in_channels):
                for y in code.range(geometry.height):
                    for x in code.range(geometry.width):
                        a.out[c, y, x] = a.out[c, y, x] * a.d[c, y, x]

    shape = (geometry.in_channels, geometry.height, geometry.width)
    parameters = {
        "spread": geometry.spread,
        "w": geometry.weight,
        "out": ArrayType(shape),
        "d": ArrayType(shape),
    }
    return program.function(name, parameters, body)
