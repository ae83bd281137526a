"""A published experiment of five small trials, and its packed zoo."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.published import experiments
from weightzoo.published import open_source, pack
from weightzoo.zoo import Zoo


@pytest.fixture(scope="session")
def experiment(tmp_path_factory) -> Path:
    """`tune_zoo_mnist_uniform`, read-only for tests."""
    return experiments.write_experiment(tmp_path_factory.mktemp("published") / "tune_zoo_mnist_uniform", 5)


@pytest.fixture(scope="session")
def packed(experiment, tmp_path_factory) -> Zoo:
    path = tmp_path_factory.mktemp("packed") / "mnist"
    assert pack(open_source(experiment), path) == ()
    return Zoo.open(path)
