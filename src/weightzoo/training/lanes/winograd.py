"""Winograd's minimal filtering F(2x2, 3x3), for 3x3 convolutions whose outputs are pooled 2 by 2.

A window of 2x2 conv outputs depends on a tile of 4x4 inputs x. With one window a tile (Lavin & Gray 2016, arXiv
1509.09308, equation 8),

    window[o] = A' [ sum over c of (G w[o, c] G') * (B' x[c] B) ] A        (' transposes, * is element by element)

takes 16 multiplications for a pair of channels where the sums as they are written take 36. The gradient of the input is
the transposed map, which takes 16 as well:

    gx[c] = B [ sum over o of (G w[o, c] G') * (A g[o] A') ] B',   the overlapping tiles added up

where g is the gradient of the window: one number, at the greatest output. All coefficients are 0, 1 and 1/2, so that
rounding errors stay close to those of plain sums. The gradient of the weight stays with `convolution_gradients`, which
needs 9 multiply-adds for a window, since it selects the inputs under the greatest output.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from weightzoo.training.lanes.activation import Pointwise
from weightzoo.training.lanes.choice import load
from weightzoo.training.lanes.convolution import window_end
from weightzoo.training.lanes.dropout import DRAWS, SCALE
from weightzoo.training.lanes.geometry import Geometry
from weightzoo.training.lanes.language import Array, ArrayType, Code, Function, Program, Value, fma
from weightzoo.training.lanes.memory import Workspace
from weightzoo.training.lanes.tiling import block_size, spans

SIDE = 4  # of a tile
POINTS = SIDE**2  # numbers of a tile
Axis = Sequence[Value]


def fits(geometry: Geometry) -> bool:
    """Whether the method is there for a convolution, and faster: its transforms cost something for every channel."""
    inputs, outputs = geometry.in_channels, geometry.out_channels
    applies = geometry.kernel == 3 and geometry.stride == 1 and geometry.pool == 2
    return applies and inputs * outputs > 4 * (inputs + outputs)


def transformed_weight(geometry: Geometry) -> ArrayType:
    """U = G w G': `[points, out * in]`."""
    return ArrayType((POINTS, _plane(geometry.out_channels, geometry.in_channels)))


def transform_weight(program: Program, name: str, geometry: Geometry) -> Function:
    """Emit `u = G w G'`, once for all samples that see the same weight."""

    def body(code: Code, a: Any) -> None:
        for o in code.range(geometry.out_channels):
            for c in code.range(geometry.in_channels):
                grid = [[a.w[o, c, i, j] for j in range(3)] for i in range(3)]
                _store(a.u, o * geometry.in_channels + c, _both_axes(_g, grid))

    return program.function(name, {"w": geometry.weight, "u": transformed_weight(geometry)}, body)


def scratch(program: Program, geometry: Geometry, *, shared: bool = False) -> Workspace:
    """What `forward` and `input_gradient` need besides; `shared` says that all models see the same image."""
    windows = _band(geometry) * geometry.out_width
    memory = Workspace(program.width)
    memory.add("inputs", ArrayType((POINTS, _plane(geometry.in_channels, windows)), lanes=not shared))
    memory.add("outputs", ArrayType((POINTS, _plane(geometry.out_channels, windows))))
    if geometry.padding:
        memory.add("padded", ArrayType(geometry.padded))
    return memory


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
    """Emit what `convolution.forward` emits, from `u` instead of `w`."""
    memory = scratch(program, geometry, shared=not x.lanes)
    finish = window_end(geometry, pointwise, activation, training=training, dropout=dropout)

    def band(code: Code, a: Any, top: Value, rows: int) -> None:
        v, m = memory(a.scratch, "inputs"), memory(a.scratch, "outputs")
        windows = rows * geometry.out_width
        for c in code.range(geometry.in_channels):
            for window, y, x in _windows(code, geometry, top, rows):
                tile = [[a.x[c, y * 2 + i, x * 2 + j] for j in range(SIDE)] for i in range(SIDE)]
                _store(v, c * windows + window, _both_axes(_b_transposed, tile))
        sizes = (geometry.out_channels, geometry.in_channels, windows)
        _multiply(code, m, lambda p, o, c: a.u[p, o * geometry.in_channels + c], v, sizes)
        for o in code.range(geometry.out_channels):
            bias = a.bias[o]
            for window, y, x in _windows(code, geometry, top, rows):
                tile = _load(m, o * windows + window)
                tile[1][1] = tile[1][1] + bias  # counts once in each of the outputs
                finish(code, a, (o, y, x), _both_axes(_a_transposed, tile))

    def body(code: Code, a: Any) -> None:
        for start, stop, rows in spans(geometry.out_height, _band(geometry)):
            for top in code.range(start, stop, rows):
                band(code, a, top, rows)

    parameters = {
        "x": x,
        "u": transformed_weight(geometry),
        "bias": ArrayType((geometry.out_channels,)),
        "h": output,
        "d": ArrayType(geometry.output),
        "choice": geometry.choice,
        "scratch": ArrayType((memory.size,)),
        "draws": DRAWS,
        "scale": SCALE,
    }
    return program.function(name, parameters, body)


