"""Hypothesis strategies that several test packages share."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from weightzoo.architectures.graph import (
    Activation,
    Architecture,
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    Linear,
    MaxPool,
    Residual,
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


@st.composite
def residual_architectures(draw: st.DrawFn) -> Architecture:
    """Small random residual nets: with and without normalisation, bias, shortcut; residual layers in residual layers;
    pooled, flattened or both; once in a while the images themselves are added to what a block makes of them."""
    channels = draw(st.integers(1, 3))
    side = draw(st.integers(3, 7))
    input_shape = (channels, side, side)
    layers: list[Layer] = []

    def conv(name: str, ins: int, outs: int, kernel: int = 3, stride: int = 1) -> list[Layer]:
        bias, norm = draw(st.booleans()), draw(st.booleans())
        convolution = Conv(name, ins, outs, kernel, stride, padding=kernel // 2, bias=bias)
        return [convolution, BatchNorm(f"{name}_norm", outs)] if norm else [convolution]

    if draw(st.booleans()):
        outs = draw(st.integers(1, 4))
        layers += [*conv("stem", channels, outs), Activation()]
        channels = outs
    for number in range(1, 1 + draw(st.integers(1, 2))):
        name = f"stage.{number}"
        outs, stride = draw(st.sampled_from([(channels, 1), (channels + 1, 2)]))
        middle = draw(st.integers(1, 4))
        body = [*conv(f"{name}.conv1", channels, middle, stride=stride), Activation()]
        if draw(st.booleans()):
            inner = Residual(f"{name}.inner", tuple(conv(f"{name}.inner.conv", middle, middle)))
            body += [inner, Activation()]
        body += conv(f"{name}.conv2", middle, outs)
        plain = stride == 1 and draw(st.booleans())
        shortcut = [] if plain else conv(f"{name}.down.0", channels, outs, kernel=1, stride=stride)
        layers += [Residual(name, tuple(body), tuple(shortcut)), Activation()]
        channels, side = outs, 1 + (side - 1) // stride
    layers += [GlobalAveragePool(), Flatten()] if draw(st.booleans()) else [Flatten()]
    features = channels * (1 if GlobalAveragePool() in layers else side**2)
    if draw(st.booleans()):  # behind the flatten, where channels are blocks of features
        layers += [Residual("dense", (Linear("dense.fc", features, features),)), Activation()]
    layers.append(Linear("out", features, draw(st.integers(2, 4))))
    return Architecture("residual", input_shape, tuple(layers))
