"""Population-based training in memory: off, it is plain training to the last bit; on, states are copied whole."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from weightzoo.analysis.dynamics import population_based
from weightzoo.analysis.dynamics.population_based import (
    ALONE,
    FACTORS,
    RULE,
    compare_population_based,
    generations,
)
from weightzoo.analysis.dynamics.trained import member, protocol, train_in_memory
from weightzoo.analysis.results import Context
from weightzoo.architectures import architecture
from weightzoo.evolution import first_generation

CNN = architecture("cnn-s", (1, 28, 28), 3)


@pytest.fixture(scope="module")
def members(three_digits):
    chosen = first_generation(FACTORS, 8, seed=1)
    return [member(CNN, three_digits, one, seed, protocol(4)) for seed, one in enumerate(chosen)]


def ruled(rule):
    return rule.model_copy(update={"models": 4, "generations": 2, "exploit": min(rule.exploit, 0.5) and 0.5})


def test_without_exploitation_it_is_plain_training_bit_for_bit(three_digits, members):
    *_, last = generations(CNN, three_digits, members, ruled(ALONE), 2, seed=0, threads=1)
    plain = train_in_memory(CNN, members, three_digits, threads=1)
    assert np.array_equal(last.state.weights, plain.weights[:, 0])
    assert np.array_equal(last.test_accuracy, plain.metrics["test_accuracy"][:, -1])


def test_a_child_starts_from_the_whole_state_of_its_parent_and_stays_in_its_population(three_digits, members):
    first, second = generations(CNN, three_digits, members, ruled(RULE), 2, seed=0, threads=1)
    moved = np.flatnonzero(second.parents != np.arange(8))
    assert len(moved) == 4  # the worse half of each of the two populations of four
    assert (second.parents // 4 == np.arange(8) // 4).all()
    assert np.array_equal(second.start.weights, first.state.weights[second.parents])
    for name, slot in second.start.slots.items():
        assert np.array_equal(slot, first.state.slots[name][second.parents])
    for place in range(8):
        parent, child = first.members[second.parents[place]], second.members[place]
        assert child.seeds == first.members[place].seeds
        assert (child.hyperparameters == parent.hyperparameters) == (place not in moved)
        rival = first.val_accuracy[place // 4 * 4 : place // 4 * 4 + 4]
        assert first.val_accuracy[second.parents[place]] >= np.median(rival)


def test_it_is_compared_with_random_search_at_equal_cost(three_digits, monkeypatch):
    monkeypatch.setattr(population_based, "EPOCHS", 1)
    found = compare_population_based(SimpleNamespace(architecture=CNN), Context(quick=True, images=three_digits))
    progress = found.tables["progress"]
    assert progress.groupby("method").size().tolist() == [8, 8]
    first = progress[progress["epoch"] == 1]
    assert first["best"].nunique() == 1  # both begin with the same models
    assert {one.estimator for one in found.scores} == {"population-based training", "random search", ""}
    assert found.tables["lineage"]["learning_rate"].between(1e-5, 1e-1).all()
