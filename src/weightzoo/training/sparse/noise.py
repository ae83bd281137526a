"""The noise of `weightzoo.seeds.noise` for a stack of members, computed on any device."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from weightzoo import seeds
from weightzoo.members import Member
from weightzoo.training.dropout import VisitKeys, shift


class Noise:
    """Standard normal noise for each output of each layer.

    The counters of a layer begin where those of the layer before it end, at an even number.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], members: Sequence[Member], device: torch.device) -> None:
        """`shapes` are those of one sample behind each layer, by the layer's name."""
        self.shapes = dict(shapes)
        self.keys = VisitKeys([seeds.noise_key(member.seeds.dropout) for member in members], device)
        self.counters: dict[str, Tensor] = {}
        for name, first in first_counters(shapes).items():
            self.counters[name] = first + torch.arange(_even(shapes[name]), dtype=torch.int32, device=device)

    def draw(self, first_visit: int, batch: int) -> dict[str, Tensor]:
        """Float32 `[M, B, *shape]` by layer; `first_visit` is the number of the first of the `batch` visits."""
        return {name: self._layer(name, first_visit, batch) for name in self.shapes}

    def _layer(self, name: str, first_visit: int, batch: int) -> Tensor:
        shape = self.shapes[name]
        upper_MBU = shift(self.keys.bits(first_visit, batch, self.counters[name]), 8).float()
        radius, angle = upper_MBU.chunk(2, dim=-1)
        radius = radius.add_(0.5).mul_(2.0**-24).log_().mul_(-2).sqrt_()
        angle = angle.mul_(2 * math.pi * 2.0**-24)
        normals = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=-1)
        return normals[..., : math.prod(shape)].unflatten(-1, shape)


def first_counters(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The first counter of each layer's noise."""
    first: dict[str, int] = {}
    counter = 0
    for name, shape in shapes.items():
        first[name] = counter
        counter += _even(shape)
    return first


def _even(shape: tuple[int, ...]) -> int:
    return 2 * math.ceil(math.prod(shape) / 2)
