"""Opening a zoo for a step that makes something of it: derived from damaged files it would be wrong in silence."""

from __future__ import annotations

from pathlib import Path

from weightzoo.errors import FormatError
from weightzoo.s3 import Location
from weightzoo.zoo.read import Zoo


def open_whole(path: Path | Location) -> Zoo:
    """Open a packed zoo, and read all its files once to compare them with their hashes, about a gigabyte a second.

    Raises:
        MissingError: there is no zoo, or one of its files is missing.
        FormatError: a file is truncated, altered or of another format.
    """
    zoo = Zoo.open(path)
    for recorded in zoo.files:
        if zoo.place.hash(recorded.name) != recorded.blake2b:
            raise FormatError(
                f"{zoo.place.name(recorded.name)}: altered since it was written; assemble or pull the zoo again"
            )
    return zoo
