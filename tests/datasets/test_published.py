"""Every published data set, on small files in its own format: against what was written, and against torchvision."""

from __future__ import annotations

import gzip
import io
import pickle
import shutil
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision import transforms

from tests.datasets.small import TEST, TRAIN, VAL, Small, again, cifar10_members, jpeg, tar, write
from weightzoo.datasets import ImageData, prepare
from weightzoo.datasets.description import describe
from weightzoo.datasets.images import SPLITS
from weightzoo.datasets.preprocess import fitted
from weightzoo.datasets.record import Official, Published
from weightzoo.datasets.sources import SOURCES
from weightzoo.spec import DatasetSpec


def section(small: Small, **keys: Any) -> DatasetSpec:
    return DatasetSpec(source=small.name, **keys)


def prepared(small: Small, **keys: Any) -> ImageData:
    return prepare(small.name, section(small, **keys), given=small.folder)


def read(small: Small) -> Official:
    return small.source.read({file.name: small.folder / file.name for file in small.source.files()}, small.source)


def test_the_reader_gives_what_was_written(small: Small) -> None:
    official = read(small)
    for part, name in ((official.train, "train"), (official.test, "test")):
        written = small.images[name]
        if small.name == "tiny-imagenet":
            files = [jpeg(image, grey=number % 5 == 0) for number, image in enumerate(written)]
            decoded = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
            written = np.stack(decoded).transpose(0, 3, 1, 2)
            if name == "train":  # numbered by class, then by number
                order = np.lexsort((np.arange(TRAIN), small.labels[name]))
                np.testing.assert_array_equal(part.pixels(np.arange(TRAIN)), written[order])
                np.testing.assert_array_equal(part.labels, small.labels[name][order])
                continue
        if small.name == "usps":
            written = ((np.round(written / 127.5 - 1, 6).astype(np.float32) + 1) / 2 * 255).astype(np.uint8)
        np.testing.assert_array_equal(part.pixels(np.arange(len(written))), written)
        np.testing.assert_array_equal(part.labels, small.labels[name])


def torchvision_parts(small: Small, root: Path) -> dict[str, Any]:
    """torchvision's own data sets on the same files."""
    md5 = {file.name: file.md5 for file in small.source.files()}
    unpacked = {name.split("/")[-1]: md5 for file in small.source.files() for name, md5 in file.unpacked.items()}
    known = torchvision.datasets
    if small.name in ("mnist", "fashion-mnist"):
        kind = known.MNIST if small.name == "mnist" else known.FashionMNIST
        raw = root / kind.__name__ / "raw"
        raw.mkdir(parents=True)
        for name in md5:
            (raw / name.removesuffix(".gz")).write_bytes(gzip.decompress((small.folder / name).read_bytes()))
        return {part: kind(root, train=part == "train") for part in ("train", "test")}
    if small.name == "usps":
        return {part: known.USPS(small.folder, train=part == "train") for part in ("train", "test")}
    if small.name == "svhn":
        lists = {part: [url, name, md5[name]] for part, (url, name, _) in known.SVHN.split_list.items() if name in md5}
        kind = type("SVHN", (known.SVHN,), {"split_list": lists})
        return {part: kind(small.folder, split=part) for part in ("train", "test")}
    if small.name == "tiny-imagenet":
        with zipfile.ZipFile(small.folder / "tiny-imagenet-200.zip") as archive:
            archive.extractall(root)
        return {"train": known.ImageFolder(root / "tiny-imagenet-200" / "train")}
    shutil.unpack_archive(next(small.folder.iterdir()), root)
    own: type[Any] = {"stl10": known.STL10, "cifar10": known.CIFAR10, "cifar100": known.CIFAR100}[small.name]
    lists = {
        key: [[name, unpacked[name]] for name, _ in getattr(own, key) if name in unpacked]
        for key in ("train_list", "test_list")
    }
    if small.name == "stl10":
        kind = type("STL10", (own,), lists)
        return {part: kind(root, split=part) for part in ("train", "test")}
    meta = own.meta | {"md5": unpacked[own.meta["filename"]]}
    kind = type(own.__name__, (own,), lists | {"meta": meta})
    return {part: kind(root, train=part == "train") for part in ("train", "test")}


