"""What a data set will look like once it is prepared, told from its section alone: nothing is loaded or downloaded."""

from __future__ import annotations

from dataclasses import dataclass

from weightzoo.datasets.sources import SOURCES, Source
from weightzoo.datasets.splits import split_counts
from weightzoo.errors import SpecError
from weightzoo.spec import DatasetSpec


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
    source = source_of(name, spec)
    counts = split_counts(name, spec, pool=source.train, test=source.test, default_val=source.val)
    size = spec.size or source.size
    return Description((spec.channels or source.channels, size, size), source.classes, counts)


def source_of(name: str, spec: DatasetSpec) -> Source:
    """The record of the source that a section names.

    Raises:
        SpecError: it is unknown.
    """
    if spec.source not in SOURCES:
        raise SpecError(f"datasets.{name}.source: got {spec.source!r}, expected one of {', '.join(SOURCES)}")
    return SOURCES[spec.source]
