"""Image data sets: where each comes from, how it is split and preprocessed, all as `ImageData`."""

from __future__ import annotations

from weightzoo.datasets.digits import digits
from weightzoo.datasets.images import ImageData
from weightzoo.datasets.sources import SOURCES, Source
from weightzoo.errors import SpecError
from weightzoo.spec import DatasetSpec


def prepare(name: str, spec: DatasetSpec) -> ImageData:
    """The data set `name` as its section of `params.yaml` describes it; the same section gives the same tensors.

    Raises:
        SpecError: the source can't be prepared, or the counts ask for more images than there are.
    """
    if spec.source != "digits":
        raise SpecError(f"datasets.{name}.source is {spec.source!r}; only 'digits' can be prepared")
    return digits(name, spec)


__all__ = ["SOURCES", "ImageData", "Source", "prepare"]
