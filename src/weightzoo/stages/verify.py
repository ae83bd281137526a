"""Check a packed zoo against itself and, where its data set is at hand, against the images."""

from __future__ import annotations

from pathlib import Path

from weightzoo.console import progress
from weightzoo.datasets import ImageData
from weightzoo.errors import MissingError
from weightzoo.verify import Finding, verify_zoo
from weightzoo.workspace import Workspace


def verify(zoo: str, workspace: Workspace, *, sample: int) -> list[Finding]:
    """Check `zoos/<zoo>/`, or any folder with a packed zoo; `sample` models are evaluated again on `data/<zoo>/`.

    Raises:
        MissingError: there is no such zoo.
    """
    folder = packed_zoo(zoo, workspace)
    try:
        data = ImageData.load(workspace.data(folder.name))
    except MissingError:
        data = None
    with progress(f"verify {folder.name}", unit="checks") as report:
        return verify_zoo(folder, data=data, sample=sample, on_progress=report)


def packed_zoo(zoo: str, workspace: Workspace) -> Path:
    """The folder of a packed zoo that was given by name or by path.

    Raises:
        MissingError: there is neither.
    """
    for folder in (workspace.zoo(zoo), Path(zoo)):
        if (folder / "zoo.json").is_file():
            return folder
    raise MissingError(f"no packed zoo {zoo!r}: neither {workspace.zoo(zoo)} nor {zoo} has a zoo.json")
