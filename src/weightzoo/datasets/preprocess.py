"""Images of a source to the size and the channels that a section asks for."""

from __future__ import annotations

import numpy as np
from PIL import Image


def fitted(images: np.ndarray, size: int, channels: int, *, crop: bool = False) -> np.ndarray:
    """Images uint8 `[N, C, height, width]` to uint8 `[N, channels, size, size]`.

    Colours become grey by Pillow's luma (ITU-R 601-2), grey is repeated for each colour. Images are resized bilinearly,
    where the filter spans what a smaller image leaves out, as torchvision's `Resize` does with Pillow images; with
    `crop`, larger images lose their border instead. Pillow computes with 8-bit integers, so no rounding differs from
    machine to machine.
    """
    if crop:
        top, left = (max(0, round((side - size) / 2)) for side in images.shape[2:])
        images = images[:, :, top : top + size, left : left + size]
    if images.shape[1:] == (channels, size, size):
        return images
    result = np.empty((len(images), channels, size, size), np.uint8)
    for image, target in zip(images, result, strict=True):
        picture = Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
        if channels == 1:
            picture = picture.convert("L")
        if picture.size != (size, size):
            picture = picture.resize((size, size), Image.Resampling.BILINEAR)
        pixels = np.asarray(picture)
        target[:] = pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return result