def input_gradient(program: Program, name: str, geometry: Geometry, *, derivative: bool) -> Function:
    """Emit `out = d * gx` for the gradient `g` of the pooled outputs; `d` counts as 1 if `derivative` is False."""
    memory = scratch(program, geometry)
    shape = (geometry.in_channels, geometry.height, geometry.width)
    padding = geometry.padding

    def band(code: Code, a: Any, sums: Array, top: Value, rows: int) -> None:
        gm, gv = memory(a.scratch, "outputs"), memory(a.scratch, "inputs")
        windows = rows * geometry.out_width
        for o in code.range(geometry.out_channels):
            for window, y, x in _windows(code, geometry, top, rows):
                (in_row,), (in_column,) = load(a.choice, (o, y, x), 2)
                columns = [_a_of_chosen(g, in_row) for g in _a_of_chosen(a.g[o, y, x], in_column)]
                _store(gm, o * windows + window, list(zip(*columns, strict=True)))
        sizes = (geometry.in_channels, geometry.out_channels, windows)
        _multiply(code, gv, lambda p, c, o: a.u[p, o * geometry.in_channels + c], gm, sizes)
        for c in code.range(geometry.in_channels):
            for window, y, x in _windows(code, geometry, top, rows):
                tile = _both_axes(_b, _load(gv, c * windows + window))
                for i, j in itertools.product(range(SIDE), repeat=2):
                    place = (c, y * 2 + i, x * 2 + j)
                    sums[place] = sums[place] + tile[i][j]

    def body(code: Code, a: Any) -> None:
        sums = memory(a.scratch, "padded") if padding else a.out
        for place in _places(code, sums.type.shape):
            sums[place] = code.number(0.0)
        for start, stop, rows in spans(geometry.out_height, _band(geometry)):
            for top in code.range(start, stop, rows):
                band(code, a, sums, top, rows)
        if padding or derivative:
            for c, y, x in _places(code, shape):
                total = sums[c, y + padding, x + padding]
                a.out[c, y, x] = total * a.d[c, y, x] if derivative else total

    parameters = {
        "g": ArrayType(geometry.output),
        "choice": geometry.choice,
        "u": transformed_weight(geometry),
        "out": ArrayType(shape),
        "d": ArrayType(shape),
        "scratch": ArrayType((memory.size,)),
    }
    return program.function(name, parameters, body)


def _band(geometry: Geometry) -> int:
    """Rows of windows at a time: about as many windows as a tile of `_multiply` has, so that they stay in the cache."""
    return block_size(geometry.out_height, -(-6 // geometry.out_width))


def _plane(channels: int, each: int) -> int:
    """The numbers between two points of a tile: an odd count, lest all points fall on the same lines of the cache."""
    return channels * each | 1


def _windows(code: Code, geometry: Geometry, top: Value, rows: int) -> Iterator[tuple[Value, Value, Value]]:
    """The windows of `rows` rows from `top` on: number, row and column."""
    for row in range(rows):
        for x in code.range(geometry.out_width):
            yield x + row * geometry.out_width, top + row, x


def _places(code: Code, shape: tuple[int, ...]) -> Iterator[tuple[Value, Value, Value]]:
    for c in code.range(shape[0]):
        for y in code.range(shape[1]):
            for x in code.range(shape[2]):
                yield c, y, x


def _multiply(
    code: Code, product: Array, left: Callable[..., Value], right: Array, sizes: tuple[int, int, int]
) -> None:
    """A matrix product for each point p, `product[p, i, n] = sum over k of left(p, i, k) * right[p, k, n]`.

    `sizes` are those of i, k and n.
    """
    rows, inner, columns = sizes
    registers = code.program.registers
    width = block_size(columns, 6 if registers >= 32 else 3)
    height = block_size(rows, registers * 3 // 4 // width)

    def tile(p: Value, i: Value, n: Value, height: int, width: int) -> None:
        sums = [[code.cell(code.number(0.0)) for _ in range(width)] for _ in range(height)]
        for k in code.range(inner):
            values = [right[p, k * columns + n + m] for m in range(width)]
            for row in range(height):
                factor = left(p, i + row, k)
                for m in range(width):
                    sums[row][m].add_product(values[m], factor)
        for row in range(height):
            for m in range(width):
                product[p, (i + row) * columns + n + m] = sums[row][m].value

    for p in code.range(POINTS):
        for i_start, i_stop, i_count in spans(rows, height):
            for i in code.range(i_start, i_stop, i_count):
                for n_start, n_stop, n_count in spans(columns, width):
                    for n in code.range(n_start, n_stop, n_count):
                        tile(p, i, n, i_count, n_count)


def _store(target: Array, place: Value, tile: Sequence[Axis]) -> None:
    for p, number in enumerate(itertools.chain(*tile)):
        target[p, place] = number


def _load(source: Array, place: Value) -> list[list[Value]]:
    return [[source[i * SIDE + j, place] for j in range(SIDE)] for i in range(SIDE)]


def _both_axes(transform: Callable[[Axis], list[Value]], grid: Sequence[Axis]) -> list[list[Value]]:
    """`T grid T'` for a transform T of one axis."""
    columns = [transform(column) for column in zip(*grid, strict=True)]
    return [transform(row) for row in zip(*columns, strict=True)]


def _g(w: Axis) -> list[Value]:
    half = (w[0] + w[2]) * 0.5
    return [w[0], fma(w[1], 0.5, half), fma(w[1], -0.5, half), w[2]]


def _b_transposed(x: Axis) -> list[Value]:
    return [x[0] - x[2], x[1] + x[2], x[2] - x[1], x[1] - x[3]]


def _b(v: Axis) -> list[Value]:
    return [v[0], v[1] - v[2] + v[3], v[1] + v[2] - v[0], -v[3]]


def _a_transposed(m: Axis) -> list[Value]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _a_of_chosen(g: Value, second: Value) -> list[Value]:
    """A on `(g, 0)`, or on `(0, g)` where `second` holds."""
    nothing = g.code.number(0.0)
    return [second.select(nothing, g), g, second.select(-g, g), second.select(-g, nothing)]
