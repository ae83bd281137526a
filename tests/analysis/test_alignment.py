"""Alignment against planted permutations, exhaustive search, and the functions that networks compute."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from tests.report.synthetic import HYP, synthetic_zoo
from tests.training.helpers import SMALL_RESNET, TINY, image_data
from weightzoo.analysis.alignment import (
    align,
    distances,
    match_activations,
    match_weights,
    odd_groups,
    repaired,
)
from weightzoo.analysis.alignment.matching import objective
from weightzoo.architectures import Architecture, architecture
from weightzoo.architectures.graph import Activation, Conv, Flatten, Linear, Residual
from weightzoo.errors import LayoutError, NotFoundError
from weightzoo.training.evaluation import evaluate
from weightzoo.zoo.permute import Symmetries

CNN_S, CNN_M = architecture("cnn-s", (1, 28, 28), 10), architecture("cnn-m", (3, 32, 32), 10)
ALL = pytest.mark.parametrize("built", [CNN_S, CNN_M, SMALL_RESNET, TINY], ids=lambda built: built.name)

# A convolution from a residual stream into itself has the same group on both axes.
LOOP = Architecture(
    "loop",
    (1, 4, 4),
    (
        Conv("stem", 1, 5, kernel=3, padding=1),
        Residual("block", (Conv("block.conv", 5, 5, kernel=3, padding=1),)),
        Activation(),
        Flatten(),
        Linear("fc", 80, 3),
    ),
)
SMALL = Architecture(
    "small",
    (1, 4, 4),
    (
        Conv("conv", 1, 3, kernel=3),
        Activation(),
        Flatten(),
        Linear("fc1", 12, 4),
        Activation(),
        Linear("fc2", 4, 2),
    ),
)


def drawn(built: Architecture, models: int, seed: int = 0) -> np.ndarray:
    """Random weights, variances of batch normalisation positive."""
    weights = np.random.default_rng(seed).normal(0, 0.3, (models, built.layout.size)).astype(np.float32)
    for name in built.layout.buffers:
        if name.endswith("running_var"):
            span = built.layout.span(name)
            weights[:, span] = np.abs(weights[:, span]) + 0.5
    return weights


def planted(built: Architecture, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each model in a random order of units of its own, and the index that did it."""
    symmetries = Symmetries.of(built)
    index = np.stack([symmetries.random_index(5, row) for row in range(len(weights))])
    return np.take_along_axis(weights, index, 1), index


def logits(built: Architecture, weights: np.ndarray, activation: str = "tanh") -> np.ndarray:
    data = image_data(built, test=20)
    found = evaluate(built, activation, weights, data.inputs["test"], data.labels["test"], keep_logits=True).logits
    assert found is not None
    return found


@ALL
def test_a_planted_permutation_is_found_exactly(built: Architecture):
    weights = drawn(built, 3)
    shuffled, _ = planted(built, weights)
    matching = match_weights(Symmetries.of(built), weights, shuffled, starts=8)
    assert matching.apply(shuffled).tobytes() == weights.tobytes()
    euclidean, cosine = distances(built.layout, weights, matching.apply(shuffled))
    assert euclidean.tolist() == [0, 0, 0]
    assert np.abs(cosine).max() < 1e-12
    assert distances(built.layout, weights, shuffled)[0].min() > 1


@ALL
def test_a_planted_permutation_is_found_by_what_the_units_do(built: Architecture):
    weights = drawn(built, 2)
    shuffled, _ = planted(built, weights)
    images = image_data(built).inputs["train"]
    matching = match_activations(built, "tanh", weights, shuffled, images)
    assert matching.apply(shuffled).tobytes() == weights.tobytes()
    one = match_activations(built, "tanh", weights[0], shuffled[:1], images)
    assert one.apply(shuffled[:1]).tobytes() == weights[:1].tobytes()


@ALL
def test_an_aligned_model_computes_the_same_function(built: Architecture):
    weights = drawn(built, 4)
    for matching in (
        match_weights(Symmetries.of(built), weights[0], weights[1:]),
        match_activations(built, "relu", weights[0], weights[1:], image_data(built).inputs["train"]),
    ):
        moved = matching.apply(weights[1:])
        assert (moved != weights[1:]).any(axis=1).all()
        np.testing.assert_allclose(
            logits(built, moved, "relu"), logits(built, weights[1:], "relu"), rtol=1e-3, atol=1e-4
        )


@ALL
def test_alignment_never_takes_models_apart(built: Architecture):
    weights = drawn(built, 6)
    reference, models = weights[:3], weights[3:]
    moved = match_weights(Symmetries.of(built), reference, models).apply(models)
    before, after = (objective(built.layout, reference, own) for own in (models, moved))
    assert (after > before).all()
    assert (distances(built.layout, reference, moved)[0] < distances(built.layout, reference, models)[0]).all()
    again = match_weights(Symmetries.of(built), reference, moved)  # nothing is left to gain
    assert again.apply(moved).tobytes() == moved.tobytes()


def test_many_pairs_are_matched_like_each_alone():
    weights = drawn(CNN_S, 10)
    symmetries = Symmetries.of(CNN_S)
    together = match_weights(symmetries, weights[:5], weights[5:], starts=2, seed=3)
    for row in range(5):
        alone = match_weights(symmetries, weights[row], weights[5 + row : 6 + row], starts=2, seed=3)
        for name, order in alone.permutations.items():
            assert order[0].tolist() == together.permutations[name][row].tolist()


