"""Winograd's minimal filtering along rows alone, for 3x3 convolutions of few channels whose outputs are pooled 2 by 2.

A tile is two pooling windows of a row: 2x4 conv outputs, which depend on 4x6 inputs x. With the maps A', G and B' of
F(4, 3) (see `filtering`), each on a row of numbers, i and r rows of the tile and of the filter,

    tile[o, i] = A' [ sum over c, r of (G w[o, c, r]) * (B' x[c, i + r]) ]        (* is element by element)

takes 18 multiplications for a window and a pair of channels, where `winograd` takes 12 and the sums as they are written
36. In return products are summed over three rows and all channels within registers, never in memory; that wins where
the sums over channels alone are short, as on an image.
"""

from __future__ import annotations

import itertools
from typing import Any

from weightzoo.training.lanes import winograd
from weightzoo.training.lanes.activation import Pointwise
from weightzoo.training.lanes.convolution import window_end
from weightzoo.training.lanes.dropout import DRAWS, SCALE
from weightzoo.training.lanes.filtering import F4, TAPS
from weightzoo.training.lanes.geometry import Geometry
from weightzoo.training.lanes.language import ArrayType, Code, Function, Program, Value
from weightzoo.training.lanes.memory import Workspace
from weightzoo.training.lanes.tiling import L1_BYTES, block_size, spans

WINDOWS, ROWS = 2, 2  # pooling windows and rows of conv outputs in a tile
INPUT_ROWS = ROWS + TAPS - 1
POINTS = F4.points
_ONE = 1  # the point at which a product counts alike in all outputs: the column of A' that is all ones


def fits(geometry: Geometry) -> bool:
    """Whether the method is there for a convolution, and the fastest: see `tests/benchmarks/methods.py`."""
    applies = geometry.kernel == 3 and geometry.stride == 1 and geometry.pool == 2 and geometry.out_width >= WINDOWS
    pays = 2 <= geometry.in_channels <= 8 and geometry.out_channels >= 4
    return applies and pays and not winograd.fits(geometry)


def transformed_weight(geometry: Geometry) -> ArrayType:
    """U = G w of each row of the filter: `[out, in, points, rows]`."""
    return ArrayType((geometry.out_channels, geometry.in_channels, POINTS, TAPS))


def transform_weight(program: Program, name: str, geometry: Geometry) -> Function:
    """Emit `u = G w`, once for all samples that see the same weight."""

    def body(code: Code, a: Any) -> None:
        for o in code.range(geometry.out_channels):
            for c in code.range(geometry.in_channels):
                for r in range(TAPS):
                    for p, number in enumerate(F4.taps([a.w[o, c, r, tap] for tap in range(TAPS)])):
                        a.u[o, c, p, r] = number

    return program.function(name, {"w": geometry.weight, "u": transformed_weight(geometry)}, body)


def scratch(program: Program, geometry: Geometry, *, shared: bool = False) -> Workspace:
    """What `forward` needs besides; `shared` says that all models see the same image."""
    memory = Workspace(program.width)
    shape = (_tiles_at_once(program, geometry), geometry.in_channels, INPUT_ROWS, POINTS)
    memory.add("inputs", ArrayType(shape, lanes=not shared))
    return memory


def _tiles_at_once(program: Program, geometry: Geometry) -> int:
    """The tiles of a row of which all output channels find the transformed inputs in the cache."""
    each = geometry.in_channels * INPUT_ROWS * POINTS * program.width * 4
    return block_size(-(-geometry.out_width // WINDOWS), L1_BYTES // each)


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
    tiles = -(-geometry.out_width // WINDOWS)
    in_registers = 2 if program.registers >= 32 else 1  # tiles whose products fill them

    def window_of(tile: Value) -> Value:
        """The first window of a tile. Where their number is odd, the last tile does one again that is done."""
        window = tile * WINDOWS
        return (
            window if geometry.out_width % WINDOWS == 0 else (tile < tiles - 1).select(window, geometry.out_width - 2)
        )

    def transform(code: Code, a: Any, rows: tuple[Value | int, Value | int], start: Value, count: int) -> None:
        """Rows of the input, each in the place of the one four rows above."""
        v = memory(a.scratch, "inputs")
        for row in code.range(*rows):
            slot = row & (INPUT_ROWS - 1)
            for tile in code.range(count):
                left = window_of(start + tile) * 2
                for c in code.range(geometry.in_channels):
                    for p, number in enumerate(F4.inputs([a.x[c, row, left + j] for j in range(POINTS)])):
                        v[tile, c, slot, p] = number

    def products(code: Code, a: Any, o: Value, y: Value, tile: Value, count: int) -> list[list[list[Value]]]:
        """The sums of `count` tiles from `tile` on, `[tile][row][point]`; the bias is in them."""
        v, zero, bias = memory(a.scratch, "inputs"), code.number(0.0), a.bias[o]
        slots = [(y * ROWS + row) & (INPUT_ROWS - 1) for row in range(INPUT_ROWS)]
        keys = itertools.product(range(count), range(ROWS), range(POINTS))
        sums = {(n, i, p): code.cell(bias if p == _ONE else zero) for n, i, p in keys}
        for c in code.range(geometry.in_channels):
            for p in range(POINTS):
                weights = [a.u[o, c, p, r] for r in range(TAPS)]
                for n, row in itertools.product(range(count), range(INPUT_ROWS)):
                    number = v[tile + n, c, slots[row], p]
                    for i in range(max(0, row - TAPS + 1), min(ROWS, row + 1)):
                        sums[n, i, p].add_product(number, weights[row - i])
        return [[[sums[n, i, p].value for p in range(POINTS)] for i in range(ROWS)] for n in range(count)]

    def block(code: Code, a: Any, o: Value, y: Value, start: Value, tile: Value, count: int) -> None:
        for number, sums in enumerate(products(code, a, o, y, tile, count)):
            outputs, window = [F4.products(row) for row in sums], window_of(start + tile + number)
            for n in range(WINDOWS):
                finish(code, a, (o, y, window + n), [row[2 * n : 2 * n + 2] for row in outputs])

    def columns(code: Code, a: Any, start: Value, count: int) -> None:
        transform(code, a, (0, INPUT_ROWS - ROWS), start, count)
        for y in code.range(geometry.out_height):
            transform(code, a, (y * ROWS + (INPUT_ROWS - ROWS), y * ROWS + INPUT_ROWS), start, count)
            for o in code.range(geometry.out_channels):
                for first, behind, number in spans(count, in_registers):
                    for tile in code.range(first, behind, number):
                        block(code, a, o, y, start, tile, number)

    def body(code: Code, a: Any) -> None:
        for first, behind, count in spans(tiles, _tiles_at_once(program, geometry)):
            for start in code.range(first, behind, count):
                columns(code, a, start, count)

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
