"""What pydantic finds wrong with a section, said in one line a mistake: the place, what was given, what is expected."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

TAG = "="  # branches of a union are tagged "=grid", "=range", ...: part of pydantic's location, but no key of the file

Location = tuple[int | str, ...]

_EXPECTED = {
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "finite_number": "a finite number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "a name",
    "tuple_type": "a list",
}
_SECTION_EXPECTED = {"model_type", "model_attributes_type", "mapping_type", "dict_type"}


def refusal(message: str, *at: int | str) -> PydanticCustomError:
    """The error that a validator raises: `message` about the place `at` below the section that is being validated."""
    return PydanticCustomError("refused", "{message}", {"message": message, "at": at})


def explain(error: ValidationError, content: object, section_at: Callable[[Location], type[BaseModel]]) -> list[str]:
    """One line a mistake in `content`. `section_at` gives the section that the last part of a location is a key of."""
    lines = [_line(problem, content, section_at) for problem in error.errors(include_url=False)]
    return list(dict.fromkeys(lines))


def place(location: Iterable[int | str], content: object) -> str:
    """`("zoos", "a", "factors", "dropout", "=values", 1)` to `zoos.a.factors.dropout[1]`, as far as `content` goes.

    Parts that pydantic adds are left out: tags of branches, and keys that a shorthand in `content` stands for.
    """
    path, node = "", content
    for part in location:
        if isinstance(part, str) and (part == "[key]" or part.startswith(TAG)):
            continue
        if isinstance(node, Mapping):
            path += f".{part}" if path else str(part)
            node = cast("Mapping[object, object]", node).get(part)
        elif isinstance(node, list | tuple) and isinstance(part, int):
            path += f"[{part}]"
            node = cast("Sequence[object]", node)[part]
    return path


def nearest(name: object, known: Iterable[str]) -> str:
    """The remedy for a wrong name: the nearest of the known ones, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there are {', '.join(known)}" if known else "there are none"


def short(value: Any) -> str:
    """A value as the file would have it, cut to one line."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


def _line(problem: ErrorDetails, content: object, section_at: Callable[[Location], type[BaseModel]]) -> str:
    kind, location, given = problem["type"], problem["loc"], problem["input"]
    context = problem.get("ctx", {})
    where = place(location, content)
    if kind == "refused":
        where = place((*location, *cast("Location", context["at"])), content)
        return f"{where}: {context['message']}" if where else str(context["message"])
    if kind == "missing":
        above = place(location[:-1], content)
        return f"{above}{'.' if above else ''}{location[-1]}: missing; {_purpose(section_at(location), location[-1])}"
    if kind == "extra_forbidden":
        return f"{where}: unknown key; {_right_key(section_at(location), str(location[-1]))}"
    if kind == "union_tag_invalid":
        options = re.findall(rf"'{TAG}([^']*)'", str(context["expected_tags"]))
        return _wrong_kind(where, place((*location, "kind"), content), given, options)
    if kind == "literal_error":
        options = re.findall(r"'([^']*)'", str(context["expected"]))
        near = difflib.get_close_matches(str(given), options, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{where}: got {short(given)}, expected {context['expected']}{hint}"
    if kind in _SECTION_EXPECTED:
        return f"{where or 'the file'}: got {short(given)}, expected a section of `key: value` lines"
    expected = _EXPECTED.get(kind)
    if expected is None:
        return f"{where}: got {short(given)}; {problem['msg'][:1].lower()}{problem['msg'][1:]}"
    return f"{where}: got {short(given)}, expected {expected.format(**context)}"


def _right_key(section: type[BaseModel], key: str) -> str:
    for name, field in section.model_fields.items():
        below = field.annotation
        if isinstance(below, type) and issubclass(below, BaseModel) and key in below.model_fields:
            return f"it belongs below {name!r}"
    near = difflib.get_close_matches(key, section.model_fields, n=1)
    return f"did you mean {near[0]!r}?" if near else f"the keys here are {', '.join(section.model_fields)}"


def _wrong_kind(section: str, kind: str, given: object, options: list[str]) -> str:
    """`section` and `kind` are places; they are the same where a shorthand gives the kind alone."""
    listed = ", ".join(map(repr, options))
    if not isinstance(given, Mapping):
        return f"{section}: got {short(given)}, expected a section with a `kind`, one of {listed}"
    if "kind" not in given:
        return f"{kind}: missing; add one of {listed}"
    near = difflib.get_close_matches(str(given["kind"]), options, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{kind}: got {short(given['kind'])}, expected one of {listed}{hint}"


def _purpose(section: type[BaseModel], key: object) -> str:
    described = section.model_fields[str(key)].description if key in section.model_fields else None
    return f"add {described}" if described else f"add `{key}: ...`"
