"""The whole of `weightzoo train`: evaluation, checkpoints of every epoch and MLflow runs, against training alone."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.cases import ARCHITECTURES, Case, random_images
from tests.benchmarks.contestants import Lanes
from weightzoo.execution import train_zoo
from weightzoo.spec import ZooSpec
from weightzoo.tracking import RunStore

ARCHITECTURE = "CNN(s) 1x28x28"
SPLITS = {"train": 4000, "val": 500, "test": 500}  # 5,000 images


@dataclass(frozen=True)
class Whole:
    """Model-samples a second: training images of all models, by the wall time of everything or of the kernels alone."""

    everything: float
    training: float

    @property
    def share(self) -> float:
        """What is left of the speed."""
        return self.everything / self.training


def measure(members: int, epochs: int, threads: int) -> Whole:
    """Train a zoo of CNN(s) into a fresh tracking store, between two measurements of training alone."""
    spec = ZooSpec.model_validate(
        {
            "dataset": "noise",
            "architecture": "cnn-s",
            "configuration": {"kind": "seed", "seeds": {"first": 1, "count": members}},
            "factors": {
                "init": ["kaiming_uniform"],
                "activation": ["tanh"],
                "optimizer": ["adam"],
                "learning_rate": [0.001],
            },
            "training": {"epochs": epochs, "batch_size": 10},
            "engine": "lanes",
        }
    )
    data = random_images(ARCHITECTURES[ARCHITECTURE], SPLITS)
    alone = Lanes(Case(ARCHITECTURE, 10, members, SPLITS["train"]), threads)
    rates: list[float] = []

    def run_alone() -> None:
        done, passed = alone.train(4.0)
        rates.append(done / passed)

    run_alone()
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(f"sqlite:///{Path(folder) / 'mlflow.db'}")
        summary = train_zoo("noise", spec, data, store, threads=threads)
    run_alone()
    assert summary.trained == members
    return Whole(members * epochs * SPLITS["train"] / summary.seconds, sum(rates) / len(rates))