def published_transform(small: Small) -> transforms.Compose:
    """The preprocessing of the published zoos, by torchvision on Pillow images."""
    steps: dict[str, list[Any]] = {
        "svhn": [transforms.Grayscale(), transforms.CenterCrop(28)],
        "usps": [transforms.Resize(28)],
        "stl10": [transforms.Resize(32)],
    }
    normalisation = (0.1307, 0.3081) if small.name in ("mnist", "usps") else (0.5, 0.5)
    return transforms.Compose(
        [
            *steps.get(small.name, []),
            transforms.ToTensor(),
            transforms.Normalize(*((value,) for value in normalisation)),
        ]
    )


def test_a_network_sees_what_torchvision_would_show_it(small: Small, tmp_path: Path) -> None:
    parts = torchvision_parts(small, tmp_path / "root")
    data, transform = prepared(small), published_transform(small)
    shown = {
        part: [(transform(image), int(label)) for image, label in dataset] for part, dataset in parts.items()
    }  # train, test -> images and labels in torchvision's order
    if small.name != "tiny-imagenet":
        assert data.labels["test"].tolist() == [label for _, label in shown["test"]]
        theirs = torch.stack([image for image, _ in shown["test"]]).numpy()
        np.testing.assert_allclose(data.inputs["test"], theirs, atol=1e-6)

    ours = [
        (image, label)
        for split in ("train", "val")
        for image, label in zip(data.inputs[split], data.labels[split].tolist(), strict=True)
    ]
    assert len(ours) == len(shown["train"]) == TRAIN
    left = list(range(TRAIN))
    for image, label in ours:  # each of torchvision's images is in one of the splits, with its label
        distances = [float(np.abs(shown["train"][index][0].numpy() - image).max()) for index in left]
        found = left.pop(int(np.argmin(distances)))
        assert min(distances) < 1e-6
        assert shown["train"][found][1] == label


def test_tiny_imagenet_has_the_first_names_of_its_classes_in_the_order_of_their_ids(tmp_path: Path) -> None:
    assert read(write("tiny-imagenet", tmp_path)).class_names == ("goldfish", "Egyptian cat", "cannon", "reel")


def test_names_of_classes_that_share_their_first_are_told_apart(tmp_path: Path) -> None:
    small = write("tiny-imagenet", tmp_path)
    path = small.folder / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["tiny-imagenet-200/words.txt"] = b"n04067472\tcrane, bird\nn02950826\tcrane, machine\nn02124075\ttabby, cat"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert read(again(small)).class_names == ("n01443537", "tabby", "crane, machine", "crane, bird")


def test_the_order_in_the_archive_has_no_say(tmp_path: Path) -> None:
    hashes = set()
    for order in (1, -1):
        small = write("tiny-imagenet", tmp_path / str(order))
        path = small.folder / "tiny-imagenet-200.zip"
        with zipfile.ZipFile(path) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in sorted(members)[::order]:
                archive.writestr(name, content)
        spec = DatasetSpec(source="tiny-imagenet")
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(SOURCES, "tiny-imagenet", again(small).source)
            hashes.add(prepare("tiny", spec, given=small.folder).content_hash)
    assert len(hashes) == 1


SECTIONS = [{}, {"train": 10}, {"val": 3, "test": 5}, {"size": 20}, {"size": 40, "channels": 3}, {"channels": 1}]


@pytest.mark.parametrize("keys", SECTIONS, ids=str)
def test_the_description_is_what_prepare_gives(small: Small, keys: dict[str, Any]) -> None:
    told, data = describe(small.name, section(small, **keys)), prepared(small, **keys)
    assert told.counts == {split: data.size(split) for split in SPLITS}
    assert (told.image_shape, told.classes) == (data.image_shape, data.classes)
    assert all(data.images[split].shape[1:] == told.image_shape for split in SPLITS)
    assert all(data.images[split].flags.c_contiguous for split in SPLITS)
    assert {(data.images[split].dtype, data.labels[split].dtype) for split in SPLITS} == {
        (np.dtype("u1"), np.dtype("i4"))
    }
    assert (data.source, data.name) == (small.name, small.name)


