"""What is trained in a benchmark, and how many multiply-adds that takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weightzoo.architectures.cnn import cnn_m, cnn_s
from weightzoo.architectures.graph import Architecture
from weightzoo.datasets.images import ImageData
from weightzoo.members import Cohort, Hyperparameters, Member, Protocol, Seeds
from weightzoo.spec import Constant
from weightzoo.training.lanes import winograd, winograd_rows
from weightzoo.training.lanes.geometry import Geometry
from weightzoo.training.lanes.stages import Affine, lower

ARCHITECTURES = {
    "CNN(s) 1x28x28": cnn_s(1, 10),
    "CNN(s) 3x28x28": cnn_s(3, 10),
    "CNN(m) 3x32x32": cnn_m(3, 10),
}
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Case:
    """A population in training: tanh, Adam, no dropout, random images."""

    architecture: str  # a key of ARCHITECTURES
    batch: int
    members: int
    images: int

    @property
    def graph(self) -> Architecture:
        return ARCHITECTURES[self.architecture]

    def data(self) -> ImageData:
        return random_images(self.graph, {"train": self.images, "val": 10, "test": 10})

    def cohort(self, epochs: int = 1) -> Cohort:
        chosen = Hyperparameters("kaiming_uniform", "tanh", "adam", LEARNING_RATE, 0.0, 0.0)
        protocol = Protocol(epochs, self.batch, Constant(), 0.9, (0,))
        rows = (Seeds.all(number) for number in range(self.members))
        return Cohort(tuple(Member("noise", "", self.graph.name, chosen, own, protocol, "seed") for own in rows))


def random_images(graph: Architecture, sizes: dict[str, int]) -> ImageData:
    """Images without any content: how fast training goes does not depend on it."""
    random = np.random.default_rng(0)
    return ImageData(
        name="noise",
        images={split: random.integers(0, 256, (n, *graph.input_shape), np.uint8) for split, n in sizes.items()},
        labels={split: random.integers(0, graph.classes, n).astype(np.int32) for split, n in sizes.items()},
        mean=(0.5,) * graph.input_shape[0],
        std=(0.25,) * graph.input_shape[0],
        class_names=tuple(str(number) for number in range(graph.classes)),
        source="random numbers",
    )


def multiply_adds(graph: Architecture) -> int:
    """What the lanes engine executes to train one model on one sample; updates and activations are not counted.

    Forward and input gradient are dense, or take 16, 12 or 9 for a window and pair of channels by Winograd's method, and
    forward half as many along rows alone. Conv outputs that no pooling window has are left out, and so is the gradient of
    the image. The weight gradient of a pooled layer has one term a window.
    """
    total = 0
    for number, stage in enumerate(lower(graph)):
        operation = stage.operation
        if isinstance(operation, Affine):
            size = operation.inputs * operation.outputs
            total += size * (3 if number else 2)
        elif isinstance(operation, Geometry):
            windows, channels, taps = math.prod(operation.output), operation.in_channels, operation.kernel**2
            forward = back = taps * operation.pool**2
            if winograd.fits(operation):
                tiles = (winograd.Tile.of(operation, gradient=gradient) for gradient in (False, True))
                forward, back = (tile.points // (tile.high * tile.wide) for tile in tiles)
            elif winograd_rows.fits(operation):
                forward //= 2
            total += windows * channels * (forward + (back if number else 0) + taps)
    return total


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, minimum and maximum."""
    return float(np.median(values)), float(min(values)), float(max(values))
