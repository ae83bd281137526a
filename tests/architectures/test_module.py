from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call

from tests.strategies import architectures, residual_architectures
from tests.training.helpers import SMALL_RESNET, TINY
from weightzoo.architectures.graph import Activation, Architecture, Flatten, Linear, Symmetry
from weightzoo.architectures.module import ACTIVATIONS, build_module, parameters_of
from weightzoo.architectures.resnet import resnet_18
from weightzoo.errors import LayoutError, SpecError
from weightzoo.spec import ActivationKind


@settings(max_examples=50, deadline=None)
@given(architectures() | residual_architectures(), st.sampled_from([0.0, 0.5]))
def test_parameters_are_those_of_the_layout_at_any_dropout_rate(architecture: Architecture, dropout: float) -> None:
    network, layout = build_module(architecture, "tanh", dropout), architecture.layout
    found = tuple((name, tuple(tensor.shape)) for name, tensor in network.state_dict().items())
    assert found == layout.parameters
    assert [name for name, _ in network.named_parameters()] == [n for n in layout.names if n not in layout.buffers]
    assert sum(parameter.numel() for parameter in network.parameters()) == layout.trained == layout.is_trained.sum()


def permuted(weights: dict[str, torch.Tensor], symmetry: Symmetry, order: torch.Tensor) -> dict[str, torch.Tensor]:
    """The parameters with the hidden units of one symmetry in another order, by its table alone."""
    moved = dict(weights)
    for axis in symmetry.axes:
        tensor = moved[axis.parameter]
        blocks = tensor.unflatten(axis.axis, (symmetry.size, axis.block))
        moved[axis.parameter] = blocks.index_select(axis.axis, order).reshape(tensor.shape)
    return moved


def weights_at_random(architecture: Architecture, random: torch.Generator, scale: float = 1) -> dict[str, torch.Tensor]:
    """Parameters and running means drawn from a normal distribution, running variances positive; float64."""
    vector = scale * torch.randn(architecture.layout.size, generator=random, dtype=torch.float64)
    weights = parameters_of(architecture, vector)
    for name in architecture.layout.buffers:
        if name.endswith("running_var"):
            weights[name].abs_().add_(0.1)
    return weights


@settings(max_examples=80, deadline=None)
@given(architectures() | residual_architectures(), st.sampled_from(sorted(ACTIVATIONS)), st.integers(0, 2**32))
def test_permuting_by_a_symmetry_leaves_the_function(architecture: Architecture, activation: str, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    network = build_module(architecture, activation).double().eval()
    weights = weights_at_random(architecture, random)
    inputs = torch.randn(3, *architecture.input_shape, generator=random, dtype=torch.float64)
    before = functional_call(network, weights, (inputs,))
    for symmetry in architecture.symmetries:
        order = torch.randperm(symmetry.size, generator=random)
        moved = permuted(weights, symmetry, order)
        torch.testing.assert_close(functional_call(network, moved, (inputs,)), before, rtol=1e-9, atol=1e-9)
        if (order != torch.arange(symmetry.size)).any():
            changed = {name for name in weights if not torch.equal(moved[name], weights[name])}
            assert changed == {axis.parameter for axis in symmetry.axes}


@settings(max_examples=50, deadline=None)
@given(architectures())
def test_without_residual_layers_every_hidden_layer_has_its_symmetry(architecture: Architecture) -> None:
    assert [symmetry.name for symmetry in architecture.symmetries] == list(architecture.layout.layers[:-1])


@pytest.mark.parametrize("side", [32, 64])
def test_permuting_a_resnet_leaves_the_function(side: int) -> None:
    resnet = resnet_18((3, side, side), 10)
    random = torch.Generator().manual_seed(side)
    network = build_module(resnet, "relu").double().eval()
    weights = weights_at_random(resnet, random, scale=0.1)
    inputs = torch.randn(1, 3, side, side, generator=random, dtype=torch.float64)
    before = functional_call(network, weights, (inputs,))
    moved = weights
    for symmetry in resnet.symmetries:
        order = torch.randperm(symmetry.size, generator=random)
        moved = permuted(moved, symmetry, order)
    torch.testing.assert_close(functional_call(network, moved, (inputs,)), before, rtol=1e-9, atol=1e-9)
    unmoved = {name for name in weights if torch.equal(moved[name], weights[name])}
    assert unmoved == {"fc.bias"}


def test_the_symmetries_of_resnet_18() -> None:
    found = {symmetry.name: symmetry for symmetry in resnet_18((3, 32, 32), 10).symmetries}
    streams = {"conv1": 64, "layer2.0.conv2": 128, "layer3.0.conv2": 256, "layer4.0.conv2": 512}
    inside = {f"layer{n}.{block}.conv1": 32 * 2**n for n in (1, 2, 3, 4) for block in (0, 1)}
    assert {name: symmetry.size for name, symmetry in found.items()} == streams | inside
    last = {(axis.parameter, axis.axis) for axis in found["layer4.0.conv2"].axes}
    norms = ("layer4.0.bn2", "layer4.0.downsample.1", "layer4.1.bn2")
    assert last == {
        ("layer4.0.conv2.weight", 0),
        ("layer4.0.downsample.0.weight", 0),
        ("layer4.1.conv1.weight", 1),
        ("layer4.1.conv2.weight", 0),
        ("fc.weight", 1),
        *((f"{norm}.{part}", 0) for norm in norms for part in ("weight", "bias", "running_mean", "running_var")),
    }


@pytest.mark.parametrize("architecture", [TINY, SMALL_RESNET], ids=["cnn", "resnet"])
def test_permuting_less_than_a_symmetry_changes_the_function(architecture: Architecture) -> None:
    network = build_module(architecture, "tanh").double().eval()
    weights = weights_at_random(architecture, torch.Generator().manual_seed(1), scale=0.3)
    inputs = torch.randn(3, *architecture.input_shape, dtype=torch.float64)
    before = functional_call(network, weights, (inputs,))
    for symmetry in architecture.symmetries:
        moved = permuted(weights, symmetry, torch.arange(symmetry.size).roll(1))
        for axis in symmetry.axes:
            partly = moved | {axis.parameter: weights[axis.parameter]}
            assert not torch.allclose(functional_call(network, partly, (inputs,)), before, atol=1e-9)


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
