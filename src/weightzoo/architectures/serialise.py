"""Architecture <-> plain JSON values: what a zoo's `zoo.json` says of its layer graph.

Besides the layers, which alone define the architecture, the record spells out what follows from them, so that a zoo
can be read without this package: the parameters in the order of the weight vector (running means and variances, which
are not trained, are marked `"buffer": true`), and the permutation symmetries. On reading, both are compared with what
this version derives: weights are never read in an order other than was written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

from weightzoo.architectures.graph import (
    Activation,
    Architecture,
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    Linear,
    MaxPool,
    Residual,
)
from weightzoo.architectures.layers import BUFFERS, Named, walk
from weightzoo.errors import FormatError, LayoutError, SpecError

FORMAT = "weightzoo architecture 1"
KINDS: dict[str, type[Layer]] = {
    "conv": Conv,
    "max_pool": MaxPool,
    "activation": Activation,
    "dropout": Dropout,
    "flatten": Flatten,
    "linear": Linear,
    "batch_norm": BatchNorm,
    "global_average_pool": GlobalAveragePool,
    "residual": Residual,
}
_KIND_OF = {layer: kind for kind, layer in KINDS.items()}
_TENSORS = ("weight", "bias", *BUFFERS)  # which a layer's name may not end in


def to_json(architecture: Architecture) -> dict[str, Any]:
    """The architecture as dicts, lists, strings and integers."""
    return {
        "format": FORMAT,
        "name": architecture.name,
        "input_shape": list(architecture.input_shape),
        "layers": [_record(layer) for layer in architecture.layers],
        **_derived(architecture),
    }


def from_json(record: Mapping[str, Any]) -> Architecture:
    """The architecture that `to_json` wrote.

    Raises:
        FormatError: the record is of another version, incomplete, or has a layer that this version doesn't know.
        LayoutError: the layers don't fit each other, or not the parameters and symmetries recorded with them.
    """
    if record.get("format") != FORMAT:
        raise FormatError(f"architecture: format {record.get('format')!r}, expected {FORMAT!r}; update weightzoo")
    name, shape, layers = (_take(record, key, "architecture") for key in ("name", "input_shape", "layers"))
    if not isinstance(name, str):
        raise FormatError(f"architecture: name is {name!r}, expected a string")
    if not _is_shape(shape):
        raise FormatError(f"architecture: input_shape is {shape!r}, expected [channels, height, width]")
    if not isinstance(layers, list) or not layers:
        raise FormatError(f"architecture: layers is {layers!r}, expected a list of layers")
    built = tuple(_layer(layer, f"layer {index}") for index, layer in enumerate(cast("list[Any]", layers)))
    names = [layer.name for layer in walk(built) if isinstance(layer, Named)]
    if len(set(names)) < len(names):
        raise LayoutError(f"architecture: layer names {names} are not unique")
    try:
        architecture = Architecture(name, (shape[0], shape[1], shape[2]), built)
    except SpecError as error:
        raise LayoutError(f"architecture: {error}") from None
    for key, derived in _derived(architecture).items():
        if _take(record, key, "architecture") != derived:
            raise LayoutError(f"architecture: the recorded {key} are not those of its layers; the record was altered")
    return architecture


def _record(layer: Layer) -> dict[str, Any]:
    """A layer's fields; a bias that is there, as in most, goes without saying."""
    record: dict[str, Any] = {"kind": _KIND_OF[type(layer)]}
    for field in dataclasses.fields(layer):
        value = getattr(layer, field.name)
        if isinstance(value, tuple):
            record[field.name] = [_record(inner) for inner in cast("tuple[Layer, ...]", value)]
        elif (field.name, value) != ("bias", True):
            record[field.name] = value
    return record


def _derived(architecture: Architecture) -> dict[str, Any]:
    layout = architecture.layout
    parameters = [
        {"name": name, "shape": list(shape), **({"buffer": True} if name in layout.buffers else {})}
        for name, shape in layout.parameters
    ]
    symmetries = [
        {"name": each.name, "size": each.size, "axes": [dataclasses.asdict(axis) for axis in each.axes]}
        for each in architecture.symmetries
    ]
    return {"parameters": parameters, "symmetries": symmetries}


def _layer(record: object, place: str) -> Layer:
    if not isinstance(record, Mapping):
        raise FormatError(f"{place}: is {record!r}, expected an object with a kind")
    values = dict(cast("Mapping[str, Any]", record))
    kind = values.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise FormatError(f"{place}: unknown kind {kind!r}, expected one of {', '.join(KINDS)}; update weightzoo")
    fields = [field.name for field in dataclasses.fields(KINDS[kind])]
    if "bias" in fields:
        values.setdefault("bias", True)
    if sorted(values) != sorted(fields):
        raise FormatError(f"{place}: a {kind} has the keys {sorted(values)}, expected {sorted(fields)}")
    return KINDS[kind](**{key: _value(key, value, place) for key, value in values.items()})


def _value(key: str, value: Any, place: str) -> Any:
    match key:
        case "name":
            parts = value.split(".") if isinstance(value, str) else [""]
            words = all(part.isidentifier() or part.isdecimal() for part in parts) and parts[0].isidentifier()
            if not words or (len(parts) > 1 and parts[-1] in _TENSORS):
                raise FormatError(f"{place}: name is {value!r}, expected letters, digits and underscores")
        case "bias":
            if type(value) is not bool:
                raise FormatError(f"{place}: bias is {value!r}, expected true or false")
        case "body" | "shortcut":
            if not isinstance(value, list) or (key == "body" and not value):
                raise FormatError(f"{place}: {key} is {value!r}, expected a list of layers")
            inside = enumerate(cast("list[Any]", value))
            return tuple(_layer(inner, f"{place}, {key}, layer {index}") for index, inner in inside)
        case _:
            least = 0 if key == "padding" else 1
            if type(value) is not int or value < least:
                raise FormatError(f"{place}: {key} is {value!r}, expected an integer of at least {least}")
    return value


def _take(record: Mapping[str, Any], key: str, place: str) -> Any:
    if key not in record:
        raise FormatError(f"{place}: {key} is missing")
    return record[key]


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(side) is int and side > 0 for side in value)
