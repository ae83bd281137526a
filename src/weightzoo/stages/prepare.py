"""Step 1: the image data set of a zoo, as tensors with a fixed split."""

from __future__ import annotations

import os
from pathlib import Path

from weightzoo.console import progress, say
from weightzoo.datasets import ImageData, prepare_into
from weightzoo.rehearsal import sections
from weightzoo.spec import DatasetSpec, load_params
from weightzoo.workspace import Workspace

GIVEN = "WEIGHTZOO_DATA"  # names the folder of published files that the user has


def prepare(zoo: str, workspace: Workspace, *, given: Path | None = None) -> None:
    """Write `data/<zoo>/` from the `datasets` section that the zoo names.

    Published files are taken from the folder `given`, or that of the environment variable `WEIGHTZOO_DATA`; without
    either they are downloaded when needed.

    Raises:
        SpecError: `params.yaml` has no such zoo or describes an impossible data set.
        DownloadError: a file can't be downloaded.
        MissingError: the given folder lacks a file.
        FormatError: a file is not the published one.
    """
    spec, dataset = sections(zoo, load_params(workspace.params))
    prepare_images(zoo, spec.dataset, dataset, workspace, given=given)


def prepare_images(
    zoo: str, name: str, dataset: DatasetSpec, workspace: Workspace, *, given: Path | None = None
) -> ImageData:
    """Write the data set `name` to `data/<zoo>/`; see `prepare`."""
    given = given or (Path(os.environ[GIVEN]) if os.environ.get(GIVEN) else None)
    with progress(f"prepare {zoo}", unit="kB") as report:
        data = prepare_into(
            workspace.data(zoo),
            name,
            dataset,
            shared=workspace.shared_data,
            downloads=workspace.downloads,
            given=given,
            on_progress=report,
        )
    counts = ", ".join(f"{len(labels):,} {split}" for split, labels in data.labels.items())
    say(f"prepare   {zoo}: {name}, {counts} images of {'x'.join(map(str, data.image_shape))}")
    return data
