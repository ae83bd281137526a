"""Ways through weight space that are known: a straight line, a square, a zoo that knows its ranking from the start."""

from __future__ import annotations

import numpy as np
import pytest

from tests.report.synthetic import HYP, synthetic_zoo
from weightzoo.analysis.dynamics.trajectories import describe_trajectories, paths
from weightzoo.analysis.results import Context
from weightzoo.errors import NotFoundError


def test_a_straight_line_and_a_square():
    line = np.array([[3, 4], [6, 8], [9, 12], [12, 16]])
    square = np.array([[1, 0], [2, 0], [2, 1], [1, 1]])
    found = paths(np.stack([line, square]))
    assert found.length.tolist() == [5, 1]
    np.testing.assert_allclose(found.distance, [[0, 5, 10, 15], [0, 1, np.sqrt(2), 1]])
    np.testing.assert_allclose(found.step, [[5, 5, 5], [1, 1, 1]])
    np.testing.assert_allclose(found.angle, [[0, 0], [90, 90]], atol=1e-5)
    np.testing.assert_allclose(found.directness, [1, 1 / 3])


def test_a_model_that_stands_still_has_no_angle_and_one_that_diverged_no_end():
    still, broken = np.ones((3, 2)), np.array([[1, 1], [2, 2], [np.nan, 1]])
    found = paths(np.stack([still, broken]))
    assert np.isnan(found.angle).all()
    assert np.isnan(found.directness).all()
    assert found.step[0].tolist() == [0, 0]


def test_it_says_when_the_ranking_is_known_by_factor(tmp_path):
    small = {**{factor: values[:1] for factor, values in HYP.items()}, "activation": HYP["activation"]}
    zoo = synthetic_zoo(tmp_path / "small", small, seeds=4, epochs=6, kept=(0, 2, 4, 6))
    found = describe_trajectories(zoo, Context())
    ranking, known = found.tables["ranking"], found.tables["known"]
    assert ranking["tau"].iloc[-1] == pytest.approx(1)
    assert set(known["level"]) == {"all models", *HYP["activation"]}
    assert known["models"].tolist() == [16, 4, 4, 4, 4]
    # the synthetic weights go along one straight line each
    geometry = found.tables["geometry"]
    assert geometry["epoch"].tolist() == [0, 2, 4, 6]
    np.testing.assert_allclose(geometry["angle"].dropna(), 0, atol=0.1)
    weights = zoo.weights().astype(np.float64)
    expected = np.linalg.norm(weights[:, 1] - weights[:, 0], axis=1) / np.linalg.norm(weights[:, 0], axis=1)
    assert geometry["speed"].iloc[1] == pytest.approx(np.median(expected) / 2, rel=1e-6)  # an epoch of two
    assert geometry["distance"].iloc[1] == pytest.approx(np.median(expected), rel=1e-6)


def test_a_zoo_without_enough_epochs_is_refused(tmp_path):
    zoo = synthetic_zoo(
        tmp_path / "short", {factor: values[:1] for factor, values in HYP.items()}, epochs=4, kept=(0, 4)
    )
    with pytest.raises(NotFoundError, match="2 finished models with 2 kept epochs"):
        describe_trajectories(zoo, Context())
