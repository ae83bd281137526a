"""The query language of the registry: conditions on a run's fields, with the syntax of Python's expressions.

    test_accuracy > 0.9 and activation in ('tanh', 'gelu') and not (status == 'diverged' or learning_rate < 1e-3)

The parser is Python's own, whose tree is then translated node by node; only what is listed here passes, nothing is ever
evaluated as code. Fields are numbers or texts, and only like is compared with like. A comparison with a missing value
(a field that the run does not have, a loss that is NaN) is false, `!=` too; `parent is None` asks for missing ones.
"""

from __future__ import annotations

import ast
import difflib
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from weightzoo.errors import QueryError

Kind = Literal["number", "text"]
Record = Mapping[str, Any]
Condition = Callable[[Record], bool]

_LONGEST = 10_000
_GRAMMAR = "conditions are joined by and, or, not; compared by == != < <= > >= in; text stands in quotes"
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


@dataclass(frozen=True)
class Query:
    """A parsed query; it can be asked of any number of records."""

    text: str
    fields: frozenset[str]  # the fields that it names
    matches: Condition


@dataclass(frozen=True)
class _Operand:
    """A side of a comparison: how to get its value from a record, None if it is missing there."""

    kind: Kind
    value: Callable[[Record], Any]
    shown: str


def parse(text: str, fields: Mapping[str, Kind]) -> Query:
    """Parse a query over records with these fields.

    Raises:
        QueryError: it can't be read, names an unknown field (the message has the nearest ones) or compares a number
            with a text.
    """
    return _Parser(text, fields).parse()