@pytest.mark.parametrize("seed", range(3))
def test_the_best_of_some_starts_is_the_best_of_all_permutations(seed: int):
    symmetries, layout = Symmetries.of(SMALL), SMALL.layout
    reference, model = drawn(SMALL, 2, seed)
    orders = [
        symmetries.index({"conv": np.array(first), "fc1": np.array(second)})
        for first in itertools.permutations(range(3))
        for second in itertools.permutations(range(4))
    ]
    every = model[np.stack(orders)]
    best = objective(layout, np.broadcast_to(reference, every.shape), every).max()
    found = match_weights(symmetries, reference, model[None], starts=12).apply(model[None])
    assert objective(layout, reference[None], found)[0] == pytest.approx(best, abs=1e-9)


def test_more_starts_are_never_worse():
    weights = drawn(CNN_S, 12)
    symmetries = Symmetries.of(CNN_S)
    reached = [
        objective(
            CNN_S.layout,
            weights[:6],
            match_weights(symmetries, weights[:6], weights[6:], starts=starts).apply(weights[6:]),
        )
        for starts in (1, 4)
    ]
    assert (reached[1] >= reached[0] - 1e-9).all()
    assert (reached[1] > reached[0] + 1e-6).any()


def test_a_layer_from_a_stream_into_itself_is_matched_without_loss():
    weights = drawn(LOOP, 20)
    symmetries = Symmetries.of(LOOP)
    moved = match_weights(symmetries, weights[:10], weights[10:]).apply(weights[10:])
    assert (objective(LOOP.layout, weights[:10], moved) >= objective(LOOP.layout, weights[:10], weights[10:])).all()
    shuffled, _ = planted(LOOP, weights)
    assert match_weights(symmetries, weights, shuffled, starts=20).apply(shuffled).tobytes() == weights.tobytes()


def test_signs_are_free_where_nothing_between_is_even():
    assert odd_groups(CNN_S, "tanh") == {"conv3", "fc1"}  # max-pooling is behind the other two
    assert odd_groups(CNN_S, "relu") == set()
    assert odd_groups(SMALL_RESNET, "tanh") == set()
    assert odd_groups(SMALL, "tanh") == {"conv", "fc1"}


def test_planted_signs_are_found_and_change_no_function():
    weights = drawn(CNN_S, 2)
    symmetries, odd = Symmetries.of(CNN_S), odd_groups(CNN_S, "tanh")
    identity = match_weights(symmetries, weights, weights, odd=odd)
    random = np.random.default_rng(1)
    for name, signs in identity.signs.items():
        signs[:] = random.choice([-1, 1], signs.shape)
        identity.permutations[name][:] = random.permuted(identity.permutations[name], axis=1)
    changed = identity.apply(weights)
    np.testing.assert_allclose(logits(CNN_S, changed), logits(CNN_S, weights), atol=1e-5)
    found = match_weights(symmetries, weights, changed, odd=odd, starts=4)
    assert found.apply(changed).tobytes() == weights.tobytes()


def test_repaired_statistics_are_those_of_the_network_itself():
    weights = drawn(SMALL_RESNET, 2)
    data = image_data(SMALL_RESNET)
    images = data.inputs["train"]
    changed = repaired(SMALL_RESNET, "relu", weights, images)
    kept = SMALL_RESNET.layout.is_trained
    assert changed[:, kept].tobytes() == weights[:, kept].tobytes()
    first = SMALL_RESNET.layout.unflatten(weights)["conv1.weight"][0].astype(np.float64)
    padded = np.pad(images.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    outputs = np.einsum("bchwij,ocij->bohw", windows, first)
    tensors = SMALL_RESNET.layout.unflatten(changed)
    np.testing.assert_allclose(tensors["bn1.running_mean"][0], outputs.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(tensors["bn1.running_var"][0], outputs.var((0, 2, 3), ddof=1), rtol=1e-4)
    assert repaired(TINY, "relu", drawn(TINY, 1), data.inputs["train"]).tobytes() == drawn(TINY, 1).tobytes()


def test_models_of_a_zoo_are_aligned_to_one_reference_or_to_one_each(tmp_path: Path):
    factors = {**{factor: values[:1] for factor, values in HYP.items()}, "activation": ["tanh", "relu"]}
    zoo = synthetic_zoo(tmp_path / "zoo", factors, seeds=3, epochs=2)
    to_first = align(zoo, [1, 2], reference=0)
    assert to_first.weights.shape == (2, zoo.layout.size)
    assert (to_first.reference == zoo.weights([0], [2])[0]).all()
    to_each = align(zoo, [1, 2], reference=[2, 0], epoch=1)
    assert (to_each.reference == zoo.weights([2, 0], [1])[:, 0]).all()
    images = np.random.default_rng(0).normal(size=(10, 1, 28, 28)).astype(np.float32)
    assert align(zoo, [1], 0, by="activations", inputs=images).weights.shape == (1, zoo.layout.size)
    with pytest.raises(NotFoundError, match="give inputs"):
        align(zoo, [1], 0, by="activations")
    with pytest.raises(NotFoundError, match="one activation function"):
        align(zoo, [4], 0, by="activations", inputs=images)
    with pytest.raises(NotFoundError, match="2 references for 3 models"):
        align(zoo, [1, 2, 3], [0, 1])


def test_shapes_that_do_not_fit_are_refused():
    weights = drawn(CNN_S, 3)
    with pytest.raises(LayoutError, match="reference"):
        match_weights(Symmetries.of(CNN_S), weights[:2], weights)
    with pytest.raises(LayoutError, match="models: got shape"):
        match_weights(Symmetries.of(CNN_S), weights[0], weights).apply(weights[:2])


def test_what_is_not_finite_stays_in_its_order():
    weights = drawn(CNN_S, 3)
    weights[2, 7] = np.nan
    moved = match_weights(Symmetries.of(CNN_S), weights[0], weights[1:]).apply(weights[1:])
    assert np.array_equal(moved[1], weights[2], equal_nan=True)
    assert not np.array_equal(moved[0], weights[1])
