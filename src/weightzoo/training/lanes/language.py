"""A small language for programs whose every number is a register of models.

A program is Python that runs once and emits LLVM IR. Three things have to be known to read one:

* `for i in code.range(n)` is a loop of the program; `for i in range(n)` is unrolled by Python.
* A `Value` is one number for each model of the group (a vector, one lane a model), or one that all models share (a
  scalar, which becomes a vector where it meets one). `Array` is memory that holds such numbers, indexed like NumPy's.
* A `Cell` is a variable of the program, kept in a register: `cell.value` reads it, `cell.value = ...` writes it.

Arithmetic is exactly what is written: `a * b + c` rounds twice, `fma(a, b, c)` once, nothing is reordered, fused or
contracted. So a program gives the same bits at every vector width and on every processor with IEEE 754 arithmetic.
Nothing here knows about layers; a kernel for masked or paired weights is one with more arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import llvmlite.ir as ir

from weightzoo.errors import EngineError

FLOAT, INT, INDEX, BOOL, POINTER = ir.FloatType(), ir.IntType(32), ir.IntType(64), ir.IntType(1), ir.PointerType()
Number = float | int


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


Index = Value | int


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


Function = Callable[..., None]


class Code:
    """The body of one function while it is emitted."""

    def __init__(self, program: Program, function: Any) -> None:
        self.program = program
        self.width = program.width
        self.entry = function.append_basic_block("entry")
        self.builder = ir.IRBuilder(function.append_basic_block("body"))

    def constant(self, number: Number, like: Any) -> Value:
        """A number as a value of the LLVM type `like`."""
        if isinstance(like, ir.VectorType):
            return Value(self, ir.Constant(like, [ir.Constant(like.element, number)] * like.count))
        return Value(self, ir.Constant(like, number))

    def number(self, number: float) -> Value:
        """The same float32 for every model."""
        return self.constant(number, ir.VectorType(FLOAT, self.width))

    def integer(self, number: int) -> Value:
        """The same int32 for every model."""
        return self.constant(number, ir.VectorType(INT, self.width))

    def never(self) -> Value:
        """The condition that holds for no model."""
        return self.constant(0, ir.VectorType(BOOL, self.width))

    def packed(self, condition: Value) -> Any:
        """A condition as an integer, one bit a lane."""
        bits = self.builder.bitcast(condition.ir, ir.IntType(self.width))
        return bits if self.width >= 8 else self.builder.zext(bits, ir.IntType(8))

    def unpacked(self, bits: Any) -> Value:
        """The reverse."""
        if self.width < 8:
            bits = self.builder.trunc(bits, ir.IntType(self.width))
        return Value(self, self.builder.bitcast(bits, ir.VectorType(BOOL, self.width)))

    def index(self, number: Index) -> Value:
        """A position in an array."""
        return number if isinstance(number, Value) else self.constant(number, INDEX)

    def cell(self, initial: Value) -> Cell:
        """A variable that starts with a value."""
        return Cell(self, initial)

    def range(self, start: Index, stop: Index | None = None, step: int = 1) -> Iterator[Value]:
        """A loop of the program, over the indices that Python's `range` would give."""
        first, last = (0, start) if stop is None else (start, stop)
        build: Any = self.builder
        before = build.block
        head, body, behind = (build.append_basic_block() for _ in range(3))
        build.branch(head)
        build.position_at_end(head)
        position = build.phi(INDEX)
        position.add_incoming(self.index(first).ir, before)
        build.cbranch(build.icmp_signed("<", position, self.index(last).ir), body, behind)
        build.position_at_end(body)
        yield Value(self, position)
        position.add_incoming(build.add(position, ir.Constant(INDEX, step), flags=["nsw"]), build.block)
        build.branch(head)
        build.position_at_end(behind)

    @contextmanager
    def when(self, condition: Value) -> Generator[None]:
        """`with code.when(c):` emits what runs only if the shared condition `c` holds."""
        with self.builder.if_then(condition.ir):
            yield

    def intrinsic(self, name: str, result: Any, *arguments: Any) -> Any:
        """Call one of LLVM's own functions."""
        module = self.builder.module
        declared = module.globals.get(name)
        if declared is None:
            declared = ir.Function(module, ir.FunctionType(result, [argument.type for argument in arguments]), name)
        return self.builder.call(declared, arguments)

    @contextmanager
    def flushing_denormals(self) -> Generator[None]:
        """Numbers under 2**-126 count as zero in what is called inside, and the processor's mode is restored after it.

        Denormals cost a hundred times a normal number on some processors: a dying model would slow its whole group.
        """
        build, triple = self.builder, self.builder.module.triple
        if triple.startswith(("x86_64", "i386", "i686")):
            before, inside = self.cell(self.constant(0, INT)), self.cell(self.constant(0, INT))
            self.intrinsic("llvm.x86.sse.stmxcsr", ir.VoidType(), before.pointer)
            inside.value = before.value | 0x8040  # FTZ and DAZ
            self.intrinsic("llvm.x86.sse.ldmxcsr", ir.VoidType(), inside.pointer)
            yield
            self.intrinsic("llvm.x86.sse.ldmxcsr", ir.VoidType(), before.pointer)
        elif triple.startswith(("aarch64", "arm64")):
            old = self.intrinsic("llvm.aarch64.get.fpcr", INDEX)
            flush = build.or_(old, ir.Constant(INDEX, 1 << 24))
            self.intrinsic("llvm.aarch64.set.fpcr", ir.VoidType(), flush)
            yield
            self.intrinsic("llvm.aarch64.set.fpcr", ir.VoidType(), old)
        else:
            raise EngineError(f"no way to flush denormals is known for {triple}; use the torch engine")

    def transpose(self, rows: Sequence[Value]) -> list[Value]:
        """`width` vectors with `result[i].lane(j) = rows[j].lane(i)`: log2(width) stages of pairwise exchange."""
        rows = list(rows)
        count, build = self.width, self.builder
        mask_type = ir.VectorType(INT, count)
        stride = 1
        while stride < count:
            low = ir.Constant(mask_type, [j - stride + count if j & stride else j for j in range(count)])
            high = ir.Constant(mask_type, [j + count if j & stride else j + stride for j in range(count)])
            for i in range(count):
                if not i & stride:
                    first, second = rows[i].ir, rows[i + stride].ir
                    rows[i] = Value(self, build.shuffle_vector(first, second, low))
                    rows[i + stride] = Value(self, build.shuffle_vector(first, second, high))
            stride *= 2
        return rows

    def assemble(self, numbers: Sequence[Value]) -> Value:
        """A vector of one scalar for each lane."""
        vector = ir.Constant(ir.VectorType(numbers[0].ir.type, self.width), ir.Undefined)
        for lane, number in enumerate(numbers):
            vector = self.builder.insert_element(vector, number.ir, ir.Constant(INT, lane))
        return Value(self, vector)


