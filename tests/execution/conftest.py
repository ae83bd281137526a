from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.execution import support
from weightzoo.connection import connect


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's empty database: making its tables takes seconds, copying it none."""
    database = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    made = database.with_name("made.db")
    connect(f"sqlite:///{made}")
    shutil.copy(made, database)
    return database


@pytest.fixture
def new_store(tmp_path: Path, empty_database: Path) -> Callable[[str], Path]:
    """Makes folders with an empty tracking store."""

    def make(name: str) -> Path:
        (tmp_path / name).mkdir()
        shutil.copy(empty_database, tmp_path / name / "mlflow.db")
        return tmp_path / name

    return make


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
