"""The published data sets on a small scale: a few random images, written in each set's own format."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from weightzoo.datasets.download import md5_of
from weightzoo.datasets.record import Published, RemoteFile
from weightzoo.datasets.sources import SOURCES

TRAIN, VAL, TEST = 30, 6, 12
WNIDS = ("n02124075", "n01443537", "n04067472", "n02950826")  # not sorted, as in the published list
Files = dict[str, bytes]


@dataclass(frozen=True)
class Small:
    """A small data set: the record that describes it, the folder with its files, and what was written into them."""

    name: str
    source: Published
    folder: Path
    images: dict[str, np.ndarray]  # train, test -> uint8 [N, C, H, W]
    labels: dict[str, np.ndarray]


def write(name: str, folder: Path, *, seed: int = 0, urls: tuple[str, ...] = ()) -> Small:
    """The small data set `name`, with its files in `folder` and addresses below each of `urls`."""
    random = np.random.default_rng(seed)
    published = SOURCES[name]
    assert isinstance(published, Published)
    classes = {"cifar100": 100, "tiny-imagenet": len(WNIDS)}.get(name, 10)
    images = {
        part: _random_images(random, count, published.stored) for part, count in (("train", TRAIN), ("test", TEST))
    }
    labels = {part: random.integers(0, classes, count) for part, count in (("train", TRAIN), ("test", TEST))}
    labels["train"][:2], labels["test"][:2] = (0, classes - 1), (0, classes - 1)
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in WRITERS[name](images, labels).items():
        (folder / file).write_bytes(content)
    source = replace(published, train=TRAIN, val=VAL, test=TEST, classes=classes)
    return Small(name, recorded(source, folder, urls), folder, images, labels)


def recorded(source: Published, folder: Path, urls: tuple[str, ...] = ()) -> Published:
    """The record with the checksums of what lies in `folder`."""
    known = tuple(
        replace(
            file,
            md5=md5_of(folder / file.name),
            urls=tuple(f"{url}/{file.name}" for url in urls),
            unpacked=_unpacked(folder / file.name, file),
        )
        for file in source.files()
    )
    return replace(source, files=lambda: known)


def again(small: Small) -> Small:
    """The same data set with the checksums that its files have now, so that only its reader can refuse them."""
    return replace(small, source=recorded(small.source, small.folder))


def _unpacked(path: Path, file: RemoteFile) -> Mapping[str, str]:
    if not file.unpacked:
        return {}
    try:
        with tarfile.open(path) as archive:
            return {name: hashlib.md5(archive.extractfile(name).read()).hexdigest() for name in file.unpacked}
    except (tarfile.TarError, KeyError, EOFError, OSError):
        return file.unpacked


def _random_images(random: np.random.Generator, count: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Smooth enough for JPEG and for resizing to mean something, all different."""
    channels, height, width = shape
    coarse = random.integers(0, 256, (count, channels, 4, 4), dtype=np.uint8)
    rows, columns = (np.linspace(0, 3.99, side).astype(int) for side in (height, width))
    noise = random.integers(0, 8, (count, *shape), dtype=np.uint8)
    return np.minimum(coarse[:, :, rows][:, :, :, columns], 247) + noise


