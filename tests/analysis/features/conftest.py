"""A small population of random models on random images, packed as a zoo."""

from __future__ import annotations

import numpy as np
import pytest

from tests.report.synthetic import HYP, synthetic_zoo
from weightzoo.datasets.images import ImageData
from weightzoo.zoo import Zoo

FACTORS = {**{factor: values[:1] for factor, values in HYP.items()}, "activation": ["tanh", "sigmoid", "relu", "gelu"]}


@pytest.fixture(scope="session")
def small_zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """8 models of CNN(s), four activations, epochs 0, 2 and 4; model 3 diverges at epoch 1, model 5 ends there."""
    path = tmp_path_factory.mktemp("zoos") / "features"
    return synthetic_zoo(path, FACTORS, seeds=2, epochs=4, kept=(0, 2, 4), diverged=[3], pruned=[5])


@pytest.fixture(scope="session")
def images() -> ImageData:
    rng = np.random.default_rng(5)
    sizes = {"train": 40, "val": 10, "test": 20}
    return ImageData(
        "random",
        {split: rng.integers(0, 256, (size, 1, 28, 28)).astype(np.uint8) for split, size in sizes.items()},
        {split: rng.integers(0, 10, size).astype(np.int32) for split, size in sizes.items()},
        (0.5,),
        (0.5,),
        tuple("0123456789"),
        "random",
    )
