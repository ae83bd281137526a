"""The memory of a program: arrays of numbers by model, or shared by all (see `language`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import llvmlite.ir as ir

from weightzoo.training.lanes.values import FLOAT, INDEX, INT, Value

if TYPE_CHECKING:
    from weightzoo.training.lanes.language import Code

Index = Value | int


@dataclass(frozen=True)
class ArrayType:
    """The shape of an array in memory: `lanes` says whether an element is one number for each model or one for all.

    A mask holds a condition for each model in one or two bytes. `strides` and `offset` count elements; a C-ordered
    array needs neither.
    """

    shape: tuple[int, ...]
    kind: Literal["float", "int", "mask"] = "float"
    lanes: bool = True
    strides: tuple[int, ...] | None = None
    offset: int = 0

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def steps(self) -> tuple[int, ...]:
        """The distance of neighbours along each axis, in elements."""
        if self.strides is not None:
            return self.strides
        return tuple(math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape)))

    def vectors(self, width: int) -> int:
        """How many vectors of `width` float32 it takes."""
        element = max(width, 8) // 8 if self.kind == "mask" else 4 * width
        return -(-self.size * element // (4 * width))

    def interior(self, border: int) -> ArrayType:
        """The part of a `[C, H, W]` array that leaves out a border on each side of its last two axes."""
        if border == 0:
            return self
        channels, height, width = self.shape
        steps = self.steps
        shape = (channels, height - 2 * border, width - 2 * border)
        return ArrayType(shape, self.kind, self.lanes, steps, self.offset + border * (steps[1] + steps[2]))


class Array:
    """Memory of the program. Indexing reads or writes an element; leading indices alone give a part (`part`)."""

    __slots__ = ("code", "pointer", "type")

    def __init__(self, code: Code, pointer: Any, array_type: ArrayType) -> None:
        self.code = code
        self.pointer = pointer
        self.type = array_type

    def _element(self) -> Any:
        if self.type.kind == "mask":
            return ir.IntType(max(self.code.width, 8))
        element = FLOAT if self.type.kind == "float" else INT
        return ir.VectorType(element, self.code.width) if self.type.lanes else element

    def _address(self, index: Sequence[Index]) -> Any:
        fixed = self.type.offset
        moving: Value | None = None
        for position, step in zip(index, self.type.steps, strict=False):
            if isinstance(position, Value):
                term = position if step == 1 else position * step
                moving = term if moving is None else moving + term
            else:
                fixed += position * step
        build = self.code.builder
        element = self._element()
        pointer = self.pointer
        if moving is not None:
            pointer = build.gep(pointer, [moving.ir], source_etype=element, inbounds=True)
        if fixed:
            pointer = build.gep(pointer, [ir.Constant(INDEX, fixed)], source_etype=element, inbounds=True)
        return pointer

    def __getitem__(self, index: Index | tuple[Index, ...]) -> Value:
        index = index if isinstance(index, tuple) else (index,)
        assert len(index) == len(self.type.shape), f"{len(index)} indices into {self.type.shape}"
        loaded = self.code.builder.load(self._address(index), typ=self._element())
        return self.code.unpacked(loaded) if self.type.kind == "mask" else Value(self.code, loaded)

    def __setitem__(self, index: Index | tuple[Index, ...], value: Value) -> None:
        index = index if isinstance(index, tuple) else (index,)
        assert len(index) == len(self.type.shape), f"{len(index)} indices into {self.type.shape}"
        if self.type.kind == "mask":
            stored = self.code.packed(value)
        else:
            stored = value.spread().ir if self.type.lanes else value.ir
        self.code.builder.store(stored, self._address(index))

    def part(self, *index: Index) -> Array:
        """What is left when the leading axes are fixed."""
        rest = len(index)
        kept = ArrayType(self.type.shape[rest:], self.type.kind, self.type.lanes, self.type.steps[rest:])
        return Array(self.code, self._address(index), kept)

    def viewed(self, array_type: ArrayType) -> Array:
        """The same memory as another shape."""
        return Array(self.code, self.pointer, array_type)

    def prefetch(self, *index: Index) -> None:
        """Ask for the cache line of an element, to be read later on."""
        arguments = (self._address(index), *(ir.Constant(INT, flag) for flag in (0, 2, 1)))  # read, level 2, data
        self.code.intrinsic("llvm.prefetch.p0", ir.VoidType(), *arguments)

    def row(self, *index: Index) -> Value:
        """As many consecutive numbers of a shared array as there are lanes, from `index` on: one into each lane."""
        vector = ir.VectorType(FLOAT if self.type.kind == "float" else INT, self.code.width)
        return Value(self.code, self.code.builder.load(self._address(index), typ=vector, align=4))


class Workspace:
    """Deals out parts of one block of memory; `size` is what the block must have, in vectors."""

    def __init__(self, width: int) -> None:
        self.size = 0
        self._width = width
        self._parts: dict[str, tuple[int, ArrayType]] = {}

    def add(self, name: str, array_type: ArrayType) -> None:
        """Set a part aside."""
        self._parts[name] = (self.size, array_type)
        self.size += array_type.vectors(self._width)

    def __call__(self, block: Array, name: str) -> Array:
        """A part of the block."""
        start, array_type = self._parts[name]
        return block.part(start).viewed(array_type)
