"""Values of JSON and CSV files that somebody else wrote: what has not the expected type counts as not said."""

from __future__ import annotations

import json
import math
from typing import Any

from weightzoo.errors import FormatError

NOT_MEASURED = -999  # how the published zoos say so
_TOO_LARGE = 2**63
_LONGEST_NAME = 200
_DEEP = 50


def parsed_json(content: bytes, name: str) -> Any:
    """The JSON value of a file or line; `name` is named in the error.

    Raises:
        FormatError: it is none.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name}: not readable as JSON ({str(error).splitlines()[0][:80]})") from None


def number(value: Any) -> float | None:
    """A number that was measured or given, also as text; NaN is one, -999 is not.

    >>> number("0.5"), number(-999), number("nan"), number(True)
    (0.5, None, nan, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        read = float(value)
    except (ValueError, OverflowError):
        return None
    return None if read == NOT_MEASURED else read


def integer(value: Any) -> int | None:
    """A whole number of 64 bits, also as text or as float without fraction."""
    if type(value) is int:
        return value if value != NOT_MEASURED and abs(value) < _TOO_LARGE else None
    read = number(value)
    whole = read is not None and math.isfinite(read) and read == int(read) and abs(read) < _TOO_LARGE
    return int(read) if read is not None and whole else None


def text(value: Any) -> str | None:
    """A name: a text of a reasonable length that can be printed."""
    return value if isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME and value.isprintable() else None


def is_deep(value: Any) -> bool:
    """Whether a JSON value is nested deeper than a configuration is."""
    level = [value]
    for _ in range(_DEEP):
        level = [
            child
            for each in level
            if isinstance(each, dict | list)
            for child in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return False
    return True
