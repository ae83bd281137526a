"""The benchmarks compare like with like: every contestant trains the same networks, and operations are counted right."""

from __future__ import annotations

import dataclasses
import importlib.util

import numpy as np
import pytest
import torch

from tests.benchmarks.cases import ARCHITECTURES, LEARNING_RATE, Case, multiply_adds
from tests.benchmarks.contestants import CONTESTANTS, GroupedConvolutions, JaxVmap, Lanes
from weightzoo.architectures.module import build_module, parameters_of
from weightzoo.training.initial import initial_weights
from weightzoo.training.lanes import LanesEngine

CASE = Case("CNN(s) 1x28x28", batch=5, members=2, images=5)  # a step is an epoch, in any order


def expected_weights() -> np.ndarray:
    """One step of each member with PyTorch's modules and its Adam: float32 `[M, P]`."""
    data, graph = CASE.data(), CASE.graph
    rows: list[np.ndarray] = []
    for vector in initial_weights(graph, CASE.cohort().members):
        network = build_module(graph, "tanh")
        network.load_state_dict(parameters_of(graph, torch.from_numpy(vector)))
        optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
        logits = network(torch.from_numpy(data.inputs["train"]))
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(data.labels["train"]).long()).backward()
        optimizer.step()
        rows.append(torch.cat([p.detach().flatten() for p in network.parameters()]).numpy())
    return np.stack(rows)


def test_grouped_convolutions_train_the_same_models() -> None:
    contestant = GroupedConvolutions(CASE, threads=1)
    assert contestant.step() == 10
    found = np.concatenate([p.detach().flatten(1).numpy() for p in contestant.parameters.values()], axis=1)
    np.testing.assert_allclose(found, expected_weights(), atol=2e-5)


def test_lanes_train_the_same_models() -> None:
    contestant = Lanes(CASE, threads=1)
    done, _ = contestant.train(0.0)
    assert done == 0
    (group,) = contestant.groups
    group.train_epoch(1, contestant.workspaces[0], lambda: False)
    np.testing.assert_allclose(group.weights[:, :2].T, expected_weights(), atol=2e-5)
    *_, last = LanesEngine(1).train(CASE.graph, CASE.cohort(), CASE.data())
    assert group.weights[:, :2].T.tobytes() == last.state.weights.tobytes()


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_jax_trains_the_same_models() -> None:
    contestant = JaxVmap(dataclasses.replace(CASE, images=5), threads=1)
    assert contestant.step() == 10
    for _ in range(4):
        contestant.step()
    assert all(np.isfinite(np.asarray(p)).all() for p in contestant.parameters.values())


@pytest.mark.parametrize("name", [name for name in CONTESTANTS if name != "jax vmap"])
def test_every_contestant_says_what_it_did(name: str) -> None:
    contestant = CONTESTANTS[name][0](CASE, 1)
    done, passed = contestant.train(0.05)
    assert done > 0
    assert done % CASE.images == 0
    assert passed >= 0.05


def test_operations_are_counted_as_by_hand() -> None:
    conv1 = 8 * 25 * (576 + 144)  # forward, weight gradient of one output in each window
    conv2 = 6 * 200 * (64 + 64 + 16)
    conv3 = 4 * 24 * 9 * 3
    linear = 3 * (36 * 20 + 20 * 10)
    assert multiply_adds(ARCHITECTURES["CNN(s) 1x28x28"]) == conv1 + conv2 + conv3 + linear
