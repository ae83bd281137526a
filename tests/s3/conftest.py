"""What the tests of S3 share: an empty project of DVC in git, and DVC's own command line in this process."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import commit


@pytest.fixture
def dvc_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, which is the current folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    dvc("init", "-q")
    commit(folder, "start")
    return folder


def dvc(*arguments: str) -> int:
    """Run a command of DVC in this process, which spares the seconds of importing; its exit code."""
    from dvc.cli import main

    return main(list(arguments))


def done(*arguments: str) -> None:
    assert dvc(*arguments) == 0, arguments


def clone(project: Path, to: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another clone of the project, with an empty cache; it becomes the current folder."""
    subprocess.run(["git", "clone", "-q", project, to], check=True)
    monkeypatch.chdir(to)
    return to


Files = Callable[[Path], dict[str, bytes]]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
