"""What does not see the order of units: the features of the same function under other weights are the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from weightzoo.analysis.features.invariant import invariant
from weightzoo.analysis.features.spectral import spectral
from weightzoo.analysis.features.states import Batch
from weightzoo.analysis.features.statistics import statistics
from weightzoo.architectures import Architecture, architecture
from weightzoo.architectures.forward import forward_pass
from weightzoo.architectures.module import build_module
from weightzoo.architectures.resnet import resnet_18
from weightzoo.architectures.units import WeightGraph
from weightzoo.zoo import Symmetries

ARCHITECTURES = {
    "cnn-s": architecture("cnn-s", (1, 28, 28), 10),
    "cnn-m": architecture("cnn-m", (3, 32, 32), 10),
    "cnn-gap": architecture("cnn-gap", (1, 28, 28), 10),
    "resnet": resnet_18((3, 32, 32), 10, width=4),
}


class _Described:
    """What a batch asks of a zoo, without files."""

    def __init__(self, architecture: Architecture) -> None:
        self.architecture, self.layout = architecture, architecture.layout


def batch_of(own: Architecture, weights: np.ndarray) -> Batch:
    numbers = np.arange(len(weights))
    return Batch(_Described(own), numbers, numbers * 0, weights)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("features", [invariant, spectral, statistics])
def test_features_are_invariant(name: str, features):
    own = ARCHITECTURES[name]
    weights = np.random.default_rng(1).normal(size=(2, own.layout.size)).astype(np.float32)
    index = Symmetries.of(own).random_index(3)
    before, after = features(batch_of(own, weights)), features(batch_of(own, weights[:, index]))
    assert before.keys() == after.keys()
    for column, values in before.items():
        np.testing.assert_allclose(after[column], values, rtol=2e-3, atol=2e-4, err_msg=column)


def test_a_permutation_that_is_no_symmetry_is_seen():
    own = ARCHITECTURES["cnn-s"]
    weights = np.random.default_rng(1).normal(size=(1, own.layout.size)).astype(np.float32)
    other = weights.copy()
    span = own.layout.span("fc1.weight")  # its rows alone, not the columns behind them
    other[:, span] = weights[:, span].reshape(1, 20, 36)[:, ::-1].reshape(1, -1)
    before, after = (invariant(batch_of(own, each)) for each in (weights, other))
    assert all(np.allclose(before[column], after[column], atol=1e-5) for column in before)  # norms can't tell
    other[:, own.layout.span("fc2.bias")] = weights[:, own.layout.span("fc2.bias")][:, ::-1]
    after = invariant(batch_of(own, other))
    assert not np.allclose(before["fc2.bias[0]"], after["fc2.bias[0]"])  # classes are no free units


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_graph_holds_every_parameter_once(name: str):
    own = ARCHITECTURES[name]
    graph = WeightGraph.of(own)
    place = np.arange(own.layout.size)[None]
    parts = [graph.edge_features(place, edges).reshape(-1) for edges in graph.edges]
    parts += [entry.reshape(-1) for n in range(len(graph.units)) for entry in graph.unit_features(place, n)]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), place[0])
    assert [units.free for units in graph.units] == [False] + [True] * len(own.symmetries) + [False]


def test_an_edge_holds_the_weights_between_two_units():
    own = ARCHITECTURES["cnn-s"]
    graph = WeightGraph.of(own)
    weights = np.arange(own.layout.size, dtype=np.float32)[None]
    tensor = own.layout.unflatten(weights)["fc1.weight"][0]
    edges = next(edges for edges in graph.edges if edges.parameter == "fc1.weight")
    np.testing.assert_array_equal(graph.edge_features(weights, edges)[0, 7, 2], tensor[7, 18:27])  # channel 2 of 4


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_forward_pass_of_a_population_is_that_of_modules(name: str):
    own = ARCHITECTURES[name]
    rng = np.random.default_rng(2)
    weights = (0.1 * rng.normal(size=(3, own.layout.size))).astype(np.float32)
    for buffer in own.layout.buffers:
        if buffer.endswith("var"):
            weights[:, own.layout.span(buffer)] = rng.uniform(0.5, 2, weights[:, own.layout.span(buffer)].shape)
    inputs = torch.from_numpy(rng.normal(size=(5, *own.input_shape)).astype(np.float32))
    *_, (_, logits) = forward_pass(own, torch.from_numpy(weights), "gelu", inputs)
    for number, vector in enumerate(weights):
        module = build_module(own, "gelu").eval()
        module.load_state_dict({name: torch.from_numpy(value) for name, value in own.layout.unflatten(vector).items()})
        np.testing.assert_allclose(logits[number].detach(), module(inputs).detach(), rtol=1e-3, atol=1e-4)
