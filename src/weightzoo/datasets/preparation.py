"""From a section of `params.yaml` to `ImageData`: files, split, size, channels and normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from weightzoo.console import Report
from weightzoo.datasets.description import describe, source_of
from weightzoo.datasets.digits import digits
from weightzoo.datasets.files import downloaded_files, given_files
from weightzoo.datasets.images import ImageData
from weightzoo.datasets.preprocess import fitted
from weightzoo.datasets.readers.bounded import foreign
from weightzoo.datasets.record import Part, Published
from weightzoo.datasets.splits import official_split
from weightzoo.spec import DatasetSpec


def prepare(
    name: str,
    spec: DatasetSpec,
    *,
    downloads: Path | str = ".downloads",
    given: Path | str | None = None,
    on_progress: Report | None = None,
) -> ImageData:
    """The data set `name` as its section of `params.yaml` describes it; the same section gives the same tensors.

    Published files are taken from the folder `given`, or downloaded to `downloads/<source>` unless they are there.
    Test is the official test set, or `spec.test` images of it; train and val are drawn from the official training set.

    Raises:
        SpecError: the source is unknown, or the counts ask for more images than there are.
        DownloadError: a file can't be downloaded.
        MissingError: `given` lacks a file.
        FormatError: a file is not the published one.
    """
    source = source_of(name, spec)
    told = describe(name, spec)  # refuses impossible counts before anything is downloaded
    if not isinstance(source, Published):
        return digits(name, spec)
    if given is None:
        files = downloaded_files(spec.source, source, Path(downloads), on_progress)
    else:
        files = given_files(spec.source, source, Path(given))
    official = source.read(files, source)
    parts = {"train": official.train, "val": official.train, "test": official.test}
    _check_labels(parts, source, files)
    rows = official_split(spec, told.counts, pool=source.train, test=source.test)
    channels, size, _ = told.image_shape
    return ImageData(
        name=name,
        images={
            split: np.ascontiguousarray(fitted(part.pixels(rows[split]), size, channels, crop=source.crop))
            for split, part in parts.items()
        },
        labels={split: part.labels[rows[split]] for split, part in parts.items()},
        mean=(source.mean,) * channels,
        std=(source.std,) * channels,
        class_names=official.class_names,
        source=spec.source,
    )


def _check_labels(parts: Mapping[str, Part], source: Published, files: Mapping[str, Path]) -> None:
    for part in parts.values():
        lowest, highest = int(part.labels.min()), int(part.labels.max())
        if lowest < 0 or highest >= source.classes:
            paths = ", ".join(map(str, files.values()))
            raise foreign(paths, f"labels from {lowest} to {highest}", f"0 to {source.classes - 1}")
