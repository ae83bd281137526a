"""`weightzoo repair`: exactly what is broken is made again, and comes out as it was."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import inside, run
from weightzoo.registry import Registry
from weightzoo.tracking import RunStore


@contextlib.contextmanager
def store_of(folder: Path) -> Iterator[None]:
    """Inside of the folder, with its store by an absolute path: MLflow keeps one open for each URI."""
    with inside(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlruns/mlflow.db")
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """A project folder with a zoo of four models."""
    folder = tmp_path_factory.mktemp("built")
    zoo = {
        "dataset": "digits",
        "architecture": "cnn-s",
        "configuration": {"kind": "seed", "seeds": {"first": 1, "count": 4}},
        "training": {"epochs": 2},
    }
    content = {"build": ["a"], "datasets": {"digits": {"train": 60, "val": 20, "test": 60}}, "zoos": {"a": zoo}}
    (folder / "params.yaml").write_text(json.dumps(content))
    (folder / "mlruns").mkdir()
    shutil.copy(empty_database, folder / "mlruns")
    with store_of(folder):
        for verb in ("prepare", "train", "assemble"):
            code, said = run(verb, "a")
            assert code == 0, said
    return folder


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy, as the current folder."""
    folder = shutil.copytree(built, tmp_path / "project")
    with store_of(folder):
        yield folder


def contents() -> dict[str, str]:
    """Hashes of all that building again must not change."""
    files = [*Path("data/a").glob("*.safetensors"), *Path("zoos/a").iterdir(), Path("zoos/a.members.json")]
    return {
        str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.name != "provenance.parquet"
    }


def runs() -> dict[str, str]:
    """The run of each member."""
    return {one.member: one.run_id for one in Registry().runs}


def artifact(name: str) -> Path:
    """A file of the first member's run."""
    ours = min(runs().items())[1]
    (found,) = Path("mlruns/artifacts").rglob(f"{ours}/artifacts/{name}")
    return found


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.unlink()  # it may be a link to a file of others
    file.write_bytes(content)


def test_nothing_is_broken(project: Path) -> None:
    before, ids = contents(), runs()
    assert run("repair", "a") == (0, "repair    a: nothing is broken\n")
    assert (contents(), runs()) == (before, ids)


@pytest.mark.parametrize("name", ["checkpoints/epochs_0000-0002.safetensors", "metrics.safetensors"])
@pytest.mark.parametrize("how", ["altered", "missing", "truncated"])
def test_a_damaged_run_alone_is_trained_again(project: Path, name: str, how: str, capsys) -> None:
    before, ids = contents(), runs()
    file = artifact(name)
    if how == "altered":
        flip(file)
    elif how == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-100])

    assert run("repair", "a", "--dry-run")[0] == 1
    assert runs() == ids
    code, said = run("repair", "a")

    assert code == 0, said
    assert "1 trained now" in said
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2  # the dry run's, and this one's
    assert told[0] == told[1]
    first = min(ids)
    assert f"of member {first}: " in told[1]
    after = runs()
    assert after.keys() == ids.keys()
    assert {member for member in ids if after[member] != ids[member]} == {first}
    assert contents() == before
    assert run("repair", "a") == (0, "repair    a: nothing is broken\n")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE latest_metrics SET value = value + 0.125 WHERE key = 'test_accuracy'",
        "UPDATE latest_metrics SET is_nan = 1 WHERE key = 'best_val_accuracy'",
        "UPDATE params SET value = '0.25' WHERE key = 'learning_rate'",
        "UPDATE tags SET value = 'test or train' WHERE key = 'weightzoo.split'",
        "UPDATE tags SET value = replace(value, '10', '11') WHERE key = 'weightzoo.definition'",
        "UPDATE tags SET value = 'another' WHERE key = 'weightzoo.engine'",
    ],
)
def test_a_record_that_was_altered_in_the_database_is_made_again(project: Path, change: str, capsys) -> None:
    """SQLite itself notices no changed digit. Until then nothing of it is shown."""
    before, ids = contents(), runs()
    first, ours = min(ids.items())
    with contextlib.closing(sqlite3.connect("mlruns/mlflow.db")) as database, database:
        assert database.execute(f"{change} AND run_uuid = '{ours}'").rowcount == 1
    for command in (("query", "epochs > 0"), ("assemble", "a")):
        code, said = run(*command)
        assert code == 1
        assert "mlflow.db: " in said
        assert f" run {ours} of member" in said
        assert "`weightzoo repair a`" in said
    assert run("repair", "a")[0] == 0
    assert ours in capsys.readouterr().out
    after = runs()
    assert {member for member in ids if after[member] != ids[member]} == {first}
    assert contents() == before
    assert run("repair", "a") == (0, "repair    a: nothing is broken\n")


@pytest.mark.parametrize(
    "file",
    ["zoos/a/weights-00000.safetensors", "zoos/a/models.parquet", "zoos/a/zoo.json", "data/a/images.safetensors"],
)
@pytest.mark.parametrize("how", ["altered", "missing"])
def test_files_are_made_again_and_no_run(project: Path, file: str, how: str) -> None:
    before, ids = contents(), runs()
    if how == "altered":
        flip(Path(file))
    else:
        Path(file).unlink()
    code, said = run("repair", "a")
    assert code == 0, said
    assert (contents(), runs()) == (before, ids)


def test_a_list_of_members_that_can_not_be_read(project: Path) -> None:
    before, ids = contents(), runs()
    Path("zoos/a.members.json").write_text("{")
    assert run("repair", "a")[0] == 0
    assert (contents(), runs()) == (before, ids)


def test_everything_at_once(project: Path) -> None:
    before = contents()
    flip(artifact("checkpoints/epochs_0000-0002.safetensors"))
    for file in ("zoos/a/weights-00000.safetensors", "data/a/images.safetensors", "zoos/a/epochs.parquet"):
        flip(Path(file))
    assert run("repair", "a")[0] == 0
    assert contents() == before


def test_what_is_not_described_can_not_be_made_again(project: Path) -> None:
    code, said = run("repair", "b")
    assert code == 1
    assert said.startswith("error: params.yaml does not describe a zoo 'b'")


def test_weights_that_were_altered_are_never_shown(project: Path) -> None:
    """Neither packed nor taken out: the error names the file."""
    file = artifact("checkpoints/epochs_0000-0002.safetensors")
    ours = min(runs().items())[1]
    whole = RunStore().checkpoint(ours, 1)
    assert all(np.isfinite(values).all() for values in whole.values())
    flip(file)
    for arguments in (("assemble", "a"), ("checkpoint", ours, "--epoch", "1")):
        code, said = run(*arguments)
        assert code == 1
        assert file.name in said
        assert said.count("\n") == 1
