"""Check a packed zoo against itself and, where its data set is at hand, against the images."""

from __future__ import annotations

from weightzoo.console import progress
from weightzoo.datasets import ImageData
from weightzoo.errors import MissingError
from weightzoo.verify import Finding, verify_zoo
from weightzoo.workspace import Workspace
from weightzoo.zoo.place import named_place


def verify(zoo: str, workspace: Workspace, *, sample: int) -> list[Finding]:
    """Check `zoos/<zoo>/`, any folder with a packed zoo or one on S3; of `sample` models accuracies are measured again.

    That takes the images, `data/<zoo>/`.

    Raises:
        MissingError: there is no such zoo.
        StorageError: it is on S3, which can't be reached or refuses.
    """
    place = named_place(zoo, workspace)
    try:
        data = ImageData.load(workspace.data(place.name))
    except MissingError:
        data = None
    with progress(f"verify {place.name}", unit="checks") as report:
        return verify_zoo(place, data=data, sample=sample, on_progress=report)