class _Parser:
    def __init__(self, text: str, fields: Mapping[str, Kind]) -> None:
        self._text = text
        self._fields = fields
        self._named: set[str] = set()

    def parse(self) -> Query:
        if not self._text.strip():
            raise self._error("is empty", "give a condition such as \"test_accuracy > 0.9 and activation == 'tanh'\"")
        if len(self._text) > _LONGEST:
            raise self._error(f"has {len(self._text):,} characters", f"at most {_LONGEST:,} can be read")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of odd escapes in strings
                tree = ast.parse(self._text.strip(), mode="eval")
            matches = self._condition(tree.body)
        except SyntaxError as error:
            place = f" at character {error.offset}" if error.offset else ""
            hint = "use == to compare; " if _has_single_equals(self._text) else ""
            raise self._error(f"can't be read{place}", hint + _GRAMMAR) from None
        except (ValueError, RecursionError, MemoryError) as error:
            if isinstance(error, QueryError):
                raise
            raise self._error("can't be read", _GRAMMAR) from None
        return Query(self._text, frozenset(self._named), matches)

    def _condition(self, node: ast.expr) -> Condition:
        match node:
            case ast.BoolOp(op=ast.And(), values=values):
                parts = [self._condition(value) for value in values]
                return lambda record: all(part(record) for part in parts)
            case ast.BoolOp(op=ast.Or(), values=values):
                parts = [self._condition(value) for value in values]
                return lambda record: any(part(record) for part in parts)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self._condition(operand)
                return lambda record: not inner(record)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                sides = [left, *comparators]
                links = [self._comparison(*link) for link in zip(sides, ops, comparators, strict=False)]
                return links[0] if len(links) == 1 else lambda record: all(link(record) for link in links)
            case ast.Name() | ast.Constant():
                shown = self._source(node)
                raise self._error(f"{shown} alone is no condition", "compare it, as in test_accuracy > 0.9")
            case _:
                raise self._error(f"{self._source(node)} is not part of the language", _GRAMMAR)

    def _comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Condition:
        if _is_none(right) and isinstance(op, ast.Is | ast.Eq | ast.IsNot | ast.NotEq):
            asked = self._operand(left, like=None)
            absent = isinstance(op, ast.Is | ast.Eq)
            return lambda record: (asked.value(record) is None) == absent
        if isinstance(op, ast.In | ast.NotIn):
            return self._membership(left, isinstance(op, ast.In), right)
        if type(op) not in _COMPARISONS:
            raise self._error(f"{self._source(right)} is compared by `is`", "use == or !=; `is` is for None alone")
        compare = _COMPARISONS[type(op)]
        one = self._operand(left, like=right)
        other = self._operand(right, like=left)
        self._require_same_kind(one, other)

        def compared(record: Record) -> bool:
            a, b = one.value(record), other.value(record)
            return a is not None and b is not None and compare(a, b)

        return compared

    def _membership(self, left: ast.expr, wanted: bool, right: ast.expr) -> Condition:
        elements = right.elts if isinstance(right, ast.List | ast.Tuple | ast.Set) else [right]
        one = self._operand(left, like=None)
        listed: list[Any] = []
        for element in elements:
            if isinstance(element, ast.Name):
                self._refuse_name(element.id, beside_text=one.kind == "text")
                raise self._error(f"{element.id} stands in a list", "a list has numbers or texts, not fields")
            other = self._operand(element, like=None)
            self._require_same_kind(one, other)
            listed.append(other.value({}))

        def contained(record: Record) -> bool:
            value = one.value(record)
            return value is not None and (value in listed) == wanted

        return contained

    def _operand(self, node: ast.expr, like: ast.expr | None) -> _Operand:
        """`like` is the other side of the comparison, which tells what an unknown name was probably meant to be."""
        match node:
            case ast.Name(id=name):
                beside_text = isinstance(like, ast.Name) and self._fields.get(like.id) == "text"
                self._refuse_name(name, beside_text)
                self._named.add(name)
                return _Operand(self._fields[name], lambda record: _present(record.get(name)), name)
            case ast.Constant(value=str(value)):
                return _Operand("text", lambda _: value, self._source(node))
            case ast.Constant(value=int(value) | float(value)) if not isinstance(value, bool):
                return _Operand("number", lambda _: value, self._source(node))
            case ast.UnaryOp(
                op=ast.USub() | ast.UAdd() as sign, operand=ast.Constant(value=int(size) | float(size))
            ) if not isinstance(size, bool):
                signed = -size if isinstance(sign, ast.USub) else size
                return _Operand("number", lambda _: signed, self._source(node))
            case _:
                raise self._error(f"{self._source(node)} is neither a field nor a number nor a quoted text", _GRAMMAR)

    def _refuse_name(self, name: str, beside_text: bool) -> None:
        if name in self._fields:
            return
        if beside_text:
            raise self._error(f"there is no field {name!r}", f"if it is a text, put it in quotes: '{name}'")
        near = difflib.get_close_matches(name, self._fields, n=3, cutoff=0.5)
        remedy = f"did you mean {' or '.join(near)}?" if near else f"the fields are {', '.join(sorted(self._fields))}"
        raise self._error(f"there is no field {name!r}", remedy)

    def _require_same_kind(self, one: _Operand, other: _Operand) -> None:
        if one.kind != other.kind:
            article = {"number": "a number", "text": "a text"}
            given = f"{one.shown} is {article[one.kind]}, {other.shown} is {article[other.kind]}"
            raise self._error(given, "compare numbers with numbers and texts, in quotes, with texts")

    def _source(self, node: ast.expr) -> str:
        shown = ast.get_source_segment(self._text.strip(), node) or type(node).__name__
        return shown if len(shown) <= 40 else f"{shown[:37]}..."

    def _error(self, what: str, remedy: str) -> QueryError:
        shown = self._text if len(self._text) <= 80 else f"{self._text[:77]}..."
        return QueryError(" ".join(f'query "{shown}": {what}; {remedy}'.split()))


def _present(value: Any) -> Any:
    """A NaN counts as missing."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _has_single_equals(text: str) -> bool:
    padded = f" {text} "
    return any(
        padded[at] == "=" and padded[at - 1] not in "=!<>" and padded[at + 1] != "=" for at in range(1, len(padded) - 1)
    )
