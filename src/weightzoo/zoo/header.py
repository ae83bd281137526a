"""`zoo.json`: what holds for a whole zoo, as a record and as plain JSON values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from weightzoo.architectures import Architecture
from weightzoo.architectures.serialise import from_json, to_json
from weightzoo.datasets.images import ImageData
from weightzoo.errors import FormatError, LayoutError
from weightzoo.zoo.format import FORMAT, HEADER, SPARSE_TENSORS
from weightzoo.zoo.place import MOST_HEADER, Place
from weightzoo.zoo.tensors import HASH_BYTES


@dataclass(frozen=True)
class DatasetInfo:
    """The image data set that a zoo was trained on. Hash, mean and deviation are None where they were not known."""

    name: str
    hash: str | None
    class_names: tuple[str, ...]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @classmethod
    def of(cls, data: ImageData) -> Self:
        """What a zoo says of these images."""
        return cls(data.name, data.content_hash, data.class_names, data.mean, data.std)


@dataclass(frozen=True)
class Sparse:
    """What a zoo of sparse models has more: `tensors` beside the weights, and the names of the prunable parameters."""

    tensors: tuple[str, ...]  # of format.SPARSE_TENSORS
    prunable: tuple[str, ...]


@dataclass(frozen=True)
class ZooHeader:
    """All that the models of a zoo share.

    `models` is their number, `checkpoint_epochs` the epochs whose weights the zoo holds, ascending, `probe_images` the
    number of images whose logits it holds (0: none), `spec` its section of `params.yaml` or what is known of it,
    `sparse` what a zoo of sparse models has more.
    """

    name: str
    architecture: Architecture
    dataset: DatasetInfo
    checkpoint_epochs: tuple[int, ...]
    models: int
    probe_images: int = 0
    spec: Mapping[str, Any] | None = None
    sparse: Sparse | None = None

    def __post_init__(self) -> None:
        epochs = self.checkpoint_epochs
        if not epochs or list(epochs) != sorted(set(epochs)) or epochs[0] < 0:
            raise LayoutError(
                f"checkpoint epochs are {list(epochs)}, expected ascending numbers from 0 on, at least one"
            )


@dataclass(frozen=True)
class StoredFile:
    """A file of a zoo: its name, its size in bytes, its BLAKE2b hash."""

    name: str
    bytes: int
    blake2b: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """A file on the disk."""
        digest = hashlib.blake2b(digest_size=HASH_BYTES)
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
        return cls(path.name, path.stat().st_size, digest.hexdigest())


def encode(header: ZooHeader, counts: Mapping[str, Any], files: tuple[StoredFile, ...]) -> dict[str, Any]:
    """The content of `zoo.json`."""
    record = {
        "format": FORMAT,
        "name": header.name,
        "architecture": to_json(header.architecture),
        "dataset": asdict(header.dataset),
        "spec": header.spec,
        "checkpoint_epochs": list(header.checkpoint_epochs),
        "probe_images": header.probe_images,
        "models": header.models,
        "counts": dict(counts),
        "files": [asdict(file) for file in files],
        **({} if header.sparse is None else {"sparse": asdict(header.sparse)}),
    }
    return record | {"checksum": _checksum(record)}


def decode(record: Any, place: str) -> tuple[ZooHeader, dict[str, Any], tuple[StoredFile, ...]]:
    """Read the content of `zoo.json`; `place` is named in errors.

    Raises:
        FormatError: it is of another format or version, incomplete, altered, or contradicts itself.
    """
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        found = record.get("format") if isinstance(record, dict) else type(record).__name__
        raise FormatError(f"{place}: format {found!r}, expected {FORMAT!r}; assemble the zoo again or update weightzoo")
    record = dict(record)
    recorded = record.pop("checksum", None)  # zoos that were packed by the first versions have none
    if (recorded is None and not record.keys() <= _KEYS) or recorded not in (None, _checksum(record)):
        raise FormatError(f"{place}: altered since it was written; assemble or pull the zoo again")
    try:
        dataset, sparse = record["dataset"], record.get("sparse")
        header = ZooHeader(
            name=record["name"],
            architecture=from_json(record["architecture"]),
            dataset=DatasetInfo(
                name=dataset["name"],
                hash=dataset["hash"],
                class_names=tuple(dataset["class_names"]),
                mean=None if dataset["mean"] is None else tuple(dataset["mean"]),
                std=None if dataset["std"] is None else tuple(dataset["std"]),
            ),
            checkpoint_epochs=tuple(int(epoch) for epoch in record["checkpoint_epochs"]),
            models=int(record["models"]),
            probe_images=int(record["probe_images"]),
            spec=record["spec"],
            sparse=None if sparse is None else Sparse(_known(sparse["tensors"]), tuple(map(str, sparse["prunable"]))),
        )
        files = tuple(
            StoredFile(str(each["name"]), int(each["bytes"]), str(each["blake2b"])) for each in record["files"]
        )
        return header, dict(record["counts"]), files
    except (KeyError, TypeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise FormatError(f"{place}: {what}; assemble or pull the zoo again") from None


_KEYS = {
    "format", "name", "architecture", "dataset", "spec", "checkpoint_epochs", "probe_images", "models", "counts",
    "files", "sparse",
}  # fmt: skip


def _checksum(record: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(record, sort_keys=True).encode(), digest_size=HASH_BYTES).hexdigest()


def _known(tensors: list[str]) -> tuple[str, ...]:
    unknown = sorted(set(tensors) - set(SPARSE_TENSORS))
    if unknown or "mask" not in tensors:
        raise ValueError(f"tensors are {tensors}, expected mask and perhaps log_variance")
    return tuple(tensors)


def read_header(place: Place) -> tuple[ZooHeader, dict[str, Any], tuple[StoredFile, ...]]:
    """Read a zoo's `zoo.json`: the header, the counts and the files, which must be there in their full size.

    Raises:
        MissingError: it is not there, or one of the files is not.
        FormatError: it can't be read, or a file does not have its recorded size.
        StorageError: it is on S3, which can't be reached or refuses.
    """
    name = place.name(HEADER)
    content = place.read(HEADER, MOST_HEADER)
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name}: can't be read as JSON ({error}); assemble or pull the zoo again") from None
    header, counts, files = decode(record, name)
    place.expect((file.name, file.bytes, file.blake2b) for file in files)
    return header, counts, files
