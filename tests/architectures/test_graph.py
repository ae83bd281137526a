from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from tests.strategies import architectures
from weightzoo.architectures.graph import Activation, Architecture, Conv, Dropout, Flatten, Layer, Linear, MaxPool
from weightzoo.architectures.module import build_module
from weightzoo.errors import SpecError


@settings(max_examples=50, deadline=None)
@given(architectures())
def test_shapes_are_those_of_pytorch(architecture: Architecture) -> None:
    hidden = torch.zeros(2, *architecture.input_shape)
    for layer, shape in zip(build_module(architecture, "relu"), architecture.shapes, strict=True):
        hidden = layer(hidden)
        assert hidden.shape == (2, *shape)
    assert architecture.classes == hidden.shape[1]


@settings(max_examples=50, deadline=None)
@given(architectures())
def test_dropout_units_are_numbered_without_gap_or_overlap(architecture: Architecture) -> None:
    numbers: list[int] = []
    for layer, offset in architecture.dropout_offsets.items():
        assert isinstance(architecture.layers[layer], Dropout)
        numbers += range(offset, offset + torch.Size(architecture.shapes[layer]).numel())
    assert numbers == list(range(len(numbers)))
    assert len(architecture.dropout_offsets) == sum(isinstance(layer, Dropout) for layer in architecture.layers)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([Conv("conv1", 3, 4, 3)], r"net, layer 0: conv1 takes 3 channels, its input is \[2, 6, 7\]"),
        ([Conv("conv1", 2, 4, 9, padding=1)], r"kernel 9 of conv1 exceeds its input \[2, 6, 7\]"),
        ([Activation(), MaxPool(7)], r"net, layer 1: max-pooling by 7 does not fit an input of \[2, 6, 7\]"),
        ([Flatten(), Linear("fc1", 83, 5)], r"net, layer 1: fc1 takes 83 features, its input is \[84\]"),
        ([Linear("fc1", 84, 5)], r"fc1 takes 84 features, its input is \[2, 6, 7\]"),
        ([Flatten(), Conv("conv1", 2, 4, 3)], r"conv1 takes 2 channels, its input is \[84\]"),
        ([Flatten(), MaxPool(2)], r"max-pooling by 2 does not fit an input of \[84\]"),
    ],
)
def test_layers_that_do_not_fit_are_refused(layers: list[Layer], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Architecture("net", (2, 6, 7), tuple(layers))
