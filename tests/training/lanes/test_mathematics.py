"""Errors of the elementary functions against float64, and what they make of infinities and NaN."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.training.lanes.helpers import apply_elementwise, avx2_target, has_avx2
from weightzoo.training.lanes import mathematics
from weightzoo.training.lanes.activation import ACTIVATIONS
from weightzoo.training.lanes.compile import host_target
from weightzoo.training.lanes.language import Value, fma, sqrt

GRID = np.concatenate(
    [np.linspace(-20, 20, 40_001), np.linspace(-1e-2, 1e-2, 4_001), -np.geomspace(1e-30, 80, 500)]
).astype(np.float32)
ORACLES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "leaky_relu": torch.nn.functional.leaky_relu,
    "gelu": torch.nn.functional.gelu,
    "silu": torch.nn.functional.silu,
}


def test_there_is_an_oracle_for_every_activation() -> None:
    assert ORACLES.keys() == ACTIVATIONS.keys()


@pytest.mark.parametrize("name", ORACLES)
def test_activation_and_derivative(name: str) -> None:
    value, derivative = apply_elementwise(ACTIVATIONS[name], GRID, outputs=2)
    z = torch.tensor(GRID, dtype=torch.float64, requires_grad=True)
    h = ORACLES[name](z)
    h.sum().backward()
    assert z.grad is not None
    expected, slope = h.detach().numpy(), z.grad.numpy()
    assert (np.abs(value - expected) / np.maximum(1, np.abs(expected))).max() < 5e-7
    assert np.abs(derivative - slope).max() < 1e-6


def test_exp() -> None:
    x = np.linspace(-87, 88, 100_001).astype(np.float32)
    (found,) = apply_elementwise(mathematics.exp, x)
    assert np.abs(found / np.exp(x.astype(np.float64)) - 1).max() < 2e-7


def test_log() -> None:
    x = np.geomspace(1e-37, 1e37, 100_001).astype(np.float32)
    x = np.concatenate([x, np.linspace(0.5, 20, 100_001).astype(np.float32)])
    (found,) = apply_elementwise(mathematics.log, x)
    expected = np.log(x.astype(np.float64))
    assert (np.abs(found - expected) / np.maximum(1, np.abs(expected))).max() < 2e-7


def test_normal_distribution_keeps_its_relative_accuracy_in_the_lower_tail() -> None:
    x = np.linspace(-9, 9, 20_001).astype(np.float32)
    distribution, density = apply_elementwise(mathematics.normal, x, outputs=2)
    expected = np.array([math.erfc(-value / math.sqrt(2)) / 2 for value in x.astype(np.float64)])
    assert np.abs(distribution / expected - 1).max() < 5e-6  # the exponent itself, -x**2 / 2, is rounded to 6e-8
    assert np.abs(distribution - expected).max() < 2e-7
    assert np.abs(density - np.exp(-(x.astype(np.float64) ** 2) / 2) / math.sqrt(2 * math.pi)).max() < 2e-7


@pytest.mark.parametrize("name", [*ORACLES, "exp", "log"])
def test_nan_stays_nan_and_touches_no_other_lane(name: str) -> None:
    function = ACTIVATIONS.get(name) or getattr(mathematics, name)
    outputs = 2 if name in ACTIVATIONS else 1
    clean = np.linspace(0.1, 3, 16).astype(np.float32)
    payloads = np.array([0x7FC00000, 0xFFC00000, 0x7FC12345, 0x7F800001], np.uint32).view(np.float32)
    for nan in payloads:
        poisoned = clean.copy()
        poisoned[5] = nan
        found, without = (apply_elementwise(function, x, outputs=outputs) for x in (poisoned, clean))
        assert np.isnan(found[0, 5])
        assert np.delete(found, 5, 1).tobytes() == np.delete(without, 5, 1).tobytes()


def test_saturated_units_have_no_gradient() -> None:
    x = np.linspace(8, 1000, 5000).astype(np.float32)
    h, slope = apply_elementwise(ACTIVATIONS["tanh"], np.concatenate([x, -x]), outputs=2)
    assert (np.abs(h) == 1).all()
    assert (slope == 0).all()


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "relu", "leaky_relu"])
def test_infinite_arguments(name: str) -> None:
    x = np.array([np.inf, -np.inf], np.float32)
    found = apply_elementwise(ACTIVATIONS[name], x, outputs=2)[0]
    np.testing.assert_allclose(found, ORACLES[name](torch.tensor(x)).numpy(), atol=1e-7)


def test_products_are_rounded_where_they_are_written() -> None:
    a, b, c = np.random.default_rng(3).standard_normal((3, 4096)).astype(np.float32)

    def both(x: Value, y: Value, z: Value) -> tuple[Value, ...]:
        return fma(x, y, z), x * y + z, x / y, sqrt(x * x), (x + y) - x

    fused, separate, quotient, root, difference = apply_elementwise(both, a, b, c, outputs=5)
    exact = a.astype(np.float64) * b + c  # exact enough: the product of two float32 is a float64
    assert fused.tobytes() == exact.astype(np.float32).tobytes()
    assert separate.tobytes() == (a * b + c).tobytes()
    assert (fused != separate).any()
    assert quotient.tobytes() == (a / b).tobytes()
    assert root.tobytes() == np.sqrt(a * a).tobytes()
    assert difference.tobytes() == ((a + b) - a).tobytes()


@pytest.mark.parametrize("name", ORACLES)
def test_every_width_gives_the_same_bits(name: str) -> None:
    native = apply_elementwise(ACTIVATIONS[name], GRID, outputs=2)
    targets = [host_target(width) for width in (4, 8, 16)] + ([avx2_target()] if has_avx2() else [])
    for target in targets:
        found = apply_elementwise(ACTIVATIONS[name], GRID, outputs=2, target=target)
        assert found.tobytes() == native.tobytes()
