"""Where PyTorch computes: device names checked, image data put there once, the number of threads bounded."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from weightzoo.architectures import Architecture
from weightzoo.datasets.images import SPLITS, ImageData
from weightzoo.errors import EngineError

KEPT_BYTES = 1_500_000_000  # of normalised images


def resolve_device(name: str) -> torch.device:
    """`cpu`, `cuda` or `cuda:1` as a device that is really there.

    Raises:
        EngineError: the name is none of these, or this machine has no such device.
    """
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()) or (kind == "cpu" and number):
        raise EngineError(f"device {name!r} is unknown; expected cpu, cuda or cuda:<number>")
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise EngineError(
                f"device {name!r}: PyTorch finds no CUDA here; set device: cpu, or install its CUDA build"
            )
        if number and int(number) >= torch.cuda.device_count():
            raise EngineError(f"device {name!r}: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    return torch.device(name)


class Images:
    """The images of a split on a device as bytes, normalised when they are asked for: a quarter of the memory.

    What comes out is float32 `[..., channels, height, width]`, the same bits as `ImageData.inputs` on a CPU.
    """

    def __init__(self, images: np.ndarray, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        self._images = to_tensor(images, device, torch.uint8)
        self._full, self._mean, self._std = (
            to_tensor(np.asarray(values, np.float32).reshape(-1, 1, 1), device) for values in ([255], mean, std)
        )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        return self._normalised(self._images[index])

    @property
    def black(self) -> Tensor:
        """A pixel of value 0, `[channels, 1, 1]`."""
        return self._normalised(torch.zeros_like(self._mean))

    def _normalised(self, images: Tensor) -> Tensor:
        return (images.to(torch.float32) / self._full - self._mean) / self._std


class DeviceData:
    """The normalised images float32 `[N, channels, height, width]` and labels int64 `[N]` of each split on a device.

    Data sets that would take more than `KEPT_BYTES` are normalised part by part, as they are used.

    Raises:
        EngineError: the images or classes are not those that the architecture takes.
    """

    def __init__(self, data: ImageData, architecture: Architecture, device: torch.device) -> None:
        if data.image_shape != architecture.input_shape or data.classes != architecture.classes:
            given = f"images {list(data.image_shape)} of {data.classes} classes"
            wanted = f"{list(architecture.input_shape)} and {architecture.classes}"
            raise EngineError(
                f"{architecture.name}: {data.name} has {given}, expected {wanted}; build it for this data"
            )
        self.architecture = architecture
        images = {split: Images(data.images[split], data.mean, data.std, device) for split in SPLITS}
        self.black = images["train"].black
        small = 4 * sum(data.images[split].size for split in SPLITS) <= KEPT_BYTES
        kept = {split: to_tensor(data.inputs[split], device) for split in SPLITS} if small else images
        self.inputs: Mapping[str, Tensor | Images] = kept
        self.labels: dict[str, Tensor] = {split: to_tensor(data.labels[split], device, torch.int64) for split in SPLITS}


def to_tensor(values: np.ndarray | Tensor, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Tensor:
    """The values on a device. Memory is shared where possible, but a read-only array (a mapped file) is copied."""
    if isinstance(values, np.ndarray) and not values.flags.writeable:
        values = values.copy()
    return torch.as_tensor(values, dtype=dtype, device=device)


def unsupported_precision(precision: str, device: torch.device) -> str | None:
    """None if training can compute in this precision on a device, else why not."""
    if precision == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return "its graphics card has no bfloat16"
    return None


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """A context in which matrix products and convolutions compute in `precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False)


@contextmanager
def torch_threads(count: int | None) -> Generator[None]:
    """PyTorch's CPU threads within the block; None leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
