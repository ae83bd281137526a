"""How fast published trials are read: `python -m tests.benchmarks.published [--trials 500] [--workers 2]`.

Writes an experiment of CNN(s) trials with 51 checkpoints each to a temporary folder, then measures, on warm caches:
reading its checkpoints by `torch.load(weights_only=True)` and by weightzoo; the way from the folders to a packed zoo;
the way to MLflow runs in SQLite; and the export of the packed zoo.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tests.published import experiments
from weightzoo.importing import import_runs
from weightzoo.published import export_ray_tune, open_source, pack
from weightzoo.published.states import StateReader
from weightzoo.tracking import RunStore
from weightzoo.zoo import Zoo

EPOCHS = 50


def main() -> None:
    """Measure, and print a line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), given.trials, given.workers)


def measure(folder: Path, trials: int, workers: int) -> None:
    """All measurements, in the folder."""
    experiment = folder / "tune_zoo_mnist_uniform"
    for number in range(trials):
        config = experiments.params(number, **{"training::epochs_train": EPOCHS})
        experiments.write_trial(experiment, number, config=config, epochs=EPOCHS)
    files = sorted(experiment.glob("*/checkpoint_*/checkpoints"))[: 40 * (EPOCHS + 1)]
    reader = StateReader()
    seconds = {
        "torch.load": timed(lambda: [torch.load(file, weights_only=True) for file in files]) / len(files),
        "StateReader": timed(lambda: [reader.read(file.read_bytes(), "") for file in files]) / len(files),
    }
    for name, each in seconds.items():
        print(f"{name:<24}{1000 * each:.3f} ms a checkpoint")
    store = RunStore(f"sqlite:///{folder}/mlflow.db")
    store.zoo("empty")  # making the tables takes seconds
    steps: dict[str, Callable[[], object]] = {
        "packed zoo": lambda: pack(open_source(experiment), folder / "zoo", workers=workers),
        "MLflow runs": lambda: import_runs(open_source(experiment), "published", store, workers=workers),
        "MLflow runs, again": lambda: import_runs(open_source(experiment), "published", store, workers=workers),
        "export": lambda: export_ray_tune(Zoo.open(folder / "zoo"), folder / "exported"),
    }
    for name, step in steps.items():
        before = cpu_seconds()
        took = timed(step)
        spent = cpu_seconds() - before
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        print(
            f"{name:<24}{trials / took:.1f} trials/s ({took:.1f} s, {spent:.1f} s of cores), peak memory {peak:,.0f} MB"
        )


def cpu_seconds() -> float:
    """What this process and its ended children have used of cores: hardly depends on what else the machine does."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def timed(step: Callable[[], object]) -> float:
    """The seconds that a step takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
