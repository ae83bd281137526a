"""Augmentation of training images: random crop, flip and rotation, as one lookup of each pixel.

All three only move pixels, so what an image becomes is said by the place that each of its pixels comes from. These
places are computed in integers, on any device: every engine sees the same images, bit for bit.

Shape suffixes: B images, H x W pixels. What leads B, a stack of members, is `...`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from weightzoo import seeds
from weightzoo.spec import Augmentation

_BITS = 16  # of sine and cosine behind the binary point: 1/500 pixel off at most, at the edge of 256 pixels


def augmentation_plan(augmentation: Augmentation, order_seed: int, epoch: int, samples: int) -> np.ndarray:
    """Int32 `[samples, 5]`, what happens to the image at each position of an epoch's order.

    The columns: rows and columns that the crop is moved by, whether to flip, cosine and sine of the angle as multiples
    of 2**-16.
    """
    down, right, side, turn = seeds.augmentation_draws(order_seed, epoch, samples).T
    span = 2 * augmentation.crop + 1
    angle = np.deg2rad(augmentation.rotation) * (2 * turn - 1)
    columns = (
        np.floor(down * span) - augmentation.crop,
        np.floor(right * span) - augmentation.crop,
        augmentation.flip & (side < 0.5),
        np.rint(np.cos(angle) * 2**_BITS),
        np.rint(np.sin(angle) * 2**_BITS),
    )
    return np.stack(columns, axis=1).astype(np.int32)


def augment(images: Tensor, black: Tensor, plan: Tensor) -> Tensor:
    """Images `[..., B, channels, H, W]` by their rows `[..., B, 5]` of a plan, both on one device.

    `black` `[channels, 1, 1]` is what a pixel gets that comes from outside its image. Rotation takes the nearest pixel,
    and turns counter-clockwise at positive angles.
    """
    height, width = images.shape[-2:]
    down, right, flip, cosine, sine = (column[..., None, None] for column in plan.unbind(-1))
    rows = torch.arange(height, dtype=torch.int32, device=plan.device)[:, None]
    columns = torch.arange(width, dtype=torch.int32, device=plan.device)

    # Against the order in which they happen: where was this pixel before the rotation, the flip, the crop?
    y, x = 2 * rows - (height - 1), 2 * columns - (width - 1)  # from the centre, in half pixels
    one, half = 2**_BITS, _BITS + 1
    rows, columns = (
        (cosine * y + sine * x + height * one) >> half,
        (cosine * x - sine * y + width * one) >> half,
    )
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    columns = torch.where(flip != 0, width - 1 - columns, columns) + right
    rows = rows + down
    inside &= (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)

    places = torch.where(inside, rows * width + columns, 0).long().flatten(-2)[..., None, :]
    moved = images.flatten(-2).gather(-1, places.expand(*images.shape[:-2], -1)).unflatten(-1, (height, width))
    return torch.where(inside[..., None, :, :], moved, black)
