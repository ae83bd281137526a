"""A packed zoo in a layout that others read."""

from __future__ import annotations

from pathlib import Path

from weightzoo.console import progress, say
from weightzoo.errors import SpecError
from weightzoo.published import EXPORTS, export_huggingface, export_ray_tune
from weightzoo.workspace import Workspace
from weightzoo.zoo.place import named_place
from weightzoo.zoo.whole import open_whole


def export_zoo(zoo: str, target: Path, workspace: Workspace, *, layout: str, license: str | None = None) -> None:
    """Write `zoos/<zoo>/`, any folder with a packed zoo or one on S3, to the folder `target`.

    Raises:
        MissingError: there is no such zoo.
        SpecError: there is no such layout, or it needs a licence that was not given, or has no place for one.
        FormatError: `target` is something else than the same export.
    """
    if layout not in EXPORTS:
        raise SpecError(f"no layout {layout!r}; there are {', '.join(EXPORTS)}")
    if (license is not None) != (layout == "huggingface"):
        what = "a card names a licence: give one, such as --license cc-by-4.0" if license is None else "has no licence"
        raise SpecError(f"layout {layout}: {what}")
    packed = open_whole(named_place(zoo, workspace))
    with progress(f"export {packed.name}", unit="models" if license is None else "files") as report:
        if license is None:
            written = export_ray_tune(packed, target, on_progress=report)
        else:
            written = export_huggingface(packed, target, license, on_progress=report)
    say(f"export    {packed.name}: {target}" + ("" if written else " is there already, complete"))
