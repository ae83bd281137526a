"""Files that are not what they say: refused with one line, before memory is taken, and without running what they hold."""

from __future__ import annotations

import bz2
import gzip
import pickle
import random
import re
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from tests.datasets.small import (
    TRAIN,
    Small,
    cifar10_members,
    jpeg,
    python2_pickle,
    tar,
    tiny_members,
    write,
    zipped,
)
from weightzoo.datasets.readers.unpickle import unpickle
from weightzoo.datasets.record import Official
from weightzoo.errors import FormatError, MissingError

HUGE = 60_000_000  # bytes, three times what a refusal may take

WARM: set[str] = set()


def read(small: Small) -> Official:
    official = small.source.read({file.name: small.folder / file.name for file in small.source.files()}, small.source)
    official.train.pixels(np.arange(TRAIN))  # images of a zip are decoded when asked for
    return official


def refused(small: Small, kind: type[Exception] = FormatError) -> str:
    """The line that the reader refuses a file with, while it takes little memory."""
    if small.name not in WARM:  # imports are no memory that a file takes
        WARM.add(small.name)
        read(write(small.name, small.folder.parent / "warm"))
    tracemalloc.start()
    try:
        with pytest.raises(kind) as caught:
            read(small)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000
    assert "\n" not in str(caught.value)
    assert str(small.folder) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_headers_that_ask_for_too_much(name: str, tmp_path: Path) -> None:
    small = write(name, tmp_path / "files")
    path = small.folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(struct.pack(">IIII", 0x803, 2**32 - 1, 2**31, 28)))
    assert f"bytes of shape [{2**32 - 1}, {2**31}, 28], expected bytes of shape [30, 28, 28]" in refused(small)
    path.write_bytes(gzip.compress(struct.pack(">IIII", 0xD03, TRAIN, 28, 28) + b"\0" * TRAIN * 28 * 28))
    assert "no idx header of unsigned bytes" in refused(small)
    path.write_bytes(gzip.compress(bytes(HUGE)))
    assert "more than 23,536 bytes" in refused(small)
    path.write_bytes(gzip.compress(struct.pack(">IIII", 0x803, TRAIN, 28, 28) + b"\0" * 100))
    assert "116 bytes unpacked, expected 23,536" in refused(small)
    path.write_bytes(b"no gzip")
    assert "can't be decompressed" in refused(small)


def test_test_images_in_the_place_of_train_images(tmp_path: Path) -> None:
    small = write("mnist", tmp_path / "files")
    for part in ("images-idx3", "labels-idx1"):
        (small.folder / f"t10k-{part}-ubyte.gz").replace(small.folder / f"train-{part}-ubyte.gz")
    assert "bytes of shape [12, 28, 28], expected bytes of shape [30, 28, 28]" in refused(small)


def test_labels_that_are_no_class(tmp_path: Path) -> None:
    from weightzoo.datasets.preparation import _check_labels

    small = write("mnist", tmp_path / "files")
    labels = gzip.compress(struct.pack(">II", 0x801, TRAIN) + b"\x0a" * TRAIN)
    (small.folder / "train-labels-idx1-ubyte.gz").write_bytes(labels)
    official = read(small)
    with pytest.raises(FormatError, match="labels from 10 to 10, expected 0 to 9"):
        _check_labels({"train": official.train}, small.source, {})


def test_matlab_files_with_other_arrays(tmp_path: Path) -> None:
    small = write("svhn", tmp_path / "files")
    path = small.folder / "train_32x32.mat"
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 8_000), dtype=np.uint8)
    savemat(path, {"X": noise, "y": np.ones((8_000, 1), np.uint8)}, do_compression=True)
    expected = "arrays X [32, 32, 3, 8000], y [8000, 1], expected X [32, 32, 3, 30], y [30, 1]"
    assert expected in refused(small)
    for arrays, found in (
        ({"X": np.zeros((32, 32, 3, 30))}, "arrays X [32, 32, 3, 30], expected"),
        ({}, "arrays none"),
    ):
        savemat(path, arrays)
        assert found in refused(small)
    savemat(path, {"X": np.zeros((32, 32, 3, 30)), "y": np.ones((30, 1), np.uint8)})
    assert "images of float64" in refused(small)
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(600))
    assert "no MATLAB file that can be read" in refused(small)


