from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings

from tests.strategies import architectures
from tests.training.helpers import SMALL_RESNET, TINY
from weightzoo.architectures.graph import Architecture
from weightzoo.architectures.serialise import from_json, to_json
from weightzoo.errors import FormatError, LayoutError


@settings(max_examples=50, deadline=None)
@given(architectures())
def test_round_trip_through_text(architecture: Architecture) -> None:
    assert from_json(json.loads(json.dumps(to_json(architecture)))) == architecture


def test_the_record_spells_out_parameters_and_symmetries() -> None:
    record = to_json(TINY)
    assert record["parameters"][0] == {"name": "conv1.weight", "shape": [4, 2, 3, 3]}
    assert record["symmetries"][1] == {
        "name": "conv2",
        "size": 3,
        "axes": [
            {"parameter": "conv2.weight", "axis": 0, "block": 1},
            {"parameter": "conv2.bias", "axis": 0, "block": 1},
            {"parameter": "fc1.weight", "axis": 1, "block": 9},
        ],
    }


def put(*path: Any) -> Callable[[dict[str, Any]], None]:
    """Set the place `path[:-1]` of a record to `path[-1]`."""

    def change(record: Any) -> None:
        *place, key, value = path
        for part in place:
            record = record[part]
        record[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (put("format", "weightzoo architecture 2"), FormatError, "format 'weightzoo architecture 2', expected"),
        (lambda r: r.pop("format"), FormatError, "format None, expected 'weightzoo architecture 1'"),
        (lambda r: r.pop("layers"), FormatError, "layers is missing"),
        (lambda r: r.pop("symmetries"), FormatError, "symmetries is missing"),
        (put("name", 3), FormatError, "name is 3, expected a string"),
        (put("input_shape", [1, 28]), FormatError, r"input_shape is \[1, 28\], expected"),
        (put("input_shape", [2, 9, 8.0]), FormatError, "input_shape is"),
        (put("layers", []), FormatError, r"layers is \[\], expected a list of layers"),
        (put("layers", 0, "conv"), FormatError, "layer 0: is 'conv', expected an object with a kind"),
        (
            put("layers", 2, "kind", "attention"),
            FormatError,
            "layer 2: unknown kind 'attention', expected one of conv",
        ),
        (put("layers", 2, "kind", ["conv"]), FormatError, "layer 2: unknown kind"),
        (put("layers", 0, "dilation", 2), FormatError, "layer 0: a conv has the keys .*'dilation'.*, expected"),
        (lambda r: r["layers"][0].pop("padding"), FormatError, "layer 0: a conv has the keys"),
        (put("layers", 0, "kernel", 0), FormatError, "layer 0: kernel is 0, expected an integer of at least 1"),
        (put("layers", 0, "padding", -1), FormatError, "padding is -1, expected an integer of at least 0"),
        (put("layers", 0, "stride", True), FormatError, "stride is True, expected an integer"),
        (put("layers", 0, "name", "conv1.weight"), FormatError, "name is 'conv1.weight', expected letters"),
        (put("layers", 4, "name", "conv1"), LayoutError, r"layer names \['conv1', 'conv1', .* are not unique"),
        (put("layers", 7, "in_features", 28), LayoutError, "fc1 takes 28 features"),
        (put("layers", 0, "stride", 2), LayoutError, "tiny, layer"),
        (put("parameters", 0, "name", "other.weight"), LayoutError, "the recorded parameters are not those"),
        (put("symmetries", 1, "axes", 2, "block", 1), LayoutError, "the recorded symmetries are not those"),
    ],
)
def test_altered_records_are_refused(
    change: Callable[[dict[str, Any]], None], error: type[Exception], message: str
) -> None:
    record = copy.deepcopy(to_json(TINY))
    change(record)
    with pytest.raises(error, match=message) as caught:
        from_json(record)
    assert "\n" not in str(caught.value)


def test_round_trip_of_residual_layers() -> None:
    record = json.loads(json.dumps(to_json(SMALL_RESNET)))
    assert from_json(record) == SMALL_RESNET
    assert record["parameters"][1:5] == [
        {"name": "bn1.weight", "shape": [4]},
        {"name": "bn1.bias", "shape": [4]},
        {"name": "bn1.running_mean", "shape": [4], "buffer": True},
        {"name": "bn1.running_var", "shape": [4], "buffer": True},
    ]
    assert record["layers"][0]["bias"] is False
    assert record["layers"][3]["body"][1] == {"kind": "batch_norm", "name": "layer1.0.bn1", "channels": 4}


def test_a_bias_that_is_there_goes_without_saying() -> None:
    assert "bias" not in to_json(TINY)["layers"][0]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (put("layers", 0, "bias", 0), FormatError, "layer 0: bias is 0, expected true or false"),
        (put("layers", 3, "body", []), FormatError, r"layer 3: body is \[\], expected a list of layers"),
        (put("layers", 3, "shortcut", None), FormatError, "layer 3: shortcut is None, expected a list of layers"),
        (put("layers", 3, "body", 1, "channels", 0), FormatError, "layer 3, body, layer 1: channels is 0"),
        (put("layers", 3, "body", 1, "channels", 5), LayoutError, "takes 5 channels"),
        (put("layers", 3, "body", 0, "name", "layer1.0..conv1"), FormatError, "name is 'layer1.0..conv1', expected"),
        (put("layers", 3, "body", 0, "name", "conv1"), LayoutError, "layer names .* are not unique"),
        (put("layers", 3, "body", 0, "name", "conv2"), LayoutError, "conv2 lies in layer1.0, so its name must begin"),
        (put("parameters", 3, "buffer", False), LayoutError, "the recorded parameters are not those"),
    ],
)
def test_altered_records_of_residual_layers_are_refused(
    change: Callable[[dict[str, Any]], None], error: type[Exception], message: str
) -> None:
    record = copy.deepcopy(to_json(SMALL_RESNET))
    change(record)
    with pytest.raises(error, match=message):
        from_json(record)
