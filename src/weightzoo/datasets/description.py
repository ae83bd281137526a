"""What a data set will look like once it is prepared, told from its section alone: nothing is loaded or downloaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from weightzoo.datasets.digits import DEFAULT_VAL_IMAGES, TEST_IMAGES
from weightzoo.datasets.splits import train_and_val_counts
from weightzoo.errors import SpecError
from weightzoo.spec import DatasetSpec

DIGITS_IMAGES, DIGITS_CLASSES = 1797, 10


@dataclass(frozen=True)
class Description:
    """Shapes and counts of a data set."""

    image_shape: tuple[int, int, int]  # channels, height, width
    classes: int
    counts: dict[str, int]  # split -> images


def describe(name: str, spec: DatasetSpec) -> Description:
    """The shapes and counts of the data set `name`, the same as `prepare` gives.

    Raises:
        SpecError: the source is unknown, or the counts ask for more images than there are.
    """
    if spec.source not in DESCRIPTIONS:
        raise SpecError(f"datasets.{name}.source: got {spec.source!r}, expected one of {', '.join(DESCRIPTIONS)}")
    return DESCRIPTIONS[spec.source](name, spec)


def _digits(name: str, spec: DatasetSpec) -> Description:
    train, val = train_and_val_counts(name, spec, DIGITS_IMAGES - TEST_IMAGES, DEFAULT_VAL_IMAGES)
    counts = {"train": train, "val": val, "test": TEST_IMAGES}
    return Description((1, spec.size, spec.size), DIGITS_CLASSES, counts)


DESCRIPTIONS: dict[str, Callable[[str, DatasetSpec], Description]] = {"digits": _digits}
