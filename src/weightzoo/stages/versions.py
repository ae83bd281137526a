"""`weightzoo versions`: the revisions of a packed zoo that DVC keeps, and what changed from each to the next.

Git's history says which content a zoo had when (`dvc.lock`, or `zoos/ZOO.dvc` if it was imported); what was in it is
read through DVC, from its cache or else from its remote: only `zoo.json` and the table of models, not the weights.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import logging
import math
import subprocess
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weightzoo.errors import FormatError, MissingError, WeightzooError
from weightzoo.s3.settings import project_folder
from weightzoo.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

WORKSPACE = "workspace"  # what DVC calls the state that is not committed
_LOCK = "dvc.lock"


@dataclass(frozen=True)
class Version:
    """A content that a zoo had from one revision on."""

    revision: str  # of git, or `workspace`
    tags: tuple[str, ...]
    date: datetime.datetime
    md5: str  # DVC's of the folder
    bytes: int
    models: int | None  # None, as below, if neither DVC's cache nor its remote has the content
    states: int | None
    test_accuracy: float | None  # median of its models
    changed: str  # from the version before

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "date": self.date.isoformat()}


@dataclass(frozen=True)
class _Entry:
    """A zoo in a revision, as DVC's records have it."""

    revision: str
    tags: tuple[str, ...]
    date: datetime.datetime
    md5: str
    bytes: int


@dataclass(frozen=True)
class _Content:
    files: dict[str, str]  # hash by name
    counts: dict[str, Any]
    models: pd.DataFrame


def versions(zoo: str, workspace: Workspace) -> list[Version]:
    """The versions of a zoo, given by name or as `zoos/ZOO`, the newest first.

    Raises:
        MissingError: this is no DVC project in git, or no revision of it has the zoo.
    """
    zoo = zoo.removeprefix("zoos/").rstrip("/")
    project = project_folder(workspace.root)
    if project is None:
        raise MissingError("no DVC project here; go to the folder of dvc.yaml")
    entries: list[_Entry] = []
    for entry in _history(project, zoo):  # the oldest first
        if not entries or entries[-1].md5 != entry.md5:
            entries.append(entry)
    if not entries:
        raise MissingError(
            f"no revision has zoos/{zoo}; build it with `dvc repro` and commit dvc.lock, or correct the name"
        )
    found: list[Version] = []
    before: _Content | None = None
    for number, entry in enumerate(entries):
        content = _content(project, zoo, entry)
        found.append(_version(entry, content, _change(before, content, first=number == 0)))
        before = content
    return found[::-1]


def _history(project: Path, zoo: str) -> Iterator[_Entry]:
    """The zoo in each revision that touched its record, the oldest first."""
    from ruamel.yaml import YAML, YAMLError

    records = (_LOCK, f"zoos/{zoo}.dvc")
    listed = _git(project, "log", "--reverse", "--format=%H%x09%cI%x09%D", "--", *records)
    revisions = [line.split("\t") for line in listed.splitlines()]
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    for revision, date, names in [*revisions, [WORKSPACE, now, ""]]:
        for record in records:
            if revision == WORKSPACE:
                path = project / record
                text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
            else:
                text = _git(project, "show", f"{revision}:./{record}", missing="")
            try:
                out = _out(YAML(typ="safe").load(io.StringIO(text)), zoo)
            except YAMLError:
                out = None  # a conflict that was committed, say
            if out is not None:
                tags = tuple(name.removeprefix("tag: ") for name in names.split(", ") if name.startswith("tag: "))
                when = datetime.datetime.fromisoformat(date)
                yield _Entry(revision, tags, when, str(out["md5"]), int(out.get("size", 0)))
                break


def _out(record: Any, zoo: str) -> dict[str, Any] | None:
    """What a `dvc.lock`, or the `.dvc` file beside the zoo, says of it."""
    with contextlib.suppress(AttributeError, TypeError, KeyError):
        stages = record.get("stages")
        outs = record["outs"] if stages is None else [out for stage in stages.values() for out in stage.get("outs", ())]
        path = zoo if stages is None else f"zoos/{zoo}"
        return next((out for out in outs if out["path"] == path and out["md5"].endswith(".dir")), None)
    return None


