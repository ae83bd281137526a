"""Re-identification: planted copies and descendants are found, what only looks alike is not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.analysis.test_alignment import drawn, planted
from tests.report.synthetic import HYP, synthetic_zoo
from tests.training.helpers import SMALL_RESNET, TINY, image_data
from weightzoo.analysis.identity import Gallery, duplicates, method, noisy, pruned, shuffled
from weightzoo.analysis.identity.gallery import (
    ALIGNED,
    INVARIANT,
    OUTPUTS,
    SORTED,
    WEIGHTS,
    relative_distances,
    same_model,
)
from weightzoo.analysis.results import Context
from weightzoo.architectures import architecture
from weightzoo.errors import NotFoundError
from weightzoo.training.evaluation import evaluate
from weightzoo.zoo import Zoo
from weightzoo.zoo.permute import Symmetries

CNN_S = architecture("cnn-s", (1, 28, 28), 10)
FACTORS = {**{name: values[:1] for name, values in HYP.items()}, "activation": ["tanh", "relu"], "dropout": [0.0, 0.5]}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return synthetic_zoo(tmp_path_factory.mktemp("zoos") / "small", FACTORS, seeds=4, epochs=4)


# Changes


def test_noise_is_as_large_as_it_says():
    weights = drawn(SMALL_RESNET, 3)
    changed = noisy(SMALL_RESNET.layout, weights, 0.5, np.random.default_rng(0))
    for name, span in ((name, SMALL_RESNET.layout.span(name)) for name in SMALL_RESNET.layout.names):
        added = (changed - weights)[:, span]
        if name in SMALL_RESNET.layout.buffers:
            assert not added.any()
        elif added.shape[1] > 500:
            assert added.std(axis=1) == pytest.approx(0.5 * weights[:, span].std(axis=1), rel=0.15)
    constant = np.full((1, TINY.layout.size), 2, np.float32)
    assert (noisy(TINY.layout, constant, 0.1, np.random.default_rng(0)) != constant).any()


def test_the_smallest_weights_are_pruned():
    weights = drawn(CNN_S, 2)
    changed = pruned(CNN_S, weights, 0.7)
    prunable = np.zeros(CNN_S.layout.size, bool)
    for name in CNN_S.prunable:
        prunable[CNN_S.layout.span(name)] = True
    assert (changed[:, ~prunable] == weights[:, ~prunable]).all()
    for own, before in zip(changed[:, prunable], weights[:, prunable], strict=True):
        assert (own == 0).sum() == round(0.7 * prunable.sum())
        assert np.abs(before[own == 0]).max() <= np.abs(before[own != 0]).min()
        assert (own[own != 0] == before[own != 0]).all()


def test_shuffled_networks_compute_what_they_did():
    weights, data = drawn(TINY, 3), image_data(TINY)
    moved = shuffled(Symmetries.of(TINY), weights, np.random.default_rng(0))
    assert (moved != weights).any(axis=1).all()
    one, other = (
        evaluate(TINY, "relu", own, data.inputs["test"], data.labels["test"]).loss for own in (weights, moved)
    )
    assert one == pytest.approx(other, rel=1e-5)


# Duplicates


@pytest.mark.parametrize("built", [CNN_S, SMALL_RESNET, TINY], ids=lambda built: built.name)
def test_duplicates_are_found_in_any_order_of_units(built):
    weights = drawn(built, 6)
    copies, _ = planted(built, weights)
    several = np.stack([weights[0], weights[1], copies[0], weights[2], weights[2], copies[2], weights[3]])
    several[1, -1] = np.nan
    assert duplicates(Symmetries.of(built), several) == ((0, 2), (3, 4, 5))


def test_the_same_values_in_other_places_are_no_duplicate():
    weights = drawn(CNN_S, 1)
    span = CNN_S.layout.span("fc2.weight")
    other = weights.copy()
    other[:, span] = other[:, span][:, ::-1]
    assert duplicates(Symmetries.of(CNN_S), np.concatenate([weights, other])) == ()


# Search


def test_relative_distances_are_those_of_the_formula():
    one, other = drawn(TINY, 2, seed=0), drawn(TINY, 3, seed=1)
    found = relative_distances(TINY.layout, one, other)
    expected = 0.0
    for name in TINY.layout.names:
        a, b = (vectors[row, TINY.layout.span(name)].astype(np.float64) for vectors, row in ((one, 1), (other, 2)))
        expected += ((a - b) ** 2).sum() / ((a**2).sum() + (b**2).sum())
    assert found[1, 2] == pytest.approx(expected)
    assert np.abs(np.diagonal(relative_distances(TINY.layout, one, one))).max() < 1e-12
    assert not relative_distances(TINY.layout, 0 * one, 0 * other).any()


def test_models_are_found_whatever_the_order_of_units(zoo: Zoo):
    weights = drawn(zoo.architecture, 30)
    gallery = Gallery(zoo, weights)
    wanted = np.array([4, 0, 29, 17])
    own = gallery.nearest(noisy(zoo.layout, weights[wanted], 0.2, np.random.default_rng(1)))
    assert set(own) == {WEIGHTS, SORTED, INVARIANT, ALIGNED}
    assert all((found == wanted).all() for found in own.values())
    changed = shuffled(zoo.symmetries, pruned(zoo.architecture, weights[wanted], 0.3), np.random.default_rng(2))
    found = gallery.nearest(changed)
    assert (found[SORTED] == wanted).all()
    assert (found[INVARIANT] == wanted).all()
    assert (found[ALIGNED] == wanted).all()
    assert (found[WEIGHTS] != wanted).any()


def test_outputs_are_compared_up_to_what_changes_no_prediction(zoo: Zoo):
    random = np.random.default_rng(0)
    logits = random.normal(size=(5, 7, 10))
    gallery = Gallery(zoo, drawn(zoo.architecture, 5), logits)
    shifted = 3 * logits[[3, 1]] + random.normal(size=(2, 7, 1))
    assert gallery.nearest(drawn(zoo.architecture, 2), shifted)[OUTPUTS].tolist() == [3, 1]


def test_a_copy_of_the_wanted_model_is_as_good():
    hits = same_model(np.array([0, 2, 5, 1]), np.array([0, 4, 1, 2]), [(2, 4), (1, 5)])
    assert hits.tolist() == [True, True, True, False]


# The method


def test_every_unchanged_checkpoint_is_found(zoo: Zoo):
    result = method.identity(zoo, Context(quick=True))
    table = result.tables["identity"]
    unchanged = table[table["change"] == "none"].set_index(["order", "by"])["accuracy"]
    assert unchanged[method.OWN, WEIGHTS] == 1
    assert unchanged[method.SHUFFLED, ALIGNED] == 1
    assert unchanged[method.SHUFFLED, INVARIANT] == 1
    assert OUTPUTS not in set(table["by"])  # there are no images
    assert not table["change"].str.startswith("trained").any()
    again = method.identity(zoo, Context(quick=True))
    assert again.scores == result.scores
    assert method.identity(zoo, Context(quick=True, seed=1)).scores != result.scores


def test_with_images_models_are_trained_further_and_outputs_compared(zoo: Zoo):
    images = image_data(CNN_S, train=30, val=10, test=50)
    table = method.identity(zoo, Context(quick=True, images=images)).tables["identity"]
    own = table[(table["change"] == "trained 1 epoch more") & (table["order"] == method.SHUFFLED)].set_index("by")
    assert own.loc[ALIGNED, "accuracy"] > 0.8  # an epoch of three steps at a rate of 0.001
    assert (OUTPUTS in own.index) == (zoo.header.probe_images > 0)


def test_the_parents_of_descendants_are_found(tmp_path: Path):
    synthetic_zoo(tmp_path / "parents", FACTORS, seeds=2, epochs=2)
    parents = Zoo.open(tmp_path / "parents")
    zoo = synthetic_zoo(tmp_path / "same", FACTORS, seeds=2, epochs=2)  # the same numbers: each its parent's copy
    zoo.models["parent"] = parents.models["member"]
    zoo.models["parent_epoch"] = 2
    table = method.identity(zoo, Context(quick=True)).tables["identity"]
    own = table[table["change"] == "parent of a descendant"].set_index(["order", "by"])["accuracy"]
    assert own[method.OWN, WEIGHTS] == 1
    assert own[method.SHUFFLED, ALIGNED] == 1


def test_a_zoo_of_one_model_is_refused(zoo: Zoo):
    with pytest.raises(NotFoundError, match="two finished models"):
        method.identity(zoo.select([0]), dataclasses.replace(Context(), quick=True))
