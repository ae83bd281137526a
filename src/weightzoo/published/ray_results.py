"""What was measured in a published trial: `result.json`, a JSON object a line, or `progress.csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np

from weightzoo.checkpoints import METRICS
from weightzoo.errors import FormatError, MissingError
from weightzoo.published.files import SourceFolder
from weightzoo.published.model import derived
from weightzoo.published.values import integer, number, parsed_json

RESULTS, PROGRESS = "result.json", "progress.csv"
METRIC_KEYS = {  # the first is the one that an export writes
    "train_loss": ("train_loss",),
    "train_accuracy": ("train_acc", "train_accuracy"),
    "val_loss": ("validation_loss", "val_loss"),
    "val_accuracy": ("validation_acc", "val_acc", "val_accuracy"),
    "test_loss": ("test_loss",),
    "test_accuracy": ("test_acc", "test_accuracy"),
}
_MAX_RESULTS = 2**27  # bytes; those of 60 epochs have 100,000
_MAX_EPOCH = 10**6

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Results:
    """The lines of a trial by epoch, ascending, and what is wrong with its files."""

    lines: Mapping[int, Line]
    problems: tuple[str, ...]

    def metrics(self, last: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """`METRICS` of the epochs 0 to `last`, float32, NaN where not measured; and where they were, bool."""
        values = {name: np.full(last + 1, np.nan, np.float32) for name in METRIC_KEYS}
        measured = {name: np.zeros(last + 1, np.bool_) for name in METRIC_KEYS}
        for epoch, line in self.lines.items():
            for name, keys in METRIC_KEYS.items():
                value = next((found for key in keys if (found := number(line.get(key))) is not None), None)
                if value is not None:
                    values[name][epoch], measured[name][epoch] = value, True
        measured["generalization_gap"] = measured["train_accuracy"] & measured["test_accuracy"]
        return derived(values), {name: measured[name] for name in METRICS}

    def times(self, last: int) -> np.ndarray:
        """When each epoch ended, int64 `[last + 1]`, milliseconds since 1970, 0 where not known."""
        times = np.zeros(last + 1, np.int64)
        for epoch, line in self.lines.items():
            times[epoch] = round(1000 * (_timestamp(line) or 0))
        return times

    def duration(self) -> tuple[datetime | None, datetime | None, float | None]:
        """When the trial started and ended, and the seconds that it took, as far as the lines say so."""
        lines = list(self.lines.values())
        seconds = number(lines[-1].get("time_total_s")) if lines else None
        stamped = [line for line in lines if _timestamp(line) is not None]
        if not stamped:
            return None, None, seconds
        first, last = _timestamp(stamped[0]) or 0, _timestamp(stamped[-1]) or 0
        first = max(first - (number(stamped[0].get("time_this_iter_s")) or 0), 0)
        return datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(last, UTC), seconds


def read_results(source: SourceFolder, trial: Path) -> Results:
    """The results of a trial; `progress.csv` has a say where `result.json` is missing or has unreadable lines.

    An epoch is the `training_iteration` of its line, whichever line that is.

    Raises:
        UnsafeError: a file leads out of the folder, or is absurdly large.
    """
    problems: list[str] = []
    found: dict[int, Line] = {}
    for name, parse in ((RESULTS, _json_lines), (PROGRESS, _csv_lines)):
        try:
            lines, unreadable = parse(source.read(trial / name, _MAX_RESULTS))
        except MissingError:
            continue
        if unreadable:
            problems.append(f"{name}: {unreadable} unreadable line{'s' * (unreadable > 1)}")
        own: dict[int, Line] = {}
        for line in lines:
            epoch = integer(line.get("training_iteration"))
            if epoch is not None and 0 <= epoch <= _MAX_EPOCH:
                own[epoch] = line  # a trial that was continued may have an epoch twice: the later line
        found = own | found
        if found and not unreadable:
            break
    return Results(dict(sorted(found.items())), tuple(problems))


def _json_lines(content: bytes) -> tuple[list[Line], int]:
    """The objects, and how many lines are none."""
    lines: list[Line] = []
    given = [line for line in content.splitlines() if line.strip()]
    for line in given:
        try:
            parsed = parsed_json(line, RESULTS)
        except FormatError:
            continue
        if isinstance(parsed, dict):
            lines.append(cast("dict[str, Any]", parsed))
    return lines, len(given) - len(lines)


def _csv_lines(content: bytes) -> tuple[list[Line], int]:
    try:
        return list(csv.DictReader(io.StringIO(content.decode(), newline=""))), 0
    except (csv.Error, UnicodeDecodeError):
        return [], 1


def _timestamp(line: Line) -> float | None:
    """Seconds since 1970, if they are of this age of the world."""
    stamp = number(line.get("timestamp"))
    return stamp if stamp is not None and 0 < stamp < 1e11 else None