def _content(project: Path, zoo: str, entry: _Entry) -> _Content | None:
    """The record and the models of a zoo in a revision; None if nobody has them any more."""
    import pyarrow as pa

    from weightzoo.zoo import format as fmt
    from weightzoo.zoo.header import decode
    from weightzoo.zoo.place import MOST_HEADER
    from weightzoo.zoo.tables import read_table

    try:
        with _quiet(), _files(project, entry.revision) as read:
            text = read(f"zoos/{zoo}/{fmt.HEADER}", MOST_HEADER)
            header, counts, files = decode(json.loads(text), f"zoos/{zoo}/{fmt.HEADER}")
            table = read(f"zoos/{zoo}/{fmt.MODELS}", MOST_HEADER)
    except (WeightzooError, ValueError, OSError):
        return None
    schema = fmt.models_schema(sparse=header.sparse is not None)
    try:
        models = read_table(pa.BufferReader(table), len(table), schema, fmt.MODELS).to_pandas()
    except (FormatError, pa.ArrowException, OSError):
        return None
    return _Content({file.name: file.blake2b for file in files}, counts, models)


@contextlib.contextmanager
def _files(project: Path, revision: str) -> Generator[Callable[[str, int], bytes]]:
    """Reads files of a revision, up to so many bytes."""
    from botocore.exceptions import BotoCoreError, ClientError
    from dvc.exceptions import DvcException
    from dvc.fs import DVCFileSystem
    from dvc_data.index import DataIndexDirError

    def read(path: str, most: int) -> bytes:
        with there.open(path, "rb") as file:
            return bytes(file.read(most))

    try:
        there = DVCFileSystem(repo=str(project), rev=None if revision == WORKSPACE else revision)
        with there.repo:
            yield read
    except (DvcException, DataIndexDirError, BotoCoreError, ClientError) as error:  # DVC lets through what S3 raises
        raise MissingError(f"{revision}: {error}") from None


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """DVC logs what it raises."""
    loggers = [logging.getLogger(name) for name in ("dvc", "dvc_data", "dvc_objects")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _version(entry: _Entry, content: _Content | None, changed: str) -> Version:
    known: dict[str, Any] = {"models": None, "states": None, "test_accuracy": None}
    if content is not None:
        known = {
            "models": len(content.models),
            "states": int(content.counts["states"]),
            "test_accuracy": _median(content.models),
        }
    return Version(**vars(entry), **known, changed=changed)


def _median(models: pd.DataFrame) -> float | None:
    value = float(np.nanmedian(models["test_accuracy"].to_numpy(float))) if len(models) else math.nan
    return None if math.isnan(value) else value


def _change(before: _Content | None, after: _Content | None, *, first: bool) -> str:
    """What differs between two versions, in words."""
    if after is None:
        return "in neither DVC's cache nor its remote; fetch it with `dvc pull --all-commits`"
    if first:
        return "first version"
    if before is None:
        return "unknown, the version before is not there"
    old, new = (content.models.set_index("member") for content in (before, after))
    added, removed = new.index.difference(old.index), old.index.difference(new.index)
    told = [f"{len(some):,} members {what}" for some, what in ((added, "added"), (removed, "removed")) if len(some)]
    shared = new.index.intersection(old.index)
    columns = [name for name in new.columns if name in old.columns]
    differ = [
        name
        for name in columns
        if not new.loc[shared, name].reset_index(drop=True).equals(old.loc[shared, name].reset_index(drop=True))
    ]
    if differ:
        told.append(f"of {len(shared):,} others {', '.join(differ)} differ")
    medians = _median(before.models), _median(after.models)
    if None not in medians and medians[0] != medians[1]:
        told.append("median test accuracy {:.4f} to {:.4f}".format(*medians))
    if not told:
        names = sorted(
            name for name in before.files.keys() | after.files.keys() if before.files.get(name) != after.files.get(name)
        )
        told = [f"same models, {', '.join(names)} differ"] if names else ["same content, built again"]
    return "; ".join(told)


def _git(project: Path, *arguments: str, missing: str | None = None) -> str:
    """What git prints; `missing` if it fails."""
    try:
        done = subprocess.run(["git", "-C", project, *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        if missing is None:
            raise MissingError(
                f"{project}: no git repository; `git init` and commit dvc.lock to keep versions"
            ) from None
        return missing
    return done.stdout
