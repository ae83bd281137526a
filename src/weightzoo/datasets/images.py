"""An image data set as tensors, with its fixed split: written once by `prepare`, read by everything after it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from safetensors import SafetensorError, safe_open

from weightzoo.errors import FormatError, MissingError
from weightzoo.sealed import save_large

FORMAT = "weightzoo images 1"
FILE = "images.safetensors"
SPLITS = ("train", "val", "test")
SplitName = Literal["train", "val", "test"]


@dataclass(frozen=True)
class ImageData:
    """Images uint8 `[N, channels, height, width]` and labels of three splits.

    What a network sees is `(image / 255 - mean) / std`, channel by channel.
    """

    name: str
    images: dict[str, np.ndarray]  # split -> uint8 [N, C, H, W]
    labels: dict[str, np.ndarray]  # split -> int32 [N]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    source: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(channels, height, width)`."""
        return cast("tuple[int, int, int]", self.images["train"].shape[1:])

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    def size(self, split: SplitName) -> int:
        """The number of images of a split."""
        return len(self.labels[split])

    @cached_property
    def inputs(self) -> dict[str, np.ndarray]:
        """The normalised images, float32 `[N, channels, height, width]`, by split; computed once, shared by threads.

        Four times the bytes of `images`: 5.9 GB for Tiny-ImageNet. Small images are worth it, since a step of a small
        CNN costs less than normalising its batch; for a large one, `normalised` takes a batch at a time.
        """
        return {split: self.normalised(self.images[split]) for split in SPLITS}

    def normalised(self, images: np.ndarray) -> np.ndarray:
        """What a network sees of images uint8 `[N, channels, height, width]`: float32 of the same shape."""
        mean, std = (np.asarray(values, np.float32)[:, None, None] for values in (self.mean, self.std))
        result = np.array(images, np.float32, order="C")
        result /= np.float32(255)  # in place: no second float32 copy of all images
        result -= mean
        result /= std
        return result

    @cached_property
    def content_hash(self) -> str:
        """A hash of everything that training depends on."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(json.dumps([list(self.mean), list(self.std), list(self.class_names)]).encode())
        for split in SPLITS:
            for array in (self.images[split], self.labels[split]):
                digest.update(f"{split} {array.dtype} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def save(self, folder: Path | str) -> Path:
        """Write `images.safetensors` into `folder`, atomically; the same data give the same bytes."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"{split}.images": np.ascontiguousarray(self.images[split]) for split in SPLITS}
        tensors |= {f"{split}.labels": np.ascontiguousarray(self.labels[split]) for split in SPLITS}
        header = {
            "format": FORMAT,
            "name": self.name,
            "mean": self.mean,
            "std": self.std,
            "class_names": self.class_names,
            "source": self.source,
            "content_hash": self.content_hash,
        }
        target, partial = folder / FILE, folder / f".{FILE}.partial"
        partial.touch()
        mode = partial.stat().st_mode
        save_large(partial, tensors, {"weightzoo": json.dumps(header, sort_keys=True)})
        partial.chmod(mode)  # the library makes files that nobody else can read
        partial.replace(target)
        return target

    @classmethod
    def load(cls, folder: Path | str) -> ImageData:
        """Read what `save` wrote, and check it against its hash.

        Raises:
            MissingError: the folder has no `images.safetensors`.
            FormatError: the file is truncated, altered or of another format.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            raise MissingError(f"{path}: no such file; run `weightzoo prepare {Path(folder).name}`")
        try:
            with safe_open(path, framework="numpy") as file:
                header: Any = json.loads((file.metadata() or {}).get("weightzoo", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        except (SafetensorError, ValueError, OSError, RecursionError) as error:
            raise FormatError(f"{path}: truncated or no safetensors file ({error}); prepare it again") from None
        found = header.get("format") if isinstance(header, dict) else None
        if found != FORMAT:
            raise FormatError(f"{path}: format {found!r}, expected {FORMAT!r}; prepare it again")
        try:
            data = cls(
                name=header["name"],
                images={split: tensors[f"{split}.images"] for split in SPLITS},
                labels={split: tensors[f"{split}.labels"] for split in SPLITS},
                mean=tuple(header["mean"]),
                std=tuple(header["std"]),
                class_names=tuple(header["class_names"]),
                source=header["source"],
            )
        except KeyError as error:
            raise FormatError(f"{path}: {error} is missing; prepare it again") from None
        if data.content_hash != header["content_hash"]:
            raise FormatError(f"{path}: content does not match its hash {header['content_hash']}; prepare it again")
        return data
