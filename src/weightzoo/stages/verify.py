"""Check a packed zoo against itself and, where its data set is at hand, against the images."""

from __future__ import annotations

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
    folder = workspace.packed_zoo(zoo)
    try:
        data = ImageData.load(workspace.data(folder.name))
    except MissingError:
        data = None
    with progress(f"verify {folder.name}", unit="checks") as report:
        return verify_zoo(folder, data=data, sample=sample, on_progress=report)