class Program:
    """A set of functions that are compiled together, for groups of `width` models.

    `registers` is the number of vector registers that kernels may plan with; it decides the tiling, never a result.
    """

    def __init__(self, width: int, registers: int, triple: str) -> None:
        self.width = width
        self.registers = registers
        self.module = ir.Module()
        self.module.triple = triple

    def function(
        self,
        name: str,
        parameters: Mapping[str, ArrayType | Literal["index"]],
        body: Callable[[Code, Any], None],
        *,
        exported: bool = False,
    ) -> Function:
        """Emit a function. `body(code, a)` finds each parameter as `a.name`; called by `f(code, name=...)`.

        Arrays passed in one call must not overlap where one of them is written. An exported function returns nothing,
        and takes pointers and 64-bit integers in the order of `parameters`.
        """
        types = [INDEX if kind == "index" else POINTER for kind in parameters.values()]
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), types), name)
        function.linkage = "external" if exported else "internal"
        function.attributes.add("nounwind")
        if not exported:
            function.attributes.add("noinline")
        code = Code(self, function)
        given: dict[str, Any] = {}
        for argument, (parameter, kind) in zip(function.args, parameters.items(), strict=True):
            argument.name = parameter
            if kind == "index":
                given[parameter] = Value(code, argument)
            else:
                argument.add_attribute("noalias")
                given[parameter] = Array(code, argument, kind)
        body_block = code.builder.block
        body(code, SimpleNamespace(**given))
        code.builder.ret_void()
        code.builder.position_at_end(code.entry)
        code.builder.branch(body_block)

        def call(caller: Code, **arguments: Any) -> None:
            assert arguments.keys() == parameters.keys(), f"{name} takes {list(parameters)}, got {list(arguments)}"
            passed: list[Any] = []
            for parameter, kind in parameters.items():
                given_argument = arguments[parameter]
                if kind == "index":
                    passed.append(caller.index(given_argument).ir)
                else:
                    assert given_argument.type.lanes == kind.lanes, f"{parameter} of {name}"
                    passed.append(given_argument.pointer)
            caller.builder.call(function, passed)

        return call


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
