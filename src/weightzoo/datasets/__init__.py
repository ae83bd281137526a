"""Image data sets: where each comes from, how it is split and preprocessed, all as `ImageData`."""

from __future__ import annotations

from collections.abc import Callable

from weightzoo.datasets.digits import digits
from weightzoo.datasets.images import ImageData
from weightzoo.errors import SpecError
from weightzoo.spec import DatasetSpec

SOURCES: dict[str, Callable[[str, DatasetSpec], ImageData]] = {"digits": digits}


def prepare(name: str, spec: DatasetSpec) -> ImageData:
    """The data set `name` as its section of `params.yaml` describes it; the same section gives the same tensors.

    Raises:
        SpecError: the source is unknown, or the counts ask for more images than there are.
    """
    if spec.source not in SOURCES:
        raise SpecError(f"datasets.{name}.source is {spec.source!r}; the sources are {', '.join(SOURCES)}")
    return SOURCES[spec.source](name, spec)


__all__ = ["SOURCES", "ImageData", "prepare"]
