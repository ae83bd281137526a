"""The image data sets that a section of `params.yaml` can name.

Splits, sizes and normalisation are those of the published zoos (Schürholt et al. 2022, arXiv 2209.14764, and its
released code) as far as these state them. Ours are: CIFAR-100 and Tiny-ImageNet keep 10,000 images for validation and
are normalised as CIFAR-10. Its ResNet-18 zoo has 10,000 validation images of CIFAR-10 too: `val: 10000` in its section.

Addresses and checksums are torchvision's, Tiny-ImageNet's excepted, which torchvision does not know.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from weightzoo.datasets.readers import cifar, idx, libsvm, matlab, stl10, tiny_imagenet
from weightzoo.datasets.record import Published, RemoteFile, Source

CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def _mirrored(kind: str) -> tuple[RemoteFile, ...]:
    """The files of a class of torchvision that has mirrors."""
    known = _torchvision(kind)
    return tuple(RemoteFile(name, md5, tuple(url + name for url in known.mirrors)) for name, md5 in known.resources)


def _one_a_part(kind: str) -> tuple[RemoteFile, ...]:
    """The files of a class of torchvision that has one for training and one for testing."""
    parts = _torchvision(kind).split_list
    return tuple(RemoteFile(name, md5, (url,)) for url, name, md5 in (parts["train"], parts["test"]))


def _archive(kind: str) -> tuple[RemoteFile, ...]:
    """The archive of a class of torchvision that has one."""
    known = _torchvision(kind)
    parts = [*known.train_list, *known.test_list]
    if hasattr(known, "meta"):
        parts.append([known.meta["filename"], known.meta["md5"]])
    unpacked = {f"{known.base_folder}/{name}": md5 for name, md5 in parts if not name.startswith("unlabeled")}
    return (RemoteFile(known.filename, known.tgz_md5, (known.url,), unpacked),)


def _tiny_imagenet() -> tuple[RemoteFile, ...]:
    name = "tiny-imagenet-200.zip"
    return (RemoteFile(name, "90528d7ca1a48142e341f4ef8d21d0de", (f"http://cs231n.stanford.edu/{name}",)),)


def _torchvision(kind: str) -> Any:
    import torchvision.datasets  # takes seconds to import, which only who prepares a data set should pay

    return getattr(torchvision.datasets, kind)


SOURCES: dict[str, Source] = {
    "digits": Source(train=1_437, val=180, test=360, classes=10, size=28, channels=1),
    "mnist": Published(
        train=60_000, val=10_000, test=10_000, classes=10, size=28, channels=1, stored=(1, 28, 28),
        mean=0.1307, std=0.3081, files=partial(_mirrored, "MNIST"), read=idx.reader("0123456789"), folder="MNIST/raw",
    ),
    "fashion-mnist": Published(
        train=60_000, val=10_000, test=10_000, classes=10, size=28, channels=1, stored=(1, 28, 28),
        files=partial(_mirrored, "FashionMNIST"), read=idx.reader(CLOTHES), folder="FashionMNIST/raw",
    ),
    "svhn": Published(
        train=73_257, val=13_257, test=26_032, classes=10, size=28, channels=1, stored=(3, 32, 32), crop=True,
        files=partial(_one_a_part, "SVHN"), read=matlab.read,
    ),
    "usps": Published(
        train=7_291, val=1_291, test=2_007, classes=10, size=28, channels=1, stored=(1, 16, 16),
        mean=0.1307, std=0.3081, files=partial(_one_a_part, "USPS"), read=libsvm.read,
    ),
    "stl10": Published(
        train=5_000, val=800, test=8_000, classes=10, size=32, channels=3, stored=(3, 96, 96),
        files=partial(_archive, "STL10"), read=stl10.read,
    ),
    "cifar10": Published(
        train=50_000, val=8_000, test=10_000, classes=10, size=32, channels=3, stored=(3, 32, 32),
        files=partial(_archive, "CIFAR10"), read=cifar.read_cifar10,
    ),
    "cifar100": Published(
        train=50_000, val=10_000, test=10_000, classes=100, size=32, channels=3, stored=(3, 32, 32),
        files=partial(_archive, "CIFAR100"), read=cifar.read_cifar100,
    ),
    "tiny-imagenet": Published(
        train=100_000, val=10_000, test=10_000, classes=200, size=64, channels=3, stored=(3, 64, 64),
        files=_tiny_imagenet, read=tiny_imagenet.read,
    ),
}  # fmt: skip
