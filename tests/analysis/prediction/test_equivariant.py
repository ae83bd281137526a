"""Reordering hidden units reorders the network's features, and changes nothing that it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.analysis.features.test_invariant import ARCHITECTURES
from weightzoo.analysis.prediction.equivariant import EquivariantNetwork
from weightzoo.analysis.prediction.fitting import Inputs, Truth, fit_network
from weightzoo.architectures.units import WeightGraph
from weightzoo.zoo import Symmetries


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_it_says_is_invariant(name: str):
    own = ARCHITECTURES[name]
    torch.manual_seed(0)
    weights = torch.randn(3, own.layout.size)
    features = torch.randn(3, 4)
    network = EquivariantNetwork(WeightGraph.of(own), weights, 4, outputs=5, width=8).eval()
    index = torch.from_numpy(Symmetries.of(own).random_index(3))
    with torch.no_grad():
        before, after = network(weights, features), network(weights[:, index], features)
        for one, other in zip(before, after, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(before[0], network(weights.flip(1), features)[0], atol=1e-3)  # but it does look


def test_hidden_features_are_equivariant(monkeypatch: pytest.MonkeyPatch):
    own = ARCHITECTURES["cnn-s"]
    torch.manual_seed(0)
    weights, features = torch.randn(2, own.layout.size), torch.randn(2, 1)
    network = EquivariantNetwork(WeightGraph.of(own), weights, 1, outputs=1, width=8).eval()
    symmetries = Symmetries.of(own)
    order = np.random.default_rng(0).permutation(symmetries["fc1"].size)
    index = torch.from_numpy(symmetries.index({"fc1": order}))
    seen: list[list[torch.Tensor]] = []
    read = network._read_units
    monkeypatch.setattr(network, "_read_units", lambda units: [seen.append(units), read(units)][1])
    with torch.no_grad():
        network(weights, features)
        network(weights[:, index], features)
    group = 1 + [each.name for each in symmetries].index("fc1")
    torch.testing.assert_close(seen[1][group], seen[0][group][:, order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen[1][group - 1], seen[0][group - 1], rtol=1e-4, atol=1e-5)


def test_it_learns_and_is_a_function_of_its_seed():
    own = ARCHITECTURES["cnn-gap"]
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.5, 1.5, 192)
    weights = (rng.normal(size=(192, own.layout.size)) * scale[:, None]).astype(np.float32)
    numbers = ((scale - 1) / scale.std())[:, None]
    numbers[5] = np.nan  # not known
    kinds = np.where(np.arange(192)[:, None] == 7, -1, (scale > 1).astype(np.int64)[:, None])
    classes = np.repeat(scale[:, None] / 2, 10, 1)
    classes[9] = np.nan
    truth = Truth(numbers[:128], kinds[:128], (2,), classes[:128], np.ones(1))
    graph, nothing = WeightGraph.of(own), np.zeros((192, 1))
    steps: list[tuple[int, int]] = []

    def fit(rounds: int):
        inputs = Inputs(weights[:128], nothing[:128])
        return fit_network(
            graph, inputs, truth, rounds=rounds, seed=1, width=8, on_progress=lambda *at: steps.append(at)
        )

    said = fit(12)(Inputs(weights[128:], nothing[128:]))
    assert steps[-1] == (24, 24)
    assert np.corrcoef(said.numbers[:, 0], scale[128:])[0, 1] > 0.9
    assert np.corrcoef(said.kinds[0][:, 1], scale[128:])[0, 1] > 0.7
    assert said.classes.shape == (64, 10)
    state = torch.random.get_rng_state()
    once, again = (fit(1)(Inputs(weights[128:140], nothing[128:140])) for _ in range(2))
    np.testing.assert_array_equal(once.numbers, again.numbers)
    assert torch.equal(state, torch.random.get_rng_state())
