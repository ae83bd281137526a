"""Objects in DVC's cache and on its remotes: damaged ones are found, and replaced by good copies."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import run
from tests.servers import SeaweedFS, require
from tests.test_repair import built, contents, flip, runs, store_of  # noqa: F401  (built is a fixture)
from weightzoo.errors import FormatError
from weightzoo.kept import KeptFiles, kept_files

OUTS = ("data/a", "zoos/a", "zoos/a.members.json")


def dvc(*arguments: str) -> None:
    from dvc.cli import main

    assert main([*arguments, "--quiet"]) == 0


def keep() -> None:
    """Make the current folder a DVC project whose outputs are in the cache, linked to it."""
    dvc("init", "--no-scm")
    dvc("config", "cache.type", "hardlink,copy")
    Path("dvc.yaml").write_text(json.dumps({"stages": {"all": {"cmd": "true", "outs": [*OUTS]}}}))
    dvc("commit", "--force")


@pytest.fixture(scope="module")
def kept(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A folder with a copy of the small project, and the remote that its outputs were pushed to, which is a folder."""
    parent = tmp_path_factory.mktemp("kept")
    with store_of(shutil.copytree(built, parent / "project")):
        keep()
        dvc("remote", "add", "--default", "folder", "../remote")
        dvc("push")
    return parent


