"""Finished runs whose artifacts are not what was recorded: every file read whole, and compared with its checksum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from weightzoo import checkpoints
from weightzoo.errors import FormatError, MissingError
from weightzoo.execution.guard import only_trainer
from weightzoo.tracking import KnownRun, RunStore, ZooRuns


@dataclass(frozen=True)
class Damage:
    """A run, and what is wrong with its artifacts."""

    run: KnownRun
    reason: str

    def __str__(self) -> str:
        return f"run {self.run.run_id} of member {self.run.member}: {self.reason}"


def damaged_runs(store: RunStore, zoo: str, on_progress: Callable[[int, int], None] | None = None) -> list[Damage]:
    """The ended runs of a zoo with artifacts that are missing, truncated or altered; `on_progress` counts runs.

    Raises:
        TrackingError: the tracking store can't be used.
    """
    runs = store.zoo(zoo)
    ended = [run for own in runs.known().values() for run in own if run.ended]
    found: list[Damage] = []
    for number, run in enumerate(ended, start=1):
        found += [Damage(run, reason) for reason in _reasons(runs, run)]
        if on_progress is not None:
            on_progress(number, len(ended))
    return found


def delete_runs(store: RunStore, zoo: str, damaged: list[Damage]) -> None:
    """Delete these runs, so that training the zoo trains their members again.

    Raises:
        TrackingError: the store can't be used, or the zoo is in training.
    """
    with only_trainer(store.resume_folder, zoo):
        runs = store.zoo(zoo)
        for damage in damaged:
            runs.delete(damage.run)


def _reasons(runs: ZooRuns, run: KnownRun) -> Iterator[str]:
    """At most one: what is first found to be wrong."""
    try:
        if run.damaged:
            raise FormatError(f"{run.artifacts or run.artifact_uri}: files are missing or truncated")
        with runs.store.artifact_store.of(run.run_id, run.artifact_uri).folder() as folder:
            checkpoints.check_artifacts(folder, run.member)
    except (MissingError, FormatError) as error:
        yield str(error)
