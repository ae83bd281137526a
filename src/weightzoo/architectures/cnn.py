"""The small and the medium CNN of the model zoos (Schürholt et al. 2022, arXiv 2209.14764, appendix).

Pooling comes before the activation, every convolution is valid, every layer has a bias.
"""

from __future__ import annotations

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


def _hidden(*layers: Layer) -> tuple[Layer, ...]:
    return (*layers, Activation(), Dropout())


def cnn_s(channels: int, classes: int) -> Architecture:
    """CNN(s) on 28x28 images: 2,464 parameters with one channel and ten classes, 2,864 with three channels."""
    return Architecture(
        name="cnn-s",
        input_shape=(channels, 28, 28),
        layers=(
            *_hidden(Conv("conv1", channels, 8, kernel=5), MaxPool(2)),
            *_hidden(Conv("conv2", 8, 6, kernel=5), MaxPool(2)),
            Conv("conv3", 6, 4, kernel=2),
            Activation(),
            Flatten(),
            *_hidden(Linear("fc1", 36, 20)),
            Linear("fc2", 20, classes),
        ),
    )


def cnn_m(channels: int, classes: int) -> Architecture:
    """CNN(m) on 32x32 images: 10,853 parameters with three channels and ten classes."""
    return Architecture(
        name="cnn-m",
        input_shape=(channels, 32, 32),
        layers=(
            *_hidden(Conv("conv1", channels, 16, kernel=3), MaxPool(2)),
            *_hidden(Conv("conv2", 16, 32, kernel=3), MaxPool(2)),
            *_hidden(Conv("conv3", 32, 15, kernel=3), MaxPool(2)),
            Flatten(),
            *_hidden(Linear("fc1", 60, 20)),
            Linear("fc2", 20, classes),
        ),
    )
