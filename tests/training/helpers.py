"""Small architectures, data and cohorts for the tests of the engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from weightzoo.architectures.graph import Activation, Architecture, Conv, Dropout, Flatten, Linear, MaxPool
from weightzoo.architectures.resnet import resnet_18
from weightzoo.datasets.images import ImageData
from weightzoo.members import Cohort, Hyperparameters, Member, Protocol, Seeds
from weightzoo.spec import Augmentation, Constant, Precision, Schedule

CONSTANT = Constant()

# Every kind of layer; the pool leaves a remainder; dropout before and behind the flatten.
TINY = Architecture(
    "tiny",
    (2, 9, 8),
    (
        Conv("conv1", 2, 4, kernel=3, stride=1, padding=1),
        MaxPool(2),
        Activation(),
        Dropout(),
        Conv("conv2", 4, 3, kernel=2),
        Activation(),
        Flatten(),
        Linear("fc1", 27, 6),
        Activation(),
        Dropout(),
        Linear("fc2", 6, 4),
    ),
)

# All of ResNet-18 but its width: 45 thousand parameters in place of 11 million.
SMALL_RESNET = resnet_18((2, 9, 8), 4, width=4)


def image_data(
    architecture: Architecture = TINY, train: int = 60, val: int = 25, test: int = 30, seed: int = 12345
) -> ImageData:
    """Random images; the last class has none in the test split."""
    random = np.random.default_rng(seed)
    sizes = {"train": train, "val": val, "test": test}
    channels, classes = architecture.input_shape[0], architecture.classes
    return ImageData(
        name="noise",
        images={s: random.integers(0, 256, (n, *architecture.input_shape), np.uint8) for s, n in sizes.items()},
        labels={s: random.integers(0, classes - (s == "test"), n).astype(np.int32) for s, n in sizes.items()},
        mean=(0.5,) * channels,
        std=(0.3,) * channels,
        class_names=tuple(f"class {number}" for number in range(classes)),
        source="random numbers",
    )


def make_cohort(
    members: Sequence[dict[str, Any]],
    *,
    epochs: int = 2,
    batch_size: int = 7,
    schedule: Schedule = CONSTANT,
    momentum: float = 0.9,
    augmentation: Augmentation | None = None,
    precision: Precision = "float32",
    **shared: Any,
) -> Cohort:
    """A cohort from the hyperparameters, and `seed`, by which its members differ, and those that they share."""
    protocol = Protocol(epochs, batch_size, schedule, momentum, tuple(range(epochs + 1)), augmentation, precision)
    made: list[Member] = []
    for number, own in enumerate(members):
        chosen = {
            "init": "kaiming_uniform",
            "activation": "tanh",
            "optimizer": "adam",
            "learning_rate": 1e-2,
            "weight_decay": 0.0,
            "dropout": 0.0,
            "seed": number,
            **shared,
            **own,
        }
        seed = chosen.pop("seed")
        own_seeds = seed if isinstance(seed, Seeds) else Seeds.all(seed)
        made.append(Member("noise", "hash", "tiny", Hyperparameters(**chosen), own_seeds, protocol, "grid"))
    return Cohort(tuple(made))


VARIED: tuple[dict[str, Any], ...] = (
    {"init": "kaiming_uniform", "learning_rate": 1e-2, "weight_decay": 1e-3, "dropout": 0.0},
    {"init": "uniform", "learning_rate": 1e-3, "weight_decay": 0.0, "dropout": 0.0},
    {"init": "kaiming_normal", "learning_rate": 3e-3, "weight_decay": 1e-2, "dropout": 0.5},
    {"init": "normal", "learning_rate": 1e-2, "weight_decay": 0.0, "dropout": 0.3},
    {"init": "kaiming_uniform", "learning_rate": 2e-2, "weight_decay": 0.1, "dropout": 0.2, "seed": Seeds(7, 8, 9)},
)
