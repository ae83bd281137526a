"""A space of layer graphs: convolutional networks of a few blocks that are no larger than a given one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import Trial

from weightzoo.analysis.dynamics.prediction import weight_statistics
from weightzoo.architectures import Architecture
from weightzoo.architectures.graph import Activation, Conv, Flatten, Layer, Linear, MaxPool
from weightzoo.errors import SpecError

BLOCKS = 3
CHANNELS = IntDistribution(2, 16, log=True)
KERNEL = CategoricalDistribution((3, 5))
UNITS = IntDistribution(8, 48, log=True)
LAYERS = (*(f"conv{number}" for number in range(1, BLOCKS + 1)), "fc1", "fc2")
_A_PARAMETER = 7  # statistics


@dataclass(frozen=True)
class Graph:
    """Blocks of a convolution, max-pooling by 2 and an activation, then one hidden linear layer."""

    channels: tuple[int, ...]  # of each block
    kernels: tuple[int, ...]
    units: int

    @property
    def name(self) -> str:
        """Such as `conv 8k5, conv 6k3, linear 20`."""
        blocks = (f"conv {channels}k{kernel}" for channels, kernel in zip(self.channels, self.kernels, strict=True))
        return f"{', '.join(blocks)}, linear {self.units}"

    @property
    def parameters(self) -> dict[str, int]:
        """As a trial of Optuna names them."""
        blocks = zip(self.channels, self.kernels, strict=True)
        own = {name: value for i, both in enumerate(blocks, 1) for name, value in zip(_block(i), both, strict=True)}
        return {"blocks": len(self.channels), **own, "units": self.units}

    def build(self, image_shape: tuple[int, int, int], classes: int) -> Architecture:
        """The architecture for images `[channels, height, width]`.

        Raises:
            SpecError: a block does not fit what is left of the images.
        """
        layers: list[Layer] = []
        inside, *sides = image_shape
        for number, (channels, kernel) in enumerate(zip(self.channels, self.kernels, strict=True), 1):
            layers += [Conv(f"conv{number}", inside, channels, kernel), MaxPool(2), Activation()]
            inside, sides = channels, [(side - kernel + 1) // 2 for side in sides]
            if min(sides) < 1:
                raise SpecError(f"{self.name}: images of {image_shape[1]}x{image_shape[2]} are too small for it")
        features = inside * sides[0] * sides[1]
        hidden = (Flatten(), Linear("fc1", features, self.units), Activation(), Linear("fc2", self.units, classes))
        return Architecture(self.name, image_shape, (*layers, *hidden))


def drawn(trial: Trial) -> Graph:
    """The graph that a trial asks for; the parameters of a block are there where there is such a block."""
    count = trial.suggest_int("blocks", 1, BLOCKS)
    names = [_block(number) for number in range(1, count + 1)]
    channels = tuple(trial.suggest_int(name, CHANNELS.low, CHANNELS.high, log=True) for name, _ in names)
    kernels = tuple(int(trial.suggest_categorical(name, KERNEL.choices)) for _, name in names)  # pyright: ignore[reportArgumentType]
    return Graph(channels, kernels, trial.suggest_int("units", UNITS.low, UNITS.high, log=True))


def distributions(parameters: Mapping[str, int]) -> dict[str, BaseDistribution]:
    """The distributions that parameters of a graph are from."""
    kinds: dict[str, BaseDistribution] = {"blocks": IntDistribution(1, BLOCKS), "units": UNITS}
    return {name: kinds.get(name) or (CHANNELS if name.startswith("channels") else KERNEL) for name in parameters}


def statistics_by_role(built: Architecture, weights: np.ndarray) -> np.ndarray:
    """`weight_statistics` of `weights [N, P]`, each layer of any graph of the space at its own place: `[N, F]`.

    Layers that are not there have zeros.
    """
    own = weight_statistics(built.layout, weights).reshape(len(weights), -1, _A_PARAMETER)
    table = np.zeros((len(weights), 2 * len(LAYERS), _A_PARAMETER))
    places = [f"{layer}.{part}" for layer in LAYERS for part in ("weight", "bias")]
    for number, (name, _) in enumerate(built.layout.parameters):
        table[:, places.index(name)] = own[:, number]
    return table.reshape(len(weights), -1)


def _block(number: int) -> tuple[str, str]:
    return f"channels{number}", f"kernel{number}"
