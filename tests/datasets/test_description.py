"""A data set's description is told without loading it, and true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from weightzoo.datasets import prepare
from weightzoo.datasets.description import describe
from weightzoo.datasets.sources import SOURCES
from weightzoo.errors import SpecError
from weightzoo.spec import DatasetSource, DatasetSpec

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize(
    "section",
    [{}, {"size": 32, "seed": 3}, {"train": 100}, {"val": 50}, {"train": 300, "val": 20, "test": 60}, {"channels": 3}],
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
    with pytest.raises(SpecError, match=r"datasets.digits: test: 361 does not fit; there are 360 test images"):
        describe("digits", DatasetSpec(test=361))


def test_every_source_that_a_section_may_name_has_a_record() -> None:
    assert set(get_args(DatasetSource)) == set(SOURCES)


PUBLISHED = {  # the table of splits and preprocessing of the published zoos: train, val, test, shape, classes
    "mnist": (50_000, 10_000, 10_000, (1, 28, 28), 10),
    "fashion-mnist": (50_000, 10_000, 10_000, (1, 28, 28), 10),
    "svhn": (60_000, 13_257, 26_032, (1, 28, 28), 10),
    "usps": (6_000, 1_291, 2_007, (1, 28, 28), 10),
    "stl10": (4_200, 800, 8_000, (3, 32, 32), 10),
    "cifar10": (42_000, 8_000, 10_000, (3, 32, 32), 10),
    "cifar100": (40_000, 10_000, 10_000, (3, 32, 32), 100),
    "tiny-imagenet": (90_000, 10_000, 10_000, (3, 64, 64), 200),
}


@pytest.mark.parametrize("source", PUBLISHED)
def test_a_source_without_further_keys_is_that_of_the_published_zoos(source: Any) -> None:
    told = describe(source, DatasetSpec(source=source))
    assert (*told.counts.values(), told.image_shape, told.classes) == PUBLISHED[source]


def test_the_readme_has_a_true_row_for_each_source() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| ([\d,/ ]+\d)[^|]* \| ([\dx]+)", README.read_text(), re.MULTILINE)
    assert [row[0] for row in rows] == list(SOURCES)
    for name, counts, shape in rows:
        told = describe(name, DatasetSpec.model_validate({"source": name}))
        assert counts == " / ".join(f"{count:,}" for count in told.counts.values())
        assert shape == "x".join(map(str, told.image_shape))


def test_keys_change_what_a_source_gives() -> None:
    told = describe("small", DatasetSpec(source="cifar10", size=28, channels=1, train=100, val=20, test=50))
    assert told.image_shape == (1, 28, 28)
    assert told.counts == {"train": 100, "val": 20, "test": 50}
    assert describe("resnet", DatasetSpec(source="cifar10", val=10_000)).counts["train"] == 40_000
