from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from weightzoo import seeds

WORD = st.integers(0, 2**32 - 1)
MASK = 2**32 - 1

# Drawn when the streams were defined.
STREAM = [12533269879597864561, 12689175691457529911]
ORDER = [4, 0, 2, 9, 7, 5, 6, 3, 8, 1]
KEY = (1759124675, 1650854673)
SPAWN = (1775653747, 1446415200, 791506969)
UNIFORMS = [0.679429921590357, 0.6878815925864253]
NORMALS = [1.4709172212020447, -1.5201634415221152, 0.3342323662483498]


def draw32(key0: int, key1: int, counter: int) -> int:
    """The formula in Python's unbounded integers."""
    x = (counter * 0x9E3779B9 + key0) & MASK
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & MASK
    x ^= key1
    x = ((x ^ (x >> 15)) * 0x846CA68B) & MASK
    return x ^ (x >> 16)


@given(WORD, WORD, WORD)
def test_draw32_is_its_formula(key0: int, key1: int, counter: int) -> None:
    drawn = seeds.draw32(*(np.array([word], np.uint32) for word in (key0, key1, counter)))
    assert drawn.dtype == np.uint32
    assert drawn.tolist() == [draw32(key0, key1, counter)]


@given(st.integers(0, seeds.MAX_SEED), st.lists(WORD, min_size=1, max_size=4), st.floats(0, 0.999))
def test_dropout_keep_is_its_formula(seed: int, visits: list[int], rate: float) -> None:
    key0, key1 = key = seeds.dropout_key(seed)
    units = [0, 1, 1267, 2**20]
    found = seeds.dropout_keep(key, np.array(visits), np.array(units), rate)
    for row, visit in enumerate(visits):
        own = [draw32(key0, key1, (2 * visit + odd) & MASK) for odd in (0, 1)]
        for column, unit in enumerate(units):
            assert found[row, column] == ((draw32(*own, unit) >> 1) >= int(rate * 2**31))


def test_values_stay_what_they_were() -> None:
    """Recorded zoos can be trained anew only as long as these hold."""
    assert seeds.stream(1, "init", 0).random_raw(2).tolist() == STREAM
    assert seeds.sample_order(1, 1, 10).tolist() == ORDER
    assert seeds.dropout_key(1) == KEY
    assert seeds.spawn(1, "member seeds", 3) == SPAWN
    np.testing.assert_array_equal(seeds.uniforms(1, "init", 0, size=2), UNIFORMS)
    np.testing.assert_allclose(seeds.normals(1, "init", 0, size=3), NORMALS, rtol=1e-14)


def test_streams_depend_on_seed_purpose_and_position() -> None:
    places = [
        (1, "init", 0),
        (2, "init", 0),
        (1, "order", 0),
        (1, "init", 1),
        (1, "init", 0, 0),
        (11, "init"),
        (1, "1:init"),
    ]
    first = {place: tuple(seeds.stream(*place).random_raw(2).tolist()) for place in places}
    assert len(set(first.values())) == len(places)
    assert seeds.stream(1, "init", 0).random_raw(2).tolist() == list(first[1, "init", 0])


def test_uniforms_and_normals_are() -> None:
    u, n = seeds.uniforms(5, "test", size=100_000), seeds.normals(5, "test", size=99_999)
    assert len(n) == 99_999
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 0.01
    assert stats.kstest(n, "norm").pvalue > 0.01
    assert abs(np.corrcoef(n[:-1], n[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(n[:50_000], np.append(n[50_000:], 0))[0, 1]) < 0.01  # the two halves share radii
    assert abs(np.corrcoef(n[:50_000] ** 2, np.append(n[50_000:], 0) ** 2)[0, 1]) < 0.01


def test_permutations_are_uniform() -> None:
    """Chi-square over all 24 orders of 4 things, one permutation an epoch."""
    numbers = {order: index for index, order in enumerate(itertools.permutations(range(4)))}
    drawn = [numbers[tuple(seeds.sample_order(3, epoch, 4).tolist())] for epoch in range(1, 4801)]
    assert stats.chisquare(np.bincount(drawn, minlength=24)).pvalue > 0.01


@given(st.integers(0, seeds.MAX_SEED), st.integers(1, 1000), st.integers(0, 300))
def test_orders_visit_every_image_once(seed: int, epoch: int, samples: int) -> None:
    order = seeds.sample_order(seed, epoch, samples)
    assert order.dtype == np.int32
    assert sorted(order.tolist()) == list(range(samples))


def test_spawned_seeds_are_distinct_and_nested() -> None:
    drawn = seeds.spawn(9, "member seeds", 10_000)
    assert len(set(drawn)) == 10_000
    assert 0 <= min(drawn) < max(drawn) < 2**31
    assert seeds.spawn(9, "member seeds", 10) == drawn[:10]


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
def test_dropout_keeps_the_right_share(rate: float) -> None:
    keep = seeds.dropout_keep(seeds.dropout_key(1), np.arange(1000), np.arange(1268), rate)
    assert stats.binomtest(int(keep.sum()), keep.size, 1 - rate).pvalue > 0.01
    # Each row and column is binomial, too: their counts have that distribution's variance.
    for axis, count in ((0, 1000), (1, 1268)):
        assert keep.sum(axis).var() / (count * rate * (1 - rate)) == pytest.approx(1, abs=0.15)


def test_dropout_keeps_all_at_rate_zero() -> None:
    assert seeds.dropout_keep(seeds.dropout_key(1), np.arange(100), np.arange(100), 0.0).all()


def test_dropout_draws_are_independent() -> None:
    """Between neighbouring units, visits, seeds and epochs, and under every shift of the units up to 64."""
    visits, units = np.arange(700), np.arange(700)
    base = seeds.dropout_keep(seeds.dropout_key(1), visits, units, 0.5)
    pairs = {
        "units": (base[:, :-1], base[:, 1:]),
        "visits": (base[:-1], base[1:]),
        "seeds": (base, seeds.dropout_keep(seeds.dropout_key(2), visits, units, 0.5)),
        "epochs": (base, seeds.dropout_keep(seeds.dropout_key(1), 700 + visits, units, 0.5)),
        "transposed": (base, base.T),
    }
    pairs |= {f"shift {by}": (base[:-1, by:], base[1:, :-by]) for by in range(1, 65)}
    for name, (one, other) in pairs.items():
        agree = (one == other).mean()
        deviations = (agree - 0.5) * 2 * np.sqrt(one.size)
        assert abs(deviations) < 4, name


def test_all_bits_of_draw32_are_fair_and_uncorrelated() -> None:
    counters = np.arange(20_000)
    words = seeds.draw32(np.array([12345]), np.array([67890]), counters)
    bits = (words[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    assert np.abs(bits.mean(0) - 0.5).max() < 4.5 / (2 * np.sqrt(len(counters)))
    correlation = np.corrcoef(bits.T) - np.eye(32)
    assert np.abs(correlation).max() < 5 / np.sqrt(len(counters))
