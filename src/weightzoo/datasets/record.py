"""What is known of an image data set before it is read: the files that it consists of, and what they must hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class RemoteFile:
    """A published file: where it lies, and how to know that it is the right one."""

    name: str
    md5: str
    urls: tuple[str, ...]  # the same file at each, tried in this order
    unpacked: Mapping[str, str] = field(
        default_factory=dict[str, str]
    )  # of an archive: path of a file in it -> its md5


@dataclass(frozen=True)
class Part:
    """An official training or test set."""

    labels: np.ndarray  # integers [N], 0 to classes - 1
    pixels: Callable[[np.ndarray], np.ndarray]  # rows [n] -> uint8 [n, channels, height, width]; decodes only these


@dataclass(frozen=True)
class Official:
    """A data set as it was published."""

    train: Part
    test: Part
    class_names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Source:
    """An image data set: how many images there are, and what a section gets that says nothing else."""

    train: int  # images of the training set, from which the train and val splits are drawn
    val: int  # of these, images for validation
    test: int  # images of the test set
    classes: int
    size: int  # pixels of a side
    channels: int


@dataclass(frozen=True, kw_only=True)
class Published(Source):
    """A source that consists of published files.

    `read` gets the local path of each of `files` by its name: an archive, or the folder that it was unpacked in. The
    counts and `stored` bound what it reads: what a header asks for beyond them is refused before memory is taken.
    """

    stored: tuple[int, int, int]  # channels, height, width as published
    mean: float = 0.5  # of the normalisation, for each channel
    std: float = 0.5
    crop: bool = False  # whether smaller images are cut out of the centre rather than resized
    files: Callable[[], tuple[RemoteFile, ...]]
    read: Callable[[Mapping[str, Path], Published], Official]
    folder: str = ""  # where torchvision keeps the files below its root
