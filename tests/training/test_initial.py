from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from tests.training.helpers import TINY, make_cohort
from weightzoo.architectures.graph import Architecture, Flatten, Linear
from weightzoo.errors import SpecError
from weightzoo.training.initial import initial_weights

WIDE = Architecture("wide", (1, 1, 50), (Flatten(), Linear("fc1", 50, 800), Linear("fc2", 800, 2)))


def weights_of(architecture: Architecture, init: str, seed: int = 1) -> np.ndarray:
    return initial_weights(architecture, make_cohort([{"init": init, "seed": seed}]).members)[0]


@pytest.mark.parametrize("init", ["uniform", "normal", "kaiming_uniform", "kaiming_normal"])
def test_distribution_is_that_of_pytorch(init: str) -> None:
    initialise = {
        "uniform": torch.nn.init.uniform_,
        "normal": torch.nn.init.normal_,
        "kaiming_uniform": torch.nn.init.kaiming_uniform_,
        "kaiming_normal": torch.nn.init.kaiming_normal_,
    }[init]
    torchs = torch.empty(800, 50)
    initialise(torchs, generator=torch.Generator().manual_seed(0))
    ours = weights_of(WIDE, init)[WIDE.layout.span("fc1.weight")]
    assert stats.ks_2samp(ours, torchs.flatten().numpy()).pvalue > 0.01
    assert ours.std() == pytest.approx(torchs.std().item(), rel=0.02)
    assert len(np.unique(ours)) > 0.95 * len(ours)


def test_kaiming_uniform_stays_within_its_bound() -> None:
    own = weights_of(TINY, "kaiming_uniform")
    for name, shape in TINY.layout.parameters:
        if name.endswith("weight"):
            bound = math.sqrt(6 / math.prod(shape[1:]))
            size = np.abs(own[TINY.layout.span(name)]).max()
            assert 0.7 * bound < size <= np.float32(bound)


@pytest.mark.parametrize("init", ["uniform", "normal", "kaiming_uniform", "kaiming_normal"])
def test_biases_are_a_hundredth(init: str) -> None:
    tensors = TINY.layout.unflatten(weights_of(TINY, init))
    assert all((tensor == np.float32(0.01)).all() for name, tensor in tensors.items() if name.endswith("bias"))


@pytest.mark.parametrize(
    ("init", "first", "last"),
    [
        ("uniform", [0.59346485, 0.49777439, 0.46109271], [0.87299305, 0.59771287, 0.19148649]),
        ("normal", [0.56590539, 0.35619372, -0.66594028], [-0.39097506, -0.72816187, 0.51639545]),
        ("kaiming_uniform", [0.10792395, -0.0025699069, -0.044926278], [0.74598616, 0.19542573, -0.61702698]),
        ("kaiming_normal", [0.18863514, 0.11873125, -0.22198008], [-0.22572955, -0.42040446, 0.29814106]),
    ],
)
def test_values_stay_what_they_were(init: str, first: list[float], last: list[float]) -> None:
    """Recorded zoos can be trained anew only as long as these hold."""
    own = weights_of(TINY, init, seed=2**62)
    np.testing.assert_allclose(own[:3], first, rtol=1e-6)
    np.testing.assert_allclose(own[TINY.layout.span("fc2.weight")][-3:], last, rtol=1e-6)


def test_a_members_weights_depend_on_its_init_and_seed_alone() -> None:
    members = make_cohort(
        [
            {"seed": 5, "learning_rate": 1e-3},
            {"seed": 6},
            {"seed": 5, "dropout": 0.5, "weight_decay": 0.1},
            {"seed": 5, "init": "kaiming_normal"},
        ]
    ).members
    own = initial_weights(TINY, members)
    assert own.dtype == np.float32
    assert own[0].tobytes() == own[2].tobytes()
    assert not np.isclose(own[0], own[1])[:72].any()
    assert not np.isclose(own[0], own[3])[:72].any()
    assert initial_weights(TINY, members[::-1]).tobytes() == own[::-1].tobytes()


def test_layers_have_draws_of_their_own() -> None:
    twice = Architecture("twice", (1, 1, 9), (Flatten(), Linear("fc1", 9, 9), Linear("fc2", 9, 9)))
    own = weights_of(twice, "uniform")
    assert not np.isclose(own[twice.layout.span("fc1.weight")], own[twice.layout.span("fc2.weight")]).any()


def test_no_members_no_weights() -> None:
    assert initial_weights(TINY, []).shape == (0, TINY.layout.size)


def test_an_unknown_initialisation_is_refused() -> None:
    with pytest.raises(SpecError, match="unknown initialisation 'xavier'; there are uniform, normal"):
        weights_of(TINY, "xavier")
