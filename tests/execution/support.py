"""A tiny deterministic engine and zoos for it, to kill as `python -m tests.execution.support FOLDER KIND SECONDS`.

With the address of a Ray cluster behind these, that trains.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from weightzoo import seeds
from weightzoo.architectures import Architecture
from weightzoo.datasets.images import ImageData
from weightzoo.execution import TrainSummary, train_zoo
from weightzoo.members import Cohort
from weightzoo.spec import ZooSpec, parse_params
from weightzoo.tracking import RunStore
from weightzoo.training.protocol import PROBE_SIZE, EpochResult, Metrics, TrainState

CLASSES = 3
DIVERGES = 0.9  # members with this learning rate get a NaN weight at epoch 2


class DriftEngine:
    """Weights drift at random, by the member's seeds; each epoch depends on the weights and on the slot before it."""

    name = "drift"

    def __init__(self, seconds_an_epoch: float = 0.0, fail_at: int | None = None) -> None:
        self.seconds, self.fail_at = seconds_an_epoch, fail_at
        self.trained: list[tuple[int, str]] = []  # (epoch, member)

    def supports(self, architecture: Architecture, cohort: Cohort, device: str) -> str | None:
        return None if device == "cpu" else "runs on cpu only"

    def train(
        self, architecture: Architecture, cohort: Cohort, data: ImageData, *, resume: TrainState | None = None
    ) -> Iterator[EpochResult]:
        size = architecture.layout.size
        if resume is None:
            drawn = [seeds.normals(one.seeds.init, "init", size=size) for one in cohort.members]
            state = TrainState(0, np.array(drawn, np.float32), {"speed": np.zeros((len(cohort), size), np.float32)})
            yield self._result(state, cohort)
        else:
            state = resume
        for epoch in range(state.epoch + 1, cohort.protocol.epochs + 1):
            time.sleep(self.seconds)
            if epoch == self.fail_at:
                raise RuntimeError("the engine broke")
            weights, speed = state.weights.copy(), state.slots["speed"].copy()
            for row, one in enumerate(cohort.members):
                push = seeds.normals(one.seeds.order, "push", epoch, size=size).astype(np.float32)
                speed[row] = np.float32(0.9) * speed[row] + np.float32(one.hyperparameters.learning_rate) * push
                if one.hyperparameters.learning_rate == DIVERGES and epoch == 2:
                    speed[row, 5] = np.nan
            state = TrainState(epoch, weights + speed, {"speed": speed})
            self.trained += [(epoch, one.id) for one in cohort.members]
            yield self._result(state, cohort)

    def _result(self, state: TrainState, cohort: Cohort) -> EpochResult:
        def score(shift: int) -> np.ndarray:
            return np.abs(np.sin(state.weights[:, shift : shift + 20].sum(axis=1))).astype(np.float32)

        classes = np.stack([score(shift) for shift in range(CLASSES)], axis=1)
        logits = np.repeat(classes[:, None, :], PROBE_SIZE, axis=1).astype(np.float16)
        metrics = Metrics(score(0), score(1), score(2), score(3), score(4), score(5), classes, 1 - classes, logits)
        return EpochResult(state, metrics, seconds=0.25 * len(cohort))


def image_data() -> ImageData:
    rng = np.random.default_rng(0)
    sizes = {"train": 8, "val": 4, "test": PROBE_SIZE}
    return ImageData(
        name="noise",
        images={split: rng.integers(0, 256, (n, 1, 28, 28), dtype=np.uint8) for split, n in sizes.items()},
        labels={split: np.arange(n, dtype=np.int32) % CLASSES for split, n in sizes.items()},
        mean=(0.5,),
        std=(0.5,),
        class_names=("a", "b", "c"),
        source="random numbers",
    )


def zoo_spec(kind: str = "grid", epochs: int = 6, checkpoints: object = "all") -> ZooSpec:
    """A grid of 12 members in 4 cohorts, one learning rate diverges; or a search of 8 with a pruner."""
    factors = {"init": ["normal"], "learning_rate": [0.01, DIVERGES, 0.1]}
    configuration: dict[str, object] = {"kind": "grid", "seeds": {"first": 1, "count": 1}}
    if kind == "grid":
        factors |= {"activation": ["tanh", "relu"], "optimizer": ["adam", "sgd"]}
    elif kind == "seed":
        configuration = {"kind": "seed", "seeds": {"first": 1, "count": 20}}
        factors["learning_rate"] = [0.01]
    else:
        factors = {"activation": ["tanh", "relu"], "learning_rate": {"low": 1e-3, "high": 1e-1, "log": True}}
        configuration = {"kind": "search", "sampler": "tpe", "models": 16, "batch": 8}
        configuration["pruner"] = {"kind": "median", "warmup_epochs": 1}
    zoo = {
        "dataset": "noise",
        "architecture": "cnn-s",
        "configuration": configuration,
        "factors": factors,
        "training": {"epochs": epochs, "batch_size": 4, "checkpoints": checkpoints},
    }
    return parse_params({"build": ["z"], "datasets": {"noise": {}}, "zoos": {"z": zoo}}).zoo("z")


def train(folder: Path, spec: ZooSpec, engine: DriftEngine | None = None, **settings: object) -> TrainSummary:
    """Train the zoo `z` in the store of a folder."""
    options: dict[str, object] = {"shard_size": 16, **settings}
    return train_zoo("z", spec, image_data(), store(folder), engine=engine or DriftEngine(), **options)  # type: ignore[arg-type]


def store(folder: Path) -> RunStore:
    return RunStore(f"sqlite:///{folder}/mlflow.db")


def artifact_bytes(folder: Path, spec: ZooSpec | None = None) -> dict[tuple[str, str], bytes]:
    """(member, file) -> content, of all runs of the zoo that ended; a member with two ended runs is an error."""
    contents: dict[tuple[str, str], bytes] = {}
    for member, own in store(folder).zoo("z").known().items():
        (run,) = [run for run in own if run.ended]
        assert run.artifacts is not None
        for file in run.artifacts.rglob("*"):
            if file.is_file():
                contents[member, str(file.relative_to(run.artifacts))] = file.read_bytes()
    return contents


def main(path: str, kind: str, pause: str, address: str | None = None) -> None:
    from weightzoo.execution.cluster.executor import RayExecutor
    from weightzoo.execution.executor import LocalExecutor

    with LocalExecutor() if address is None else RayExecutor(address) as executor:
        train(
            Path(path),
            zoo_spec(kind),
            DriftEngine(float(pause)),
            executor=executor,
            snapshot_seconds=0.05,
            log_seconds=0.1,
            on_progress=lambda progress: print(progress.what, flush=True),
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
