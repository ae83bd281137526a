"""Several zoos on one data set: it is prepared once, and each zoo's folder gets a link to the same file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from importlib import metadata
from pathlib import Path

from filelock import FileLock

from weightzoo import seeds
from weightzoo.console import Report
from weightzoo.datasets.description import source_of
from weightzoo.datasets.images import FILE, ImageData
from weightzoo.datasets.preparation import prepare
from weightzoo.datasets.record import Published
from weightzoo.errors import FormatError, MissingError
from weightzoo.spec import DatasetSpec

LIBRARIES = ("numpy", "pillow", "scipy", "scikit-learn")  # that have a say in what is read


def prepare_into(
    folder: Path,
    name: str,
    spec: DatasetSpec,
    *,
    shared: Path,
    downloads: Path | str = ".downloads",
    given: Path | str | None = None,
    on_progress: Report | None = None,
) -> ImageData:
    """Write the data set `name` into `folder`, which `prepare` makes unless `shared` has it from another zoo.

    `shared` keeps the latest of each name. What it has counts only if the section, the published files, the code and
    the libraries are the same, and its content is unharmed.

    Raises:
        WeightzooError: as `prepare`.
    """
    source = source_of(name, spec)
    if not isinstance(source, Published):
        data = prepare(name, spec)
        data.save(folder)
        return data
    place = shared / name
    place.mkdir(parents=True, exist_ok=True)
    kept = place / _key(name, spec, source)
    with FileLock(place / ".lock"):
        try:
            data = ImageData.load(kept)
        except (MissingError, FormatError):
            data = prepare(name, spec, downloads=downloads, given=given, on_progress=on_progress)
            for former in place.glob("*/"):
                shutil.rmtree(former)
            data.save(kept)
        _link(kept / FILE, folder / FILE)
    return data


def _key(name: str, spec: DatasetSpec, source: Published) -> str:
    """A hash of all that the prepared file depends on."""
    code = sorted([*Path(__file__).parent.rglob("*.py"), Path(seeds.__file__)])
    parts = (
        [name, spec.model_dump()],
        [(file.name, file.md5) for file in source.files()],
        [(library, metadata.version(library)) for library in LIBRARIES],
        [hashlib.sha256(path.read_bytes()).hexdigest() for path in code],
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _link(kept: Path, target: Path) -> None:
    """Make `target` the same file as `kept`, or a copy where the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and target.samefile(kept):
        return
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(kept, partial)
    except OSError:
        shutil.copyfile(kept, partial)
    partial.replace(target)
