"""Opening a zoo for a step that makes something of it: derived from damaged files it would be wrong in silence."""

from __future__ import annotations

from pathlib import Path

from weightzoo.errors import FormatError
from weightzoo.zoo.header import StoredFile
from weightzoo.zoo.read import Zoo


def open_whole(path: Path) -> Zoo:
    """Open a packed zoo, and read all its files once to compare them with their hashes, about a gigabyte a second.

    Raises:
        MissingError: there is no zoo, or one of its files is missing.
        FormatError: a file is truncated, altered or of another format.
    """
    zoo = Zoo.open(path)
    for recorded in zoo.files:
        if StoredFile.of(path / recorded.name) != recorded:
            raise FormatError(f"{path / recorded.name}: altered since it was written; assemble or pull the zoo again")
    return zoo
