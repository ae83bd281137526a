"""The methods on zoos with a planted relation: what is there is found, what is not scores nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tests.analysis.prediction.conftest import planted
from weightzoo.analysis.methods import METHODS
from weightzoo.analysis.prediction import estimators
from weightzoo.analysis.prediction.estimators import Boosting, Network, Prediction, Problem, Ranks, together
from weightzoo.analysis.prediction.properties import (
    across,
    predict_another_zoo,
    predict_from_behaviour,
    predict_later_epochs,
    predict_properties,
    predict_with_networks,
)
from weightzoo.analysis.prediction.published import published
from weightzoo.analysis.prediction.study import Splits, Study
from weightzoo.analysis.prediction.targets import ACCURACY, GAP, TARGETS, values_of
from weightzoo.analysis.results import Context, Result
from weightzoo.datasets.images import ImageData
from weightzoo.errors import NotFoundError
from weightzoo.zoo import Zoo

QUICK = Context(quick=True)


def value(result: Result, target: str, metric: str, features: str, estimator: str) -> float:
    (found,) = (
        score.value
        for score in result.scores
        if (score.target, score.metric, score.features, score.estimator) == (target, metric, features, estimator)
    )
    return found


def test_planted_properties_are_found_and_shuffled_ones_are_not(planted_zoo: Zoo):
    found = predict_properties(planted_zoo, QUICK)
    assert value(found, "accuracy", "R2", "s(W)", "boosting") > 0.9
    assert value(found, "accuracy", "tau", "s(W) + invariants", "boosting") > 0.8
    assert value(found, "activation", "accuracy", "s(W)", "linear") > 0.75
    assert value(found, "activation", "accuracy", "", "majority class") == pytest.approx(0.5)
    assert value(found, "learning rate", "R2", "s(W)", "boosting") < 0.3  # nothing in the weights tells it
    for estimator in ("linear", "boosting"):
        assert value(found, "accuracy", "R2", "s(W)", f"{estimator}, values shuffled") < 0.1
        assert abs(value(found, "accuracy", "tau", "s(W)", f"{estimator}, values shuffled")) < 0.25
    assert value(found, "kin of tested models", "pairs", "", "") == 0
    assert {score.target for score in found.scores} == {
        "accuracy", "epoch", "learning rate", "activation", "kin of tested models"
    }  # what does not vary is not there  # fmt: skip
    first = next(score for score in found.scores if score.features == "s(W)" and score.metric == "R2")
    assert (first.published, first.models) == (published("accuracy", "s(W)", "digits"), 16)
    assert first.low is not None
    assert first.low <= first.value <= (first.high or 0)


def test_no_leak_goes_unnoticed(tmp_path):
    def spoil(row: dict[str, object]) -> None:
        if row["split"] == "test" and row["seed_init"] == 2:
            row["split"] = "val"

    found = predict_properties(planted(tmp_path / "leaky", 25, spoil), QUICK)
    assert value(found, "kin of tested models", "pairs", "", "") == 0
    assert value(found, "kin of tested models", "left out", "", "") == 5


def test_networks_and_what_follows(planted_zoo: Zoo, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("weightzoo.analysis.prediction.properties.QUICK_EPOCHS", 2)
    found = predict_with_networks(planted_zoo, QUICK)
    assert value(found, "accuracy", "R2", "weights", "network and boosting") > 0.8
    assert value(found, "accuracy", "R2", "weights", "equivariant network") > 0.3  # after four rounds
    table = found.tables["predictions"]
    assert len(table) == 32
    measured = planted_zoo.epochs.set_index(["model", "epoch"])["test_accuracy"]
    at = list(zip(table["model"], table["epoch"], strict=True))
    np.testing.assert_allclose(table["measured"], measured.loc[at])
    assert set(found.tables["by_epoch"]["metric"]) == {"R2", "tau"}


def test_large_models_have_no_network(planted_zoo: Zoo, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(estimators, "MOST_EDGES", 10)
    with pytest.raises(NotFoundError, match=r"up to 10 pairs of joined units, those of planted have 360"):
        predict_with_networks(planted_zoo, QUICK)


def test_late_epochs_from_early_ones(planted_zoo: Zoo):
    found = predict_later_epochs(planted_zoo, Context())
    assert found.summary.startswith("Fitted to epochs 0 to 2, tested on 4 to 6. Accuracy: R2 ")
    assert {score.target for score in found.scores} == {"accuracy", "learning rate", "activation"}


def test_another_zoo(planted_zoo: Zoo, tmp_path):
    def other(row: dict[str, object]) -> None:
        row["member"], row["group"] = f"a{row['member']}"[:16], f"a{row['group']}"[:16]

    with pytest.raises(NotFoundError, match="--on"):
        predict_another_zoo(planted_zoo, QUICK)
    twin = planted(tmp_path / "twin", 40, other)  # copies, in spite of their names
    with pytest.raises(NotFoundError, match="no train states left"):
        across(planted_zoo, twin, QUICK)
    found = across(planted_zoo.select(slice(0, 70)), planted_zoo.select(slice(70, 80)), QUICK)
    assert value(found, "accuracy", "R2", "s(W)", "boosting") > 0.8
    assert found.scores[0].models == 10


def test_behaviour_needs_images(planted_zoo: Zoo):
    with pytest.raises(NotFoundError, match="images"):
        predict_from_behaviour(planted_zoo, QUICK)


def test_behaviour_stands_beside_weights_and_a_measurement(planted_zoo: Zoo):
    rng = np.random.default_rng(0)
    sizes = {"train": 20, "val": 5, "test": 5}
    images = ImageData(
        "digits",
        {split: rng.integers(0, 256, (size, 1, 28, 28)).astype(np.uint8) for split, size in sizes.items()},
        {split: rng.integers(0, 10, size).astype(np.int32) for split, size in sizes.items()},
        (0.5,),
        (0.5,),
        tuple("0123456789"),
        "0",
    )
    found = predict_from_behaviour(planted_zoo, Context(quick=True, images=images))
    assert {score.features for score in found.scores} == {
        "s(W)", "margins", "homology", "all of these", "validation images"
    }  # fmt: skip
    assert value(found, "accuracy", "R2", "s(W)", "boosting") > 0.6
    assert value(found, "accuracy", "R2", "all of these", "boosting") > 0.6
    assert value(found, "accuracy", "R2", "validation images", "measured") == 1  # there they are as on the test images


def test_ranks_keep_heaps_and_come_back():
    scale = Ranks.of(np.array([0.1, 0.1, 0.1, 0.1, 0.5, 0.7, 0.9, 0.9]))
    assert scale.to(np.array([0.1, 0.5, 0.9, 0.0])).tolist() == [0.25, 0.5625, 0.875, 0]
    assert scale.back(np.array([0.0, 0.1, 0.4, 0.25, 1.2, -3])).tolist() == [0.1, 0.1, 0.1, 0.1, 0.9, 0.1]
    values = np.array([0.1, 0.5, 0.7, 0.9])
    np.testing.assert_array_equal(scale.back(scale.to(values)), values)


def test_the_share_of_each_is_chosen_on_val():
    truth = Splits(np.zeros(3), np.array([1.0, 2.0]), np.array([5.0]))
    problem = Problem(GAP, Splits(*(np.ones(len(own), bool) for own in truth)), truth, ())
    good, bad = Prediction(np.array([1.0, 2.0]), np.array([4.0])), Prediction(np.array([9.0, -3.0]), np.array([0.0]))
    assert together(problem, good, bad).test.tolist() == [4]
    assert together(problem, bad, good).test.tolist() == [4]


def test_values_are_those_of_the_tables(planted_zoo: Zoo):
    study = Study.of(planted_zoo, epochs=[0, 4])
    known = {target.name: values_of(study.test.zoo, target, study.test.states) for target in TARGETS}
    models = study.test.zoo.models.iloc[study.test.models]
    np.testing.assert_array_equal(known["learning rate"].values, np.log10(models["learning_rate"]))
    np.testing.assert_array_equal(known["epoch"].values, study.test.states["epoch"])
    assert known["activation"].labels == ("relu", "tanh")
    assert np.array(known["activation"].labels)[known["activation"].values].tolist() == models["activation"].tolist()
    assert (known["weight decay"].values == 0).all()  # no logarithm of zero
    assert (known["diverged"].values == 0).all()


def test_numbers_that_are_not_known_are_left_out(planted_zoo: Zoo):
    study = Study.of(planted_zoo, epochs=[0, 6])
    problem = Problem.of(study, ACCURACY)
    masks = Splits(*(np.arange(len(own)) % 4 > 0 for own in problem.masks))
    truth = Splits(*(own[mask] for own, mask in zip(problem.truth, masks, strict=True)))
    partly = Problem(ACCURACY, masks, truth, ())
    said = Boosting(study, ("statistics",), 0, quick=True)(partly)
    assert said.test.shape == truth.test.shape
    network = Network(study, [ACCURACY], ("statistics",), [0], 1)
    assert network(partly).test.shape == truth.test.shape


def test_methods_are_registered():
    named = {method.name for method in METHODS}
    assert {"properties", "networks", "behaviour", "later-epochs", "another-zoo"} <= named


def test_published_numbers_are_those_of_the_data_set():
    assert published("accuracy", "embedding", "cifar10") == 0.927
    assert published("init", "W", "fashion-mnist-small") == 0.957
    assert published("dropout", "W", "mnist") is None
