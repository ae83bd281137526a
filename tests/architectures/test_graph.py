from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings

from tests.strategies import architectures, residual_architectures
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
from weightzoo.architectures.module import build_module
from weightzoo.errors import SpecError


@settings(max_examples=50, deadline=None)
@given(architectures() | residual_architectures())
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
        ([BatchNorm("bn1", 3)], r"net, layer 0: bn1 takes 3 channels, its input is \[2, 6, 7\]"),
        ([Flatten(), GlobalAveragePool()], r"net, layer 1: global average pooling takes .* not \[84\]"),
        (
            [Residual("r", (Conv("r.c", 2, 2, 3),))],
            r"layer 0: the body of r gives \[2, 4, 5\], its shortcut \[2, 6, 7\]",
        ),
        ([Residual("r", (Activation(),), (Conv("r.c", 3, 2, 1),))], r"layer 0 \(shortcut of r\): r.c takes 3 channels"),
        ([Residual("r", (Conv("c", 2, 2, 1),))], "layer 0: c lies in r, so its name must begin with that"),
        ([Residual("r", (Dropout(),))], "layer 0: r has dropout inside"),
    ],
)
def test_layers_that_do_not_fit_are_refused(layers: list[Layer], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Architecture("net", (2, 6, 7), tuple(layers))


def test_activations_inside_residual_layers_are_counted() -> None:
    block = Residual("r", (Conv("r.c1", 2, 5, 1), Activation(), Conv("r.c2", 5, 2, 1)), (BatchNorm("r.bn", 2),))
    net = Architecture("net", (2, 6, 7), (block, Flatten(), Linear("out", 84, 3)))
    assert net.activation_sizes == (5 * 42, 5 * 42, 2 * 42, 2 * 42, 2 * 42, 84, 3)
    assert [layer.name for layer in net.weighted] == ["r.c1", "r.c2", "r.bn", "out"]
