"""Files that a user already has: found, checked, used where they lie; the wrong ones named in one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.datasets.small import Small
from weightzoo.datasets import prepare
from weightzoo.datasets.files import downloaded_files, given_files
from weightzoo.errors import DownloadError, FormatError, MissingError, WeightzooError
from weightzoo.spec import DatasetSpec

Known = Callable[..., Small]
LAYOUTS = {
    "mnist": "MNIST/raw",
    "fashion-mnist": "FashionMNIST/raw",
}  # of torchvision, which keeps the others in its root


def listing(folder: Path) -> list[tuple[str, int, float]]:
    return sorted((str(path), path.stat().st_size, path.stat().st_mtime) for path in folder.rglob("*"))


@pytest.mark.parametrize("place", [".", "{name}", "torchvision"])
def test_files_are_used_where_they_lie(place: str, small: Small, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    below = LAYOUTS.get(small.name, ".") if place == "torchvision" else place.format(name=small.name)
    shutil.copytree(small.folder, folder / below)
    before = listing(folder)
    found = given_files(small.name, small.source, folder)
    assert {name: path.resolve() for name, path in found.items()} == {
        file.name: (folder / below / file.name).resolve() for file in small.source.files()
    }
    prepare(small.name, DatasetSpec(source=small.name), given=folder)
    assert listing(folder) == before


@pytest.mark.parametrize("name", ["stl10", "cifar10", "cifar100"])
def test_an_archive_may_be_unpacked_as_torchvision_does(name: str, known: Known, tmp_path: Path) -> None:
    small, spec = known(name), DatasetSpec(source=name)
    packed = prepare(name, spec, given=small.folder)
    shutil.unpack_archive(next(small.folder.iterdir()), tmp_path / "root")
    for unused in (tmp_path / "root").rglob("unlabeled_X.bin"):
        unused.unlink()
    assert prepare(name, spec, given=tmp_path / "root").content_hash == packed.content_hash

    part = next((tmp_path / "root").rglob("*test*"))
    content = bytearray(part.read_bytes())
    content[-10] ^= 1
    part.write_bytes(content)
    with pytest.raises(FormatError, match=rf"{part.name}: .* truncated, altered or of another file \(md5 "):
        prepare(name, spec, given=tmp_path / "root")
    part.unlink()
    with pytest.raises(MissingError, match="nor its files unpacked in"):
        prepare(name, spec, given=tmp_path / "root")


def one_line(error: type[WeightzooError], small: Small) -> str:
    with pytest.raises(error) as caught:
        prepare(small.name, DatasetSpec(source=small.name), given=small.folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_train_images_swapped_for_test_images(known: Known) -> None:
    small = known("mnist")
    train, test = (small.folder / f"{part}-images-idx3-ubyte.gz" for part in ("train", "t10k"))
    shutil.copy(test, train)
    line = one_line(FormatError, small)
    expected = small.source.files()[0].md5
    assert line.startswith(f"{train}: t10k-images-idx3-ubyte.gz of this data set (md5 ")
    assert f"expected md5 {expected}; put the right file there, or leave out --from to download it" in line


def test_mnist_given_for_fashion_mnist(known: Known) -> None:
    digits, clothes = known("mnist", seed=1), known("fashion-mnist", seed=2)
    for file in digits.folder.iterdir():
        shutil.copy(file, clothes.folder)
    assert "train-images-idx3-ubyte.gz of mnist (md5 " in one_line(FormatError, clothes)
    raw = clothes.folder / "FashionMNIST" / "raw"  # the right ones where torchvision keeps them are found before these
    shutil.copytree(clothes.folder, raw)
    known("fashion-mnist", seed=2)
    for file in clothes.folder.glob("*.gz"):
        shutil.copy(file, raw)
        shutil.copy(digits.folder / file.name, file)
    prepare("clothes", DatasetSpec(source="fashion-mnist"), given=clothes.folder)


def test_a_truncated_file(small: Small) -> None:
    path = small.folder / small.source.files()[-1].name
    path.write_bytes(path.read_bytes()[:-7])
    line = one_line(FormatError, small)
    assert line.startswith(
        f"{path}: {path.stat().st_size:,} bytes that are truncated, altered or of another file (md5 "
    )


def test_missing_files_and_folders(small: Small) -> None:
    name = small.source.files()[-1].name
    (small.folder / name).unlink()
    line = one_line(MissingError, small)
    assert line.startswith(f"no {name}")
    assert str(small.folder / small.name) in line
    with pytest.raises(MissingError, match="no such folder"):
        given_files(small.name, small.source, small.folder / "nowhere")


def test_what_was_downloaded_is_checked_and_not_downloaded_again(known: Known, tmp_path: Path) -> None:
    small = known("usps", urls=("http://127.0.0.1:9",))  # nobody listens there
    shutil.copytree(small.folder, tmp_path / "downloads" / "usps")
    found = downloaded_files("usps", small.source, tmp_path / "downloads", None)
    assert [path.name for path in found.values()] == ["usps.bz2", "usps.t.bz2"]
    found["usps.bz2"].write_bytes(b"?")
    with pytest.raises(FormatError, match="remove it to have it downloaded again"):
        downloaded_files("usps", small.source, tmp_path / "downloads", None)
    assert found["usps.bz2"].read_bytes() == b"?"  # it may be the user's


def test_a_place_that_can_not_be_made(known: Known, tmp_path: Path) -> None:
    (tmp_path / "downloads").write_text("a file")
    with pytest.raises(DownloadError, match="downloads/usps: can't be made"):
        prepare("usps", DatasetSpec(source=known("usps").name), downloads=tmp_path / "downloads")


def test_impossible_counts_are_refused_before_anything_is_downloaded(
    known: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known("usps", urls=("http://127.0.0.1:9",))
    with pytest.raises(ValueError, match="train: 100 does not fit; train and val share 30 images"):
        prepare("usps", DatasetSpec(source="usps", train=100), downloads=tmp_path / "downloads")
    assert not (tmp_path / "downloads").exists()
    monkeypatch.setattr("weightzoo.datasets.download.time.sleep", lambda seconds: None)
    with pytest.raises(DownloadError):
        prepare("usps", DatasetSpec(source="usps"), downloads=tmp_path / "downloads")
