"""`weightzoo remote`: name a place on S3 for what DVC pushes and for the artifacts of runs, try it, and clean it up."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from weightzoo.console import readable_size, say
from weightzoo.errors import MissingError, SpecError, StorageError
from weightzoo.s3 import Connection, Folder, Location, Settings, is_s3, settings_for
from weightzoo.s3.rights import try_out
from weightzoo.s3.settings import (
    RUNS,
    STORAGE,
    default_remote,
    project_folder,
    remotes,
    tracked_secret,
    without_password,
    write_remotes,
)
from weightzoo.s3.uploads import Upload, abort, unfinished
from weightzoo.workspace import Workspace

_DVC, _RUNS = "dvc", "runs"  # folders of the place


def setup(
    url: str,
    workspace: Workspace,
    *,
    endpoint: str | None = None,
    profile: str | None = None,
    region: str | None = None,
    local: bool = False,
) -> None:
    """Let DVC push to `url/dvc`, and new zoos keep the artifacts of their runs at `url/runs`.

    The place is tried first, with keys from the environment, `~/.aws` or `.dvc/config.local`; if it can't be used,
    nothing is written. `local` writes `.dvc/config.local` instead of `.dvc/config`, which others get by git.

    Raises:
        SpecError: `url` or `endpoint` is none, or a secret would go, or already has gone, into git.
        MissingError: this is no DVC project, or the bucket is not there.
        StorageError: the server can't be reached, or refuses something; the message says what.
    """
    location, project = Location.parse(url), _project(workspace)
    _require_endpoint(endpoint)
    _require_no_tracked_secret(project)
    known = settings_for(location, project)
    told = Settings(endpoint=endpoint, profile=profile, region=region)
    given = {name: value for name, value in dataclasses.asdict(told).items() if value is not None}
    try_out(Folder(location, Connection(dataclasses.replace(known, **given))))
    say(f"remote    {location}: written, listed, read and deleted")
    places = {STORAGE: location / _DVC, RUNS: location / _RUNS}
    replaced = list(_replaced(places, project))
    try:
        written = write_remotes(places, told, local=local, folder=project)
    except OSError as error:
        raise SpecError(f"{project / '.dvc'}: can't be written ({error.strerror}); change its permissions") from None
    say(f"remote    {written.relative_to(project.absolute())}: `dvc push` goes to {places[STORAGE]}")
    say(f"remote    {written.relative_to(project.absolute())}: artifacts of new zoos' runs go to {places[RUNS]}")
    for line in replaced:
        say(f"remote    {line}")


def check(workspace: Workspace) -> list[str]:
    """Try every remote on S3; of each a line, which begins with `ok`, `note` or `error`.

    Raises:
        MissingError: there is none, or this is no DVC project.
        SpecError: DVC's configuration can't be read, or has a secret where git tracks it.
    """
    project = _project(workspace)
    _require_no_tracked_secret(project)
    lines: list[str] = []
    for name, place in _places(project).items():
        folder = _folder(place, project)
        try:
            try_out(folder)
            lines.append(f"ok    {name}: {place}: written, listed, read and deleted")
            left = unfinished(folder)
        except (StorageError, MissingError) as error:
            lines.append(f"error {name}: {error}")
            continue
        if left:
            lines.append(
                f"note  {name}: {_described(left)} since {left[0].begun:%Y-%m-%d %H:%M} UTC; "
                "`weightzoo remote sweep` aborts old ones"
            )
    return lines


def sweep(workspace: Workspace, url: str | None, *, older_than: datetime.timedelta, dry_run: bool) -> list[Upload]:
    """Abort uploads that were begun so long ago and never finished, below a place or below all remotes on S3.

    A push that still runs must be younger than that, or it fails, and has to be done again.

    Raises:
        MissingError: no place is given and there is no remote, or the bucket is not there.
        SpecError: `url` is no place on S3.
        StorageError: the server can't be reached, or refuses.
    """
    project = project_folder(workspace.root)
    places = [Location.parse(url)] if url is not None else list(_places(_project(workspace)).values())
    swept: list[Upload] = []
    for place in places:
        folder = _folder(place, project)
        for upload in unfinished(folder, older_than):
            if not dry_run:
                abort(folder, upload)
            swept.append(upload)
    say(f"sweep     {_described(swept)} {'found' if dry_run else 'aborted'}")
    return swept


def _replaced(places: Mapping[str, Location], project: Path) -> Iterator[str]:
    """What the project's remotes were, where writing `places` changes that."""
    known, default = remotes(project), default_remote(project)
    for name, place in places.items():
        url = str(known.get(name, {}).get("url", place))
        if url != str(place):
            yield f"the remote {name} was {without_password(url)}; what lies there stays there"
    if default not in (None, STORAGE):
        yield f"the default remote was {default}; `dvc push --remote {default}` goes there as before"


def _described(uploads: list[Upload]) -> str:
    return f"{len(uploads):,} unfinished uploads, {readable_size(sum(upload.bytes for upload in uploads))},"


def _folder(place: Location, project: Path | None) -> Folder:
    return Folder(place, Connection(settings_for(place, project)))


def _project(workspace: Workspace) -> Path:
    project = project_folder(workspace.root)
    if project is None:
        raise MissingError("no DVC project here; go to the folder of dvc.yaml, or make one with `dvc init`")
    return project


def _places(project: Path) -> dict[str, Location]:
    urls = {name: str(remote.get("url", "")) for name, remote in remotes(project).items()}
    found = {name: Location.parse(url) for name, url in urls.items() if is_s3(url)}
    if not found:
        raise MissingError("no remote on S3; name one with `weightzoo remote setup s3://BUCKET/PREFIX`")
    return found


def _require_endpoint(endpoint: str | None) -> None:
    if endpoint is None:
        return
    if not re.fullmatch(r"https?://[\w.\[\]:-]+/?", endpoint):  # it is not repeated: it might hold a secret
        raise SpecError(
            "--endpoint-url: no URL of a server alone, as https://s3.example.org; a password in it would go into "
            "git, give keys with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )


def _require_no_tracked_secret(project: Path) -> None:
    found = tracked_secret(project)
    if found is not None:
        raise SpecError(
            f".dvc/config: git tracks it, and it has {found.replace(' ', ': ')}; take it out with `dvc remote modify "
            f"--unset {found}`, draw a new key if it was ever committed, and give it in the environment or with "
            "`dvc remote modify --local`"
        )
