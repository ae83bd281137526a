"""The list of a zoo's trained members, in order: what training hands to assembly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weightzoo.checkpoints import write_atomically
from weightzoo.errors import FormatError, MissingError

FORMAT = "weightzoo members 1"


@dataclass(frozen=True)
class Manifest:
    """The members of a zoo by id, in the population's order; `digest` stands for everything that was measured on them.

    The digest makes the file change, and with it everything behind it run anew, if members were trained again and came
    out differently, as they do on another engine.
    """

    zoo: str
    members: tuple[str, ...]
    digest: str = ""
    rehearsal: Mapping[str, Any] | None = None  # of what zoo, and how small


def write_manifest(
    path: Path | str,
    zoo: str,
    members: Iterable[str],
    digest: str = "",
    rehearsal: Mapping[str, Any] | None = None,
) -> None:
    """Write a manifest, atomically; the same members give the same bytes."""
    listed = list(members)
    content: dict[str, Any] = {"format": FORMAT, "zoo": zoo}
    if rehearsal is not None:
        content["rehearsal"] = dict(rehearsal)
    content |= {"count": len(listed), "digest": digest, "members": listed}
    content["checksum"] = _checksum(content)
    write_atomically(Path(path), (json.dumps(content, indent=1) + "\n").encode())


def read_manifest(path: Path | str) -> Manifest:
    """Read what `write_manifest` wrote.

    Raises:
        MissingError: there is no such file.
        FormatError: it is no manifest.
    """
    path = Path(path)
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file; run `weightzoo train` first") from None
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: no manifest ({error}); run `weightzoo train` again") from None
    try:
        recorded = content.pop("checksum", None)  # the first versions wrote none
        if (recorded is None and not content.keys() <= _KEYS) or recorded not in (None, _checksum(content)):
            raise FormatError(f"{path}: altered since it was written; run `weightzoo train` again")
        if content["format"] != FORMAT or len(content["members"]) != content["count"]:
            raise FormatError(f"{path}: not a whole manifest of format {FORMAT!r}; run `weightzoo train` again")
        members = tuple(map(str, content["members"]))
        return Manifest(content["zoo"], members, content["digest"], content.get("rehearsal"))
    except (KeyError, TypeError, AttributeError):
        raise FormatError(f"{path}: not a manifest of format {FORMAT!r}; run `weightzoo train` again") from None


_KEYS = {"format", "zoo", "rehearsal", "count", "digest", "members"}


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()
