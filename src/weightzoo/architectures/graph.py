"""An architecture as data: the layer graph from which modules, kernels, layouts and symmetries are derived."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from weightzoo.architectures.layers import (
    BUFFERS,
    Activation,
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    Linear,
    MaxPool,
    Residual,
    Shape,
    Weighted,
    output_shape,
    tensors,
    trace,
    walk,
)
from weightzoo.architectures.symmetries import PermutedAxis, Symmetry, find_symmetries
from weightzoo.layout import Layout

__all__ = [
    "Activation",
    "Architecture",
    "BatchNorm",
    "Conv",
    "Dropout",
    "Flatten",
    "GlobalAveragePool",
    "Layer",
    "Linear",
    "MaxPool",
    "PermutedAxis",
    "Residual",
    "Shape",
    "Symmetry",
    "Weighted",
]


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
            shape = output_shape(layer, shape, where=f"{self.name}, layer {index}")
            shapes.append(shape)
        return tuple(shapes)

    @property
    def classes(self) -> int:
        """The number of logits."""
        return math.prod(self.shapes[-1])

    @cached_property
    def weighted(self) -> tuple[Weighted, ...]:
        """The layers that have weights, those inside residual layers too, in the order of the layout."""
        return tuple(layer for layer in walk(self.layers) if isinstance(layer, Weighted))

    @cached_property
    def layout(self) -> Layout:
        """Names and shapes of all parameters and buffers, in the order of the flat weight vector."""
        entries = tuple(entry for layer in self.weighted for entry in tensors(layer))
        norms = (layer.name for layer in self.weighted if isinstance(layer, BatchNorm))
        return Layout(entries, frozenset(f"{name}.{buffer}" for name in norms for buffer in BUFFERS))

    @cached_property
    def symmetries(self) -> tuple[Symmetry, ...]:
        """The permutation symmetries of the hidden units (Ainsworth et al. 2022, arXiv 2209.04836, section 3).

        Every hidden convolution or linear layer gives a group: its output axis, its bias, the batch normalisation
        behind it, and the input axes of the layers that read it. Layers whose outputs are added share one.
        """
        return find_symmetries(self.layers, self.input_shape)

    @cached_property
    def activation_sizes(self) -> tuple[int, ...]:
        """How many numbers each layer gives for one sample, those inside residual layers too."""
        return tuple(math.prod(shape) for _, shape in trace(self.layers, self.input_shape, self.name))

    @cached_property
    def prunable(self) -> tuple[str, ...]:
        """The names of the parameters that sparsification acts on: the weights of convolutions and linear layers."""
        return tuple(f"{layer.name}.weight" for layer in self.weighted if isinstance(layer, Conv | Linear))

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
