"""R², mean absolute error and Kendall's tau by weights, against scikit-learn and SciPy on the resample itself."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau
from sklearn.metrics import mean_absolute_error, r2_score

from weightzoo.analysis.dynamics.measures import MEASURES, resamples, scores

LIBRARY = {"R2": r2_score, "MAE": mean_absolute_error, "Kendall tau": lambda x, y: kendalltau(x, y).statistic}


@pytest.mark.parametrize("metric", MEASURES)
def test_a_weighted_measure_is_that_of_the_resample(metric: str):
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 9, 40).astype(float)  # with ties
    predicted = truth + rng.integers(0, 5, 40)
    counts = resamples(40, rng, 5)
    found = MEASURES[metric](truth, predicted, counts)
    for own, value in zip(counts, found, strict=True):
        drawn = np.repeat(np.arange(40), own.astype(int))
        assert value == pytest.approx(LIBRARY[metric](truth[drawn], predicted[drawn]), abs=1e-12)


def test_scores_have_intervals_about_their_values_and_leave_out_what_is_not_defined():
    rng = np.random.default_rng(2)
    truth = rng.normal(size=60)
    found = {one.metric: one for one in scores("t", truth, truth + rng.normal(size=60), rng)}
    assert set(found) == set(MEASURES)
    for one in found.values():
        assert one.low < one.value < one.high
        assert one.models == 60
    assert [one.metric for one in scores("t", np.ones(9), truth[:9], rng)] == ["MAE"]


def test_whole_models_are_resampled_where_several_predictions_are_of_one():
    rng = np.random.default_rng(3)
    truth, error = rng.normal(size=30), rng.normal(size=30)
    alone = scores("t", truth, truth + error, np.random.default_rng(4))
    copies = scores(
        "t", np.tile(truth, 5), np.tile(truth + error, 5), np.random.default_rng(4), models=np.tile(np.arange(30), 5)
    )
    for one, five in zip(alone, copies, strict=True):
        assert (five.value, five.low, five.high) == pytest.approx((one.value, one.low, one.high), abs=0.02)
        assert five.models == 30
