"""Dropout masks: `weightzoo.seeds.dropout_keep`, drawn where they are used."""

from __future__ import annotations

from weightzoo.seeds import GOLDEN, MIX1, MIX2
from weightzoo.training.lanes.language import Array, ArrayType, Value

MEMBER_KEY, THRESHOLD, VISIT_KEY = 0, 2, 3  # rows of the `draws` array; the keys have two words
DRAWS = ArrayType((5,), "int")
SCALE = ArrayType((1,))


def _signed(word: int) -> int:
    return word - 2**32 if word >= 2**31 else word


_GOLDEN, _MIX1, _MIX2 = map(_signed, (GOLDEN, MIX1, MIX2))


def draw32(key0: Value, key1: Value, counter: Value) -> Value:
    """`weightzoo.seeds.draw32`, modulo 2**32 as there."""
    x = counter * _GOLDEN + key0
    x = (x ^ (x >> 16)) * _MIX1
    x = x ^ key1
    x = (x ^ (x >> 15)) * _MIX2
    return x ^ (x >> 16)


def is_kept(bits: Value, threshold: Value) -> Value:
    """The condition that the upper 31 of a unit's 32 random bits are at least the threshold."""
    return (bits >> 1) >= threshold


def draw_visit(draws: Array, number: Value) -> None:
    """Draw the keys of visit `number` (int32, shared) into `draws`."""
    key0, key1 = draws[MEMBER_KEY], draws[MEMBER_KEY + 1]
    for word in range(2):
        draws[VISIT_KEY + word] = draw32(key0, key1, (number * 2 + word).spread())


def visit_bits(draws: Array, counter: Value) -> Value:
    """The 32 random bits of a counter (index, shared) in the visit that was drawn last."""
    return draw32(draws[VISIT_KEY], draws[VISIT_KEY + 1], counter.to_int().spread())


class Masks:
    """The masks of the visit drawn last: `draws` int `[5]`, `scale` float `[1]` (1 / (1 - rate)), both by lane."""

    def __init__(self, draws: Array, scale: Array) -> None:
        self.draws = draws
        self.scale = scale

    def factor(self, unit: Value) -> Value:
        """What a unit (index, shared) is multiplied by: 0 or the scale."""
        return is_kept(visit_bits(self.draws, unit), self.draws[THRESHOLD]).select(self.scale[0], 0.0)
