"""Where PyTorch computes: device names checked, image data put there once, the number of threads bounded."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from weightzoo.architectures import Architecture
from weightzoo.datasets.images import SPLITS, ImageData
from weightzoo.errors import EngineError


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


class DeviceData:
    """The normalised images float32 `[N, channels, height, width]` and labels int64 `[N]` of each split on a device.

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
        self.classes = data.classes
        self.inputs: dict[str, Tensor] = {split: to_tensor(data.inputs[split], device) for split in SPLITS}
        self.labels: dict[str, Tensor] = {split: to_tensor(data.labels[split], device, torch.int64) for split in SPLITS}


def to_tensor(values: np.ndarray | Tensor, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Tensor:
    """The values on a device. Memory is shared where possible, but a read-only array (a mapped file) is copied."""
    if isinstance(values, np.ndarray) and not values.flags.writeable:
        values = values.copy()
    return torch.as_tensor(values, dtype=dtype, device=device)


@contextmanager
def torch_threads(count: int | None) -> Generator[None]:
    """PyTorch's CPU threads within the block; None leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
