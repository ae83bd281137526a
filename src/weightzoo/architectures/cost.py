"""What an architecture costs to compute."""

from __future__ import annotations

import math

from weightzoo.architectures.graph import Architecture
from weightzoo.architectures.layers import Conv, Linear, trace


def multiply_adds(architecture: Architecture) -> int:
    """Multiplications with an addition each, of a forward pass of one image through convolutions and linear layers.

    >>> from weightzoo.architectures.cnn import cnn_s
    >>> multiply_adds(cnn_s(1, 10))  # 24*24*8*25 + 8*8*6*8*25 + 3*3*4*6*4 + 36*20 + 20*10
    193784
    """
    total = 0
    for layer, shape in trace(architecture.layers, architecture.input_shape, architecture.name):
        if isinstance(layer, Conv):
            total += math.prod(shape) * layer.in_channels * layer.kernel**2
        elif isinstance(layer, Linear):
            total += layer.in_features * layer.out_features
    return total
