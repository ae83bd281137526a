"""A layer graph as the stages that kernels exist for: each one operation and the pointwise layers behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from weightzoo.architectures.graph import Activation, Architecture, Conv, Dropout, Flatten, Layer, Linear, MaxPool
from weightzoo.training.lanes.activation import Pointwise
from weightzoo.training.lanes.geometry import Geometry
from weightzoo.training.lanes.language import ArrayType

FUSED_POOL = 4  # the largest pooling window (a side) that is computed together with its convolution
Shape3 = tuple[int, int, int]


@dataclass(frozen=True)
class Pool:
    """Max-pooling on its own; size 1 is the identity."""

    size: int


@dataclass(frozen=True)
class Affine:
    """A linear layer."""

    inputs: int
    outputs: int

    @property
    def weight(self) -> ArrayType:
        """`[out, in]`."""
        return ArrayType((self.outputs, self.inputs))


@dataclass(frozen=True)
class Stage:
    """One operation from `input` to `output` shape `[C, H, W]` (features: `[F, 1, 1]`), then `pointwise`.

    The output is stored with a border of `border` zeros, as wide as the next stage pads. `start` is the position of
    the operation's weight in the weight vector; its bias follows.
    """

    operation: Geometry | Pool | Affine
    input: Shape3
    output: Shape3
    pointwise: Pointwise
    start: int = 0
    border: int = 0

    @property
    def padding(self) -> int:
        """The zero border that it wants around its input."""
        return self.operation.padding if isinstance(self.operation, Geometry) else 0

    @property
    def stored(self) -> ArrayType:
        """The output's memory, border included."""
        return bordered(self.output, self.border)


def bordered(shape: Shape3, border: int) -> ArrayType:
    """An array with a border around its last two axes."""
    return ArrayType((shape[0], shape[1] + 2 * border, shape[2] + 2 * border))


def lower(architecture: Architecture) -> tuple[Stage, ...]:
    """The stages of a layer graph, in order. Flattening is nothing, since memory is channel-major already."""
    layers = list(architecture.layers)
    shape = architecture.input_shape
    start = 0
    position = 0
    stages: list[Stage] = []

    def next_layer() -> Layer | None:
        return layers[position] if position < len(layers) else None

    while (layer := next_layer()) is not None:
        before, first = shape, start
        if isinstance(layer, Conv):
            position += 1
            pool = 1
            if isinstance(following := next_layer(), MaxPool) and following.size <= FUSED_POOL:
                position += 1
                pool = following.size
            operation: Geometry | Pool | Affine = Geometry(
                *shape, layer.out_channels, layer.kernel, layer.stride, layer.padding, pool
            )
            shape = operation.output
            start += layer.out_channels * (layer.in_channels * layer.kernel**2 + 1)
        elif isinstance(layer, MaxPool):
            position += 1
            operation = Pool(layer.size)
            shape = (shape[0], shape[1] // layer.size, shape[2] // layer.size)
        elif isinstance(layer, Linear):
            position += 1
            operation = Affine(layer.in_features, layer.out_features)
            shape = (layer.out_features, 1, 1)
            start += layer.out_features * (layer.in_features + 1)
        else:
            operation = Pool(1)
        output = shape
        steps: list[int | None] = []
        while isinstance(following := next_layer(), Activation | Dropout | Flatten):
            if isinstance(following, Activation):
                steps.append(None)
            elif isinstance(following, Dropout):
                steps.append(architecture.dropout_offsets[position])
            else:
                shape = (math.prod(shape), 1, 1)
            position += 1
        if operation != Pool(1) or steps:
            stages.append(Stage(operation, before, output, Pointwise(tuple(steps)), first))
    borders = [stage.padding for stage in stages[1:]] + [0]
    return tuple(replace(stage, border=border) for stage, border in zip(stages, borders, strict=True))
