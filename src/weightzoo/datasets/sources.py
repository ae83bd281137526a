"""The image data sets as records: their sizes, and what a section that says nothing else gets.

Splits, sizes and normalisation are those of the published zoos (Schürholt et al. 2022, arXiv 2209.14764, and its
released code) as far as these state them. Ours are: CIFAR-100 and Tiny-ImageNet keep 10,000 images for validation and
are normalised as CIFAR-10. Its ResNet-18 zoo has 10,000 validation images of CIFAR-10 too: `val: 10000` in its section.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """An image data set: what is published, and how it is prepared by default."""

    title: str
    train: int  # images of the official training set, from which the train and val splits are drawn
    val: int  # of these, images for validation unless a section says otherwise
    test: int  # images of the official test set
    classes: int
    size: int  # pixels of a side that a section gets unless it says otherwise
    channels: int = 3  # likewise
    mean: float | None = 0.5  # of the normalisation, for each channel; None: measured on the train split
    std: float | None = 0.5


SOURCES: dict[str, Source] = {
    "digits": Source("digits", train=1_437, val=180, test=360, classes=10, size=28, channels=1, mean=None, std=None),
    "mnist": Source(
        "MNIST", train=60_000, val=10_000, test=10_000, classes=10, size=28, channels=1, mean=0.1307, std=0.3081
    ),
    "fashion-mnist": Source("Fashion-MNIST", train=60_000, val=10_000, test=10_000, classes=10, size=28, channels=1),
    "svhn": Source("SVHN", train=73_257, val=13_257, test=26_032, classes=10, size=28, channels=1),
    "usps": Source(
        "USPS", train=7_291, val=1_291, test=2_007, classes=10, size=28, channels=1, mean=0.1307, std=0.3081
    ),
    "stl10": Source("STL-10", train=5_000, val=800, test=8_000, classes=10, size=32),
    "cifar10": Source("CIFAR-10", train=50_000, val=8_000, test=10_000, classes=10, size=32),
    "cifar100": Source("CIFAR-100", train=50_000, val=10_000, test=10_000, classes=100, size=32),
    "tiny-imagenet": Source("Tiny-ImageNet", train=100_000, val=10_000, test=10_000, classes=200, size=64),
}
