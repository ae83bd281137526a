"""Winograd's minimal filtering, for 3x3 convolutions whose outputs are pooled 2 by 2.

A tile is of one or two pooling windows each way: m x n conv outputs, m and n being 2 or 4, which depend on a square or
rectangle x of (m + 2) x (n + 2) inputs. With the maps A', G and B' of `filtering`, of F(m, 3) on columns (on the left)
and F(n, 3) on rows (on the right),

    tile[o] = A' [ sum over c of (G w[o, c] G') * (B' x[c] B) ] A        (' transposes, * is element by element)

takes 16, 12 or 9 multiplications for a window and a pair of channels where the sums as they are written take 36. The
gradient of the input is the transposed map, which takes as many:

    gx[c] = B [ sum over o of (G w[o, c] G') * (A g[o] A') ] B',   the overlapping tiles added up

where g is the gradient of the tile: of each window one number, at the greatest output. The gradient of the weight stays
with `convolution_gradients`, which needs 9 multiply-adds for a window, since it selects the inputs under the greatest
output.

The larger the tile, the larger its rounding errors. A gradient may have those of 4x4. Outputs may not: of two that are
nearly equal, the wrong one would more often be the greatest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from weightzoo.training.lanes.activation import Pointwise
from weightzoo.training.lanes.choice import load
from weightzoo.training.lanes.convolution import window_end
from weightzoo.training.lanes.dropout import DRAWS, SCALE
from weightzoo.training.lanes.filtering import F2, F4, TAPS, Axis, Filtering, Map
from weightzoo.training.lanes.geometry import Geometry
from weightzoo.training.lanes.language import Array, ArrayType, Code, Function, Program, Value
from weightzoo.training.lanes.memory import Workspace
from weightzoo.training.lanes.tiling import block_size, spans


@dataclass(frozen=True)
class Tile:
    """How the conv outputs of a geometry are tiled: `high` x `wide` pooling windows a tile, `count` tiles a row."""

    rows: Filtering  # along a column
    columns: Filtering  # along a row
    high: int
    wide: int
    down: int  # rows of tiles
    count: int
    band: int  # rows of tiles at a time

    @classmethod
    def of(cls, geometry: Geometry, *, gradient: bool = False) -> Tile:
        """Two windows a row, of a gradient also two a column, if that leaves none over.

        There must be enough windows to pay for larger transformed weights.
        """
        many = geometry.out_height * geometry.out_width >= 16
        wide = 2 if many and geometry.out_width % 2 == 0 else 1
        high = 2 if gradient and wide == 2 and geometry.out_height % 2 == 0 else 1
        down, count = geometry.out_height // high, geometry.out_width // wide
        # somewhat more tiles than a block of `_multiply` has, so that the weight is read less often
        band = block_size(down, -(-9 // count))
        return cls(F4 if high == 2 else F2, F4 if wide == 2 else F2, high, wide, down, count, band)

    @property
    def points(self) -> int:
        """Multiplications for a pair of channels."""
        return self.rows.points * self.columns.points


def fits(geometry: Geometry) -> bool:
    """Whether the method is there for a convolution, and faster: its transforms cost something for every channel."""
    inputs, outputs = geometry.in_channels, geometry.out_channels
    applies = geometry.kernel == 3 and geometry.stride == 1 and geometry.pool == 2
    return applies and inputs * outputs > 4 * (inputs + outputs)


def has_own_gradient(geometry: Geometry) -> bool:
    """Whether the tiles of the gradient are others than those of the outputs, so that it takes a weight of its own."""
    return Tile.of(geometry) != Tile.of(geometry, gradient=True)


def transformed_weight(geometry: Geometry, *, gradient: bool = False) -> ArrayType:
    """U = G w G' for the tiles of the outputs, or of the gradient: `[points, out * in]`."""
    tile = Tile.of(geometry, gradient=gradient)
    return ArrayType((tile.points, _plane(geometry.out_channels, geometry.in_channels)))


def transform_weight(program: Program, name: str, geometry: Geometry, *, gradient: bool = False) -> Function:
    """Emit `u = G w G'`, once for all samples that see the same weight."""
    tile, u = Tile.of(geometry, gradient=gradient), transformed_weight(geometry, gradient=gradient)

    def body(code: Code, a: Any) -> None:
        for o in code.range(geometry.out_channels):
            for c in code.range(geometry.in_channels):
                grid = [[a.w[o, c, i, j] for j in range(TAPS)] for i in range(TAPS)]
                _store(a.u, o * geometry.in_channels + c, _mapped(tile.rows.taps, tile.columns.taps, grid))

    return program.function(name, {"w": geometry.weight, "u": u}, body)


