"""How many states a second each kind of features takes: `python -m tests.benchmarks.features ZOO`, on one core.

`--kinds` names some, `--states` bounds how many states are read. Seconds are of the processor, so that a loaded machine
hardly matters. The images are those in `data/ZOO`, if they are there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from weightzoo.analysis.features import FEATURES, feature_matrix, states_of
from weightzoo.analysis.weights import evenly
from weightzoo.datasets.images import ImageData
from weightzoo.errors import MissingError
from weightzoo.zoo import Zoo

_FEW = 256  # states of features that run the models


def measure(folder: Path, kinds: list[str], states: int) -> dict[str, dict[str, float]]:
    """States, columns, processor seconds and states a second of each kind."""
    zoo = Zoo.open(folder)
    try:
        images = ImageData.load(folder.parent.parent / "data" / folder.name)
    except MissingError:
        images = None
    found: dict[str, dict[str, float]] = {}
    for kind in kinds:
        runs_models = FEATURES[kind].source == "activations"
        if runs_models and images is None:
            continue
        every = states_of(zoo)
        some = every.iloc[evenly(len(every), min(states, _FEW) if runs_models else states)]
        feature_matrix(zoo, [kind], states=some.iloc[:8], images=images)  # imports, and maps the file
        started = time.process_time()
        matrix = feature_matrix(zoo, [kind], states=some, images=images)
        seconds = time.process_time() - started
        rate = len(matrix) / seconds
        found[kind] = {"states": len(matrix), "columns": matrix.shape[1], "seconds": seconds, "states_a_second": rate}
    return found


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--kinds", nargs="*", default=[*FEATURES], choices=[*FEATURES])
    parser.add_argument("--states", type=int, default=5000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        found = measure(given.zoo, given.kinds, given.states)
    if given.json:
        json.dump(found, sys.stdout, indent=1)
        return
    print(f"{'features':12}{'columns':>9}{'states':>9}{'seconds':>9}{'states/s':>10}")
    for kind, row in found.items():
        print(f"{kind:12}{row['columns']:9.0f}{row['states']:9.0f}{row['seconds']:9.2f}{row['states_a_second']:10,.0f}")


if __name__ == "__main__":
    main()
