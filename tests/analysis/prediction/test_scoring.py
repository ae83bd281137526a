"""R2, MAE and tau against scikit-learn and SciPy; the bootstrap against drawing the states themselves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau
from sklearn.metrics import mean_absolute_error, r2_score

from weightzoo.analysis.prediction import scoring
from weightzoo.analysis.prediction.scoring import classification_scores, regression_scores


def states(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    models = np.repeat(np.arange(0, 24, 2), rng.integers(1, 6, 12))  # numbers with gaps, as in a view
    truth = np.round(rng.normal(size=len(models)), 1)  # with ties
    return truth, np.round(truth + rng.normal(size=len(models)), 1), models


def test_scores_are_those_of_the_libraries():
    truth, predicted, models = states()
    shuffled = np.random.default_rng(3).permutation(len(truth))  # states in any order
    found = regression_scores(truth[shuffled], predicted[shuffled], models[shuffled], np.random.default_rng(0))
    assert found["R2"].value == pytest.approx(r2_score(truth, predicted))
    assert found["MAE"].value == pytest.approx(mean_absolute_error(truth, predicted))
    assert found["tau"].value == pytest.approx(kendalltau(truth, predicted).statistic)


def test_intervals_are_those_of_drawing_models():
    truth, predicted, models = states()
    found = regression_scores(truth, predicted, models, np.random.default_rng(0))
    distinct = np.unique(models)
    draws = np.random.default_rng(0).multinomial(
        len(distinct), np.full(len(distinct), 1 / len(distinct)), scoring.DRAWS
    )
    rows = [np.flatnonzero(models == model) for model in distinct]
    drawn = [np.concatenate([np.tile(own, n) for own, n in zip(rows, counts, strict=True) if n]) for counts in draws]
    for name, score in (
        ("R2", r2_score),
        ("MAE", mean_absolute_error),
        ("tau", lambda a, b: kendalltau(a, b).statistic),
    ):
        low, high = np.quantile([score(truth[own], predicted[own]) for own in drawn], (0.025, 0.975))
        assert (found[name].low, found[name].high) == pytest.approx((low, high), abs=1e-6)


def test_many_states_are_sampled_for_taus_interval_alone(monkeypatch: pytest.MonkeyPatch):
    truth, predicted, models = states()
    monkeypatch.setattr(scoring, "_MOST_STATES", 20)
    found = regression_scores(truth, predicted, models, np.random.default_rng(0))
    assert found["tau"].value == pytest.approx(kendalltau(truth, predicted).statistic)
    assert found["tau"].low < found["tau"].value < found["tau"].high


def test_share_that_is_right():
    truth, said = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 1])
    found = classification_scores(truth, said, np.array([7, 7, 8, 8, 8]), np.random.default_rng(0))["accuracy"]
    assert found.value == pytest.approx(0.8)
    assert (found.low, found.high) == pytest.approx((0.5, 1))  # one model twice
