"""Planted leaks are found, left out, and refused."""

from __future__ import annotations

import numpy as np
import pytest

from tests.analysis.prediction.conftest import planted
from tests.zoo.synthetic_zoo import header, records
from weightzoo.analysis.prediction.leaks import check_leaks, find_leaks, without_leaks
from weightzoo.analysis.prediction.study import Study
from weightzoo.errors import LeakError
from weightzoo.zoo import Zoo, write_zoo


def move_to_train(row: dict[str, object]) -> None:
    """One seed of the configurations of test is put into train."""
    if row["split"] == "test" and row["seed_init"] == 2:
        row["split"] = "train"


def test_a_sound_split_has_none(planted_zoo: Zoo):
    for split in ("train", "val"):
        assert not len(find_leaks(planted_zoo.split(split), planted_zoo.split("test")))
    study = Study.of(planted_zoo, epochs=[0, 6])
    assert study.left_out == 0
    assert len(study.train) == 2 * len(planted_zoo.split("train"))


def test_a_configuration_in_both_is_found_and_left_out(tmp_path):
    zoo = planted(tmp_path / "leaky", 20, move_to_train)
    train, test = zoo.split("train"), zoo.split("test")
    found = find_leaks(train, test)
    assert len(found) == len(test) == 4
    assert set(found["kind"]) == {"configuration"}
    with pytest.raises(LeakError, match=r"4 pairs of a model fitted to and one tested on are kin.*configuration"):
        check_leaks(train, test)
    kept, left = without_leaks(train, test)
    assert (left, len(kept)) == (4, len(train) - 4)
    study = Study.of(zoo, epochs=[6])
    assert study.left_out == 4
    assert not set(study.train.zoo.models["group"]) & set(study.test.zoo.models["group"])


def test_twins_copies_and_the_model_itself_are_found(tmp_path):
    head = header(4)
    made = records(head)
    made = [record for number, record in enumerate(made) if number not in (1, 2)] + made[2:3]
    member = made[0].row["member"]
    made[1].row["parent"], made[1].row["parent_epoch"] = member, 4
    made[2].row["group"] = "f" * 16
    made = made[:3]
    copy = records(head)[0]
    copy.row["member"], copy.row["group"] = "e" * 16, "e" * 16
    zoo = Zoo.open(write_zoo(tmp_path / "kin", header(4), [*made, copy]))
    kinds = find_leaks(zoo.select([0]), zoo)
    told = dict(zip(kinds["tested"], kinds["kind"], strict=True))
    assert told == {0: "model", 1: "twin", 3: "duplicate"}


def test_another_zoos_models_are_looked_at(planted_zoo: Zoo, tmp_path):
    other = planted(tmp_path / "other", 40)  # the same models
    study_train, left = without_leaks(planted_zoo.split("train"), other)
    assert left == len(planted_zoo.split("train"))
    assert len(study_train) == 0
    assert np.isfinite(planted_zoo.weights([0], [0])).all()
