"""The masks of the kernels are those of `weightzoo.seeds`, and those are random."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.lanes.helpers import apply_elementwise
from weightzoo import seeds
from weightzoo.training.lanes.dropout import draw32, is_kept
from weightzoo.training.lanes.language import Value


def test_draws_are_those_of_the_seeds_module() -> None:
    words = np.random.default_rng(1).integers(0, 2**32, (3, 5000), np.uint32)
    words[:, :4] = np.array([0, 1, 2**31, 2**32 - 1], np.uint32)
    (found,) = apply_elementwise(draw32, *words.view(np.int32), kind="int")
    np.testing.assert_array_equal(found.view(np.uint32), seeds.draw32(*words))


def test_the_threshold_itself_is_kept() -> None:
    threshold = int(0.3 * 2**31)
    bits = np.array([2 * threshold - 1, 2 * threshold, 2 * threshold + 1, 0, 2**32 - 1, 2**31], np.uint32)

    def kept(drawn: Value, limit: Value) -> Value:
        return is_kept(drawn, limit).select(drawn.code.integer(1), 0)

    (found,) = apply_elementwise(kept, bits.view(np.int32), np.full(6, threshold, np.int32), kind="int")
    assert found.tolist() == [0, 1, 1, 0, 1, 1]
    assert found.tolist() == ((bits >> 1) >= threshold).astype(int).tolist()


VISITS, UNITS = np.arange(4000), np.arange(500)


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.5])
def test_keep_rate_and_independence(rate: float) -> None:
    """Each statistic is standard normal if the masks are independent draws; 5 of them exceed 5 once in 350,000 runs."""
    masks = [seeds.dropout_keep(seeds.dropout_key(seed), VISITS, UNITS, rate) for seed in (1, 2)]
    centred = [(mask - (1 - rate)) / np.sqrt(rate * (1 - rate)) for mask in masks]
    one, other = centred
    n = one.size
    statistics = {
        "rate": one.sum() / np.sqrt(n),
        "members": (one * other).sum() / np.sqrt(n),
        "neighbouring visits": (one[1:] * one[:-1]).sum() / np.sqrt(one[1:].size),
        "neighbouring units": (one[:, 1:] * one[:, :-1]).sum() / np.sqrt(one[:, 1:].size),
        "distant visits": (one[2048:] * one[:-2048]).sum() / np.sqrt(one[2048:].size),
    }
    for name, statistic in statistics.items():
        assert abs(statistic) < 5, f"{name}: {statistic:.1f} standard deviations"
    for axis in (0, 1):  # rates of single units and single visits scatter as they should: chi squared
        sums = one.sum(axis) / np.sqrt(one.shape[axis])
        spread = ((sums**2).sum() - len(sums)) / np.sqrt(2 * len(sums))
        assert abs(spread) < 5