def scratch(program: Program, geometry: Geometry, *, gradient: bool = False, shared: bool = False) -> Workspace:
    """What `forward`, or `input_gradient`, needs besides; `shared` says that all models see the same image."""
    tile = Tile.of(geometry, gradient=gradient)
    tiles = tile.band * tile.count
    memory = Workspace(program.width)
    memory.add("inputs", ArrayType((tile.points, _plane(geometry.in_channels, tiles)), lanes=not shared))
    memory.add("outputs", ArrayType((tile.points, _plane(geometry.out_channels, tiles))))
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
    tile = Tile.of(geometry)

    def band(code: Code, a: Any, top: Value, rows: int) -> None:
        v, m = memory(a.scratch, "inputs"), memory(a.scratch, "outputs")
        tiles = rows * tile.count
        for c in code.range(geometry.in_channels):
            for number, y, x in _tiles(code, tile, top, rows):
                left = x * tile.columns.outputs
                grid = [
                    [a.x[c, y * tile.rows.outputs + i, left + j] for j in range(tile.columns.points)]
                    for i in range(tile.rows.points)
                ]
                _store(v, c * tiles + number, _mapped(tile.rows.inputs, tile.columns.inputs, grid))
        sizes = (geometry.out_channels, geometry.in_channels, tiles)
        _multiply(code, m, lambda p, o, c: a.u[p, o * geometry.in_channels + c], v, sizes)
        for o in code.range(geometry.out_channels):
            bias = a.bias[o]
            for number, y, x in _tiles(code, tile, top, rows):
                products = _load(m, o * tiles + number, tile)
                outputs = _mapped(tile.rows.products, tile.columns.products, products)
                for i, j in itertools.product(range(tile.high), range(tile.wide)):
                    window = [[value + bias for value in row[2 * j : 2 * j + 2]] for row in outputs[2 * i : 2 * i + 2]]
                    finish(code, a, (o, y * tile.high + i, x * tile.wide + j), window)

    def body(code: Code, a: Any) -> None:
        for start, stop, rows in spans(tile.down, tile.band):
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
    memory = scratch(program, geometry, gradient=True)
    tile = Tile.of(geometry, gradient=True)
    shape = (geometry.in_channels, geometry.height, geometry.width)
    padding = geometry.padding

    def band(code: Code, a: Any, sums: Array, top: Value, rows: int) -> None:
        gm, gv = memory(a.scratch, "outputs"), memory(a.scratch, "inputs")
        tiles = rows * tile.count
        for o in code.range(geometry.out_channels):
            for number, y, x in _tiles(code, tile, top, rows):
                grid = _spread(a, tile, (o, y, x))
                maps = tile.rows.products_transposed, tile.columns.products_transposed
                _store(gm, o * tiles + number, _mapped(*maps, grid))
        sizes = (geometry.in_channels, geometry.out_channels, tiles)
        _multiply(code, gv, lambda p, c, o: a.u[p, o * geometry.in_channels + c], gm, sizes)
        for c in code.range(geometry.in_channels):
            for number, y, x in _tiles(code, tile, top, rows):
                maps = tile.rows.inputs_transposed, tile.columns.inputs_transposed
                values = _mapped(*maps, _load(gv, c * tiles + number, tile))
                for i, j in itertools.product(range(tile.rows.points), range(tile.columns.points)):
                    place = (c, y * tile.rows.outputs + i, x * tile.columns.outputs + j)
                    sums[place] = sums[place] + values[i][j]

    def body(code: Code, a: Any) -> None:
        sums = memory(a.scratch, "padded") if padding else a.out
        for place in _places(code, sums.type.shape):
            sums[place] = code.number(0.0)
        for start, stop, rows in spans(tile.down, tile.band):
            for top in code.range(start, stop, rows):
                band(code, a, sums, top, rows)
        if padding or derivative:
            for c, y, x in _places(code, shape):
                total = sums[c, y + padding, x + padding]
                a.out[c, y, x] = total * a.d[c, y, x] if derivative else total

    parameters = {
        "g": ArrayType(geometry.output),
        "choice": geometry.choice,
        "u": transformed_weight(geometry, gradient=True),
        "out": ArrayType(shape),
        "d": ArrayType(shape),
        "scratch": ArrayType((memory.size,)),
    }
    return program.function(name, parameters, body)


def _plane(channels: int, each: int) -> int:
    """The numbers between two points of a tile: an odd count, lest all points fall on the same lines of the cache."""
    return channels * each | 1


def _tiles(code: Code, tile: Tile, top: Value, rows: int) -> Iterator[tuple[Value, Value, Value]]:
    """The tiles of `rows` rows from `top` on: number, row and column."""
    for row in range(rows):
        for x in code.range(tile.count):
            yield x + row * tile.count, top + row, x


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

    for p in code.range(product.type.shape[0]):
        for i_start, i_stop, i_count in spans(rows, height):
            for i in code.range(i_start, i_stop, i_count):
                for n_start, n_stop, n_count in spans(columns, width):
                    for n in code.range(n_start, n_stop, n_count):
                        tile(p, i, n, i_count, n_count)


def _spread(a: Any, tile: Tile, place: tuple[Value, Value, Value]) -> list[list[Value]]:
    """The gradient of a tile's conv outputs: that of each pooled output where it was chosen, zero elsewhere."""
    o, y, x = place
    grid: list[list[Value]] = []
    for i in range(tile.high):
        upper: list[Value] = []
        lower: list[Value] = []
        for j in range(tile.wide):
            window = (o, y * tile.high + i, x * tile.wide + j)
            g, ((is_lower,), (is_right,)) = a.g[window], load(a.choice, window, 2)
            for column in (is_right.select(0.0, g), is_right.select(g, 0.0)):
                upper.append(is_lower.select(0.0, column))
                lower.append(is_lower.select(column, 0.0))
        grid += [upper, lower]
    return grid


def _store(target: Array, place: Value, grid: Sequence[Axis]) -> None:
    for p, number in enumerate(itertools.chain(*grid)):
        target[p, place] = number


def _load(source: Array, place: Value, tile: Tile) -> list[list[Value]]:
    width = tile.columns.points
    return [[source[i * width + j, place] for j in range(width)] for i in range(tile.rows.points)]


def _mapped(rows: Map, columns: Map, grid: Sequence[Axis]) -> list[list[Value]]:
    """`R grid C'` for a map R of columns and a map C of rows: from `[i][j]` to `[i][j]`."""
    by_column = [rows(column) for column in zip(*grid, strict=True)]
    return [columns(row) for row in zip(*by_column, strict=True)]
