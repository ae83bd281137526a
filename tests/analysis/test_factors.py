"""Effects and shares of variance against sums of squares worked out on paper."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from weightzoo import analysis
from weightzoo.analysis.factors import number
from weightzoo.members import FACTORS


def table(accuracy: list[float], statuses: list[str] | None = None, **factors: list) -> pd.DataFrame:
    count = len(accuracy)
    constant = {"init": "uniform", "activation": "tanh", "optimizer": "adam"} | dict.fromkeys(FACTORS[3:], 0.0)
    columns = {name: [value] * count for name, value in constant.items()} | factors
    return pd.DataFrame(columns | {"test_accuracy": accuracy, "status": statuses or ["finished"] * count})


def shares(models: pd.DataFrame) -> dict[str, float]:
    result = analysis.variance_shares(models)
    return dict(zip(result["source"], result["share"], strict=True))


def test_shares_of_a_grid_with_seeds_by_hand():
    # activation tanh 0.1 0.3 | 0.2 0.4 (dropout 0 | 0.5), relu 0.5 0.7 | 0.8 1.0; two seeds each; grand mean 0.5.
    models = table(
        [0.1, 0.3, 0.2, 0.4, 0.5, 0.7, 0.8, 1.0],
        activation=["tanh"] * 4 + ["relu"] * 4,
        dropout=[0.0, 0.0, 0.5, 0.5] * 2,
    )
    # Cell means .2 .3 .6 .9; SS total .68; activation: means .25 .75, 8 x .0625 = .5; dropout: .4 .6, 8 x .01 = .08;
    # cells: 2 x (.09 + .04 + .01 + .16) = .6; within: 8 x .01 = .08.
    found = shares(models)
    assert found["activation"] == pytest.approx(0.5 / 0.68)
    assert found["dropout"] == pytest.approx(0.08 / 0.68)
    assert found["activation x dropout"] == pytest.approx((0.6 - 0.5 - 0.08) / 0.68)
    assert found["seed"] == pytest.approx(0.08 / 0.68)
    assert sum(found.values()) == pytest.approx(1)


def test_a_full_grid_is_divided_without_rest_and_without_debt():
    rng = np.random.default_rng(3)
    points = list(itertools.product(["uniform", "normal"], ["tanh", "relu", "gelu"], [1e-3, 1e-2], range(3)))
    init, activation, rate, _ = (list(column) for column in zip(*points, strict=True))
    found = shares(table(list(rng.random(len(points))), init=init, activation=activation, learning_rate=rate))
    assert sum(found.values()) == pytest.approx(1)
    assert min(found.values()) > 0
    assert len(found) == 3 + 3 + 1 + 1


def test_models_that_did_not_finish_have_no_part_in_shares_but_are_counted():
    models = table(
        [0.2, 0.4, 0.9, np.nan, 0.8],
        ["finished", "finished", "finished", "diverged", "pruned"],
        activation=["tanh", "tanh", "relu", "relu", "relu"],
    )
    total = sum((value - 0.5) ** 2 for value in (0.2, 0.4, 0.9))
    assert shares(models)["activation"] == pytest.approx((2 * 0.2**2 + 0.4**2) / total)
    effects = analysis.factor_effects(models).set_index("level")
    assert effects.loc["relu", ["models", "finished", "diverged", "pruned"]].tolist() == [3, 1, 1, 1]
    assert effects.loc["relu", "median"] == 0.9
    assert effects.loc["tanh", "mean"] == pytest.approx(0.3)


def test_without_company_nothing_is_ascribed_to_the_seed():
    assert "seed" not in shares(table([0.1, 0.2], activation=["tanh", "relu"]))


@pytest.mark.parametrize(
    "models",
    [table([0.5] * 4, activation=["tanh", "relu"] * 2), table([0.1, 0.2]), table([0.1], activation=["tanh"])],
    ids=["equal accuracies", "no factor varies", "one model"],
)
def test_no_shares_where_there_is_nothing_to_divide(models: pd.DataFrame):
    assert analysis.variance_shares(models).empty


def test_a_level_without_finished_models_keeps_its_row():
    models = table([0.5, np.nan], ["finished", "diverged"], activation=["tanh", "relu"])
    effects = analysis.factor_effects(models).set_index("level")
    assert np.isnan(effects.loc["relu", "median"])
    assert effects.loc["relu", "diverged"] == 1


def test_numbers_are_ordered_and_names_keep_their_order():
    models = table([0.0] * 3, learning_rate=[1e-3, 1e-4, 1e-3], activation=["tanh", "relu", "gelu"])
    assert list(analysis.levels(models, "learning_rate").categories) == ["1e-4", "1e-3"]
    assert list(analysis.levels(models, "learning_rate").codes) == [1, 0, 1]
    assert list(analysis.levels(models, "activation").categories) == ["tanh", "relu", "gelu"]


def test_a_range_is_cut_at_its_quartiles():
    rates = np.geomspace(1e-4, 1e-1, 100)
    bins = analysis.levels(table([0.0] * 100, learning_rate=list(rates)), "learning_rate")
    assert np.bincount(bins.codes).tolist() == [25, 25, 25, 25]
    assert bins.categories[0].startswith("1e-4 to ")
    assert (np.diff(bins.codes) >= 0).all()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.5, "0.5"),
        (1e-3, "1e-3"),
        (3e-4, "3e-4"),
        (1.5e-5, "1.5e-5"),
        (1e5, "1e5"),
        (1234, "1230"),
        (1000, "1000"),
    ],
)
def test_numbers_as_people_write_them(value: float, text: str):
    assert number(value) == text
