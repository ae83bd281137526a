"""The spread of accuracy and gap against a computation by hand."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from tests.report.synthetic import HYP, synthetic_zoo
from weightzoo.analysis.bootstrap import bootstrap
from weightzoo.analysis.diversity import spread
from weightzoo.analysis.results import Context
from weightzoo.errors import NotFoundError

SMALL = {**{factor: values[:1] for factor, values in HYP.items()}, "activation": ["tanh", "relu"]}


def test_spread_is_that_of_the_finished_models(tmp_path):
    zoo = synthetic_zoo(tmp_path / "zoo", SMALL, seeds=4, epochs=3, diverged=[1], pruned=[6])
    result = spread(zoo, Context())

    models = zoo.models.to_dict("records")
    done = [row for row in models if row["status"] == "finished"]
    accuracies = [row["test_accuracy"] for row in done]
    scores = {(score.target, score.metric): score for score in result.scores}
    assert scores["test accuracy", "mean"].value == pytest.approx(statistics.mean(accuracies))
    assert scores["test accuracy", "std"].value == pytest.approx(statistics.stdev(accuracies))
    assert scores["generalisation gap", "std"].value == pytest.approx(
        statistics.stdev(row["generalization_gap"] for row in done)
    )
    for score in result.scores:
        assert score.models == 6
        assert score.low <= score.value <= score.high
    by_factor = result.tables["by_factor"].set_index("value")
    relu = [row["test_accuracy"] for row in done if row["activation"] == "relu"]
    assert by_factor.loc["activation relu", "standard_deviation"] == pytest.approx(statistics.stdev(relu))
    assert by_factor.loc["activation relu", "models"] == 3
    by_epoch = result.tables["by_epoch"]
    last = by_epoch[(by_epoch["metric"] == "test accuracy") & (by_epoch["epoch"] == 3)]
    assert last["standard_deviation"].item() == pytest.approx(statistics.stdev(accuracies))


def test_one_model_has_no_spread(tmp_path):
    zoo = synthetic_zoo(tmp_path / "zoo", {factor: values[:1] for factor, values in HYP.items()}, seeds=1, epochs=2)
    with pytest.raises(NotFoundError, match="two finished models"):
        spread(zoo, Context())


def test_the_interval_of_a_mean_is_that_of_its_standard_error():
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = bootstrap(values, np.mean, np.random.default_rng(1))
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.1)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.05)
