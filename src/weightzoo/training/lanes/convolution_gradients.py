"""The gradients of a convolution with the max-pooling behind it, with respect to its weight, bias and input.

Each sum runs over its indices in the written order, starting from zero or from the sum so far, whatever the tiling.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from weightzoo.training.lanes.choice import is_chosen, load, pick
from weightzoo.training.lanes.geometry import Geometry
from weightzoo.training.lanes.language import Array, ArrayType, Code, Function, Index, Program, Value
from weightzoo.training.lanes.tiling import L1_BYTES, block_size, spans


def weight_gradient(program: Program, name: str, geometry: Geometry, x: ArrayType) -> Function:
    """Emit `gw[o, c, ky, kx] += sum over y, x of g[o, y, x] * (the input under the chosen conv output)[ky, kx]`.

    And `gbias[o] += sum of g[o]`. Without pooling, the chosen output is the only one. With it, each lane selects its
    own input patch, which costs fewer operations than multiply-adds with the zero gradients of the other outputs.
    """
    k, s, pool = geometry.kernel, geometry.stride, geometry.pool
    limit = program.registers * 5 // 8
    outputs, inputs, rows = _weight_tile(geometry, limit)
    line = inputs * geometry.padded[2] * program.width * 4  # bytes of a row of the input channels of a tile
    heights = block_size(geometry.out_height, (L1_BYTES // line - k) // (pool * s))

    def under_chosen(
        a: Any, place: tuple[Value, Value, Value, Value], block: tuple[int, int], ky: int, count: int
    ) -> Iterator[tuple[tuple[int, int, int, int], Value]]:
        """The inputs under the chosen outputs, for kernel rows ky to ky + count: `(n, m, row, kx), value`.

        An input is loaded once for all output channels of the block, and let go as early as can be.
        """
        o, c, y, x = place
        top, left = y * (pool * s) + ky, x * (pool * s)
        choices = [load(a.choice, (o + n, y, x), pool) for n in range(block[0])]
        for m in range(block[1]):
            loaded: dict[tuple[int, int], Value] = {}
            for i in range(count):
                lines: list[dict[int, Value]] = [{} for _ in choices]
                for j in sorted({p * s + kx for p in range(pool) for kx in range(k)}):
                    for row in (i + p * s for p in range(pool)):
                        if (row, j) not in loaded:
                            loaded[row, j] = a.x[c + m, top + row, left + j]
                    for n, (in_row, in_column) in enumerate(choices):
                        lines[n][j] = pick(in_row, [loaded[i + p * s, j] for p in range(pool)])
                        kx = j - (pool - 1) * s
                        if 0 <= kx < k:
                            yield (n, m, i, kx), pick(in_column, [lines[n][kx + p * s] for p in range(pool)])

    def band(
        code: Code, a: Any, o: Value, c: Value, block: tuple[int, int], y0: Value, height: int, ky: int, count: int
    ) -> None:
        keys = list(itertools.product(*map(range, (*block, count, k))))
        sums = {(n, m, i, j): code.cell(a.gw[o + n, c + m, ky + i, j]) for n, m, i, j in keys}
        for y in code.range(y0, y0 + height):
            for x in code.range(geometry.out_width):
                gradients = [a.g[o + n, y, x] for n in range(block[0])]
                for key, value in under_chosen(a, (o, c, y, x), block, ky, count):
                    sums[key].add_product(gradients[key[0]], value)
        for n, m, i, j in keys:
            a.gw[o + n, c + m, ky + i, j] = sums[n, m, i, j].value

    def body(code: Code, a: Any) -> None:
        bias_gradient(code, a, geometry)
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


def bias_gradient(code: Code, a: Any, geometry: Geometry) -> None:
    """Emit `gbias[o] += sum of g[o]`."""
    for start, stop, count in spans(geometry.out_channels, 8):
        for o in code.range(start, stop, count):
            sums = [code.cell(a.gbias[o + n]) for n in range(count)]
            for y in code.range(geometry.out_height):
                for x in code.range(geometry.out_width):
                    for n in range(count):
                        sums[n].value += a.g[o + n, y, x]
            for n in range(count):
                a.gbias[o + n] = sums[n].value


def _weight_tile(geometry: Geometry, limit: int) -> tuple[int, int, int]:
    """How many output channels, input channels and rows of the kernel a tile has, for `limit` sums."""
    k = geometry.kernel
    if geometry.pool == 1:
        outputs = block_size(geometry.out_channels, limit // k**2)
        inputs = block_size(geometry.in_channels, limit // (k**2 * outputs))
    else:  # two share the inputs that they select from; what more would select does not stay in registers
        outputs, inputs = block_size(geometry.out_channels, 2 if limit >= 4 * k else 1), 1
    return outputs, inputs, block_size(k, limit // (k * outputs))


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
