"""Gradients of the stacked engine for random networks, against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import architectures
from tests.training import oracle
from tests.training.helpers import TINY, image_data, make_cohort
from weightzoo import seeds
from weightzoo.architectures.graph import Architecture
from weightzoo.training.reference import ReferenceEngine
from weightzoo.training.stacked import StackedEngine


@settings(max_examples=25, deadline=None, derandomize=True)
@given(architectures(), st.sampled_from(sorted(oracle.ACTIVATIONS)), st.integers(0, 2**32))
def test_one_step_is_the_gradient(architecture: Architecture, activation: str, seed: int) -> None:
    """One epoch of one minibatch by SGD, whose momentum buffer then is the gradient."""
    data = image_data(architecture, train=5, val=3, test=3)
    members = [{"dropout": rate, "seed": seed + row} for row, rate in enumerate((0.0, 0.5, 0.1))]
    cohort = make_cohort(members, activation=activation, optimizer="sgd", epochs=1, batch_size=5, init="kaiming_normal")
    for engine in (StackedEngine(), ReferenceEngine()):
        fresh, trained = engine.train(architecture, cohort, data)
        for row, member in enumerate(cohort.members):
            order = seeds.sample_order(member.seeds.order, 1, 5)
            inputs, labels = data.inputs["train"][order], data.labels["train"][order]
            weights = fresh.state.weights[row].astype(np.float64)
            expected, loss, _ = oracle.gradient(architecture, member, weights, inputs, labels, np.arange(5))
            found = trained.state.slots["momentum_buffer"][row]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * max(1e-3, np.abs(expected).max()))
            np.testing.assert_allclose(trained.metrics.train_loss[row], loss, rtol=1e-5, atol=1e-6)


def test_torch_does_not_warn_of_slow_paths(recwarn: pytest.WarningsRecorder) -> None:
    """`torch.func` says so when it has to fall back to a loop over members."""
    cohort = make_cohort([{"dropout": 0.5}, {}], epochs=1)
    list(StackedEngine().train(TINY, cohort, image_data()))
    assert not [w for w in recwarn if "performance" in str(w.message).lower()]
    assert torch.is_grad_enabled()
