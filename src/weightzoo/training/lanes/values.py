"""The numbers of a program and its variables (see `language`), as LLVM values with Python's operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import llvmlite.ir as ir

if TYPE_CHECKING:
    from weightzoo.training.lanes.language import Code

FLOAT, INT, INDEX, BOOL = ir.FloatType(), ir.IntType(32), ir.IntType(64), ir.IntType(1)
Number = float | int


class Value:
    """A number of the program; see the module's text. Comparisons give conditions, false where one side is NaN."""

    __slots__ = ("code", "ir")

    def __init__(self, code: Code, value: Any) -> None:
        self.code = code
        self.ir = value

    @property
    def is_vector(self) -> bool:
        """Whether each model has its own."""
        return isinstance(self.ir.type, ir.VectorType)

    @property
    def _element(self) -> Any:
        return self.ir.type.element if isinstance(self.ir.type, ir.VectorType) else self.ir.type

    @property
    def _is_float(self) -> bool:
        return self._element == FLOAT

    def _meet(self, other: Value | Number) -> tuple[Value, Value]:
        if not isinstance(other, Value):
            return self, self.code.constant(other, self.ir.type)
        if self.is_vector == other.is_vector:
            return self, other
        return (self, other.spread()) if self.is_vector else (self.spread(), other)

    def _arithmetic(self, other: Value | Number, on_float: str, on_int: str, swapped: bool = False) -> Value:
        left, right = self._meet(other)
        if swapped:
            left, right = right, left
        operation = getattr(self.code.builder, on_float if self._is_float else on_int)
        return Value(self.code, operation(left.ir, right.ir))

    def _compare(self, sign: str, other: Value | Number) -> Value:
        left, right = self._meet(other)
        compare = self.code.builder.fcmp_ordered if self._is_float else self.code.builder.icmp_signed
        return Value(self.code, compare(sign, left.ir, right.ir))

    def __add__(self, other: Value | Number) -> Value:
        return self._arithmetic(other, "fadd", "add")

    def __radd__(self, other: Number) -> Value:
        return self._arithmetic(other, "fadd", "add", swapped=True)

    def __sub__(self, other: Value | Number) -> Value:
        return self._arithmetic(other, "fsub", "sub")

    def __rsub__(self, other: Number) -> Value:
        return self._arithmetic(other, "fsub", "sub", swapped=True)

    def __mul__(self, other: Value | Number) -> Value:
        return self._arithmetic(other, "fmul", "mul")

    def __rmul__(self, other: Number) -> Value:
        return self._arithmetic(other, "fmul", "mul", swapped=True)

    def __truediv__(self, other: Value | Number) -> Value:
        return self._arithmetic(other, "fdiv", "sdiv")

    def __rtruediv__(self, other: Number) -> Value:
        return self._arithmetic(other, "fdiv", "sdiv", swapped=True)

    def __neg__(self) -> Value:
        return Value(self.code, self.code.builder.fneg(self.ir))

    def __and__(self, other: Value | Number) -> Value:
        return self._arithmetic(other, "and_", "and_")

    def __or__(self, other: Value | Number) -> Value:
        return self._arithmetic(other, "or_", "or_")

    def __xor__(self, other: Value | Number) -> Value:
        return self._arithmetic(other, "xor", "xor")

    def __invert__(self) -> Value:
        """Of a condition: that it does not hold."""
        return Value(self.code, self.code.builder.not_(self.ir))

    def __lshift__(self, places: int) -> Value:
        return self._arithmetic(places, "shl", "shl")

    def __rshift__(self, places: int) -> Value:
        """Shift right and fill with zeros."""
        return self._arithmetic(places, "lshr", "lshr")

    def shift_signed(self, places: int) -> Value:
        """Shift right and fill with the sign."""
        return self._arithmetic(places, "ashr", "ashr")

    def __gt__(self, other: Value | Number) -> Value:
        return self._compare(">", other)

    def __ge__(self, other: Value | Number) -> Value:
        return self._compare(">=", other)

    def __lt__(self, other: Value | Number) -> Value:
        return self._compare("<", other)

    def __le__(self, other: Value | Number) -> Value:
        return self._compare("<=", other)

    def equals(self, other: Value | Number) -> Value:
        """The condition that both are the same number."""
        return self._compare("==", other)

    def is_number(self) -> Value:
        """The condition that this is not NaN."""
        return Value(self.code, self.code.builder.fcmp_ordered("ord", self.ir, self.ir))

    def beats(self, best: Value) -> Value:
        """The condition under which a maximum moves on from `best` to this: it is greater, or the first NaN."""
        unordered = Value(self.code, self.code.builder.fcmp_unordered(">", self.ir, best.ir))
        return unordered & best.is_number()

    def select(self, yes: Value | Number, no: Value | Number) -> Value:
        """Of a condition: `yes` where it holds, else `no`. At least one of them is a `Value`."""
        if isinstance(yes, Value):
            yes, no = yes._meet(no)
        else:
            assert isinstance(no, Value)
            no, yes = no._meet(yes)
        return Value(self.code, self.code.builder.select(self.ir, yes.ir, no.ir))

    def spread(self) -> Value:
        """The same number for every model."""
        if self.is_vector:
            return self
        vector = ir.VectorType(self.ir.type, self.code.width)
        lanes = ir.VectorType(INT, self.code.width)
        build = self.code.builder
        first = build.insert_element(ir.Constant(vector, ir.Undefined), self.ir, ir.Constant(INT, 0))
        return Value(self.code, build.shuffle_vector(first, first, ir.Constant(lanes, [0] * self.code.width)))

    def bits(self) -> Value:
        """The same bits, as int32 of a float32 or the reverse."""
        element = INT if self._is_float else FLOAT
        target = ir.VectorType(element, self.code.width) if self.is_vector else element
        return Value(self.code, self.code.builder.bitcast(self.ir, target))

    def to_float(self) -> Value:
        """An integer as float32."""
        target = ir.VectorType(FLOAT, self.code.width) if self.is_vector else FLOAT
        return Value(self.code, self.code.builder.sitofp(self.ir, target))

    def to_int(self) -> Value:
        """The lower 32 bits of an index."""
        return Value(self.code, self.code.builder.trunc(self.ir, INT))

    def to_index(self) -> Value:
        """A 32-bit integer as an index."""
        return Value(self.code, self.code.builder.sext(self.ir, INDEX))

    def lane(self, number: int) -> Value:
        """One model's number."""
        return Value(self.code, self.code.builder.extract_element(self.ir, ir.Constant(INT, number)))


