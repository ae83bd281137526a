"""Gradients against PyTorch in float64, for every layer, activation and architecture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.strategies import architectures
from tests.training import oracle
from tests.training.helpers import image_data, make_cohort
from tests.training.lanes.helpers import avx2_target, first_gradients, has_avx2, random_weights
from weightzoo.architectures import Architecture
from weightzoo.architectures.cnn import cnn_m, cnn_s
from weightzoo.architectures.graph import Activation, Conv, Dropout, Flatten, Linear, MaxPool
from weightzoo.seeds import sample_order
from weightzoo.training.lanes.activation import ACTIVATIONS

TOLERANCE = 1e-5  # of the greatest gradient of a parameter tensor, or a tenth of the greatest of all


def assert_gradients(
    architecture: Architecture, activation: str, cache: Path, *, rates: tuple[float, ...] = (0.0,), images: int = 6
) -> None:
    data = image_data(architecture, train=images, val=3, test=3)
    members = [{"dropout": rate} for rate in rates]
    cohort = make_cohort(members, batch_size=images, epochs=1, activation=activation, optimizer="sgd")
    start = random_weights(architecture, cohort)
    found, losses = first_gradients(architecture, cohort, start, data, cache)
    order_free = np.arange(images)
    for row, member in enumerate(cohort.members):
        order = sample_order(member.seeds.order, 1, images)
        weights = start[row].astype(np.float64)
        x, y = data.inputs["train"][order], data.labels["train"][order]
        expected, loss, _ = oracle.gradient(architecture, member, weights, x, y, order_free)
        np.testing.assert_allclose(losses[row], loss, rtol=1e-5)
        for name in architecture.layout.names:
            span = architecture.layout.span(name)
            # A bias gradient may be a small rest of terms that cancel: it can't be more accurate than those.
            scale = max(np.abs(expected[span]).max(), 0.1 * np.abs(expected).max(), 1e-9)
            error = np.abs(found[row, span] - expected[span]).max() / scale
            assert error < TOLERANCE, f"{name}: {error:.1e}"


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_cnn_s(activation: str, cache: Path) -> None:
    assert_gradients(cnn_s(1, 10), activation, cache, rates=(0.0, 0.3, 0.9))


def test_cnn_s_with_three_channels(cache: Path) -> None:
    assert_gradients(cnn_s(3, 10), "tanh", cache)


def test_cnn_m(cache: Path) -> None:
    assert_gradients(cnn_m(3, 10), "gelu", cache, rates=(0.0, 0.5))


ODD = {
    "pool of 3 with remainders": (Conv("c", 1, 5, kernel=3), MaxPool(3), Activation()),
    "pool of 4, stride, padding": (Conv("c", 1, 3, kernel=2, stride=2, padding=2), MaxPool(4), Activation()),
    "pool of 5 is not fused": (Conv("c", 1, 3, kernel=3, padding=1), MaxPool(5), Dropout(), Activation()),
    "pool of pool": (Conv("c", 1, 3, kernel=2), MaxPool(2), MaxPool(2)),
    "pooled image": (MaxPool(2), Activation(), Conv("c", 1, 4, kernel=3, padding=1), Activation()),
    "dropped image": (Dropout(), Conv("c", 1, 2, kernel=5, stride=3), Activation(), Activation(), Dropout()),
    "padding of a pooled layer": (Conv("c", 1, 4, kernel=3), MaxPool(2), Conv("d", 4, 7, kernel=3, padding=2)),
    "kernel wider than the tile": (Conv("c", 1, 9, kernel=9), Activation(), Conv("d", 9, 2, kernel=1), Activation()),
    "many channels": (Conv("c", 1, 40, kernel=2, stride=2), Activation(), Conv("d", 40, 13, kernel=3), MaxPool(2)),
    "nothing but linear": (),
}


@pytest.mark.parametrize("layers", ODD.values(), ids=ODD.keys())
def test_unusual_layers(layers: tuple[Conv | MaxPool, ...], cache: Path) -> None:
    front = Architecture("odd", (1, 17, 15), layers)
    features = int(np.prod(front.shapes[-1] if layers else front.input_shape))
    architecture = Architecture("odd", (1, 17, 15), (*layers, Flatten(), Linear("out", features, 3)))
    assert_gradients(architecture, "sigmoid", cache, rates=(0.0, 0.4))


def test_pointwise_layers_behind_the_logits(cache: Path) -> None:
    layers = (Flatten(), Activation(), Linear("a", 12, 5), Linear("b", 5, 4), Activation(), Dropout())
    assert_gradients(Architecture("tail", (3, 2, 2), layers), "tanh", cache, rates=(0.0, 0.5))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(architecture=architectures(), activation=st.sampled_from(["tanh", "sigmoid", "gelu", "silu"]))
def test_random_graphs(architecture: Architecture, activation: str, cache: Path) -> None:
    # The smooth activations: at a kink of the others, float32 and float64 may rightly differ.
    assert_gradients(architecture, activation, cache, rates=(0.0, 0.25), images=4)


@pytest.mark.skipif(not has_avx2(), reason="the processor has no AVX2")
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(architecture=architectures())
def test_random_graphs_give_the_same_bits_with_other_instructions(architecture: Architecture, cache: Path) -> None:
    data = image_data(architecture, train=4, val=3, test=3)
    cohort = make_cohort([{"dropout": 0.0}, {"dropout": 0.5}], batch_size=4, epochs=1)
    weights = random_weights(architecture, cohort)
    native, _ = first_gradients(architecture, cohort, weights, data, cache)
    other, _ = first_gradients(architecture, cohort, weights, data, cache, avx2_target())
    assert native.tobytes() == other.tobytes()