def _idx(images: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> Files:
    files: Files = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        n, _, h, w = images[part].shape
        pixels, classes = images[part].tobytes(), labels[part].astype(np.uint8).tobytes()
        files[f"{prefix}-images-idx3-ubyte.gz"] = gzip.compress(struct.pack(">IIII", 0x803, n, h, w) + pixels, mtime=0)
        files[f"{prefix}-labels-idx1-ubyte.gz"] = gzip.compress(struct.pack(">II", 0x801, n) + classes, mtime=0)
    return files


def _svhn(images: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> Files:
    files: Files = {}
    for part in ("train", "test"):
        digits = np.where(labels[part] == 0, 10, labels[part]).astype(np.uint8)[:, None]
        stream = io.BytesIO()
        savemat(stream, {"X": images[part].transpose(2, 3, 1, 0), "y": digits}, do_compression=True)
        files[f"{part}_32x32.mat"] = stream.getvalue()
    return files


def _usps(images: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> Files:
    files: Files = {}
    for part, name in (("train", "usps.bz2"), ("test", "usps.t.bz2")):
        lines = (
            f"{label + 1} " + " ".join(f"{n}:{value:.6f}" for n, value in enumerate(image.ravel() / 127.5 - 1, 1))
            for image, label in zip(images[part], labels[part], strict=True)
        )
        files[name] = bz2.compress(" \n".join([*lines, ""]).encode())
    return files


def tar(members: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def _stl10(images: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> Files:
    members = {"stl10_binary/unlabeled_X.bin": b"\0" * 100_000}
    for part in ("test", "train"):
        members[f"stl10_binary/{part}_X.bin"] = images[part].transpose(0, 1, 3, 2).tobytes()
        members[f"stl10_binary/{part}_y.bin"] = (labels[part] + 1).astype(np.uint8).tobytes()
    return {"stl10_binary.tar.gz": tar(members)}


def python2_pickle(value: Any) -> bytes:
    """A pickle as Python 2 wrote the published batches: protocol 2, texts as bytes, arrays by NumPy's old module."""

    def code(value: Any) -> bytes:
        if isinstance(value, str):
            raw = value.encode("latin1")
            return b"T" + struct.pack("<i", len(raw)) + raw
        if isinstance(value, int):
            return b"J" + struct.pack("<i", value)
        if isinstance(value, list):
            return b"](" + b"".join(map(code, value)) + b"e"
        if isinstance(value, dict):
            return b"}(" + b"".join(code(key) + code(item) for key, item in value.items()) + b"u"
        assert isinstance(value, np.ndarray)
        assert value.dtype == np.uint8
        kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        shape = b"(" + b"".join(code(side) for side in value.shape) + b"t"
        return empty + b"(K\x01" + shape + kind + b"\x89" + code(value.tobytes().decode("latin1")) + b"tb"

    return b"\x80\x02" + code(value) + b"."


def _cifar10(images: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> Files:
    return {"cifar-10-python.tar.gz": tar(cifar10_members(images, labels))}


def cifar10_members(
    images: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
    dump: Callable[[Any], bytes] = python2_pickle,
) -> dict[str, bytes]:
    def batch(name: str, part: str, rows: slice) -> bytes:
        chosen = labels[part][rows].tolist()
        data = images[part][rows].reshape(len(chosen), -1)
        return dump({"batch_label": name, "labels": chosen, "data": data, "filenames": [f"{n}.png" for n in chosen]})

    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    fifth = TRAIN // 5
    members = {"batches.meta": dump({"num_cases_per_batch": fifth, "label_names": names, "num_vis": 3072})}
    for number in range(5):
        rows = slice(number * fifth, (number + 1) * fifth)
        members[f"data_batch_{number + 1}"] = batch(f"training batch {number + 1} of 5", "train", rows)
    members["test_batch"] = batch("testing batch 1 of 1", "test", slice(None))
    return {f"cifar-10-batches-py/{name}": content for name, content in members.items()}


def _cifar100(images: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> Files:
    names = [f"class {number}" for number in range(100)]
    members = {"cifar-100-python/meta": python2_pickle({"fine_label_names": names, "coarse_label_names": ["all"]})}
    for part in ("train", "test"):
        fine, data = labels[part].tolist(), images[part].reshape(len(labels[part]), -1)
        batch = {"filenames": ["a"] * len(fine), "fine_labels": fine, "coarse_labels": [0] * len(fine), "data": data}
        members[f"cifar-100-python/{part}"] = python2_pickle(batch)
    return {"cifar-100-python.tar.gz": tar(members)}


def tiny_members(images: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> Files:
    """The files of the zip, every fifth image grey, in an order that has nothing to do with names."""
    sorted_ids, members = sorted(WNIDS), {}
    for number, (image, label) in enumerate(zip(images["train"], labels["train"], strict=True)):
        wnid = sorted_ids[label]
        members[f"train/{wnid}/images/{wnid}_{number}.JPEG"] = jpeg(image, grey=number % 5 == 0)
    for wnid in WNIDS:
        members[f"train/{wnid}/{wnid}_boxes.txt"] = b""
    lines = []
    for number, (image, label) in enumerate(zip(images["test"], labels["test"], strict=True)):
        members[f"val/images/val_{number}.JPEG"] = jpeg(image, grey=number % 5 == 0)
        lines.append(f"val_{number}.JPEG\t{sorted_ids[label]}\t0\t0\t62\t62")
    members["test/images/test_0.JPEG"] = jpeg(images["test"][0])
    members["val/val_annotations.txt"] = "\n".join([*sorted(lines), ""]).encode()
    members["wnids.txt"] = "\n".join(WNIDS).encode()
    words = ["n02124075\tEgyptian cat", "n01443537\tgoldfish, Carassius auratus", "n00000001\tentity"]
    words += ["n04067472\treel", "n02950826\tcannon, artillery"]
    members["words.txt"] = "\n".join(words).encode()
    order = np.random.default_rng(0).permutation(len(members))
    return {f"tiny-imagenet-200/{name}": members[name] for name in np.array(list(members))[order].tolist()}


def zipped(members: Files) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def jpeg(image: np.ndarray, *, grey: bool = False) -> bytes:
    stream = io.BytesIO()
    picture = Image.fromarray(image.transpose(1, 2, 0))
    (picture.convert("L") if grey else picture).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _tiny_imagenet(images: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> Files:
    return {"tiny-imagenet-200.zip": zipped(tiny_members(images, labels))}


WRITERS: dict[str, Callable[[dict[str, np.ndarray], dict[str, np.ndarray]], Files]] = {
    "mnist": _idx,
    "fashion-mnist": _idx,
    "svhn": _svhn,
    "usps": _usps,
    "stl10": _stl10,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "tiny-imagenet": _tiny_imagenet,
}
