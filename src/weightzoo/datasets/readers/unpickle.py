"""CIFAR's batches are pickles of Python 2. A pickle can name any function to call; this reader knows none but those
that make a NumPy array of unsigned bytes, and calls its own in their place."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from weightzoo.errors import FormatError

# What dictionaries, lists, texts, numbers and arrays are written with up to protocol 4; no classes, no extensions, and
# nothing that takes memory before there are bytes for it.
_ADMITTED = {
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
    "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS",
    "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE",
}  # fmt: skip

_REFUSED = (ArithmeticError, AttributeError, EOFError, LookupError, TypeError, ValueError, pickle.UnpicklingError)


class _Array:
    """Takes the state of a pickled `numpy.ndarray`: (version, shape, type, whether in Fortran order, bytes)."""

    def __init__(self, *_: object) -> None:
        self.values = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, content = state
        if not isinstance(kind, _Type) or kind.name not in ("u1", "|u1"):
            raise ValueError("an array that is not of unsigned bytes")
        raw = content.encode("latin1") if isinstance(content, str) else content
        if not isinstance(raw, bytes):
            raise ValueError("an array without bytes")
        self.values = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Type:
    """Stands for a pickled `numpy.dtype`."""

    def __init__(self, name: object = None, *_: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment mean nothing for single bytes."""


def _encoded(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise ValueError(f"bytes in {encoding}")
    return text.encode("latin1")


_NAMES: Mapping[tuple[str, str], Callable[..., object]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encoded,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        make = _NAMES.get((module, name))
        if make is None:
            raise ValueError(f"it calls {module}.{name}, which images need not")
        return lambda *arguments: make(*arguments)  # a new function: what a pickle sets on it is gone with it


def unpickle(content: bytes, what: str) -> dict[str, Any]:
    """The dictionary of a pickle: texts, numbers, lists, and arrays of unsigned bytes as they are in NumPy.

    Texts of Python 2 are read as Latin-1, as torchvision does.

    Raises:
        FormatError: it is no pickle of that kind. Nothing of it has been run.
    """
    try:
        for code, argument, _ in pickletools.genops(content):
            if code.name not in _ADMITTED:
                raise ValueError(f"it uses {code.name}, which images need not")
            # the unpickler takes memory for as many places as the highest number of one
            if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(content):
                raise ValueError(f"it numbers an object {argument}")
        value = _Unpickler(io.BytesIO(content), encoding="latin1").load()
        if not isinstance(value, dict):
            raise ValueError(f"it holds a {type(value).__name__}, no dictionary")
    except _REFUSED as error:
        reason = " ".join(str(error).split())  # which may quote the pickle
        raise FormatError(f"{what}: refused, no batch of images ({reason}); get the file anew") from None
    return {str(key): item.values if isinstance(item, _Array) else item for key, item in value.items()}
