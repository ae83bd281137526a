"""Hypothesis strategies that several test packages share."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from weightzoo.architectures.graph import (
    Activation,
    Architecture,
    Conv,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool,
)


@st.composite
def architectures(draw: st.DrawFn, max_side: int = 12, max_convs: int = 2) -> Architecture:
    """Small random CNNs: any stride, zero padding, pools with a remainder, images that are not square, all layer orders
    that make sense (pool or not, before or behind the activation; dropout or not)."""
    channels = draw(st.integers(1, 3))
    height, width = draw(st.integers(5, max_side)), draw(st.integers(5, max_side))
    input_shape = (channels, height, width)
    layers: list[Layer] = []
    for number in range(1, 1 + draw(st.integers(0, max_convs))):
        padding = draw(st.integers(0, 2))
        kernel = draw(st.integers(1, min(4, height + 2 * padding, width + 2 * padding)))
        stride = draw(st.integers(1, 3))
        out_channels = draw(st.integers(1, 5))
        layers.append(Conv(f"conv{number}", channels, out_channels, kernel, stride, padding))
        channels = out_channels
        height, width = (1 + (side + 2 * padding - kernel) // stride for side in (height, width))
        hidden: list[Layer] = [Activation()] if draw(st.booleans()) or number == 1 else []
        if min(height, width) >= 2 and draw(st.booleans()):
            size = draw(st.integers(2, min(3, height, width)))
            height, width = height // size, width // size
            hidden.insert(draw(st.integers(0, len(hidden))), MaxPool(size))
        if draw(st.booleans()):
            hidden.append(Dropout())
        layers += hidden
    layers.append(Flatten())
    features = math.prod((channels, height, width))
    for number in range(1, 1 + draw(st.integers(0, 2))):
        units = draw(st.integers(1, 9))
        layers += [Linear(f"fc{number}", features, units), Activation()]
        if draw(st.booleans()):
            layers.append(Dropout())
        features = units
    layers.append(Linear("out", features, draw(st.integers(2, 5))))
    return Architecture("random", input_shape, tuple(layers))
