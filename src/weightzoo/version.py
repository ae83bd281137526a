"""Which code made something: the package's version and, in a git checkout, its commit."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path


@cache
def code_version() -> str:
    """For instance `0.1.0`, `0.1.0+1a2b3c4` in a checkout, `0.1.0+1a2b3c4.changed` with uncommitted changes in it."""
    try:
        version = metadata.version("weightzoo")
    except metadata.PackageNotFoundError:
        version = "unknown"
    source = Path(__file__).parent
    commit = _git(source, "rev-parse", "--short=7", "HEAD")
    if not commit or not _git(source, "ls-files", "--", Path(__file__).name):  # none, or that of a folder around us
        return version
    return f"{version}+{commit}" + (".changed" if _git(source, "status", "--porcelain", "--", ".") else "")


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
