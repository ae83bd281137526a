"""A data set's description is told without loading it, and true."""

from __future__ import annotations

from typing import Any

import pytest

from weightzoo.datasets import SOURCES, prepare
from weightzoo.datasets.description import DESCRIPTIONS, describe
from weightzoo.errors import SpecError
from weightzoo.spec import DatasetSpec


@pytest.mark.parametrize(
    "section", [{}, {"size": 32, "seed": 3}, {"train": 100}, {"val": 50}, {"train": 300, "val": 20}]
)
def test_the_description_is_what_prepare_gives(section: dict[str, Any]) -> None:
    spec = DatasetSpec(**section)
    data = prepare("digits", spec)
    told = describe("digits", spec)
    assert told.image_shape == data.image_shape
    assert told.classes == data.classes
    assert told.counts == {split: len(data.labels[split]) for split in ("train", "val", "test")}


def test_too_many_images_are_refused() -> None:
    with pytest.raises(SpecError, match=r"datasets.digits: train: 2000 does not fit"):
        describe("digits", DatasetSpec(train=2000))


def test_every_source_has_a_description() -> None:
    assert set(DESCRIPTIONS) == set(SOURCES)
