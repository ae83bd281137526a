"""The network of the Small CNN Zoo (Unterthiner et al. 2020, arXiv 2002.11448), as its released code builds it.

Three 3x3 convolutions of 16 units with stride 2 and no padding, the mean of each channel over all positions, and a
linear layer.
"""

from __future__ import annotations

from weightzoo.architectures.graph import (
    Activation,
    Architecture,
    Conv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    Linear,
)

UNITS = 16


def cnn_gap(input_shape: tuple[int, int, int], classes: int) -> Architecture:
    """CNN with global average pooling, on images of any size: 4,970 parameters with one channel and ten classes."""
    layers: list[Layer] = []
    channels = input_shape[0]
    for number in (1, 2, 3):
        layers += [Conv(f"conv{number}", channels, UNITS, kernel=3, stride=2), Activation(), Dropout()]
        channels = UNITS
    layers += [GlobalAveragePool(), Flatten(), Linear("fc", UNITS, classes)]
    return Architecture("cnn-gap", input_shape, tuple(layers))
