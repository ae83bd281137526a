"""An architecture as data: the layer graph from which modules, kernels, layouts and symmetries are derived."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from weightzoo.errors import SpecError
from weightzoo.layout import Layout


@dataclass(frozen=True)
class Conv:
    """2-d convolution with bias: weight `[out_channels, in_channels, kernel, kernel]`, zero padding on every side."""

    name: str
    in_channels: int
    out_channels: int
    kernel: int
    stride: int = 1
    padding: int = 0


@dataclass(frozen=True)
class MaxPool:
    """Max-pooling over `size x size` windows with stride `size`; rows and columns that fill no window are dropped."""

    size: int


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


Layer = Conv | MaxPool | Activation | Dropout | Flatten | Linear
Shape = tuple[int, ...]


@dataclass(frozen=True)
class PermutedAxis:
    """One axis of one parameter that a permutation acts on, in blocks of `block` consecutive entries.

    `block` is 1 but behind a flatten, where each channel owns `height * width` consecutive input features.
    """

    parameter: str
    axis: int
    block: int = 1


@dataclass(frozen=True)
class Symmetry:
    """A group of hidden units whose order is free: permuting all `axes` alike leaves the function unchanged."""

    name: str
    size: int
    axes: tuple[PermutedAxis, ...]


@dataclass(frozen=True)
class Architecture:
    """A feed-forward stack of layers on inputs `[channels, height, width]`; the last layer gives the logits.

    Raises:
        SpecError: a layer does not fit the output of the layer before it.
    """

    name: str
    input_shape: tuple[int, int, int]
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        self.shapes  # noqa: B018  (walks the graph, so that an impossible one is refused here)

    @cached_property
    def shapes(self) -> tuple[Shape, ...]:
        """The shape of one sample behind each layer."""
        shape: Shape = self.input_shape
        shapes: list[Shape] = []
        for index, layer in enumerate(self.layers):
            shape = _output_shape(layer, shape, where=f"{self.name}, layer {index}")
            shapes.append(shape)
        return tuple(shapes)

    @property
    def classes(self) -> int:
        """The number of logits."""
        return math.prod(self.shapes[-1])

    @cached_property
    def layout(self) -> Layout:
        """Names and shapes of all parameters, in the order of the flat weight vector."""
        parameters: list[tuple[str, Shape]] = []
        for layer in self.layers:
            if isinstance(layer, Conv):
                weight = (layer.out_channels, layer.in_channels, layer.kernel, layer.kernel)
                parameters += [(f"{layer.name}.weight", weight), (f"{layer.name}.bias", (layer.out_channels,))]
            elif isinstance(layer, Linear):
                weight = (layer.out_features, layer.in_features)
                parameters += [(f"{layer.name}.weight", weight), (f"{layer.name}.bias", (layer.out_features,))]
        return Layout(tuple(parameters))

    @cached_property
    def symmetries(self) -> tuple[Symmetry, ...]:
        """The permutation symmetries of the hidden units (Ainsworth et al. 2022, arXiv 2209.04836, section 3).

        Every hidden convolution or linear layer gives one group: its output axis, its bias, and the input axis of the
        next layer that has weights.
        """
        found: list[Symmetry] = []
        weighted = list(self._weighted_with_input_shapes())
        for (layer, _), (following, input_shape) in itertools.pairwise(weighted):
            units = layer.out_channels if isinstance(layer, Conv) else layer.out_features
            block = math.prod(input_shape) // units if isinstance(following, Linear) else 1
            axes = (
                PermutedAxis(f"{layer.name}.weight", 0),
                PermutedAxis(f"{layer.name}.bias", 0),
                PermutedAxis(f"{following.name}.weight", 1, block),
            )
            found.append(Symmetry(layer.name, units, axes))
        return tuple(found)

    @cached_property
    def dropout_offsets(self) -> dict[int, int]:
        """Layer index of each `Dropout` -> the number of its first unit, counted over all dropout layers.

        The dropout stream is addressed by this number (see `weightzoo.seeds`), so engines that fuse or reorder layers
        still draw the same masks.
        """
        offsets: dict[int, int] = {}
        units = 0
        for index, (layer, shape) in enumerate(zip(self.layers, self.shapes, strict=True)):
            if isinstance(layer, Dropout):
                offsets[index] = units
                units += math.prod(shape)
        return offsets

    def _weighted_with_input_shapes(self) -> Iterator[tuple[Conv | Linear, Shape]]:
        shape: Shape = self.input_shape
        for layer, output in zip(self.layers, self.shapes, strict=True):
            if isinstance(layer, Conv | Linear):
                yield layer, shape
            shape = output


def _output_shape(layer: Layer, shape: Shape, where: str) -> Shape:
    match layer:
        case Conv():
            if len(shape) != 3 or shape[0] != layer.in_channels:
                raise SpecError(f"{where}: {layer.name} takes {layer.in_channels} channels, its input is {list(shape)}")
            height, width = (1 + (side + 2 * layer.padding - layer.kernel) // layer.stride for side in shape[1:])
            if height < 1 or width < 1:
                raise SpecError(f"{where}: kernel {layer.kernel} of {layer.name} exceeds its input {list(shape)}")
            return layer.out_channels, height, width
        case MaxPool():
            if len(shape) != 3 or min(shape[1:]) < layer.size:
                raise SpecError(f"{where}: max-pooling by {layer.size} does not fit an input of {list(shape)}")
            return shape[0], shape[1] // layer.size, shape[2] // layer.size
        case Linear():
            if shape != (layer.in_features,):
                raise SpecError(f"{where}: {layer.name} takes {layer.in_features} features, its input is {list(shape)}")
            return (layer.out_features,)
        case Flatten():
            return (math.prod(shape),)
        case Activation() | Dropout():
            return shape