def test_libsvm_texts_that_are_none(tmp_path: Path) -> None:
    small = write("usps", tmp_path / "files")
    path = small.folder / "usps.bz2"
    lines = bz2.decompress(path.read_bytes()).splitlines(keepends=True)
    for text, found in (
        (b"".join(lines[:-1]), "29 images, expected 30"),
        (b"".join(lines).replace(b" 256:", b" 257:"), "no lines `label index:value`"),
        (re.sub(rb" 3:\S+", b" 3:7", b"".join(lines)), "pixels from -1.0 to 7.0"),
        (re.sub(rb" 3:\S+", b" 3:nan", b"".join(lines)), "pixels from nan"),
        (b"<html>moved</html>", "no lines `label index:value`"),
        (b"1 1:0.5\n" * 1_000_000, "more than 246,720 bytes"),
    ):
        path.write_bytes(bz2.compress(text))
        assert found in refused(small)


@pytest.mark.parametrize("name", ["stl10", "cifar10"])
@pytest.mark.parametrize("path", ["../outside", "/etc/outside", "folder/../../outside", "..\\outside", "C:/outside"])
def test_tars_with_a_way_out(name: str, path: str, tmp_path: Path) -> None:
    small = write(name, tmp_path / "files")
    archive = next(small.folder.iterdir())
    archive.write_bytes(tar({path: b"harm"}))
    assert f"a file {path!r} outside of its folder" in refused(small)
    assert not (tmp_path / "outside").exists()


def test_tars_that_lack_or_exaggerate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weightzoo.datasets.readers.archive.MAX_MEMBERS", 40)
    small = write("stl10", tmp_path / "files")
    archive = small.folder / "stl10_binary.tar.gz"
    with tarfile.open(archive) as opened:
        members = {name: opened.extractfile(name).read() for name in opened.getnames()}
    name = "stl10_binary/train_X.bin"
    link = tarfile.TarInfo(name)
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hard_link = tarfile.TarInfo(name)
    hard_link.type, hard_link.linkname = tarfile.LNKTYPE, "../../outside"
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 6_000_000_000
    cases: list[tuple[dict[str, bytes | tarfile.TarInfo], type[Exception], str]] = [
        ({key: content for key, content in members.items() if key != name}, MissingError, f"no {name} in it"),
        (members | {name: link}, MissingError, f"no {name} in it"),
        (members | {name: hard_link}, MissingError, f"no {name} in it"),
        (members | {name: bytes(HUGE)}, FormatError, f"{HUGE:,} bytes of {name}, expected at most 829,440"),
        (members | {name: b"short"}, FormatError, f"5 bytes of {name}, expected 829,440"),
        ({"long": long_name}, FormatError, "a part of 6000000000 bytes"),
        ({f"empty-{n}": b"" for n in range(41)}, FormatError, "more than 40 files"),
    ]
    for content, kind, found in cases:
        archive.write_bytes(tar(content))
        assert found in refused(small, kind)
    archive.write_bytes(tar(members)[:-5_000])
    assert "no whole tar.gz" in refused(small)