def test_defaults_are_those_of_the_record(small: Small) -> None:
    data = prepared(small)
    assert [data.size(split) for split in SPLITS] == [TRAIN - VAL, VAL, TEST]
    assert len(set(data.class_names)) == small.source.classes


def test_the_seed_draws_the_split_and_counts_keep_val_and_test(small: Small) -> None:
    data, other, fewer = prepared(small), prepared(small, seed=1), prepared(small, train=8, test=5)
    np.testing.assert_array_equal(data.images["test"], other.images["test"])
    assert not np.array_equal(data.images["val"], other.images["val"])
    np.testing.assert_array_equal(fewer.images["val"], data.images["val"])
    np.testing.assert_array_equal(fewer.images["train"], data.images["train"][:8])
    rows = [np.flatnonzero((data.images["test"] == image).all((1, 2, 3))) for image in fewer.images["test"]]
    assert [len(row) for row in rows] == [1] * 5
    assert np.all(np.diff(np.concatenate(rows)) > 0)  # a part of the official test set, in its order
    assert prepared(small, test=TEST).content_hash == data.content_hash


@pytest.mark.parametrize(("side", "size"), [(32, 28), (96, 28), (96, 32), (16, 28), (64, 32)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_is_that_of_torchvision(side: int, size: int, channels: int) -> None:
    images = np.random.default_rng(side).integers(0, 256, (3, channels, side, side), dtype=np.uint8)
    resize = transforms.Compose([transforms.ToPILImage(), transforms.Resize(size), transforms.PILToTensor()])
    theirs = torch.stack([resize(torch.from_numpy(image)) for image in images]).numpy()
    np.testing.assert_array_equal(fitted(images, size, channels), theirs)


def test_grey_images_in_three_channels_and_coloured_ones_in_one(small: Small) -> None:
    colour, grey = prepared(small, channels=3), prepared(small, channels=1)
    if small.source.stored[0] == 1:
        assert (colour.images["train"] == grey.images["train"]).all()
    else:
        red, green, blue = colour.images["val"].astype(float).transpose(1, 0, 2, 3)
        luma = 0.299 * red + 0.587 * green + 0.114 * blue
        assert np.abs(luma - grey.images["val"][:, 0]).max() <= 2
    assert (len(colour.mean), len(grey.std)) == (3, 1)


@pytest.mark.parametrize("protocol", range(5))
def test_pickles_of_python_3_are_read_like_those_of_python_2(protocol: int, tmp_path: Path) -> None:
    small = write("cifar10", tmp_path)
    before = read(small)
    members = cifar10_members(small.images, small.labels, dump=partial(pickle.dumps, protocol=protocol))
    (small.folder / "cifar-10-python.tar.gz").write_bytes(tar(members))
    after, rows = read(again(small)), np.arange(TRAIN)
    np.testing.assert_array_equal(after.train.pixels(rows), before.train.pixels(rows))
    assert after.train.labels.tolist() == before.train.labels.tolist()
    assert after.class_names == before.class_names


def test_records_agree_with_torchvision() -> None:
    """The names that readers ask for, and all that torchvision knows of files."""
    names = {name: [file.name for file in record.files()] for name, record in published().items()}
    known = torchvision.datasets
    assert names["mnist"] == names["fashion-mnist"] == [name for name, _ in known.MNIST.resources]
    assert names["svhn"] == [known.SVHN.split_list[part][1] for part in ("train", "test")]
    assert names["usps"] == [known.USPS.split_list[part][1] for part in ("train", "test")]
    archives = (known.STL10, known.CIFAR10, known.CIFAR100)
    assert [*names["stl10"], *names["cifar10"], *names["cifar100"]] == [kind.filename for kind in archives]
    (cifar,) = published()["cifar10"].files()
    assert (cifar.md5, cifar.urls) == (known.CIFAR10.tgz_md5, (known.CIFAR10.url,))
    assert cifar.unpacked["cifar-10-batches-py/test_batch"] == known.CIFAR10.test_list[0][1]
    assert len(published()["mnist"].files()[0].urls) == len(known.MNIST.mirrors)
    for record in published().values():
        assert all(len(file.md5) == 32 and file.urls for file in record.files())


def published() -> dict[str, Published]:
    return {name: record for name, record in SOURCES.items() if isinstance(record, Published)}
