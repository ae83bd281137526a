"""Tiny-ImageNet's format: a zip of JPEGs, `train/<class>/images/<class>_<n>.JPEG` and `val/images/val_<n>.JPEG` below
`tiny-imagenet-200`, where a class is a WordNet id, with tables of the classes (`wnids.txt`), their names (`words.txt`)
and those of the val images (`val/val_annotations.txt`)."""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from weightzoo.datasets.readers.archive import check_inside
from weightzoo.datasets.readers.bounded import BROKEN, foreign, read_at_most
from weightzoo.datasets.record import Official, Part, Published

ROOT = "tiny-imagenet-200"
MAX_IMAGE, MAX_TABLE = 100_000, 10_000_000  # bytes
MAX_ENTRIES = 500_000  # images, their folders and tables
_NUMBER = re.compile(r"_(\d{1,9})\.JPEG")


def read(files: Mapping[str, Path], source: Published) -> Official:
    """Tiny-ImageNet; its labelled val set is the test set, since its own test set has no labels.

    Classes are numbered in the order of their ids, images of a class in that of their numbers, whatever the order in
    the zip. Images are decoded when they are asked for.

    Raises:
        FormatError: the zip is broken, or does not hold the images that it should.
    """
    (path,) = files.values()
    with _opened(path) as archive:
        paths = _paths(path, archive)
        tables = {name: _table(path, archive, name) for name in ("wnids.txt", "words.txt")}
        annotations = _table(path, archive, "val/val_annotations.txt")
    ids = sorted(row[0] for row in tables["wnids.txt"])
    if len(set(ids)) != source.classes:
        raise foreign(f"{path}: wnids.txt", f"{len(set(ids))} classes", source.classes)
    labels = {wnid: label for label, wnid in enumerate(ids)}

    train: list[tuple[int, int, str]] = []  # label, number, path in the zip
    for name in paths:
        parts = name.split("/")
        number = _NUMBER.search(name)
        if parts[1:2] == ["train"] and len(parts) == 5 and parts[2] in labels and number:
            train.append((labels[parts[2]], int(number[1]), name))
    test: list[tuple[int, int, str]] = []
    for row in annotations:
        number = _NUMBER.search(row[0])
        if len(row) < 2 or row[1] not in labels or not number:
            raise foreign(f"{path}: val_annotations.txt", f"a line {' '.join(row)[:60]!r}", "an image and its class")
        test.append((labels[row[1]], int(number[1]), f"{ROOT}/val/images/{row[0]}"))

    def part(images: list[tuple[int, int, str]], count: int, what: str) -> Part:
        if len(images) != count:
            raise foreign(path, f"{len(images):,} {what} images", f"{count:,}")
        names = [name for _, _, name in images]
        return Part(np.array([label for label, _, _ in images], np.int32), partial(_decoded, path, names, source))

    training = part(sorted(train), source.train, "train")
    testing = part(sorted(test, key=lambda image: image[1]), source.test, "val")
    return Official(training, testing, _class_names(ids, tables["words.txt"]))


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, *BROKEN) as error:
        raise foreign(path, f"no whole zip ({error})", ROOT) from None


def _paths(path: Path, archive: zipfile.ZipFile) -> list[str]:
    """The paths of all files in the archive, none of them larger than a file of the data set can be."""
    infos = archive.infolist()
    if len(infos) > MAX_ENTRIES:
        raise foreign(path, f"{len(infos):,} entries", f"at most {MAX_ENTRIES:,}")
    for info in infos:
        check_inside(path, info.filename)
        limit = MAX_IMAGE if info.filename.endswith(".JPEG") else MAX_TABLE
        if info.file_size > limit:
            raise foreign(path, f"{info.file_size:,} bytes of {info.filename}", f"at most {limit:,}")
    return list(dict.fromkeys(info.filename for info in infos))


def _content(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    """A file of the archive: no more bytes are decompressed than its entry says."""
    try:
        with archive.open(name) as stream:
            return read_at_most(stream, f"{path}: {name}", archive.getinfo(name).file_size)
    except KeyError:
        raise foreign(path, f"no {name} in it", "Tiny-ImageNet's layout") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, *BROKEN) as error:
        raise foreign(path, f"{name} can't be read ({error})", "the whole file") from None


def _table(path: Path, archive: zipfile.ZipFile, name: str) -> list[list[str]]:
    """The lines of a text, split at tabs."""
    text = _content(path, archive, f"{ROOT}/{name}").decode("utf-8", errors="replace")
    return [line.split("\t") for line in text.splitlines() if line.strip()]


def _class_names(ids: list[str], words: list[list[str]]) -> tuple[str, ...]:
    """The first of the names of each class, or all of them where two classes share the first."""
    names = {row[0]: row[1] for row in words if len(row) > 1}
    full = [names.get(wnid, wnid) for wnid in ids]
    first = [name.split(",")[0].strip() for name in full]
    shared = Counter(first)
    return tuple(whole if shared[short] > 1 else short for short, whole in zip(first, full, strict=True))


def _decoded(path: Path, names: list[str], source: Published, rows: np.ndarray) -> np.ndarray:
    """Images uint8 `[n, 3, height, width]`; those that are grey in the zip get three equal channels."""
    channels, height, width = source.stored
    images = np.empty((len(rows), channels, height, width), np.uint8)
    with _opened(path) as archive:
        for row, target in zip(rows, images, strict=True):
            content = io.BytesIO(_content(path, archive, names[row]))
            try:
                with Image.open(content, formats=["JPEG"]) as image:
                    pixels = image.size
                    if pixels == (width, height):  # else a few bytes may claim any size: not decoded
                        target[:] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                raise foreign(f"{path}: {names[row]}", f"no JPEG that can be read ({error})", "one") from None
            if pixels != (width, height):
                raise foreign(f"{path}: {names[row]}", f"{pixels[0]}x{pixels[1]} pixels", f"{width}x{height}")
    return images
