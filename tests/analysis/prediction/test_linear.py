"""Ridge regression against scikit-learn's, at every lambda; which lambda is chosen; outliers and constants."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from weightzoo.analysis.prediction.linear import LAMBDAS, Standardised, ridge, softmax
from weightzoo.analysis.prediction.study import Splits


def splits(features: int, seed: int = 0) -> tuple[Splits, Splits]:
    rng = np.random.default_rng(seed)
    slope = rng.normal(size=features) * (rng.uniform(size=features) < 0.3)
    x = Splits(*(rng.normal(2, 3, (size, features)) for size in (40, 20, 30)))
    return x, Splits(*(own @ slope + rng.normal(size=len(own)) for own in x))


@pytest.mark.parametrize("features", [5, 90])  # fewer than states, and more
@pytest.mark.parametrize("penalty", LAMBDAS[::2])
def test_ridge_is_that_of_sklearn(features: int, penalty: float):
    x, y = splits(features)
    scaled = Standardised.of(x)
    weights, level = scaled.ridge(penalty, y.train)
    expected = Ridge(penalty, solver="svd").fit(scaled.train, y.train)
    np.testing.assert_allclose(scaled.test @ weights + level, expected.predict(scaled.test), rtol=1e-5, atol=1e-5)


def test_lambda_is_chosen_on_val_and_test_is_not_looked_at():
    x, y = splits(90)
    scaled = Standardised.of(x)
    models = [Ridge(penalty, solver="svd").fit(scaled.train, y.train) for penalty in LAMBDAS]
    best = min(models, key=lambda model: np.mean((model.predict(scaled.val) - y.val) ** 2))
    np.testing.assert_allclose(ridge(scaled, y.train, y.val)[1], best.predict(scaled.test), rtol=1e-4, atol=1e-4)


def test_predictions_stay_in_the_range_of_train():
    rng = np.random.default_rng(0)
    features = Standardised.of(Splits(*(scale * rng.normal(size=(30, 2)) for scale in (0.1, 1.0, 1.0))))
    truth = features.train[:, 0]
    on_val, on_test = ridge(features, truth, 3 * features.val[:, 0])
    for said in (on_val, on_test):
        assert (said.min(), said.max()) == (truth.min(), truth.max())


def test_scale_is_that_of_train():
    train = np.array([[1.0, 5.0, np.nan], [3.0, 5.0, 2.0], [5.0, 5.0, 4.0]])
    test = np.array([[3.0, 9.0, np.nan], [1e9, 5.0, 3.0]])
    scaled = Standardised.of(Splits(train, train, test))
    np.testing.assert_allclose(scaled.train[:, 0], np.array([-1, 0, 1]) * np.sqrt(1.5))
    assert (scaled.train[:, 1] == 0).all()  # a constant says nothing
    assert scaled.test.tolist() == [[0, 0, 0], [3, 0, 0]]


def test_softmax_learns_names():
    x, _ = splits(5)
    codes = Splits(*((own.sum(axis=1) > 10).astype(np.int64) for own in x))  # the mean of each feature is 2
    probabilities = softmax(Standardised.of(x), codes.train, codes.val)[1]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (probabilities.argmax(axis=1) == codes.test).mean() > 0.8
