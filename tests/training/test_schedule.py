from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, StepLR

from weightzoo.members import Protocol
from weightzoo.spec import Constant, Cosine, OneCycle, Schedule, StepDecay
from weightzoo.training.schedule import step_factors

RATE = 0.3


def factors(schedule: Schedule, epochs: int, steps: int, optimizer: str = "sgd") -> tuple[np.ndarray, np.ndarray]:
    return step_factors(Protocol(epochs, 10, schedule, 0.8, (0,)), steps, optimizer)


def pytorch(
    make: object, count: int, optimizer: torch.optim.Optimizer, every: int = 1
) -> tuple[list[float], list[float]]:
    scheduler: LRScheduler = make(optimizer)
    rates, momenta = [], []
    for step in range(count):
        group = optimizer.param_groups[0]
        rates.append(group["lr"])
        momenta.append(group["momentum"] if "momentum" in group else group["betas"][0])
        optimizer.step()
        if step + 1 < count and (step + 1) % every == 0:
            scheduler.step()
    return rates, momenta


def weight() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.zeros(1))]


@pytest.mark.parametrize("steps", [1, 3, 40])
@pytest.mark.parametrize(
    "cycle",
    [
        OneCycle(kind="one_cycle"),
        OneCycle(kind="one_cycle", warmup=0.55, start_divisor=3, end_divisor=7, base_momentum=0.5, max_momentum=0.9),
        OneCycle(kind="one_cycle", warmup=0.01),
    ],
)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_one_cycle_is_pytorchs(cycle: OneCycle, steps: int, optimizer: str) -> None:
    def make(wrapped: torch.optim.Optimizer) -> LRScheduler:
        return OneCycleLR(
            wrapped,
            RATE,
            total_steps=5 * steps,
            pct_start=cycle.warmup,
            div_factor=cycle.start_divisor,
            final_div_factor=cycle.end_divisor,
            base_momentum=cycle.base_momentum,
            max_momentum=cycle.max_momentum,
        )

    wrapped = SGD(weight(), RATE, momentum=0.8) if optimizer == "sgd" else Adam(weight(), RATE)
    rates, momenta = pytorch(make, 5 * steps, wrapped)
    factor, momentum = factors(cycle, 5, steps, optimizer)
    np.testing.assert_allclose(RATE * factor, rates, rtol=1e-12)
    np.testing.assert_allclose(momentum, momenta, rtol=1e-12)


@pytest.mark.parametrize("end", [0.0, 0.2])
def test_cosine_is_pytorchs(end: float) -> None:
    rates, momenta = pytorch(lambda o: CosineAnnealingLR(o, 4 * 25, RATE * end), 100, SGD(weight(), RATE, momentum=0.8))
    factor, momentum = factors(Cosine(kind="cosine", end=end), 4, 25)
    np.testing.assert_allclose(RATE * factor, rates, rtol=1e-9)
    np.testing.assert_array_equal(momentum, momenta)


def test_step_decay_is_pytorchs_stepped_each_epoch() -> None:
    rates, _ = pytorch(lambda o: StepLR(o, 2, 0.5), 7 * 3, SGD(weight(), RATE), every=3)
    factor, _ = factors(StepDecay(kind="step", every=2, factor=0.5), 7, 3)
    np.testing.assert_allclose(RATE * factor, rates, rtol=1e-12)


def test_momentum_of_sgd_and_beta1_of_adam() -> None:
    for schedule in (Constant(), Cosine(kind="cosine"), StepDecay(kind="step", every=1)):
        assert (factors(schedule, 2, 3, "sgd")[1] == 0.8).all()
        assert (factors(schedule, 2, 3, "adam")[1] == 0.9).all()
        assert (factors(schedule, 2, 3, "adamw")[1] == 0.9).all()
    assert (factors(Constant(), 2, 3)[0] == 1).all()


def test_a_warmup_of_one_step_starts_at_the_peak() -> None:
    """PyTorch divides by zero there."""
    factor, momentum = factors(OneCycle(kind="one_cycle", warmup=0.1), 2, 5)
    assert factor[0] == 1
    assert momentum[0] == 0.85
    assert (np.diff(factor) < 0).all()
    assert factor[-1] == pytest.approx(1 / 25 / 1e4)
