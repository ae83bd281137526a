"""Published models into MLflow runs: one run a model, with all epochs' metrics and its checkpoints in our own format.

A model whose run is there already is not recorded twice; one whose files have changed since replaces its run. Several
processes record at once, each with a connection of its own.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from weightzoo.architectures import Architecture
from weightzoo.checkpoints import (
    CHECKPOINTS_FOLDER,
    METRICS,
    METRICS_FILE,
    Checkpoints,
    encode_checkpoints,
    encode_metrics,
    epochs_per_part,
    part_name,
)
from weightzoo.errors import SpecError
from weightzoo.execution.guard import only_trainer, settled_objects_uncollected
from weightzoo.published.model import ENGINE, PublishedModel
from weightzoo.published.packing import NothingImportedError, of_architecture, read_one, remarks_on
from weightzoo.published.source import Published, Remark, Source
from weightzoo.tracking import RunStore
from weightzoo.version import code_version
from weightzoo.workers import in_order, worth_it
from weightzoo.zoo_runs import FinishedRun, KnownRun, Point, ZooRuns

_SECONDS = 0.02  # that recording a small CNN with 51 checkpoints takes
_TOGETHER = 16  # models that are in memory at a time, and recorded together;
_TOGETHER_PARAMETERS = 200_000  # and parameters of all of them


@dataclass(frozen=True)
class Imported:
    """What an import did: the ids of all members that are there now, in order; how many are new; what is to be said."""

    members: tuple[str, ...]
    new: int
    remarks: tuple[Remark, ...]


def import_runs(
    source: Source,
    zoo: str,
    store: RunStore,
    *,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Record all models of a source as runs of the zoo, by up to `workers` processes.

    Raises:
        SpecError: the zoo has runs that were trained here, or its name can't be that of a folder.
        NothingImportedError: no model could be read.
        TrackingError: the store can't be used, or another process is at work on the zoo.
    """
    runs = store.zoo(zoo)
    with only_trainer(store.resume_folder, zoo), settled_objects_uncollected():
        known = runs.known()
        if any(run.engine != ENGINE for own in known.values() for run in own):
            raise SpecError(f"zoo {zoo!r} has models that were trained here; import into a zoo of another name")
        remarks, members, new = list(source.refused), list[str](), 0
        for done, outcome in enumerate(_outcomes(source, runs, known, workers), start=1):
            remarks += outcome.remarks
            if outcome.member is not None:
                members.append(outcome.member)
                new += outcome.new
            if on_progress is not None:
                on_progress(done, len(source.models))
        if not members:
            raise NothingImportedError(remarks)
        store.update_statistics()
    return Imported(tuple(members), new, tuple(remarks))


@dataclass(frozen=True)
class _Task:
    uri: str
    artifact_root: str | None
    zoo: str
    model: Published
    known: tuple[KnownRun, ...]
    architecture: Architecture | None  # that it must have


@dataclass(frozen=True)
class _Outcome:
    member: str | None  # None if it was refused
    new: bool
    remarks: tuple[Remark, ...]


