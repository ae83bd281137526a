"""Extrapolation, stopping and errors by class on a synthetic zoo whose weights tell how good a model becomes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.report.synthetic import HYP, synthetic_zoo
from weightzoo.analysis.dynamics.class_errors import class_rows, predict_class_errors
from weightzoo.analysis.dynamics.extrapolation import extrapolate
from weightzoo.analysis.dynamics.prediction import statistics_of, train_and_test, weight_statistics
from weightzoo.analysis.dynamics.stopping import replay_stopping
from weightzoo.analysis.results import Context, Result
from weightzoo.errors import NotFoundError
from weightzoo.zoo import Zoo

QUICK = Context(quick=True)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Zoo:
    factors = HYP | {"weight_decay": [1e-3], "init": ["uniform", "kaiming_normal"]}
    return synthetic_zoo(tmp_path_factory.mktemp("zoos") / "hyp", factors, seeds=2, epochs=12, kept=(0, 1, 3, 5, 12))


@pytest.fixture(scope="module")
def extrapolated(zoo: Zoo) -> Result:
    return extrapolate(zoo, QUICK)


def test_weights_extrapolate_better_than_the_last_value_and_shuffled_targets_nothing(extrapolated: Result):
    found = {(one.estimator, one.features, one.metric): one for one in extrapolated.scores if one.target.endswith(" 1")}
    weights, last = found["extra trees", "s(W)", "R2"], found["last value", "metrics", "R2"]
    assert weights.low > 0.5 > 0 > last.value
    control = found["shuffled targets", "s(W)", "Kendall tau"]
    assert control.low < 0 < control.high
    assert weights.value > 3 * abs(control.value)
    assert weights.models == 24


def test_the_power_law_is_a_baseline_where_there_are_points_enough(extrapolated: Result):
    targets = {one.target for one in extrapolated.scores if one.estimator == "power law"}
    assert targets == {"final test accuracy from epoch 5"}


def test_results_depend_on_the_seed_alone(zoo: Zoo, extrapolated: Result):
    again = extrapolate(zoo, dataclasses.replace(QUICK, threads=2))
    assert again.scores == extrapolated.scores
    other = extrapolate(zoo, dataclasses.replace(QUICK, seed=1))
    assert other.scores != extrapolated.scores


def test_only_the_train_split_is_fitted_on(zoo: Zoo):
    train, test = train_and_test(zoo, QUICK)
    assert set(zoo.models["split"][train]) == {"train"}
    assert set(zoo.models["split"][test]) == {"test"}


def test_statistics_are_numpys_of_now_of_the_start_and_of_the_difference(zoo: Zoo):
    found = statistics_of(zoo, np.array([3, 9]), 5)
    weights = zoo.weights(models=[3, 9], epochs=[0, 5]).astype(np.float64)
    own = weights[1, 1, zoo.layout.span("fc1.bias")]
    place = 7 * [name for name, _ in zoo.layout.parameters].index("fc1.bias")
    expected = [own.mean(), own.var(), *np.percentile(own, [1, 25, 50, 75, 99])]
    np.testing.assert_allclose(found[1, place : place + 7], expected, rtol=1e-5)
    change = weight_statistics(zoo.layout, (weights[:, 1] - weights[:, 0]).astype(np.float32))
    np.testing.assert_allclose(found[:, -change.shape[1] :], change, rtol=1e-3, atol=1e-6)


def test_stopping_early_saves_epochs_and_full_training_has_no_regret(zoo: Zoo):
    found = replay_stopping(zoo, QUICK)
    searches = found.tables["searches"].set_index("strategy")
    assert searches.loc["full training", ["regret", "saved"]].tolist() == [0, 0]
    assert (searches["regret"] >= 0).all()
    assert searches.loc["successive halving, 1/3 go on", "saved"] > 0.6
    assert "only the best behind epoch 1 goes on, by weights" in searches.index
    patience = found.tables["patience"]
    assert patience["saved"].is_monotonic_decreasing


def test_too_few_models_are_refused_and_too_few_to_fit_on_leave_plain_halving(tmp_path):
    small = {**{factor: values[:1] for factor, values in HYP.items()}, "activation": ["tanh", "relu"]}
    few = synthetic_zoo(tmp_path / "few", small, seeds=5, epochs=6)
    with pytest.raises(NotFoundError, match="at least 20 and 8"):
        extrapolate(few, QUICK)
    strategies = replay_stopping(few, QUICK).tables["searches"]["strategy"]
    assert len(strategies) == 6
    with pytest.raises(NotFoundError, match="2 finished models of 6 epochs"):
        replay_stopping(few.select([0, 1]), QUICK)


def test_rows_of_classes_are_standardised_and_blind_to_the_order_of_hidden_units(zoo: Zoo):
    weights = zoo.weights(models=[0, 1], epochs=[12])[:, 0]
    rows = class_rows(zoo.architecture, weights)
    assert rows.shape == (2, 10, 6)
    np.testing.assert_allclose(rows.mean(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(rows.std(axis=1), 1)
    span = zoo.layout.span("fc2.weight")
    turned = weights.copy()
    turned[:, span] = weights[:, span].reshape(2, 10, 20)[:, :, ::-1].reshape(2, -1)
    np.testing.assert_allclose(class_rows(zoo.architecture, turned), rows, atol=1e-6)


def test_a_zoo_whose_classes_are_all_alike_has_errors_but_no_bias_to_predict(zoo: Zoo):
    found = predict_class_errors(zoo, QUICK)
    by_metric = {(one.target, one.metric): one.value for one in found.scores if one.estimator == "extra trees"}
    assert by_metric["test accuracy of a class", "MAE"] == pytest.approx(0, abs=1e-6)  # 0.5 of every class
    assert ("test accuracy of a class", "R2") not in by_metric
    assert len(found.tables["classes"]) == 24 * 10
