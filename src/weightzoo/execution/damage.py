"""Finished runs that are not what was recorded: files that do not match their checksums, records that belie them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from weightzoo import checkpoints
from weightzoo.checkpoints import RecordedMetrics
from weightzoo.connection import TAG
from weightzoo.errors import FormatError, MissingError
from weightzoo.execution.guard import only_trainer
from weightzoo.execution.retraining import recorded_member
from weightzoo.mistakes import short
from weightzoo.records import as_stored, record
from weightzoo.redaction import redact
from weightzoo.run_fields import member_params
from weightzoo.tracking import RunStore
from weightzoo.zoo_runs import KnownRun, ZooRuns


@dataclass(frozen=True)
class Damage:
    """A run, and what is wrong with its artifacts or its record."""

    run: KnownRun
    reason: str

    def __str__(self) -> str:
        return f"run {self.run.run_id} of member {self.run.member}: {self.reason}"


def damaged_runs(store: RunStore, zoo: str, on_progress: Callable[[int, int], None] | None = None) -> list[Damage]:
    """The ended runs of a zoo whose artifacts are missing, truncated or altered, or whose record contradicts them.

    `on_progress` counts runs.

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
        with runs.store.artifact_store.of(run.run_id, run.artifact_uri).folder() as folder:
            checkpoints.check_artifacts(folder, run.member)  # first, since it names the file
            metrics = checkpoints.read_metrics(folder)
        if run.damaged:
            raise FormatError(f"{run.artifacts or run.artifact_uri}: not as many bytes as were recorded")
        _require_record(runs, run, metrics)
    except (MissingError, FormatError) as error:
        yield str(error)


def _require_record(runs: ZooRuns, run: KnownRun, metrics: RecordedMetrics) -> None:
    """Compare what the tracking store has of a run with what was measured and with the member that its id stands for.

    Not compared are times, the machine, and metrics of other epochs than the last.

    Raises:
        FormatError: they contradict each other.
    """
    store = runs.store
    member, whole = recorded_member(store, run.run_id), store.find(run.run_id)
    found = whole.data
    best = metrics.best_epoch
    measured = {name: float(values[-1]) for name, values in metrics.values.items()} | {
        "best_epoch": float(best),
        "best_val_accuracy": float(metrics.values["val_accuracy"][best]),
        "best_test_accuracy": float(metrics.values["test_accuracy"][best]),
    }
    about = {
        "zoo": runs.name,
        "dataset": member.dataset,
        "dataset_hash": member.dataset_hash,
        "architecture": member.architecture,
        "split": member.split,
        "last_epoch": str(metrics.last_epoch),
    }
    for recorded, expected in (
        (found.metrics, {name: as_stored(value) for name, value in measured.items()}),
        (found.params, member_params(member)),
        (found.tags, {TAG + name: value for name, value in about.items()}),
    ):
        for name, value in expected.items():
            other = recorded.get(name, value)
            if other != value and not (value != value and other != other):  # NaN is NaN here
                raise FormatError(
                    f"{redact(store.uri)}: has {name.removeprefix(TAG)} {short(other)}, expected {short(value)}"
                )
    record(whole, store.uri)  # whose seal covers the rest