class Cell:
    """A variable of the program."""

    __slots__ = ("_code", "_type", "pointer")

    def __init__(self, code: Code, initial: Value) -> None:
        self._code = code
        self._type = initial.ir.type
        with code.builder.goto_block(code.entry):
            self.pointer = code.builder.alloca(self._type)
        self.value = initial

    @property
    def value(self) -> Value:
        """What it holds at this point of the program."""
        return Value(self._code, self._code.builder.load(self.pointer, typ=self._type))

    @value.setter
    def value(self, new: Value) -> None:
        self._code.builder.store(new.ir, self.pointer)

    def add_product(self, left: Value, right: Value) -> None:
        """`cell += left * right`, rounded once."""
        self.value = fma(left, right, self.value)


def fma(left: Value, right: Value | Number, addend: Value | Number) -> Value:
    """`left * right + addend`, rounded once."""
    code = left.code
    values = [left, *(v if isinstance(v, Value) else code.constant(v, left.ir.type) for v in (right, addend))]
    if any(value.is_vector for value in values):
        values = [value.spread() for value in values]
    kind = values[0].ir.type
    suffix = f"v{code.width}f32" if isinstance(kind, ir.VectorType) else "f32"
    return Value(code, code.intrinsic(f"llvm.fma.{suffix}", kind, *(value.ir for value in values)))


def sqrt(value: Value) -> Value:
    """The square root, correctly rounded."""
    suffix = f"v{value.code.width}f32" if value.is_vector else "f32"
    return Value(value.code, value.code.intrinsic(f"llvm.sqrt.{suffix}", value.ir.type, value.ir))
