from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.execution import support


@pytest.fixture
def folder(new_store: Callable[[str], Path]) -> Path:
    """A folder with an empty tracking store."""
    return new_store("store")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> dict[str, Path]:
    """Folders of zoos trained in one go: grid and search."""
    folders: dict[str, Path] = {}
    for kind in ("grid", "search"):
        folders[kind] = tmp_path_factory.mktemp(kind)
        shutil.copy(empty_database, folders[kind] / "mlflow.db")
        support.train(folders[kind], support.zoo_spec(kind))
    return folders
