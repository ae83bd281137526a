"""Small projects for damaged files: how they are built, what a command does in one, and what must come out."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tests.conftest import run

PARAMS = {
    "build": ["a"],
    "datasets": {"digits": {"train": 60, "val": 20, "test": 60}},
    "zoos": {
        "a": {
            "dataset": "digits",
            "architecture": "cnn-s",
            "configuration": {"kind": "seed", "seeds": {"first": 1, "count": 4}},
            "training": {"epochs": 2},
        }
    },
}
MEMBERS = 4
KEPT = ("data/a", "zoos/a", "zoos/a.members.json")  # outputs that DVC keeps
Command = tuple[str, ...]

PREPARE, TRAIN, ASSEMBLE, REPORT = ("prepare", "a"), ("train", "a"), ("assemble", "a"), ("report", "a")
QUERY = ("query", "zoo == 'a'", "--csv")


@dataclass(frozen=True)
class Outcome:
    """What a command did: exit code, what it said and printed, and the files that it made or changed."""

    code: int
    said: str
    printed: str
    made: Mapping[str, str]  # hashes

    def lines(self) -> list[str]:
        return self.said.strip().splitlines()


@dataclass
class Projects:
    """Small projects, each in a folder that is copied for every trial: MLflow keeps its database open."""

    folder: Path
    database: Path | None = None  # MLflow's empty one, if it is there: to make it takes seconds
    _count: int = 0
    _expected: dict[tuple[str, Command], Outcome] = field(default_factory=dict)

    @cached_property
    def built(self) -> Path:
        """One that was built, and reported."""
        made = self.folder / "built"
        made.mkdir()
        (made / "params.yaml").write_text(json.dumps(PARAMS, indent=1))
        if self.database is not None:
            (made / "mlruns").mkdir()
            shutil.copy(self.database, made / "mlruns" / "mlflow.db")
        with inside(made):
            for command in (
                PREPARE,
                TRAIN,
                ASSEMBLE,
                ("analyse", "a", "spread", "agreement", "--quick"),
                REPORT,
                QUERY,
            ):
                succeed(command)
        return made

    @cached_property
    def interrupted(self) -> Path:
        """The same, but its training was interrupted at the first epoch; what it has to come to is `built`."""
        from weightzoo.datasets import ImageData
        from weightzoo.execution import Progress, train_zoo
        from weightzoo.spec import load_params
        from weightzoo.tracking import RunStore

        made = self.folder / "interrupted"
        shutil.copytree(self.built, made)
        shutil.rmtree(made / "mlruns")
        shutil.rmtree(made / "zoos")

        def terminate(progress: Progress) -> None:
            if progress.done > MEMBERS:
                raise SystemExit

        with inside(made), contextlib.suppress(SystemExit):
            train_zoo(
                "a",
                load_params("params.yaml").zoo("a"),
                ImageData.load("data/a"),
                RunStore(),
                on_progress=terminate,
                snapshot_seconds=0.0,
            )
        return made

    @cached_property
    def kept(self) -> Path:
        """A built one whose outputs DVC keeps, with a remote that is a folder."""
        made = self.folder / "kept"
        shutil.copytree(self.built, made)
        with inside(made):
            Path("dvc.yaml").write_text(json.dumps({"stages": {"all": {"cmd": "true", "outs": [*KEPT]}}}))
            for command in (
                "init --no-scm", "config cache.type copy", "commit --force", "remote add --default folder remote", "push",
            ):  # fmt: skip
                subprocess.run(["dvc", *command.split(), "--quiet"], check=True)
        return made

    @contextlib.contextmanager
    def copy(self, name: str) -> Generator[Path]:
        """A copy as the current folder."""
        self._count += 1
        folder = self.folder / f"trial-{self._count}"
        shutil.copytree(getattr(self, name), folder)
        try:
            with inside(folder):
                yield folder
        finally:
            shutil.rmtree(folder)

    def expected(self, project: str, command: Command) -> Outcome:
        """What a command does in the whole project."""
        if (project, command) not in self._expected:
            with self.copy(project):
                self._expected[project, command] = outcome(command)
        return self._expected[project, command]


def outcome(command: Command) -> Outcome:
    before = hashes(Path())
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            code, said = run(*command)
        except BaseException as error:
            code, said = -1, f"{type(error).__name__}: {error}"
    now = hashes(Path())
    made = {name: content for name, content in now.items() if before.get(name) != content}
    return Outcome(code, _placeless(said), _placeless(printed.getvalue()), made)


def _placeless(text: str) -> str:
    """Without the folder of the trial; lines that the width of the terminal has broken are put together."""
    return text.replace(str(Path().absolute()), ".")


def succeed(command: Command) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        code, said = run(*command)
    if code:
        raise RuntimeError(said)


def hashes(folder: Path) -> dict[str, str]:
    """Of all that building again must not change, by path."""
    found: dict[str, str] = {}
    for file in folder.rglob("*"):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and not _may_differ(name):
            found[name] = hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
    return found


def _may_differ(name: str) -> bool:
    kept_by_dvc = name.startswith((".dvc/tmp", ".dvc/cache/runs"))
    return name.startswith("mlruns/") or name.endswith("provenance.parquet") or ".lock" in name or kept_by_dvc


def artifacts(folder: Path) -> dict[str, dict[str, str]]:
    """The files of every member's run; a member without exactly one run, finished, is an error."""
    from weightzoo.tracking import RunStore

    found: dict[str, dict[str, str]] = {}
    for member, own in RunStore(f"sqlite:///{folder.absolute()}/mlruns/mlflow.db").zoo("a").known().items():
        (ended,) = own
        if not ended.ended or ended.artifacts is None:
            raise RuntimeError(f"run {ended.run_id} has not ended")
        found[member] = hashes(ended.artifacts)
    return found


@contextlib.contextmanager
def inside(folder: Path) -> Generator[None]:
    """The folder as the current one, with a tracking store and a cache of its own."""
    before, environment = Path.cwd(), dict(os.environ)
    os.chdir(folder)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlruns/mlflow.db"
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    os.environ["DVC_SITE_CACHE_DIR"] = str(folder / ".dvc" / "tmp" / "site")
    try:
        yield
    finally:
        forget_stores()
        os.chdir(before)
        os.environ.clear()
        os.environ.update(environment)


def forget_stores() -> None:
    """Close the databases that MLflow has opened: it keeps each open for good, and there are thousands."""
    sqlalchemy_store = sys.modules.get("mlflow.store.tracking.sqlalchemy_store")
    if sqlalchemy_store is not None:
        engines = sqlalchemy_store.SqlAlchemyStore._engine_map
        for engine in engines.values():
            engine.dispose()