def _outcomes(source: Source, runs: ZooRuns, known: Mapping[str, list[KnownRun]], workers: int) -> Iterator[_Outcome]:
    store = runs.store
    architecture = _first_architecture(source)
    tasks = [
        _Task(store.uri, store.artifact_root, runs.name, one, tuple(known.get(one.identity.member, ())), architecture)
        for one in source.models
    ]
    unfinished = sum(not _is_recorded(task) for task in tasks)
    size = max(1, min(_TOGETHER, _TOGETHER_PARAMETERS // architecture.layout.size)) if architecture else 1
    together = [tasks[start : start + size] for start in range(0, len(tasks), size)]
    for outcomes in in_order(_record, together, workers=worth_it(workers, unfinished, _SECONDS)):
        yield from outcomes


def _first_architecture(source: Source) -> Architecture | None:
    """That of the first model that can be read: all models of a zoo have one."""
    for model in source.models:
        read = read_one(model)
        if isinstance(read, PublishedModel):
            return read.architecture
    return None


def _is_recorded(task: _Task) -> bool:
    """Whether the run of a model is there, complete and from files of the same names and sizes."""
    return any(run.ended and not run.damaged and run.digest == task.model.identity.digest for run in task.known)


@cache
def _runs(uri: str, artifact_root: str | None, zoo: str) -> ZooRuns:
    """One connection a process."""
    runs = RunStore(uri, artifact_root=artifact_root).zoo(zoo)
    if multiprocessing.parent_process() is not None:
        gc.freeze()  # as `settled_objects_uncollected` in the first process
    return runs


def _record(tasks: Sequence[_Task]) -> list[_Outcome]:
    """Record some models together."""
    outcomes = [_outcome(task) for task in tasks]
    new = [(task, model) for task, (_, model) in zip(tasks, outcomes, strict=True) if model is not None]
    if new:
        runs = _runs(tasks[0].uri, tasks[0].artifact_root, tasks[0].zoo)
        for task, _ in new:
            for former in task.known:
                runs.delete(former)
        runs.record([as_run(model) for _, model in new])
    return [outcome for outcome, _ in outcomes]


def _outcome(task: _Task) -> tuple[_Outcome, PublishedModel | None]:
    """What becomes of a model, and the model itself if it is to be recorded."""
    identity = task.model.identity
    if _is_recorded(task):
        return _Outcome(identity.member, False, ()), None
    read = read_one(task.model)
    if isinstance(read, PublishedModel) and task.architecture is not None:
        read = of_architecture(read, task.architecture)
    if isinstance(read, Remark):
        return _Outcome(None, False, (read,)), None
    remarks = tuple(remarks_on(read))
    if any(run.ended and not run.damaged and run.digest == read.digest for run in task.known):
        return _Outcome(identity.member, False, remarks), None
    return _Outcome(identity.member, True, remarks), read


def as_run(model: PublishedModel) -> FinishedRun:
    """All that a run has of a published model."""
    identity, now = model.identity, time.time_ns() // 1_000_000
    tags = {
        "dataset": identity.dataset,
        "architecture": model.architecture.name,
        "configuration": identity.configuration,
        "member": identity.member,
        "group": identity.group,
        "split": identity.split,
        "engine": ENGINE,
        "status": model.status,
        "version": code_version(),
        "source": identity.source,
        "layout": identity.layout,
        "definition": json.dumps(
            identity.definition(model.architecture, model.kept), sort_keys=True, separators=(",", ":")
        ),
        "digest": model.digest,
        "last_epoch": str(model.last_epoch),
        **({} if identity.config is None else {"source_config": identity.config}),
    }
    if model.diverged_epoch is not None:
        tags["diverged_epoch"] = str(model.diverged_epoch)
    for name, said in (("problems", model.problems), ("notes", model.notes)):
        if said:
            tags[name] = _shortened("; ".join(said))
    stated = {
        **identity.hyperparameters,
        **{f"seed_{name}": value for name, value in identity.seeds.items()},
        **identity.protocol,
        "schedule": (identity.protocol["schedule"] or {}).get("kind"),
    }
    return FinishedRun(
        name=_name(model),
        tags=tags,
        params={name: _text(value) for name, value in stated.items() if value is not None},
        points=_points(model, now),
        files=_files(model),
        started_ms=round(1000 * model.started.timestamp()) if model.started else now,
        ended_ms=round(1000 * model.ended.timestamp()) if model.ended else now,
    )


def _name(model: PublishedModel) -> str:
    """What a person reads in the list of runs, as far as it is known."""
    chosen, seed = model.identity.hyperparameters, model.identity.seeds["init"]
    words = [str(chosen[name]) for name in ("activation", "optimizer", "init") if chosen[name] is not None]
    numbers = {"lr": chosen["learning_rate"], "wd": chosen["weight_decay"], "drop": chosen["dropout"], "seed": seed}
    words += [f"{name}={value:g}" for name, value in numbers.items() if isinstance(value, int | float)]
    return " ".join(words) or model.identity.source


def _points(model: PublishedModel, now: int) -> list[Point]:
    """The metrics of every epoch as far as they were measured, and those of the best epoch."""
    points = [
        Point(name, float(model.metrics[name][epoch]), epoch, int(model.times[epoch]) or now)
        for epoch in range(model.last_epoch + 1)
        for name in METRICS
        if model.measured[name][epoch]
    ]
    end = {} if model.seconds is None else {"seconds": model.seconds}
    best = model.best_epoch
    if best is not None:
        end |= {"best_epoch": float(best)}
        end |= {f"best_{name}": float(model.metrics[name][best]) for name in ("val_accuracy", "test_accuracy")}
    return [*points, *(Point(name, value, model.last_epoch, now) for name, value in end.items())]


def _files(model: PublishedModel) -> Iterator[tuple[str, bytes]]:
    layout, kept, size = model.architecture.layout, model.kept, epochs_per_part(model.architecture.layout.size)
    for first in range(0, len(kept), size):
        part = Checkpoints(model.identity.member, kept[first : first + size], model.weights[first : first + size])
        yield f"{CHECKPOINTS_FOLDER}/{part_name(part.epochs)}", encode_checkpoints(part, layout)
    yield METRICS_FILE, encode_metrics(model.recorded_metrics())


def _text(value: object) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def _shortened(text: str, limit: int = 1000) -> str:
    return text if len(text) <= limit else f"{text[: limit - 4]} ..."
