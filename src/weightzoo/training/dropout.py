"""The dropout masks of `weightzoo.seeds` for a stack of members, computed on any device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from weightzoo import seeds
from weightzoo.architectures import Architecture
from weightzoo.members import Member


class DropoutMasks:
    """Draws what `seeds.dropout_keep` draws, bit for bit, in 32-bit integer arithmetic that wraps around.

    PyTorch has no arithmetic on unsigned integers; on two's complement, sums, products and exclusive-ors have the same
    bits, and a logical shift is an arithmetic one with the upper bits cleared.
    """

    def __init__(self, architecture: Architecture, members: Sequence[Member], device: torch.device) -> None:
        rates = [member.hyperparameters.dropout for member in members]
        self.shapes = {layer: architecture.shapes[layer] for layer in architecture.dropout_offsets}
        self.active = any(rates) and bool(self.shapes)
        units = sum(math.prod(shape) for shape in self.shapes.values())
        self.keys = VisitKeys([seeds.dropout_key(member.seeds.dropout) for member in members], device)
        self.units_U = torch.arange(units, dtype=torch.int32, device=device)
        thresholds = [[[int(rate * 2**31)]] for rate in rates]
        self.threshold_M11 = torch.tensor(thresholds, dtype=torch.int32, device=device)
        self.scale_M11 = 1 / torch.tensor([[[1 - rate]] for rate in rates], dtype=torch.float32, device=device)

    def draw(self, first_visit: int, batch: int) -> dict[int, Tensor]:
        """The factor 0 or 1/(1 - rate) of each unit, float32 `[M, B, *shape]`, by the position of the dropout layer.

        `first_visit` is the number of the first of the `batch` visits (see `seeds.dropout_keep`). Empty if no member
        has dropout.
        """
        if not self.active:
            return {}
        bits_MBU = self.keys.bits(first_visit, batch, self.units_U)
        factors_MBU = (shift(bits_MBU, 1) >= self.threshold_M11) * self.scale_M11
        layers = factors_MBU.split([math.prod(shape) for shape in self.shapes.values()], dim=2)
        return {
            layer: factors.unflatten(2, shape)
            for (layer, shape), factors in zip(self.shapes.items(), layers, strict=True)
        }


class VisitKeys:
    """Random bits for each member and visit, from the members' keys."""

    def __init__(self, keys: Sequence[tuple[int, int]], device: torch.device) -> None:
        words = [[_signed(word) for word in key] for key in keys]
        self.key0_M1, self.key1_M1 = torch.tensor(words, dtype=torch.int32, device=device).unsqueeze(2).unbind(1)

    def bits(self, first_visit: int, batch: int, counters_U: Tensor) -> Tensor:
        """32 random bits for each member, visit and counter: int32 `[M, B, U]`."""
        device = self.key0_M1.device
        visits_B = torch.arange(first_visit, first_visit + batch, dtype=torch.int64, device=device).to(torch.int32)
        key0_MB, key1_MB = (draw32(self.key0_M1, self.key1_M1, visits_B * 2 + odd) for odd in (0, 1))
        return draw32(key0_MB[..., None], key1_MB[..., None], counters_U)


def draw32(key0: Tensor, key1: Tensor, counter: Tensor) -> Tensor:
    """`seeds.draw32` on int32 tensors that hold the bits of the unsigned words."""
    bits = torch.add(counter * _signed(seeds.GOLDEN), key0)
    bits = bits.bitwise_xor_(shift(bits, 16)).mul_(_signed(seeds.MIX1))
    bits = bits ^ key1
    bits = bits.bitwise_xor_(shift(bits, 15)).mul_(_signed(seeds.MIX2))
    return bits.bitwise_xor_(shift(bits, 16))


def shift(bits: Tensor, by: int) -> Tensor:
    """The words shifted to the right, filled with zeros."""
    return (bits >> by).bitwise_and_((1 << (32 - by)) - 1)


def _signed(word: int) -> int:
    return word - 2**32 if word >= 2**31 else word
