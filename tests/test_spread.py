"""Members that stand for a whole grid: every value about equally often, no two axes together, always the same."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightzoo.spread import CANDIDATES, spread

MNIST, SVHN, CIFAR10 = (4, 4, 2, 2, 2, 2, 10), (4, 4, 2, 2, 3, 3, 10), (4, 4, 2, 1, 2, 2, 10)
WIDE = (5, 5, 5, 5, 5, 5, 2)  # of more places than are compared at a time
assert math.prod(WIDE) > CANDIDATES


def values(lengths: tuple[int, ...], places: list[int]) -> np.ndarray:
    return np.stack(np.unravel_index(places, lengths))


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=5).map(tuple),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**63 - 1),
)
def test_places_are_distinct_ascending_and_part_of_larger_choices(
    lengths: tuple[int, ...], share: float, seed: int
) -> None:
    size = math.prod(lengths)
    count = max(1, round(share * size))
    places = spread(lengths, count, seed)
    assert len(places) == count
    assert places == sorted(set(places))
    assert places[0] >= 0
    assert places[-1] < size
    assert set(places) <= set(spread(lengths, min(size, count + 3), seed))
    assert spread(lengths, size, seed) == list(range(size))


@pytest.mark.parametrize("lengths", [MNIST, SVHN, CIFAR10, WIDE])
@pytest.mark.parametrize("count", [8, 16, 100])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_values_of_each_axis_come_up_about_equally_often(lengths: tuple[int, ...], count: int, seed: int) -> None:
    for length, taken in zip(lengths, values(lengths, spread(lengths, count, seed)), strict=True):
        often = np.bincount(taken, minlength=length)
        assert often.max() - often.min() <= 2
        assert often.min() > 0 or length > count // 2


@pytest.mark.parametrize("lengths", [MNIST, SVHN, CIFAR10])
def test_sixteen_members_have_every_pair_of_values_of_small_axes(lengths: tuple[int, ...]) -> None:
    taken = values(lengths, spread(lengths, 16, 0))
    for (a, first), (b, second) in itertools.combinations(enumerate(taken), 2):
        if lengths[a] * lengths[b] <= 8:
            assert len(set(zip(first.tolist(), second.tolist(), strict=True))) == lengths[a] * lengths[b]


def test_seeds_draw_different_members() -> None:
    assert spread(MNIST, 16, 0) != spread(MNIST, 16, 1)


def test_regular_distances_would_not_do() -> None:
    """Sixteen of 2,560 at equal distances have one optimiser, one learning rate, one weight decay and no dropout."""
    taken = values(MNIST, list(range(0, 2560, 160)))
    assert [len(set(axis.tolist())) for axis in taken] == [4, 4, 1, 1, 1, 1, 1]
