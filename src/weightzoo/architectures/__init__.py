"""Architectures as data: layer graphs with their permutation symmetries, and the modules built from them."""

from __future__ import annotations

from collections.abc import Callable

from weightzoo.architectures.cnn import cnn_m, cnn_s
from weightzoo.architectures.graph import Architecture
from weightzoo.errors import NotFoundError, SpecError

ARCHITECTURES: dict[str, Callable[[int, int], Architecture]] = {"cnn-s": cnn_s, "cnn-m": cnn_m}


def architecture(name: str, image_shape: tuple[int, int, int], classes: int) -> Architecture:
    """The architecture `name` for images `[channels, height, width]` and a number of classes.

    Raises:
        NotFoundError: there is no architecture of that name.
        SpecError: it takes images of another size.
    """
    if name not in ARCHITECTURES:
        raise NotFoundError(f"no architecture {name!r}; there are {', '.join(ARCHITECTURES)}")
    built = ARCHITECTURES[name](image_shape[0], classes)
    if built.input_shape != image_shape:
        wanted, given = ("x".join(map(str, shape)) for shape in (built.input_shape, image_shape))
        raise SpecError(f"{name} takes images of {wanted}, the data set has {given}; change `size` of the data set")
    return built


__all__ = ["ARCHITECTURES", "Architecture", "architecture"]