class Runs:
    """Pickled, it becomes a call of a function."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.write_text, (self.path, "harm"))


def global_call(module: str, name: str, argument: str = "harm") -> bytes:
    return f"c{module}\n{name}\n(S'{argument}'\ntR.".encode()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_that_call_something_are_refused_unrun(protocol: int, tmp_path: Path) -> None:
    small, mark = write("cifar10", tmp_path / "files"), tmp_path / "mark"
    harmful = pickle.dumps({"data": Runs(mark), "labels": []}, protocol=protocol)
    members = cifar10_members(small.images, small.labels) | {"cifar-10-batches-py/data_batch_1": harmful}
    (small.folder / "cifar-10-python.tar.gz").write_bytes(tar(members))
    assert "data_batch_1: refused, no batch of images (it " in refused(small)
    assert not mark.exists()
    pickle.loads(harmful)
    assert mark.exists()  # it does harm where nobody refuses it


HARMFUL = {
    "system": (global_call("posix", "system"), "it calls posix.system"),
    "eval": (global_call("builtins", "eval"), "it calls builtins.eval"),
    "numpy": (global_call("numpy", "fromfile"), "it calls numpy.fromfile"),
    "attribute": (b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.", "it calls numpy.dtype.__init__"),
    "class": (b"\x80\x02cnumpy\nndarray\n(t\x81.", "it uses NEWOBJ"),
    "instance": (b"(inumpy\nndarray\n.", "it uses INST"),
    "persistent": (b"P1\n.", "it uses PERSID"),
    "extension": (b"\x80\x02\x82\x01.", "it uses EXT1"),
    "place": (b"\x80\x02}r\xff\xff\xff\x7f.", "it numbers an object 2147483647"),
    "buffer": (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".", ""),
    "text": (b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b".", ""),
    "bytes": (b"\x80\x03B" + struct.pack("<I", 2**31) + b".", ""),
    "shape": (
        python2_pickle({"data": np.zeros((2, 3), np.uint8)}).replace(b"J\x02\0\0\0", b"J\xff\xff\xff\x7f"),
        "reshape",
    ),
    "type": (python2_pickle({"data": np.zeros((2, 3), np.uint8)}).replace(b"u1", b"O8"), "not of unsigned bytes"),
    "size": (
        python2_pickle({"data": np.zeros((1, 1), np.uint8)}).replace(b"\x89T\1\0\0\0\0", b"\x89J\xff\xff\xff\x7f"),
        "without bytes",
    ),
    "list": (python2_pickle([1, 2]), "it holds a list"),
    "nothing": (b"", ""),
    "text file": (b"<html>moved</html>", ""),
    "unhashable": (b"\x80\x02}(]K\x01u.", "unhashable"),
    "cut": (python2_pickle({"labels": [1, 2, 3]})[:-4], ""),
}


@pytest.mark.parametrize("case", HARMFUL)
def test_pickles_that_are_no_batch(case: str) -> None:
    content, reason = HARMFUL[case]
    with pytest.raises(FormatError, match=r"^batch: refused, no batch of images \(.*\); get the file anew$") as caught:
        unpickle(content, "batch")
    assert reason in str(caught.value)


def test_a_pickle_can_not_change_what_later_ones_call() -> None:
    good = python2_pickle({"data": np.arange(6, dtype=np.uint8).reshape(2, 3)})
    for name in ("_reconstruct", "ndarray"):
        module = b"numpy" if name == "ndarray" else b"numpy.core.multiarray"
        target = b"c" + module + b"\n" + name.encode() + b"\n"
        attributes = b"}(U\x0c__defaults__K\x01\x85U\x0c__setstate__cnumpy\ndtype\nU\x04makecnumpy\ndtype\nu"
        for state in (attributes, b"N" + attributes + b"\x86"):  # in its dictionary, and by setattr
            with pytest.raises(FormatError):
                unpickle(b"\x80\x02" + target + state + b"b.", "batch")
    assert unpickle(good, "batch")["data"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_batches_of_another_kind(tmp_path: Path) -> None:
    small = write("cifar10", tmp_path / "files")
    archive, folder = small.folder / "cifar-10-python.tar.gz", "cifar-10-batches-py"
    members = cifar10_members(small.images, small.labels)
    data = np.zeros((6, 3072), np.uint8)
    for name, batch, found in (
        ("data_batch_2", {"data": data[:5], "labels": [0] * 5}, "29 images in data_batch_1, "),
        ("data_batch_2", {"data": data, "labels": [0] * 5}, "no list `labels` of 6 labels"),
        ("data_batch_2", {"data": data, "labels": [0, 1, 2, 3, 4, 10]}, "`labels` beyond 0 to 9"),
        ("data_batch_2", {"data": data, "labels": ["0"] * 6}, "`labels` beyond 0 to 9"),
        ("data_batch_2", {"data": data[:, :100], "labels": [0] * 6}, "no array `data` with 3072 bytes an image"),
        ("data_batch_2", {"labels": [0] * 6}, "no array `data`"),
        ("batches.meta", {"label_names": ["a", "b"]}, "no list `label_names` of 10"),
    ):
        archive.write_bytes(tar(members | {f"{folder}/{name}": python2_pickle(batch)}))
        assert found in refused(small)


@pytest.mark.parametrize("path", ["../outside.JPEG", "/outside.JPEG", "tiny-imagenet-200/../../outside.JPEG"])
def test_zips_with_a_way_out(path: str, tmp_path: Path) -> None:
    small = write("tiny-imagenet", tmp_path / "files")
    members = tiny_members(small.images, small.labels)
    (small.folder / "tiny-imagenet-200.zip").write_bytes(zipped(members | {path: b"harm"}))
    assert f"a file {path!r} outside of its folder" in refused(small)


def test_zips_that_lack_or_exaggerate(tmp_path: Path) -> None:
    small = write("tiny-imagenet", tmp_path / "files")
    archive, root = small.folder / "tiny-imagenet-200.zip", "tiny-imagenet-200"
    members = tiny_members(small.images, small.labels)
    image = next(name for name in members if name.startswith(f"{root}/train/") and name.endswith(".JPEG"))
    without = {name: content for name, content in members.items() if name != image}
    other = np.zeros((3, 64, 65), np.uint8)
    for content, found in (
        (without, "29 train images, expected 30"),
        (members | {image: b"no image"}, "no JPEG that can be read"),
        (members | {image: jpeg(other)}, "65x64 pixels, expected 64x64"),
        (members | {image: members[image][:-200]}, "no JPEG that can be read"),
        (members | {image: bytes(HUGE)}, f"{HUGE:,} bytes of {image}, expected at most 100,000"),
        (members | {f"{root}/words.txt": bytes(HUGE)}, f"{HUGE:,} bytes of {root}/words.txt"),
        (members | {f"{root}/wnids.txt": b"n01443537\n"}, "1 classes, expected 4"),
        (members | {f"{root}/val/val_annotations.txt": b"val_0.JPEG\tn99999999\n"}, "a line 'val_0.JPEG n99999999'"),
        (members | {f"{root}/val/val_annotations.txt": b"val_0.JPEG\tn01443537\n"}, "1 val images, expected 12"),
        ({"README": b"another zip"}, f"no {root}/wnids.txt in it"),
    ):
        archive.write_bytes(zipped(content))
        assert found in refused(small)
    archive.write_bytes(zipped(members)[:-50])
    assert "no whole zip" in refused(small)


def test_a_zip_that_lies_about_sizes_gives_no_more_than_it_says(tmp_path: Path) -> None:
    small = write("tiny-imagenet", tmp_path / "files")
    archive = small.folder / "tiny-imagenet-200.zip"
    members = tiny_members(small.images, small.labels) | {"tiny-imagenet-200/words.txt": bytes(HUGE)}
    archive.write_bytes(zipped(members).replace(struct.pack("<I", HUGE), struct.pack("<I", 1_000)))
    assert "words.txt can't be read" in refused(small)
    with zipfile.ZipFile(archive) as opened:
        assert opened.getinfo("tiny-imagenet-200/words.txt").file_size == 1_000


def test_no_damage_to_a_file_gives_more_than_one_line(small: Small) -> None:
    """Whatever is broken: the reader gives a data set, or refuses with an error of ours.

    MATLAB files are only cut off: SciPy may crash on other damage, from which their checksum protects.
    """
    draw, refusals = random.Random(0), []
    for path in sorted(small.folder.iterdir()):
        whole = path.read_bytes()
        for number in range(30):
            broken = bytearray(whole)
            if number % 3 == 0 or small.name == "svhn":
                del broken[draw.randrange(len(broken)) :]
            else:
                for _ in range(draw.choice([1, 3, 40])):
                    broken[draw.randrange(len(broken) if number % 3 == 1 else min(200, len(broken)))] = draw.randrange(
                        256
                    )
            path.write_bytes(broken)
            try:
                read(small)
            except (FormatError, MissingError) as error:
                refusals.append(str(error))
        path.write_bytes(whole)
    assert refusals
    assert not [line for line in refusals if "\n" in line]
