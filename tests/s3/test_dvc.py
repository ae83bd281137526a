"""Zoos that DVC pushes to a real server, pulls in another clone, and knows the versions of; servers and pushes that die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import commit, run
from tests.s3.conftest import clone, contents, done, dvc
from tests.servers import Proxy, SeaweedFS, require
from tests.zoo import synthetic_zoo
from weightzoo.errors import MissingError, StorageError
from weightzoo.s3 import Folder, Location
from weightzoo.s3.uploads import unfinished
from weightzoo.zoo import Zoo, write_zoo


def write(path: Path, models: int) -> Zoo:
    head = synthetic_zoo.header(models)
    write_zoo(path, head, synthetic_zoo.records(head))
    return Zoo.open(path)


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Zoo:
    """20 MB of weights."""
    return write(tmp_path_factory.mktemp("zoos") / "large", 400)


def versions(capsys) -> list[dict]:
    capsys.readouterr()
    code, said = run("versions", "z", "--json")
    assert code == 0, said
    return json.loads(capsys.readouterr().out)


def test_versions_are_pushed_listed_pulled_got_and_imported(dvc_project, s3_prefix, tmp_path, monkeypatch, capsys):
    """Through `dvc.lock`, as the pipeline writes it, and in another project through the `.dvc` file of an import."""
    project = dvc_project
    assert run("remote", "setup", s3_prefix)[0] == 0
    (project / "dvc.yaml").write_text("stages: {pack: {cmd: cp -r ../made zoos/z, deps: [../made], outs: [zoos/z]}}\n")
    (project / "zoos").mkdir()
    (project / ".gitignore").write_text("/zoos/\n")
    made = tmp_path / "made"
    found = {}
    for tag, models in (("v1", 3), ("v2", 6)):
        found[tag] = contents(Path(str(write(made, models).path)))
        done("repro", "-q")
        if tag == "v2":
            assert [version["revision"] == "workspace" for version in versions(capsys)] == [True, False]
        commit(project, tag)
        subprocess.run(["git", "tag", tag], check=True)
        done("push", "-q")
    (project / "README").write_text("nothing of the zoo\n")
    commit(project, "words")

    two, one = versions(capsys)
    assert (two["tags"], two["models"], one["tags"], one["models"]) == (["v2"], 6, ["v1"], 3)
    assert two["states"] == int(Zoo.open(made).present.sum())
    assert one["changed"] == "first version"
    medians = [float(np.median(Zoo.open(made).select(range(n)).models["test_accuracy"])) for n in (3, 6)]
    assert two["changed"] == "3 members added; median test accuracy {:.4f} to {:.4f}".format(*medians)
    assert [version["test_accuracy"] for version in (one, two)] == pytest.approx(medians)
    assert run("versions", "y") == (
        1, "error: no revision has zoos/y; build it with `dvc repro` and commit dvc.lock, or correct the name\n"
    )  # fmt: skip

    elsewhere = clone(project, tmp_path / "elsewhere", monkeypatch)
    assert not (elsewhere / ".dvc" / "cache").exists()
    assert versions(capsys) == [two, one]  # their tables come from S3
    done("pull", "-q", "zoos/z")
    assert contents(elsewhere / "zoos" / "z") == found["v2"]
    done("get", "-q", str(project), "zoos/z", "--rev", "v1", "--out", "old")
    assert contents(elsewhere / "old") == found["v1"]

    other = tmp_path / "other"
    (other / "zoos").mkdir(parents=True)
    monkeypatch.chdir(other)
    subprocess.run(["git", "init", "-q"], check=True)
    done("init", "-q")
    done("import", "-q", str(project), "zoos/z", "--rev", "v1", "--out", "zoos/z")
    commit(other, "imported")
    assert contents(other / "zoos" / "z") == found["v1"]
    (imported,) = versions(capsys)
    assert (imported["models"], imported["md5"]) == (3, one["md5"])

    monkeypatch.chdir(clone(project, tmp_path / "third", monkeypatch))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "guessed-secret")
    unknown = versions(capsys)
    assert [version["models"] for version in unknown] == [None, None]
    assert "in neither DVC's cache nor its remote" in unknown[0]["changed"]


def test_a_push_into_a_server_that_dies_is_done_again(dvc_project, tmp_path, monkeypatch, capfd):
    require(SeaweedFS)
    project = dvc_project
    (project / "zoos" / "z").mkdir(parents=True)
    for number in range(8):
        (project / "zoos" / "z" / f"{number}").write_bytes(np.random.default_rng(number).bytes(500_000))
    expected = contents(project / "zoos" / "z")
    done("add", "-q", "zoos/z")
    with SeaweedFS(tmp_path / "s3") as server, Proxy(server.ports["s3"]) as proxy:
        for name, value in {**server.settings(), "AWS_MAX_ATTEMPTS": "2"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("AWS_ENDPOINT_URL")
        place = f"s3://{server.bucket('zoos')}/lab"
        assert run("remote", "setup", place, "--endpoint-url", proxy.url)[0] == 0
        commit(project, "added")

        def kill() -> None:
            while proxy.sent < 1_500_000:
                time.sleep(0.002)
            server.kill()

        helper = threading.Thread(target=kill, daemon=True)
        helper.start()
        assert dvc("push", "-q", "-j", "4") != 0
        helper.join()
        server.start()
        whole = {stored.bytes for stored in Folder.at(Location.parse(place)).list().values()}
        assert whole <= {500_000}  # and no list of the folder, which would say that all is there
        done("push", "-q")

        elsewhere = clone(project, tmp_path / "elsewhere", monkeypatch)
        done("pull", "-q", "zoos/z")
        assert contents(elsewhere / "zoos" / "z") == expected


UPLOAD = "import sys; from weightzoo.cli import app; app(sys.argv[1:])"


def test_an_upload_that_is_killed_goes_on_and_its_orphan_is_swept(large, s3_prefix, s3_server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Location.parse(f"{s3_prefix}/zoos/large")
    size = sum(file.stat().st_size for file in Path(str(large.path)).iterdir())
    with Proxy(s3_server.ports["s3"]) as proxy:
        environment = {**os.environ, "AWS_ENDPOINT_URL": proxy.url}
        command = [sys.executable, "-c", UPLOAD, "upload", str(large.path), str(place)]
        uploading = subprocess.Popen(command, env=environment)
        while proxy.sent < 10_000_000 and uploading.poll() is None:
            time.sleep(0.002)
        uploading.send_signal(signal.SIGKILL)
        uploading.wait()
        objects = Folder.at(place)
        assert proxy.sent < size
        with pytest.raises(MissingError, match=r"zoo\.json: no such object"):
            Zoo.open(str(place))
        assert len(unfinished(objects)) == 1
        assert run("remote", "sweep", s3_prefix, "--older-than", "0")[0] == 0
        assert unfinished(objects) == []

        code, said = run("upload", str(large.path), str(place))
        assert code == 0, said
        assert {name: stored.bytes for name, stored in objects.list().items()} == {
            file.name: file.stat().st_size for file in Path(str(large.path)).iterdir()
        }
        assert " 0 B sent of " in run("upload", str(large.path), str(place))[1]
        np.testing.assert_array_equal(Zoo.open(str(place)).weights([7, 399]), large.weights([7, 399]))
        objects.write("thesis.tex", b"words")
        code, said = run("upload", str(large.path), str(place))
        assert (code, "has thesis.tex, which is no file of a zoo" in said) == (1, True)


def test_one_model_moves_less_than_a_hundredth_also_where_connections_break(large, s3_prefix, s3_server, monkeypatch):
    """All bytes count that the server sends, headers of its answers and the records of the zoo included."""
    place = f"{s3_prefix}/zoos/large"
    Folder.at(Location.parse(place)).write_all(
        {file.name: file.read_bytes() for file in Path(str(large.path)).iterdir()}
    )
    with Proxy(s3_server.ports["s3"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        zoo = Zoo.open(place)
        np.testing.assert_array_equal(zoo.weights([123]), large.weights([123]))
        assert proxy.received < zoo.place.total() / 100

        proxy.breaks_after, proxy.breaks = 300_000, 3
        np.testing.assert_array_equal(zoo.weights(range(100, 140)), large.weights(range(100, 140)))
        assert proxy.breaks == 0
        proxy.breaks = 10**6
        monkeypatch.setattr("time.sleep", lambda _: None)
        with pytest.raises(StorageError, match=r"the connection to .* broke; do the same again, nothing is half done$"):
            zoo.weights(range(100, 200))
