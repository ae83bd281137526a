"""Architectures as data: layer graphs with their permutation symmetries, and the modules built from them."""

from __future__ import annotations

from collections.abc import Callable

from weightzoo.architectures.cnn import cnn_m, cnn_s
from weightzoo.architectures.gap import cnn_gap
from weightzoo.architectures.graph import Architecture
from weightzoo.architectures.resnet import resnet_18
from weightzoo.errors import NotFoundError, SpecError

# From the shape of the images `[channels, height, width]` and the number of classes; the CNNs have a size of their own.
ARCHITECTURES: dict[str, Callable[[tuple[int, int, int], int], Architecture]] = {
    "cnn-s": lambda image_shape, classes: cnn_s(image_shape[0], classes),
    "cnn-m": lambda image_shape, classes: cnn_m(image_shape[0], classes),
    "resnet-18": resnet_18,
    "cnn-gap": cnn_gap,
}


def architecture(name: str, image_shape: tuple[int, int, int], classes: int) -> Architecture:
    """The architecture `name` for images `[channels, height, width]` and a number of classes.

    Raises:
        NotFoundError: there is no architecture of that name.
        SpecError: it takes images of another size.
    """
    if name not in ARCHITECTURES:
        raise NotFoundError(f"no architecture {name!r}; there are {', '.join(ARCHITECTURES)}")
    built = ARCHITECTURES[name](image_shape, classes)
    if built.input_shape != image_shape:
        wanted, given = ("x".join(map(str, shape)) for shape in (built.input_shape, image_shape))
        raise SpecError(f"{name} takes images of {wanted}, the data set has {given}; change `size` of the data set")
    return built


__all__ = ["ARCHITECTURES", "Architecture", "architecture"]
