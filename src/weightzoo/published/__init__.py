"""Zoos that others published, read into ours; and ours, written the way that theirs are."""

from __future__ import annotations

from pathlib import Path

from weightzoo.errors import MissingError, SpecError
from weightzoo.published import huggingface, ray_tune, unterthiner
from weightzoo.published.huggingface import export_huggingface
from weightzoo.published.packing import NothingImportedError, pack
from weightzoo.published.ray_export import export_ray_tune
from weightzoo.published.source import Published, Remark, Source

_SCANS = {
    ray_tune.LAYOUT: (ray_tune.is_experiment, ray_tune.scan_experiment),
    unterthiner.LAYOUT: (unterthiner.is_small_cnn_zoo, unterthiner.scan_small_cnn_zoo),
}
LAYOUTS = tuple(_SCANS)
EXPORTS = (ray_tune.LAYOUT, huggingface.LAYOUT)


def open_source(folder: Path, layout: str | None = None, dataset: str | None = None) -> Source:
    """List the models of a published zoo; its layout is recognised unless it is given.

    Raises:
        MissingError: there is no such folder, or nothing in it is a published zoo.
        SpecError: there is no such layout, or nothing tells the data set.
    """
    if not folder.is_dir():
        raise MissingError(f"{folder}: no such folder")
    if layout is not None and layout not in _SCANS:
        raise SpecError(f"no layout {layout!r}; there are {', '.join(_SCANS)}")
    for name, (fits, scan) in _SCANS.items():
        if layout == name or (layout is None and fits(folder)):
            return scan(folder, dataset)
    raise MissingError(
        f"{folder}: no zoo of a layout that is known ({', '.join(_SCANS)}); give the folder that holds it"
    )


__all__ = [
    "EXPORTS",
    "LAYOUTS",
    "NothingImportedError",
    "Published",
    "Remark",
    "Source",
    "export_huggingface",
    "export_ray_tune",
    "open_source",
    "pack",
]
