"""The formulas of variational dropout, against integrals, autograd and NumPy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from tests.training.helpers import TINY, make_cohort
from weightzoo import seeds
from weightzoo.architectures.module import build_module
from weightzoo.training.sparse import variational
from weightzoo.training.sparse.noise import Noise, first_counters

SHAPES = {"conv1": (4, 9, 8), "conv2": (3, 3, 3), "fc1": (6,), "fc2": (4,)}


def exact_divergence(log_alpha: float) -> float:
    """E log |1 + sqrt(alpha) z| - log(alpha) / 2 + (Euler's constant + log 2) / 2, which goes to 0 for large alpha."""
    spread = math.exp(log_alpha / 2)
    zero = -1 / spread  # the logarithm's pole

    def integrand(z: float) -> float:
        return math.log(abs(1 + spread * z)) * stats.norm.pdf(z)

    inside = sorted({-12.0, 12.0, *([zero] if abs(zero) < 12 else [])})
    parts = [integrate.quad(integrand, low, high, limit=500)[0] for low, high in itertools.pairwise(inside)]
    return sum(parts) - log_alpha / 2 + (np.euler_gamma + math.log(2)) / 2


@pytest.mark.parametrize("log_alpha", [-8.0, -4.0, -2.0, -1.0, 0.0, 1.0, 3.0, 6.0, 10.0])
def test_the_divergence_is_close_to_its_integral(log_alpha):
    approximated = variational.divergence(torch.tensor(log_alpha, dtype=torch.float64)).item()
    assert approximated == pytest.approx(exact_divergence(log_alpha), abs=0.009)


def test_the_divergence_is_equation_14_and_so_is_its_gradient():
    log_alpha = torch.linspace(-10, 10, 101, dtype=torch.float64, requires_grad=True)
    found = variational.divergence(log_alpha)
    (gradient,) = torch.autograd.grad(found.sum(), log_alpha)
    a = log_alpha.detach().numpy()
    sigmoid = 1 / (1 + np.exp(-(1.8732 + 1.48695 * a)))
    expected = -(0.63576 * sigmoid - 0.5 * np.log1p(np.exp(-a)) - 0.63576)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-12, atol=1e-14)
    slope = -(0.63576 * 1.48695 * sigmoid * (1 - sigmoid) + 0.5 / (1 + np.exp(a)))
    np.testing.assert_allclose(gradient.numpy(), slope, rtol=1e-9, atol=1e-12)
    assert (np.diff(expected) < 0).all()  # the noisier, the cheaper


def test_log_alpha_and_what_is_kept():
    weights = torch.tensor([1.0, -1.0, 0.0, 1e-3, 1e3, math.nan, 1.0])
    log_variance = torch.tensor([-10.0, 2.0, -10.0, -10.0, 3.0, 0.0, math.inf])
    found = variational.log_alpha(weights, log_variance, 8.0)
    expected = [-8.0, 2.0, 8.0, -10 - 2 * math.log(1e-3), -8.0, math.nan, 8.0]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)
    kept = variational.is_kept(found, 3.0)
    assert kept.tolist() == [True, True, False, False, True, True, False]
    assert variational.is_kept(torch.tensor([2.9999, 3.0]), 3.0).tolist() == [True, False]


def test_the_weight_of_the_divergence_rises_to_its_value():
    assert [variational.kl_weight(0.01, epoch, 25) for epoch in (0, 1, 25)] == [0.0, 0.01 / 25, 0.01]
    assert variational.kl_weight(100.0, 20, 25) == 1.0


def test_gradients_are_those_of_the_noisy_network_by_finite_differences():
    torch.manual_seed(0)
    network = build_module(TINY, "tanh").double().eval()
    bounds = variational.add_noise(network)
    assert list(bounds.items()) == [("conv1", 8), ("conv2", 8), ("fc1", 10), ("fc2", 10)]
    parameters = {name: tensor.detach().clone() for name, tensor in network.named_parameters()}
    for name in bounds:
        parameters[f"{name}.variance"] = torch.exp(torch.randn_like(parameters[f"{name}.weight"]) - 3)
    noise = {f"{layer}.noise": torch.randn(3, *shape, dtype=torch.float64) for layer, shape in SHAPES.items()}
    images = torch.randn(3, *TINY.input_shape, dtype=torch.float64)

    def loss(**changed: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(network, {**parameters, **noise, **changed}, (images,)).square().sum()

    for name in ("conv1.variance", "conv2.weight", "fc1.variance", "fc2.weight"):
        leaf = parameters[name].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(**{name: leaf}), leaf)
        direction = torch.randn_like(leaf)
        step = 1e-5 * direction
        with torch.no_grad():
            slope = (loss(**{name: leaf + step}) - loss(**{name: leaf - step})) / 2e-5
        assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-6)
    plain = build_module(TINY, "tanh").double().eval()
    plain.load_state_dict({name: parameters[name] for name in plain.state_dict()})
    network.load_state_dict(plain.state_dict(), strict=False)
    torch.testing.assert_close(network(images), plain(images), rtol=0, atol=0)  # without noise given there is none


def test_shapes_are_those_behind_the_layers():
    assert variational.output_shapes(build_module(TINY, "relu"), TINY.input_shape) == SHAPES
    assert first_counters(SHAPES) == {"conv1": 0, "conv2": 288, "fc1": 316, "fc2": 322}  # 27 outputs take 28 numbers


def test_noise_of_the_engine_is_that_of_seeds_for_every_member_and_visit():
    members = make_cohort([{"seed": 2**40 + row} for row in range(3)]).members
    drawn = Noise(SHAPES, members, torch.device("cpu")).draw(2**32 - 2, batch=5)
    visits = np.array([visit % 2**32 for visit in range(2**32 - 2, 2**32 + 3)], np.uint32)
    for layer, first in first_counters(SHAPES).items():
        for row, member in enumerate(members):
            key = seeds.noise_key(member.seeds.dropout)
            expected = seeds.noise(key, visits, first, math.prod(SHAPES[layer])).reshape(5, *SHAPES[layer])
            np.testing.assert_allclose(drawn[layer][row].numpy(), expected, rtol=0, atol=3e-6)
    alone = Noise(SHAPES, members[2:], torch.device("cpu")).draw(2**32 - 1, batch=1)
    for layer in SHAPES:
        assert torch.equal(alone[layer][0, 0], drawn[layer][2, 1])


def test_noise_is_standard_normal_and_independent():
    key = seeds.noise_key(1)
    noise = seeds.noise(key, np.arange(400), 0, 501)
    assert noise.shape == (400, 501)
    assert stats.kstest(noise.ravel(), "norm").pvalue > 0.01
    pairs = {
        "units": (noise[:, :-1], noise[:, 1:]),
        "visits": (noise[:-1], noise[1:]),
        "halves": (noise[:, :250], noise[:, 251:]),
        "squares of halves": (noise[:, :250] ** 2 - 1, noise[:, 251:] ** 2 - 1),
        "seeds": (noise, seeds.noise(seeds.noise_key(2), np.arange(400), 0, 501)),
    }
    for name, (one, other) in pairs.items():
        correlation = (one * other).mean() / (one.std() * other.std())
        assert abs(correlation) * math.sqrt(one.size) < 4, name
    assert seeds.noise_key(1) != seeds.dropout_key(1)
    np.testing.assert_array_equal(seeds.noise(key, np.array([7]), 4, 10), seeds.noise(key, np.arange(8), 4, 10)[7:])
