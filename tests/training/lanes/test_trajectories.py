"""Fifty steps of each optimiser against float64, with PyTorch's float32 as the control."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training import oracle
from tests.training.helpers import TINY, image_data, make_cohort
from weightzoo.architectures.cnn import cnn_m, cnn_s
from weightzoo.architectures.graph import Architecture
from weightzoo.spec import Constant, Cosine, OneCycle, Schedule, StepDecay
from weightzoo.training.lanes import LanesEngine
from weightzoo.training.reference import ReferenceEngine
from weightzoo.training.schedule import step_factors

MEMBERS = (
    {"init": "kaiming_uniform", "learning_rate": 1e-3, "weight_decay": 1e-2},
    {"init": "kaiming_normal", "learning_rate": 3e-3, "weight_decay": 0.0},
    {"init": "kaiming_uniform", "learning_rate": 1e-3, "weight_decay": 0.1, "dropout": 0.3},
)


@pytest.mark.parametrize(
    ("architecture", "optimizer", "activation", "schedule"),
    [
        (cnn_s(1, 10), "adam", "tanh", Constant()),
        (TINY, "adam", "gelu", OneCycle(kind="one_cycle")),
        (TINY, "adamw", "silu", Cosine(kind="cosine", end=0.1)),
        (TINY, "adamw", "sigmoid", OneCycle(kind="one_cycle")),
        (TINY, "sgd", "tanh", StepDecay(kind="step", every=2, factor=0.3)),
        (TINY, "sgd", "leaky_relu", OneCycle(kind="one_cycle")),
    ],
)
def test_fifty_steps(
    architecture: Architecture, optimizer: str, activation: str, schedule: Schedule, cache: Path
) -> None:
    data = image_data(architecture, train=97, val=10, test=10)  # ten steps an epoch, the last of 7 images
    cohort = make_cohort(
        MEMBERS, epochs=5, batch_size=10, optimizer=optimizer, activation=activation, schedule=schedule
    )
    factors, momenta = step_factors(cohort.protocol, 10, optimizer)
    assert len(factors) == 50
    ours = list(LanesEngine(1, cache=cache).train(architecture, cohort, data))
    control = list(ReferenceEngine().train(architecture, cohort, data))
    for row, member in enumerate(cohort.members):
        expected = oracle.train(architecture, member, data, factors * member.hyperparameters.learning_rate, momenta)
        for lanes, torch32, truth in zip(ours[1:], control[1:], expected, strict=True):
            own, other = (np.abs(r.state.weights[row] - truth.weights).max() for r in (lanes, torch32))
            assert own < max(3 * other, 2e-6), f"epoch {lanes.epoch}: {own:.1e}, PyTorch {other:.1e}"
            own, other = (abs(r.metrics.train_loss[row] - truth.train_loss) for r in (lanes, torch32))
            assert own < max(3 * other, 1e-5), f"epoch {lanes.epoch}: loss {own:.1e}, PyTorch {other:.1e}"


def test_fifty_steps_of_cnn_m(cache: Path) -> None:
    """Of two conv outputs that are nearly equal rounding decides which is the greatest, in PyTorch as well.

    That moves a weight by 1e-5 and more, in some of the members: so their medians are compared.
    """
    architecture = cnn_m(3, 10)
    cohort = make_cohort(MEMBERS, epochs=5, batch_size=10, optimizer="sgd", schedule=Cosine(kind="cosine"))
    factors, momenta = step_factors(cohort.protocol, 10, "sgd")
    deviations: list[tuple[float, float]] = []
    for seed in range(6):
        data = image_data(architecture, train=97, val=10, test=10, seed=seed)
        *_, ours = LanesEngine(1, cache=cache).train(architecture, cohort, data)
        *_, control = ReferenceEngine().train(architecture, cohort, data)
        for row, member in enumerate(cohort.members):
            rates = factors * member.hyperparameters.learning_rate
            *_, truth = oracle.train(architecture, member, data, rates, momenta)
            own, other = (float(np.abs(r.state.weights[row] - truth.weights).max()) for r in (ours, control))
            deviations.append((own, other))
    own, other = np.array(deviations).T
    assert np.median(own) < 1.5 * np.median(other)
    assert np.mean(own > 2e-6) < 0.5
    assert own.max() < 1e-3
