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

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Literal

import llvmlite.ir as ir

from weightzoo.errors import EngineError
from weightzoo.training.lanes.memory import Array, ArrayType, Index
from weightzoo.training.lanes.values import BOOL, FLOAT, INDEX, INT, Cell, Number, Value, fma, sqrt

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
        types = [INDEX if kind == "index" else ir.PointerType() for kind in parameters.values()]
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


__all__ = ["Array", "ArrayType", "Cell", "Code", "Function", "Index", "Program", "Value", "fma", "sqrt"]
