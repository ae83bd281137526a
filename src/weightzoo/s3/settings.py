"""How a place on S3 is reached: what DVC's configuration says of it, and what boto3 finds by itself.

The remotes of DVC's configuration are the one list of places, endpoints and profiles, so that `dvc push`, the runs and
`Zoo.open` agree. What a remote does not say is left to boto3: variables `AWS_*`, `~/.aws`, the machine's role.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

from weightzoo.errors import SpecError
from weightzoo.s3.location import SCHEME, Location, is_s3

STORAGE = "s3"  # the remote that `dvc push` and `dvc pull` use
RUNS = "runs"  # the remote whose URL is where the artifacts of new zoos' runs go
SECRETS = ("access_key_id", "secret_access_key", "session_token")


@dataclass(frozen=True)
class Settings:
    """What is said of a place; None is left to boto3. Printed, it holds no secret."""

    endpoint: str | None = None
    profile: str | None = None
    region: str | None = None
    key: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    verify: bool | str | None = None  # of the server's certificate

    @classmethod
    def of(cls, remote: Mapping[str, Any]) -> Settings:
        """Those of a remote of DVC."""
        return cls(
            endpoint=remote.get("endpointurl"),
            profile=remote.get("profile"),
            region=remote.get("region"),
            key=remote.get("access_key_id"),
            secret=remote.get("secret_access_key"),
            token=remote.get("session_token"),
            verify=remote.get("ssl_verify"),
        )


def settings_for(location: Location, folder: Path | None = None) -> Settings:
    """The settings of the DVC remote of the project around `folder` that a place lies in, or is nearest to.

    Without a remote on its bucket, all is left to boto3. Keys may stand at any remote of the bucket on that server.

    Raises:
        SpecError: DVC's configuration can't be read.
    """
    own: list[tuple[int, Mapping[str, Any]]] = []
    for remote in remotes(folder).values():
        if is_s3(remote.get("url", "")):
            there = Location.parse(str(remote["url"]))
            if there.bucket == location.bucket:
                own.append((len(os.path.commonpath([there.key, location.key])), remote))
    if not own:
        return Settings()
    nearest = max(own, key=lambda pair: pair[0])[1]
    same = [remote for _, remote in own if remote.get("endpointurl") == nearest.get("endpointurl")]
    keys = next((remote for remote in (nearest, *same) if "access_key_id" in remote), {})
    return Settings.of({**nearest, **{name: keys[name] for name in SECRETS if name in keys}})


def runs_root(folder: Path | None = None) -> str | None:
    """Where the artifacts of new zoos' runs go, if the project has a remote of the name `runs` on S3.

    Raises:
        SpecError: DVC's configuration can't be read.
    """
    url = str(remotes(folder).get(RUNS, {}).get("url", ""))
    return url if is_s3(url) else None


def write_remotes(places: Mapping[str, Location], settings: Settings, *, local: bool, folder: Path) -> Path:
    """Write remotes to the configuration of a DVC project, the first as the default one; the file that was written.

    With `local` that is `.dvc/config.local`, which git ignores. Keys are never written.

    Raises:
        SpecError: the configuration can't be read.
        OSError: it can't be written.
    """
    from dvc.config import Config, ConfigError

    level = "local" if local else "repo"
    said = {"endpointurl": settings.endpoint, "profile": settings.profile, "region": settings.region}
    try:
        configuration = Config(str(folder / ".dvc"))
        with configuration.edit(level) as opened:
            edited: dict[str, Any] = cast("dict[str, Any]", opened)
            for name, place in places.items():
                remote: dict[str, Any] = edited["remote"].setdefault(name, {})
                for key, value in {"url": str(place), **said}.items():
                    remote.pop(key, None)
                    if value is not None:
                        remote[key] = value
            edited["core"]["remote"] = next(iter(places))
        return Path(configuration.files[level])
    except ConfigError as error:
        raise SpecError(f"{folder / '.dvc'}: {' '.join(str(error).split())}; correct it") from None


def tracked_secret(folder: Path) -> str | None:
    """The name of a remote and of a secret of it that stand in `.dvc/config`, which git tracks; None if none does.

    Raises:
        SpecError: it can't be read.
    """
    from dvc.config import Config, ConfigError

    try:
        found: dict[str, dict[str, Any]] = cast("dict[str, Any]", Config(str(folder / ".dvc")).read("repo"))["remote"]
    except (ConfigError, OSError) as error:
        raise SpecError(f"{folder / '.dvc' / 'config'}: {' '.join(str(error).split())}; correct it") from None
    return next((f"{remote} {name}" for remote in found for name in SECRETS if name in found[remote]), None)


def remotes(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """The remotes of DVC's configuration, by name, of the project around `folder` (the current one by default).

    Raises:
        SpecError: it can't be read.
    """
    return _configuration(folder).get("remote", {})


def default_remote(folder: Path | None = None) -> str | None:
    """The name of the remote that DVC uses unless another is asked for.

    Raises:
        SpecError: DVC's configuration can't be read.
    """
    return _configuration(folder).get("core", {}).get("remote")


def _configuration(folder: Path | None) -> dict[str, Any]:
    project = project_folder(folder)
    if project is None:
        return {}
    from dvc.config import Config, ConfigError

    try:
        return dict(Config(str(project / ".dvc")))
    except (ConfigError, OSError) as error:
        raise SpecError(f"{project / '.dvc' / 'config'}: {' '.join(str(error).split())}; correct it") from None


def project_folder(folder: Path | None = None) -> Path | None:
    """The DVC project around a folder, by default the current one."""
    start = (folder or Path()).absolute()
    return next((place for place in (start, *start.parents) if (place / ".dvc").is_dir()), None)


def without_password(url: str) -> str:
    """A URL that can be shown."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return url if host == parts.netloc else urlunsplit(parts._replace(netloc=host))


__all__ = [
    "RUNS", "SCHEME", "STORAGE", "Settings", "default_remote", "project_folder", "remotes", "runs_root", "settings_for",
    "tracked_secret", "without_password", "write_remotes",
]  # fmt: skip
