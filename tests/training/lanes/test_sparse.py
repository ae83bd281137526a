"""Members that are made sparse in the kernels: against the loops in float64, and the same bits everywhere."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.training import oracle as dense_oracle
from tests.training.helpers import TINY, image_data
from tests.training.lanes.helpers import apply_elementwise, avx2_target, bytes_of, has_avx2
from tests.training.sparse import oracle
from tests.training.sparse.test_engine import NOISY, PRUNING, sparse_cohort
from weightzoo import seeds
from weightzoo.architectures.cnn import cnn_s
from weightzoo.architectures.graph import Activation, Architecture, Conv, Dropout, Flatten, Linear, MaxPool
from weightzoo.spec import Sparsification
from weightzoo.training.initial import initial_weights
from weightzoo.training.lanes import LanesEngine
from weightzoo.training.lanes.dropout import draw32
from weightzoo.training.lanes.language import Value, sqrt
from weightzoo.training.lanes.mathematics import log, turn
from weightzoo.training.sparse.magnitude import target

METHODS: dict[str, Sparsification] = {"variational": NOISY, "magnitude": PRUNING}
ODD = Architecture(
    "odd",  # the loop in float64 tells convolutions by their names
    (2, 11, 10),
    (
        Conv("conv_a", 2, 5, kernel=3, padding=1), MaxPool(3), Activation(), Dropout(),
        Conv("conv_b", 5, 9, kernel=2, stride=2, padding=1), Activation(),
        MaxPool(2), Conv("conv_c", 9, 4, kernel=1), Flatten(), Linear("fc", 4, 7), Activation(), Dropout(),
        Linear("out", 7, 3),
    ),
)  # fmt: skip


def test_turn() -> None:
    k = np.concatenate([np.arange(0, 2**24, 997), [2**21 - 1, 2**21, 2**23, 2**24 - 1]]).astype(np.int32)

    def both(fraction: Value) -> tuple[Value, Value]:
        cosine, sine = turn(fraction)
        return cosine.bits(), sine.bits()

    found = apply_elementwise(both, k, outputs=2, kind="int").view(np.float32)
    angle = 2 * np.pi * k / 2**24
    assert np.abs(found[0] - np.cos(angle)).max() < 2e-7
    assert np.abs(found[1] - np.sin(angle)).max() < 2e-7


def test_noise_is_that_of_the_seeds_module() -> None:
    key, visits, half = seeds.noise_key(7), np.arange(200), 25
    words = [seeds.draw32(*(np.uint32(word) for word in key), visits * 2 + part) for part in (0, 1)]
    counters = np.arange(half)

    def pair(key0: Value, key1: Value, counter: Value) -> tuple[Value, Value]:
        radius, angle = (draw32(key0, key1, counter + part) >> 8 for part in (10, 10 + half))
        length = sqrt(log((radius.to_float() + 0.5) * 2.0**-24) * -2.0)
        cosine, sine = turn(angle)
        return (length * cosine).bits(), (length * sine).bits()

    grid = [np.repeat(word, half) for word in words] + [np.tile(counters, len(visits))]
    found = apply_elementwise(pair, *(part.astype(np.uint32).view(np.int32) for part in grid), outputs=2, kind="int")
    expected = seeds.noise(key, visits, 10, 2 * half)
    found = found.view(np.float32).reshape(2, len(visits), half)
    np.testing.assert_allclose(np.concatenate([*found], axis=1), expected, atol=3e-6)


@pytest.mark.parametrize(
    ("architecture", "optimizer", "activation"),
    [(TINY, "adam", "tanh"), (TINY, "adamw", "silu"), (ODD, "sgd", "gelu"), (cnn_s(1, 10), "adam", "sigmoid")],
    ids=["tiny-adam", "tiny-adamw", "odd-sgd", "cnn-s-adam"],
)
def test_variational_dropout(architecture: Architecture, optimizer: str, activation: str, cache: Path) -> None:
    data = image_data(architecture, train=24, val=10, test=10)
    cohort = sparse_cohort(NOISY, optimizer=optimizer, activation=activation, batch_size=7)
    results = list(LanesEngine(1, cache=cache).train(architecture, cohort, data))
    dropped = 0
    for row, member in enumerate(cohort.members):
        start = initial_weights(architecture, (member,))[0]
        for result, expected in zip(results[1:], oracle.variational(architecture, member, data, start), strict=True):
            for found, truth, before in (
                (result.state.weights, expected.weights, start),
                (
                    result.state.slots["log_variance"],
                    expected.log_variance,
                    results[0].state.slots["log_variance"][row],
                ),
            ):
                error = np.abs(found[row] - truth) / np.abs(truth - before).max()
                # Adam divides by the gradient's size: where that is close to zero, rounding is all that is left of it.
                assert np.quantile(error, 0.95) < 5e-4
                assert error.max() < (2e-3 if optimizer == "sgd" else 2e-2)
            mask = result.state.slots["mask"][row].astype(bool)
            assert (mask != expected.mask).mean() < 0.01  # whose log alpha is the threshold but for rounding
            assert result.sparse is not None
            np.testing.assert_allclose(result.metrics.train_loss[row], expected.train_loss, rtol=1e-4)
            np.testing.assert_allclose(result.sparse.train_objective[row], expected.train_objective, rtol=1e-4)
            dropped += int((~mask).sum())
    assert dropped > 0


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_magnitude_pruning(optimizer: str, cache: Path) -> None:
    data = image_data()
    cohort = sparse_cohort(PRUNING, optimizer=optimizer)
    _, *results = LanesEngine(1, cache=cache).train(TINY, cohort, data)
    places = np.concatenate([np.arange(s.start, s.stop) for s in map(TINY.layout.span, TINY.prunable)])

    def mask_of_epoch(epoch: int, w: np.ndarray) -> np.ndarray:
        sparsity = target(PRUNING, epoch, len(results))
        mask = w != 0
        if sparsity is not None:
            mask = np.ones(len(w), bool)
            mask[places[np.argsort(np.abs(w[places]), kind="stable")[: round(sparsity * len(places))]]] = False
        return mask

    for row, member in enumerate(cohort.members):
        start = initial_weights(TINY, (member,))[0]
        expected = oracle.masked(TINY, member, data, start, mask_of_epoch, dense_oracle.gradient)
        for result, weights in zip(results, expected, strict=True):
            found, mask = result.state.weights[row], result.state.slots["mask"][row]
            error = np.abs(found - weights) / np.abs(weights - start).max()
            assert np.quantile(error, 0.95) < 5e-4
            np.testing.assert_array_equal(mask == 0, weights == 0)
            assert not found[mask == 0].any()


@pytest.mark.parametrize("method", METHODS)
def test_resumed_training_gives_the_same_bytes(method: str, cache: Path) -> None:
    cohort, data = sparse_cohort(METHODS[method], epochs=4), image_data()
    engine = LanesEngine(1, cache=cache)
    whole = list(engine.train(TINY, cohort, data))
    rest = list(engine.train(TINY, cohort, data, resume=whole[2].state))
    assert bytes_of(rest) == bytes_of(whole[3:])


@pytest.mark.parametrize("method", METHODS)
def test_same_bytes_alone_in_any_lane_with_threads_and_other_instructions(method: str, cache: Path) -> None:
    cohort, data = sparse_cohort(METHODS[method]), image_data()
    many = dataclasses.replace(cohort, members=cohort.members * 5)
    expected = bytes_of(LanesEngine(1, cache=cache).train(TINY, many, data), [0])
    engines = [
        LanesEngine(2, 4, cache=cache),
        *([LanesEngine(1, target=avx2_target(), cache=cache)] if has_avx2() else []),
    ]
    for engine in engines:
        found = list(engine.train(TINY, many, data))
        assert bytes_of(found, [0]) == expected
        assert bytes_of(found, [len(cohort)]) == expected
    assert bytes_of(LanesEngine(1, cache=cache).train(TINY, cohort.select([0]), data), [0]) == expected
