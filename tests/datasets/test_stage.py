"""The stage `prepare` on published data sets: from the command line, from DVC's script, and once for several zoos."""

from __future__ import annotations

import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.datasets.server import Server
from tests.datasets.small import Small
from weightzoo.cli import main
from weightzoo.datasets import ImageData, prepare, shared
from weightzoo.spec import DatasetSpec, load_params

Known = Callable[..., Small]
ZOO = """\
  {zoo}:
    dataset: {dataset}
    architecture: cnn-s
    configuration: {{kind: seed, seeds: {{count: 2}}}}
    factors: {{init: [uniform], activation: [tanh], optimizer: [adam], learning_rate: [0.0003]}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder as the current one."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("WEIGHTZOO_DATA", raising=False)
    monkeypatch.setattr("weightzoo.datasets.download.time.sleep", lambda seconds: None)
    return folder


def describe_zoos(source: str, keys: str = "", zoos: tuple[str, ...] = ("first", "second")) -> DatasetSpec:
    sections = "".join(ZOO.format(zoo=zoo, dataset="images") for zoo in zoos)
    text = f"build: [{zoos[0]}]\ndatasets:\n  images: {{source: {source}{keys}}}\nzoos:\n{sections}"
    Path("params.yaml").write_text(text)
    return load_params().datasets["images"]


def weightzoo(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["weightzoo", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)


def test_every_source_from_files_that_the_user_has(
    small: Small, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = describe_zoos(small.name)
    assert weightzoo("prepare", "first", "--from", small.folder) == 0
    data = ImageData.load("data/first")
    assert data.content_hash == prepare("images", spec, given=small.folder).content_hash
    shape = "x".join(map(str, data.image_shape))
    assert capsys.readouterr().err == f"prepare   first: images, 24 train, 6 val, 12 test images of {shape}\n"
    assert not (folder / ".downloads").exists()


def test_a_second_zoo_on_the_same_data_reads_nothing_again(known: Known, folder: Path) -> None:
    small = known("usps")
    describe_zoos("usps")
    assert weightzoo("prepare", "first", "--from", small.folder) == 0
    content = Path("data/first/images.safetensors").read_bytes()
    shutil.rmtree(small.folder)
    assert weightzoo("prepare", "second", "--from", small.folder) == 0
    assert Path("data/first/images.safetensors").samefile("data/second/images.safetensors")
    assert weightzoo("prepare", "second", "--from", small.folder) == 0
    assert Path("data/second/images.safetensors").read_bytes() == content
    assert sorted(path.name for path in Path("data").iterdir()) == [".shared", "first", "second"]


def test_what_is_shared_counts_only_while_nothing_has_changed(
    known: Known, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = known("usps")
    describe_zoos("usps")
    assert weightzoo("prepare", "first", "--from", small.folder) == 0
    first = ImageData.load("data/first").content_hash

    describe_zoos("usps", ", seed: 1")
    assert weightzoo("prepare", "second", "--from", small.folder) == 0
    assert ImageData.load("data/second").content_hash != first
    assert ImageData.load("data/first").content_hash == first  # its link still holds what it was made from
    assert len(list(Path("data/.shared/images").glob("*/"))) == 1

    (kept,) = Path("data/.shared/images").glob("*/*.safetensors")
    kept.write_bytes(kept.read_bytes()[:-1])
    assert weightzoo("prepare", "second", "--from", small.folder) == 0
    ImageData.load("data/second")

    keys = {key_of(small, spec) for spec in (DatasetSpec(source="usps"), DatasetSpec(source="usps", test=4))}
    keys.add(key_of(known("usps", seed=9), DatasetSpec(source="usps")))
    monkeypatch.setattr(shared.metadata, "version", lambda name: "another")
    keys.add(key_of(small, DatasetSpec(source="usps")))
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"other code")
    keys.add(key_of(small, DatasetSpec(source="usps")))
    assert len(keys) == 5


def key_of(small: Small, spec: DatasetSpec) -> str:
    return shared._key("images", spec, small.source)


def test_without_links_the_file_is_copied(known: Known, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    small = known("usps")
    describe_zoos("usps")
    monkeypatch.setattr("os.link", refuse)
    assert weightzoo("prepare", "first", "--from", small.folder) == 0
    (kept,) = Path("data/.shared/images").glob("*/*.safetensors")
    assert kept.read_bytes() == Path("data/first/images.safetensors").read_bytes()
    assert not kept.samefile("data/first/images.safetensors")


def test_the_stage_of_dvc_takes_files_from_the_environment(
    known: Known, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = known("fashion-mnist")
    describe_zoos("fashion-mnist", ", train: 9, test: 4")
    monkeypatch.setenv("WEIGHTZOO_DATA", str(small.folder))
    monkeypatch.setattr(sys, "argv", ["prepare.py", "first"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "pipelines" / "prepare.py"), run_name="__main__")
    assert ended.value.code == 0
    assert [len(labels) for labels in ImageData.load("data/first").labels.values()] == [9, 6, 4]


def test_a_download_is_kept_for_all_zoos(known: Known, folder: Path, serve: Callable[..., Server]) -> None:
    small = known("svhn")
    server = serve({f"/{path.name}": path.read_bytes() for path in small.folder.iterdir()}, cuts=[5_000])
    known("svhn", urls=("http://127.0.0.1:9", server.url))
    describe_zoos("svhn")
    assert weightzoo("prepare", "first") == 0
    assert server.asked == [("/train_32x32.mat", None), ("/train_32x32.mat", "bytes=5000-"), ("/test_32x32.mat", None)]
    describe_zoos("svhn", ", channels: 3")
    assert weightzoo("prepare", "second") == 0
    assert len(server.asked) == 3
    kept = sorted(path.name for path in Path(".downloads/svhn").iterdir() if not path.name.startswith("."))
    assert kept == ["test_32x32.mat", "train_32x32.mat"]


def test_offline_one_line_says_what_to_do_and_nothing_is_left(
    known: Known, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known("mnist", urls=("http://127.0.0.1:9",))
    describe_zoos("mnist")
    assert weightzoo("prepare", "first") == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: can't download train-images-idx3-ubyte.gz: 127.0.0.1:9 can't be reached (")
    assert shown.endswith("give files you have with --from DIR\n")
    assert shown.count("\n") == 1
    assert not Path("data/first").exists()
    assert weightzoo("prepare", "first", "--from", "nowhere") == 1
    assert capsys.readouterr().err.startswith("error: nowhere: no such folder")


def test_digits_need_no_files(folder: Path) -> None:
    describe_zoos("digits", ", test: 50")
    assert weightzoo("prepare", "first") == 0
    assert ImageData.load("data/first").size("test") == 50
    assert sorted(path.name for path in folder.rglob("*")) == ["data", "first", "images.safetensors", "params.yaml"]
