"""A packed zoo as it is, to S3, where `Zoo.open` reads parts of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from weightzoo.console import progress, readable_size, say
from weightzoo.errors import FormatError
from weightzoo.s3 import Folder, Location, Stored
from weightzoo.workspace import Workspace
from weightzoo.zoo import format as fmt
from weightzoo.zoo.header import StoredFile
from weightzoo.zoo.whole import open_whole


def upload(zoo: str, url: str, workspace: Workspace) -> Location:
    """Upload the files of a packed zoo, `zoo.json` last, so that no half upload is taken for a zoo.

    What is there already is not sent again, so that an upload that broke off goes on where it was.

    Raises:
        MissingError: there is no such zoo, or no such bucket.
        FormatError: the zoo is damaged, or something else is at that place.
        SpecError: `url` is no place on S3.
        StorageError: the server can't be reached, or refuses.
    """
    target = Folder.at(Location.parse(url))
    path = workspace.packed_zoo(zoo)
    files = list(open_whole(path).files)
    files += [StoredFile.of(path / name) for name in (fmt.PROVENANCE, fmt.HEADER)]
    there = target.list()
    _require_ours(target, there)
    sent = 0
    with progress(f"upload {zoo}", unit="files") as report:
        for done, file in enumerate(files, start=1):
            if not _is_there(target, file, there):
                target.upload(file.name, path / file.name, file.blake2b)
                sent += file.bytes
            report(done, len(files), file.name)
    target.delete(set(there) - {file.name for file in files})  # shards of a larger one that it was before
    say(f"upload    {target}: {readable_size(sent)} sent of {readable_size(sum(file.bytes for file in files))}")
    return target.location


def _is_there(target: Folder, file: StoredFile, there: Mapping[str, Stored]) -> bool:
    if file.name not in there:
        return False
    stored = target.look(file.name)
    return (stored.bytes, stored.blake2b) == (file.bytes, file.blake2b)


def _require_ours(target: Folder, there: Iterable[str]) -> None:
    foreign = sorted(name for name in there if not fmt.is_ours(Path(name)) or "/" in name)
    if foreign:
        raise FormatError(
            f"{target}: has {foreign[0]}, which is no file of a zoo; upload to another place, or delete what is there"
        )