@pytest.fixture
def project(kept: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of both, and the project as the current folder."""
    parent = shutil.copytree(kept, tmp_path / "kept")
    with store_of(parent / "project"):
        yield parent / "project"


def name_of(file: str) -> str:
    """The MD5 of a file of an output as dvc.lock has it."""
    with kept_files(Path(), *map(Path, OUTS)) as kept:
        assert kept is not None
        objects = {path: name for output in kept._outputs for path, name in kept._objects(output).items()}
        return objects[Path(file).absolute()]


def object_in(place: str, file: str) -> Path:
    name = name_of(file)
    return Path(place, "files", "md5", name[:2], name[2:])


def damage(path: Path) -> None:
    """A changed bit, the file's permissions as they were: DVC trusts those that it has set."""
    mode = path.stat().st_mode
    flip(path)
    path.chmod(mode)


def found() -> int:
    with kept_files(Path(), *map(Path, OUTS)) as kept:
        assert kept is not None
        return len(kept.damaged())


@pytest.mark.parametrize(
    ("place", "file"),
    [
        (".dvc/cache", "zoos/a/weights-00000.safetensors"),
        (".dvc/cache", "data/a"),
        ("../remote", "zoos/a"),
        ("../remote", "zoos/a.members.json"),
    ],
)
def test_a_damaged_object_is_replaced_by_the_good_copy(project: Path, place: str, file: str, capsys) -> None:
    before, ids, kept = contents(), runs(), object_in(place, file)
    whole = kept.read_bytes()
    damage(kept)

    assert run("repair", "a", "--dry-run")[0] == 1
    assert kept.read_bytes() != whole
    code, said = run("repair", "a")

    assert code == 0, said
    told = capsys.readouterr().out.splitlines()
    assert told[0] == told[1]
    assert str(kept.resolve()) in told[1]
    assert told[1].endswith("; replaced by a good copy")
    assert kept.read_bytes() == whole
    assert (contents(), runs()) == (before, ids)
    assert run("repair", "a") == (0, "repair    a: nothing is broken\n")


@pytest.mark.parametrize("file", ["zoos/a/weights-00000.safetensors", "zoos/a/zoo.json"])
def test_a_damaged_file_is_taken_from_what_dvc_keeps_without_any_run(
    project: Path, empty_database: Path, file: str, capsys
) -> None:
    """As after `dvc pull`, where no runs are to pack the zoo from."""
    before = contents()
    shutil.rmtree("mlruns")
    Path("mlruns").mkdir()
    shutil.copy(empty_database, "mlruns")
    damage(Path(file))
    assert run("repair", "a")[0] == 0
    assert capsys.readouterr().out.count("taken from what DVC keeps") == 1
    assert contents() == before


def test_a_bit_that_a_zoo_and_the_cache_share_is_mended_in_both(project: Path) -> None:
    """Where files are linked to the cache, one changed bit is in both."""
    before, name = contents(), "zoos/a/weights-00000.safetensors"
    dvc("checkout", "--relink")
    shutil.rmtree("../remote")
    assert Path(name).samefile(object_in(".dvc/cache", name))
    content = bytearray(Path(name).read_bytes())
    content[-1] ^= 1
    Path(name).chmod(0o644)
    with Path(name).open("r+b") as file:
        file.write(content)
    Path(name).chmod(0o444)
    assert run("repair", "a")[0] == 0
    assert contents() == before
    assert found() == 0


def test_without_a_good_copy_it_says_so_and_leaves_what_is_there(project: Path, capsys) -> None:
    name = "zoos/a.members.json"
    for path in (object_in(".dvc/cache", name), object_in("../remote", name)):
        damage(path)
    Path(name).write_text("{}")
    assert found() == 2
    with kept_files(Path(), *map(Path, OUTS)) as kept:
        assert isinstance(kept, KeptFiles)
        assert not any(kept.mend(one) for one in kept.damaged())
    assert found() == 2


def test_a_folder_of_another_version_takes_nothing_from_dvc(project: Path) -> None:
    for file in Path("zoos/a").iterdir():
        flip(file)
    with kept_files(Path(), *map(Path, OUTS)) as kept:
        assert kept is not None
        assert kept.restorable(Path("zoos/a")) == []


@pytest.mark.parametrize("content", ["{", "schema: '2.0'\nstages: 3\n", "\0\0\0"])
def test_a_damaged_lock_file_is_an_error_of_one_line(project: Path, content: str) -> None:
    Path("dvc.lock").write_text(content)
    with pytest.raises(FormatError, match=r"dvc.lock") as caught, kept_files(Path(), Path("zoos/a")):
        pass
    assert "\n" not in str(caught.value)


class Refusal(http.server.BaseHTTPRequestHandler):
    """Refuses everything, as S3 does with a wrong key."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_PUT = do_DELETE = do_GET

    def log_message(self, *_: object) -> None: ...


def test_a_remote_that_refuses_is_left_out(project: Path, monkeypatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "key")
    damage(object_in(".dvc/cache", "zoos/a"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        dvc("remote", "add", "--default", "away", "s3://bucket/nothing")
        dvc("remote", "modify", "away", "endpointurl", f"http://127.0.0.1:{server.server_port}")
        code, said = run("repair", "a")
        server.shutdown()
    assert (code, said.count("DVC's remote is not looked at, since it can't be read")) == (0, 1)


def test_a_damaged_object_on_s3_is_uploaded_again(built: Path, tmp_path: Path, monkeypatch) -> None:  # noqa: F811
    require(SeaweedFS)
    folder = shutil.copytree(built, tmp_path / "project")
    with SeaweedFS(tmp_path / "s3") as server, store_of(folder):
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        keep()
        bucket = server.bucket("kept")
        dvc("remote", "add", "--default", "s3", f"s3://{bucket}/dvc")
        for name, value in (
            ("endpointurl", server.url), ("access_key_id", server.key), ("secret_access_key", server.secret),
            ("region", "us-east-1"),
        ):  # fmt: skip
            dvc("remote", "modify", "s3", name, value)
        dvc("push")
        name = name_of("zoos/a/models.parquet")
        key = f"dvc/files/md5/{name[:2]}/{name[2:]}"
        client = server.client()
        whole = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        client.put_object(Bucket=bucket, Key=key, Body=whole[:-1] + bytes([whole[-1] ^ 1]))
        assert run("repair", "a")[0] == 0
        assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == whole
