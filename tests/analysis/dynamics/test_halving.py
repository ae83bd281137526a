"""Successive halving, Hyperband and patience on small tables, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from weightzoo.analysis.dynamics.halving import (
    Choice,
    early_stopping,
    full_training,
    hyperband,
    random_search,
    rungs,
    successive_halving,
)

# Epochs 0 to 4 of four models. Model 3 starts badly and ends best; model 1 is the best of the quick ones.
CURVES = np.array(
    [
        [0.1, 0.50, 0.55, 0.60, 0.60],
        [0.1, 0.40, 0.70, 0.75, 0.80],
        [0.1, 0.30, 0.35, 0.40, 0.45],
        [0.1, 0.20, 0.60, 0.85, 0.90],
    ]
)


def test_full_training_takes_the_best_at_full_price():
    assert full_training(CURVES) == Choice(3, 16)


def test_halving_by_hand():
    # rungs 1, 2, 4: 4 models for 1 epoch, the better two (0 and 1) for 1 more, the better one (1) for 2 more
    assert rungs(1, 4, 2) == [1, 2, 4]
    assert successive_halving(CURVES, 2) == Choice(1, 4 + 2 + 2)
    # from rung 2: 4 models for 2 epochs, the better two (1 and 3) to the end
    assert successive_halving(CURVES, 2, first=2) == Choice(3, 8 + 4)
    # one in four goes on behind epoch 1
    assert successive_halving(CURVES, 4) == Choice(0, 4 + 3)


def test_a_judge_replaces_the_validation_accuracy_at_the_rungs_but_not_at_the_end():
    final = {1: CURVES[:, -1], 2: CURVES[:, -1]}
    seen = []

    def judge(alive: np.ndarray, epoch: int) -> np.ndarray:
        seen.append((alive.tolist(), epoch))
        return final[epoch][alive]

    assert successive_halving(CURVES, 2, judge=judge) == Choice(3, 8)
    assert seen == [([0, 1, 2, 3], 1), ([3, 1], 2)]


def test_hyperband_by_hand():
    # E = 4, reduction 2: brackets s = 2, 1, 0 of sizes 4, 3, 3 of 10; of 10 models that is 4, 3, 3
    curves = np.concatenate([CURVES, CURVES[:3], CURVES[:3]])
    # s = 2 starts at epoch 1: model 1 for 8 epochs. s = 1 from epoch 2: 3 models for 2, one (1) for 2 more: 8.
    # s = 0: three models to the end, 12. All take the curve of model 1, the first of equals is kept.
    assert hyperband(curves, 2) == Choice(1, 8 + 8 + 12)


def test_random_search_trains_as_many_as_the_budget_allows_and_at_least_one():
    assert random_search(CURVES, 8) == Choice(1, 8)
    assert random_search(CURVES, 3) == Choice(0, 4)
    assert random_search(CURVES, 99) == Choice(3, 16)


def test_patience_by_hand():
    curves = np.array([[0.1, 0.5, 0.4, 0.5, 0.9], [0.1, 0.2, 0.3, 0.4, 0.5], [0.3, 0.2, 0.2, 0.2, 0.2]])
    one, two, many = (early_stopping(curves, patience) for patience in (1, 2, 9))
    assert one.stopped.tolist() == [2, 4, 1]
    assert one.best.tolist() == [1, 4, 0]
    assert two.stopped.tolist() == [3, 4, 2]  # an equal accuracy is no new best
    assert two.best.tolist() == [1, 4, 0]
    assert many.stopped.tolist() == [4, 4, 4]
    assert many.best.tolist() == [4, 4, 0]


@pytest.mark.parametrize("reduction", [2, 3, 4])
def test_halving_costs_no_more_than_full_training_and_takes_one_of_the_models(reduction: int):
    curves = np.random.default_rng(reduction).random((27, 51))
    choice = successive_halving(curves, reduction)
    assert 0 <= choice.model < 27
    assert 50 <= choice.epochs < 27 * 50 / 5
