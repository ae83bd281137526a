"""The kinds of layers that an architecture is made of: what each takes, gives and stores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from weightzoo.errors import SpecError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Conv:
    """2-d convolution: weight `[out_channels, in_channels, kernel, kernel]`, zero padding on every side."""

    name: str
    in_channels: int
    out_channels: int
    kernel: int
    stride: int = 1
    padding: int = 0
    bias: bool = True


@dataclass(frozen=True)
class BatchNorm:
    """Normalisation of each channel (Ioffe & Szegedy 2015, arXiv 1502.03167) with PyTorch's epsilon and momentum.

    Its running mean and variance are buffers: no gradient moves them, training mode updates them, evaluation uses them.
    """

    name: str
    channels: int


@dataclass(frozen=True)
class MaxPool:
    """Max-pooling over `size x size` windows with stride `size`; rows and columns that fill no window are dropped."""

    size: int


@dataclass(frozen=True)
class GlobalAveragePool:
    """The mean of each channel over all positions: `[channels, 1, 1]`."""


@dataclass(frozen=True)
class Activation:
    """The pointwise non-linearity. Which one is a hyperparameter of the member, not of the architecture."""


@dataclass(frozen=True)
class Dropout:
    """Inverted dropout of single units. The rate is a hyperparameter of the member; at rate 0 it is the identity."""


@dataclass(frozen=True)
class Flatten:
    """`[channels, height, width]` to one vector, channel-major as in PyTorch."""


@dataclass(frozen=True)
class Linear:
    """Affine map with bias: weight `[out_features, in_features]`."""

    name: str
    in_features: int
    out_features: int


@dataclass(frozen=True)
class Residual:
    """`body(x) + shortcut(x)`; an empty shortcut is the identity (He et al. 2015, arXiv 1512.03385).

    The names of the layers inside begin with its own and a dot, as `layer1.0.conv1` in `layer1.0`. It has no dropout.
    """

    name: str
    body: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] = ()


Layer = Conv | BatchNorm | MaxPool | GlobalAveragePool | Activation | Dropout | Flatten | Linear | Residual
Weighted = Conv | BatchNorm | Linear
Named = Weighted | Residual


def walk(layers: Iterable[Layer]) -> Iterator[Layer]:
    """All layers in order, those inside a residual layer (body, then shortcut) before it."""
    for layer in layers:
        if isinstance(layer, Residual):
            yield from walk((*layer.body, *layer.shortcut))
        yield layer


def trace(layers: Iterable[Layer], shape: Shape, where: str) -> Iterator[tuple[Layer, Shape]]:
    """`walk`, with the shape of one sample behind each layer; `where` begins the messages.

    Raises:
        SpecError: a layer does not fit the output of the layer before it.
    """
    for index, layer in enumerate(layers):
        place = f"{where}, layer {index}"
        if isinstance(layer, Residual):
            yield from trace(layer.body, shape, f"{place} (body of {layer.name})")
            yield from trace(layer.shortcut, shape, f"{place} (shortcut of {layer.name})")
        shape = output_shape(layer, shape, place)
        yield layer, shape


def output_shape(layer: Layer, shape: Shape, where: str) -> Shape:
    """The shape of one sample behind a layer that is given samples of `shape`.

    Raises:
        SpecError: they do not fit.
    """
    match layer:
        case Conv():
            if len(shape) != 3 or shape[0] != layer.in_channels:
                raise SpecError(f"{where}: {layer.name} takes {layer.in_channels} channels, its input is {list(shape)}")
            height, width = (1 + (side + 2 * layer.padding - layer.kernel) // layer.stride for side in shape[1:])
            if height < 1 or width < 1:
                raise SpecError(f"{where}: kernel {layer.kernel} of {layer.name} exceeds its input {list(shape)}")
            return layer.out_channels, height, width
        case BatchNorm():
            if len(shape) != 3 or shape[0] != layer.channels:
                raise SpecError(f"{where}: {layer.name} takes {layer.channels} channels, its input is {list(shape)}")
            return shape
        case MaxPool():
            if len(shape) != 3 or min(shape[1:]) < layer.size:
                raise SpecError(f"{where}: max-pooling by {layer.size} does not fit an input of {list(shape)}")
            return shape[0], shape[1] // layer.size, shape[2] // layer.size
        case GlobalAveragePool():
            if len(shape) != 3:
                raise SpecError(f"{where}: global average pooling takes [channels, height, width], not {list(shape)}")
            return shape[0], 1, 1
        case Linear():
            if shape != (layer.in_features,):
                raise SpecError(f"{where}: {layer.name} takes {layer.in_features} features, its input is {list(shape)}")
            return (layer.out_features,)
        case Flatten():
            return (math.prod(shape),)
        case Activation() | Dropout():
            return shape
        case Residual():
            return _residual_shape(layer, shape, where)


def _residual_shape(layer: Residual, shape: Shape, where: str) -> Shape:
    ends: list[Shape] = []
    for branch, inside in (("body", layer.body), ("shortcut", layer.shortcut)):
        end = shape
        for inner in inside:
            if isinstance(inner, Dropout):
                raise SpecError(f"{where}: {layer.name} has dropout inside, which has no unit numbers; put it behind")
            if isinstance(inner, Named) and not inner.name.startswith(f"{layer.name}."):
                raise SpecError(f"{where}: {inner.name} lies in {layer.name}, so its name must begin with that")
            end = output_shape(inner, end, f"{where} ({branch} of {layer.name})")
        ends.append(end)
    if ends[0] != ends[1]:
        raise SpecError(f"{where}: the body of {layer.name} gives {list(ends[0])}, its shortcut {list(ends[1])}")
    return ends[0]


def tensors(layer: Layer) -> tuple[tuple[str, Shape], ...]:
    """Names and shapes of what a layer itself stores, in the order of PyTorch's state dict."""
    match layer:
        case Conv():
            weight = (f"{layer.name}.weight", (layer.out_channels, layer.in_channels, layer.kernel, layer.kernel))
            return (weight, (f"{layer.name}.bias", (layer.out_channels,))) if layer.bias else (weight,)
        case Linear():
            weight = (f"{layer.name}.weight", (layer.out_features, layer.in_features))
            return weight, (f"{layer.name}.bias", (layer.out_features,))
        case BatchNorm():
            parts = ("weight", "bias", *BUFFERS)
            return tuple((f"{layer.name}.{part}", (layer.channels,)) for part in parts)
        case _:
            return ()


BUFFERS = ("running_mean", "running_var")  # what batch normalisation stores beside its parameters
