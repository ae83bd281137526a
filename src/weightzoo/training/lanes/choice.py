"""Which number of a pooling window is the greatest, kept as the bits of its row and its column: one mask a bit.

A mask of 16 lanes is 2 bytes where the number itself would take 64, and selecting by it needs no comparison.
"""

from __future__ import annotations

from collections.abc import Sequence

from weightzoo.training.lanes.language import Array, ArrayType, Code, Index, Value

Place = tuple[Index, Index, Index]


def bits_of(size: int) -> int:
    """How many bits a row or column number below `size` takes."""
    return (size - 1).bit_length()


def choice_type(shape: tuple[int, int, int], size: int) -> ArrayType:
    """The array of choices for pooled outputs `[C, H, W]`: the bits of the row, then those of the column."""
    return ArrayType((max(1, 2 * bits_of(size)), *shape), "mask")


def choose(code: Code, window: Sequence[Sequence[Value]]) -> tuple[Value, list[Value]]:
    """The greatest of rows of numbers and its choice, bits of the row first; the first of equals in reading order."""
    rows = [_first_maximum(code, [(value, []) for value in row]) for row in window]
    return _first_maximum(code, rows)


def _first_maximum(code: Code, candidates: list[tuple[Value, list[Value]]]) -> tuple[Value, list[Value]]:
    """The greatest candidate, the bits of its number (lowest first), then the bits that it came with."""
    best, carried = candidates[0]
    number = [code.never() for _ in range(bits_of(len(candidates)))]
    for i, (candidate, own) in enumerate(candidates[1:], start=1):
        wins = candidate.beats(best)
        best = wins.select(candidate, best)
        number = [bit | wins if i >> place & 1 else bit & ~wins for place, bit in enumerate(number)]
        carried = [wins.select(theirs, ours) for theirs, ours in zip(own, carried, strict=True)]
    return best, number + carried


def store(choice: Array, place: Place, bits: list[Value]) -> None:
    """Keep a choice."""
    for number, bit in enumerate(bits):
        choice[(number, *place)] = bit


def load(choice: Array, place: Place, size: int) -> tuple[list[Value], list[Value]]:
    """The bits of row and column of a kept choice."""
    count = bits_of(size)
    bits = [choice[(number, *place)] for number in range(2 * count)]
    return bits[:count], bits[count:]


def pick(bits: list[Value], values: Sequence[Value]) -> Value:
    """Of several values the one whose number the bits give, by lane."""
    if len(values) == 1:
        return values[0]
    half = 1 << (bits_of(len(values)) - 1)
    return bits[bits_of(len(values)) - 1].select(pick(bits, values[half:]), pick(bits, values[:half]))


def is_chosen(code: Code, rows: list[Value], columns: list[Value], i: int, j: int) -> Value:
    """The condition that the choice is row i and column j."""
    condition = ~code.never()
    for bits, number in ((rows, i), (columns, j)):
        for place, bit in enumerate(bits):
            condition = condition & (bit if number >> place & 1 else ~bit)
    return condition
