"""What all tests share: a small project folder, and one thread of PyTorch a process."""

from __future__ import annotations

import contextlib
import io
import itertools
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.servers import PostgreSQL, SeaweedFS, require

ROOT = Path(__file__).parent.parent

PARAMS = """\
build: [digits-seed, digits-hyp]
analysis: {{quick: true, seed: 0}}
datasets:
  digits: {{source: digits, size: 28, train: {images}, val: 50}}
finetune: {{}}
sparsify: {{}}
zoos:
  digits-seed:
    dataset: digits
    architecture: cnn-s
    configuration: {{kind: seed, seeds: {{first: 1, count: 5}}}}
    factors: {{init: [uniform], activation: [tanh], optimizer: [adam], learning_rate: [0.0003]}}
    training: {{epochs: {epochs}, batch_size: 10}}
  digits-hyp:
    dataset: digits
    architecture: cnn-s
    configuration: {{kind: grid, seeds: {{first: 1, count: 2}}}}
    factors:
      init: [kaiming_uniform]
      activation: [tanh, relu]
      optimizer: [adam, sgd]
      learning_rate: [0.001]
      dropout: [0, 0.5]
    training: {{epochs: {epochs}, batch_size: 10}}
"""


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project folder with the real pipeline and two small zoos of three epochs."""
    return make_project(tmp_path, epochs=3, images=200)


def make_project(parent: Path, *, epochs: int, images: int) -> Path:
    """A project folder below `parent` with the real pipeline and two small zoos, `digits-seed` and `digits-hyp`."""
    folder = parent / "project"
    folder.mkdir()
    for name in (
        "dvc.yaml",
        ".dvcignore",
        ".gitignore",
        "pyproject.toml",
        "Makefile",
        ".constraints.txt",
        ".requirements.txt",
    ):
        shutil.copy2(ROOT / name, folder)
    for name in ("pipelines", "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (folder / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(ROOT / ".dvc" / name, folder / ".dvc")
    (folder / "params.yaml").write_text(PARAMS.format(epochs=epochs, images=images))
    return folder


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """The block runs as a command line would in `folder`, on the tracking store that lies there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


def run(*arguments: str) -> tuple[int, str]:
    """Run a verb of the command line in this process, sparing the seconds of importing; the exit code and stderr."""
    from weightzoo.cli import app
    from weightzoo.console import guarded

    exits: list[object] = []  # the code of `typer.Exit`, which is given back rather than raised, else None
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = guarded(lambda: exits.append(app(list(arguments), standalone_mode=False)))
    return code or (exits[0] if exits and isinstance(exits[0], int) else 0), said.getvalue()


def commit(folder: Path, message: str) -> None:
    """Commit all that is in a project folder, which becomes a git repository with an author of its own."""
    identity = (["config", "user.name", "Test"], ["config", "user.email", "test@example.org"])
    for command in (["init", "-q"], *identity, ["add", "."], ["commit", "-q", "-m", message]):
        subprocess.run(["git", *command], cwd=folder, check=True)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's empty database: making its tables takes seconds, copying it none."""
    from weightzoo.connection import connect

    database = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    made = database.with_name("made.db")
    connect(f"sqlite:///{made}")
    shutil.copy(made, database)
    return database


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server whose database `mlflow` has MLflow's tables, empty, to be copied by `create`."""
    from weightzoo.connection import connect

    require(PostgreSQL)
    with PostgreSQL() as server:
        connect(server.uri).search_experiments()
        forget(server.uri)
        yield server
        server.kill()  # nothing of it is kept


def forget(uri: str) -> None:
    """Close MLflow's connections to a database of this process."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    engine = SqlAlchemyStore._engine_map.get(uri)
    if engine is not None:
        engine.dispose()


@pytest.fixture
def new_store(tmp_path: Path, empty_database: Path) -> Callable[[str], Path]:
    """Makes folders with an empty tracking store, `mlflow.db`."""

    def make(name: str) -> Path:
        (tmp_path / name).mkdir()
        shutil.copy(empty_database, tmp_path / name / "mlflow.db")
        return tmp_path / name

    return make


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """One S3 server for all tests of a session that need one, started when the first of them does."""
    require(SeaweedFS)
    with SeaweedFS(tmp_path_factory.mktemp("s3"), reader=("weightzoo-reader", "weightzoo-reader-secret")) as server:
        yield server


@pytest.fixture
def s3_prefix(s3_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place on S3 of one's own, `s3://bucket/prefix`, and the environment in which everything finds the server.

    The bucket is everybody's: the server lays out volumes for each, and has no room for one a test.
    """
    for name, value in s3_server.settings().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    return f"s3://{s3_server.bucket('tests')}/{secrets.token_hex(8)}"


_numbers = itertools.count()


@pytest.fixture(params=["sqlite", "postgresql"])
def new_uri(request: pytest.FixtureRequest, new_store: Callable[[str], Path]) -> Iterator[Callable[[], str]]:
    """Makes stores that are empty."""
    uris: list[str] = []

    def make() -> str:
        number = next(_numbers)
        if request.param == "sqlite":
            uris.append(f"sqlite:///{new_store(f'store-{number}')}/mlflow.db")
        else:
            uris.append(request.getfixturevalue("postgresql").create(f"runs-{number}", "mlflow"))
        return uris[-1]

    yield make
    for uri in uris:
        forget(uri)
