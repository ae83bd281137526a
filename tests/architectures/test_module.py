from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call

from tests.strategies import architectures
from tests.training.helpers import TINY
from weightzoo.architectures.graph import Activation, Architecture, Flatten, Linear, Symmetry
from weightzoo.architectures.module import ACTIVATIONS, build_module, parameters_of
from weightzoo.errors import LayoutError, SpecError
from weightzoo.spec import ActivationKind


@settings(max_examples=30, deadline=None)
@given(architectures(), st.sampled_from([0.0, 0.5]))
def test_parameters_are_those_of_the_layout_at_any_dropout_rate(architecture: Architecture, dropout: float) -> None:
    network = build_module(architecture, "tanh", dropout)
    found = tuple((name, tuple(parameter.shape)) for name, parameter in network.named_parameters())
    assert found == architecture.layout.parameters
    assert list(network.state_dict()) == list(architecture.layout.names)


def permuted(weights: dict[str, torch.Tensor], symmetry: Symmetry, order: torch.Tensor) -> dict[str, torch.Tensor]:
    """The parameters with the hidden units of one symmetry in another order, by its table alone."""
    moved = dict(weights)
    for axis in symmetry.axes:
        tensor = moved[axis.parameter]
        blocks = tensor.unflatten(axis.axis, (symmetry.size, axis.block))
        moved[axis.parameter] = blocks.index_select(axis.axis, order).reshape(tensor.shape)
    return moved


@settings(max_examples=40, deadline=None)
@given(architectures(), st.sampled_from(sorted(ACTIVATIONS)), st.integers(0, 2**32))
def test_permuting_by_a_symmetry_leaves_the_function(architecture: Architecture, activation: str, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    network = build_module(architecture, activation).double().eval()
    vector = torch.randn(architecture.layout.size, generator=random, dtype=torch.float64)
    inputs = torch.randn(3, *architecture.input_shape, generator=random, dtype=torch.float64)
    weights = parameters_of(architecture, vector)
    before = functional_call(network, weights, (inputs,))
    for symmetry in architecture.symmetries:
        order = torch.randperm(symmetry.size, generator=random)
        moved = permuted(weights, symmetry, order)
        torch.testing.assert_close(functional_call(network, moved, (inputs,)), before, rtol=1e-9, atol=1e-9)
        if (order != torch.arange(symmetry.size)).any():
            changed = {name for name in weights if not torch.equal(moved[name], weights[name])}
            assert changed == {axis.parameter for axis in symmetry.axes}
    assert len(architecture.symmetries) == len(architecture.layout.layers) - 1


def test_permuting_less_than_a_symmetry_changes_the_function() -> None:
    network, inputs = build_module(TINY, "tanh").eval(), torch.randn(3, *TINY.input_shape)
    weights = dict(network.named_parameters())
    before = network(inputs)
    for symmetry in TINY.symmetries:
        moved = permuted(weights, symmetry, torch.arange(symmetry.size).roll(1))
        for axis in symmetry.axes:
            partly = moved | {axis.parameter: weights[axis.parameter]}
            assert not torch.allclose(functional_call(network, partly, (inputs,)), before, atol=1e-5)


def test_every_activation_of_params_yaml_is_there() -> None:
    assert set(ACTIVATIONS) == set(ActivationKind.__args__)
    with pytest.raises(SpecError, match="unknown activation 'swish'; there are tanh, sigmoid"):
        build_module(TINY, "swish")


def test_dropout_is_live_in_training_mode_only() -> None:
    network = build_module(TINY, "tanh", dropout=0.5)
    inputs = torch.randn(4, *TINY.input_shape)
    assert not torch.equal(network(inputs), network(inputs))
    network.eval()
    assert torch.equal(network(inputs), network(inputs))


def test_masks_take_the_place_of_dropout() -> None:
    network = build_module(TINY, "tanh", dropout=0.5)
    inputs = torch.randn(4, *TINY.input_shape)
    ones = {layer: torch.ones(4, *TINY.shapes[layer]) for layer in TINY.dropout_offsets}
    evaluated = build_module(TINY, "tanh")
    evaluated.load_state_dict(network.state_dict())
    assert torch.equal(network(inputs, ones), evaluated.eval()(inputs))
    last = max(TINY.dropout_offsets)
    dead = ones | {last: torch.zeros_like(ones[last])}
    torch.testing.assert_close(network(inputs, dead), network.fc2.bias.expand(4, -1))


def test_layers_without_weights_give_way_to_a_name_that_is_taken() -> None:
    layers = (Flatten(), Linear("activation1", 4, 3), Activation(), Linear("flatten1", 3, 2))
    odd = Architecture("odd", (1, 2, 2), layers)
    network = build_module(odd, "relu")
    assert len(network) == 4
    assert list(network.state_dict()) == list(odd.layout.names)


def test_parameters_of_are_views_of_the_vectors() -> None:
    vectors = torch.randn(3, TINY.layout.size)
    parameters = parameters_of(TINY, vectors)
    vectors.mul_(2)
    expected = TINY.layout.unflatten(vectors.numpy())
    for name, tensor in parameters.items():
        np.testing.assert_array_equal(tensor.numpy(), expected[name])
    with pytest.raises(LayoutError, match="weight vector has 2 entries"):
        parameters_of(TINY, vectors[:, :2])
