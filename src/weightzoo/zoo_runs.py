"""The MLflow runs of one zoo, one a member: making them, logging to them, reading and deleting them.

Runs are written many at a time where `weightzoo.bulk` knows the database. Elsewhere only `MlflowClient`'s public calls
are used, and few of them, since each costs milliseconds whatever it carries: a run is made with its tags, gets its
parameters with its first metrics, and its last tags with its last metrics. All of it may be done twice without harm: a
parameter, tag or metric point that is there already is dropped, so that work that was cut off is simply done again.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from weightzoo import checkpoints
from weightzoo.artifacts import RunArtifacts, folder_bytes
from weightzoo.bulk import CONTEXT, Change, NewRun, Point, artifact_uri, dataset_source
from weightzoo.connection import TAG, tracking_errors
from weightzoo.errors import NotFoundError
from weightzoo.members import ENDED, STATUSES, Member
from weightzoo.records import seal
from weightzoo.run_fields import member_params, member_tags, run_name

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Experiment, Run

    from weightzoo.tracking import RunStore

__all__ = ["Addition", "FinishedRun", "KnownRun", "Point", "ZooRuns"]

METRICS_A_CALL = 1000  # MLflow refuses more
_PAGE = 10_000


@dataclass(frozen=True)
class KnownRun:
    """A run that the tracking store has for a member."""

    run_id: str
    member: str
    status: str  # training | finished | diverged | pruned
    ended: bool  # trained to its end and completely logged
    has_metrics: bool
    running: bool
    artifacts: Path | None  # its artifact folder; None if the artifacts lie elsewhere than in the file system
    artifact_bytes: int | None  # what it must hold; None as long as it has not ended
    digest: str  # of what was measured; empty as long as it has not ended
    engine: str
    artifact_uri: str | None = None
    object_bytes: int | None = None  # what is there of artifacts on S3

    @property
    def complete(self) -> bool:
        """Whether all is there of a training that came to its end: its last tags are written behind all else."""
        return self.ended or (self.status in STATUSES and bool(self.digest))

    @property
    def damaged(self) -> bool:
        """Whether artifacts of a complete run are missing or truncated, as far as file system or S3 tell at once."""
        if not self.complete:
            return False
        if self.artifacts is not None:
            return folder_bytes(self.artifacts) != self.artifact_bytes
        return None not in (self.object_bytes, self.artifact_bytes) and self.object_bytes != self.artifact_bytes


@dataclass(frozen=True)
class FinishedRun:
    """All of a run whose training ended elsewhere: recorded at once rather than while it goes on.

    Times are in milliseconds since 1970. `files` are artifacts by their path within the run, made when they are
    stored, so that they need not all be in memory.
    """

    name: str
    tags: Mapping[str, str]  # without our prefix, nor artifact_bytes
    params: Mapping[str, str]
    points: Sequence[Point]
    files: Iterable[tuple[str, bytes]]
    started_ms: int
    ended_ms: int
    dataset: tuple[str, str] | None = None  # name and content hash of the images, if the hash is known


@dataclass(frozen=True)
class Addition:
    """What is added to a run: metric points, then tags, then its end.

    With `describe` also this member's parameters and data set, which come with the first points rather than by calls of
    their own, which would cost a quarter more in all.
    """

    run_id: str
    points: Sequence[Point] = ()
    tags: Mapping[str, str] = field(default_factory=dict[str, str])  # without our prefix
    describe: Member | None = None
    ended_ms: int | None = None


class ZooRuns:
    """The runs of one zoo."""

    def __init__(self, store: RunStore, name: str, experiment: Experiment, parent_runs: Mapping[str, str]):
        self.store, self.name = store, name
        self.experiment_id: str = experiment.experiment_id
        self.artifact_location: str = experiment.artifact_location
        self.parent_runs, self._parents = parent_runs, dict[str, str | None]()
        self._artifacts: dict[str, RunArtifacts] = {}

    def known(self) -> dict[str, list[KnownRun]]:
        """All runs of the zoo by member id, an ended one before the others.

        Raises:
            TrackingError: the store can't be used.
        """
        found: list[Run] = []
        token: str | None = None
        with tracking_errors(self.store.uri):
            while True:
                page = self.store.client.search_runs([self.experiment_id], max_results=_PAGE, page_token=token)
                found += page
                token = page.token
                if not token:
                    break
        sizes = self.store.artifact_store.sizes((run.info.run_id, run.info.artifact_uri) for run in found)
        runs: dict[str, list[KnownRun]] = {}
        for run in found:
            known = self._known(run, sizes.get(run.info.run_id))
            if known is not None:
                runs.setdefault(known.member, []).append(known)
        for own in runs.values():
            own.sort(key=lambda run: not run.ended)
        return runs

    def create(self, members: Sequence[Member], engine: str, time_ms: int) -> list[str]:
        """Make the runs of members whose training starts; their ids."""
        new = [NewRun(self.experiment_id, self.artifact_location, run_name(member), time_ms) for member in members]
        tags = [self._tags(member, engine) for member in members]
        return self._write([Change(None, one, tags=own) for one, own in zip(new, tags, strict=True)])

    def record(self, runs: Sequence[FinishedRun]) -> list[str]:
        """Make runs with all that belongs to them; their ids.

        Killed in between, it leaves runs that have not ended if there are artifacts to store, and none otherwise: no
        artifact lies where no run leads to it.
        """
        changes = [self._whole(run) for run in runs]
        if not any(run.files for run in runs):
            return self._write(changes)
        ids = self._write([Change(None, change.new, tags=change.tags) for change in changes])
        for run_id, run in zip(ids, runs, strict=True):
            for name, content in run.files:
                self.put(run_id, {name: content})
        sizes = [self.artifact_bytes(run_id) for run_id in ids]
        late = [{} if size is None else {f"{TAG}artifact_bytes": str(size)} for size in sizes]
        rest = zip(ids, changes, late, strict=True)
        return self._write([replace(change, run_id=run_id, new=None, tags=tags) for run_id, change, tags in rest])

    def take_over(self, run: KnownRun, member: Member, engine: str) -> str:
        """Go on with the run of an interrupted training; its id."""
        from mlflow.entities import RunTag

        self._artifacts[run.run_id] = self.store.artifact_store.of(run.run_id, run.artifact_uri)
        with tracking_errors(self.store.uri):
            if not run.running:
                self.store.client.update_run(run.run_id, status="RUNNING")
            tags = [RunTag(key, value) for key, value in self._tags(member, engine).items()]
            self.store.client.log_batch(run.run_id, tags=tags)
        return run.run_id

    def log(self, additions: Sequence[Addition]) -> None:
        """Add to runs."""
        self._write(
            [
                Change(
                    one.run_id,
                    points=one.points,
                    params=member_params(one.describe) if one.describe else {},
                    tags={TAG + name: value for name, value in one.tags.items()},
                    dataset=(one.describe.dataset, one.describe.dataset_hash) if one.describe else None,
                    ended_ms=one.ended_ms,
                )
                for one in additions
            ]
        )

    def seal(self, member: Member, engine: str, tags: Mapping[str, str], metrics: Mapping[str, float]) -> str:
        """The `records.seal` of a member's run that ends with these tags, without our prefix, and metrics."""
        return seal(member_tags(member, self.name, engine) | dict(tags), member_params(member), metrics)

    def put(self, run_id: str, files: Mapping[str, bytes]) -> None:
        """Store artifacts by their path within the run; each is there whole or not at all."""
        self._artifacts[run_id].put(files)

    def artifact_bytes(self, run_id: str) -> int | None:
        """The size of what `put` stored, in bytes; None if only MLflow's server knows."""
        return self._artifacts[run_id].size()

    def metrics(self, run: KnownRun) -> checkpoints.RecordedMetrics:
        """What was measured on the member of an ended run.

        Raises:
            MissingError: the file is not there.
            FormatError: it is damaged.
        """
        artifacts = self.store.artifact_store.of(run.run_id, run.artifact_uri)
        with artifacts.folder(lambda _: [checkpoints.METRICS_FILE]) as folder:
            return checkpoints.read_metrics(folder)

    def end(self, run_id: str, time_ms: int, *, failed: bool = False) -> None:
        """Close a run: FINISHED whatever became of the model, FAILED if the engine broke."""
        with tracking_errors(self.store.uri):
            self.store.client.set_terminated(run_id, "FAILED" if failed else "FINISHED", time_ms)

    def delete(self, run: KnownRun) -> None:
        """Delete a run and its artifacts; those behind MLflow's server are left to `mlflow gc`."""
        with tracking_errors(self.store.uri):
            self.store.client.delete_run(run.run_id)
            if run.artifacts is not None and run.artifacts.parent.name == run.run_id:
                shutil.rmtree(run.artifacts.parent, ignore_errors=True)
        self.store.artifact_store.delete(run.run_id, run.artifact_uri)

    def _whole(self, run: FinishedRun) -> Change:
        tags = {"zoo": self.name} | dict(run.tags)
        last = {point.name: point.value for point in sorted(run.points, key=lambda point: (point.epoch, point.time_ms))}
        tags = {TAG + name: value for name, value in (tags | {"seal": seal(tags, run.params, last)}).items()}
        new = NewRun(self.experiment_id, self.artifact_location, run.name, run.started_ms)
        return Change(None, new, run.points, run.params, tags, run.dataset, run.ended_ms)

    def _write(self, changes: Sequence[Change]) -> list[str]:
        """All together where that is possible; otherwise each by itself, in their order or several at once."""
        bulk = self.store.bulk
        if bulk is not None and all(change.plain for change in changes):
            with tracking_errors(self.store.uri):
                ids = bulk.write(changes)
                for run_id, change in zip(ids, changes, strict=True):
                    if change.new is not None:
                        uri = artifact_uri(change.new.artifact_location, run_id)
                        self._artifacts[run_id] = self.store.artifact_store.of(run_id, uri)
            return ids
        with tracking_errors(self.store.uri):
            return [self._write_publicly(change) for change in changes]

    def _write_publicly(self, change: Change) -> str:
        """By MLflow's public calls: three are the fewest, twenty runs a second and process in SQLite."""
        from mlflow.entities import Metric, Param, RunTag

        client, run_id, tags = self.store.client, change.run_id, change.tags
        if change.new is not None:
            new = change.new
            made = client.create_run(new.experiment_id, new.started_ms, dict(tags), run_name=new.name)
            run_id, tags = made.info.run_id, dict[str, str]()
            self._artifacts[made.info.run_id] = self.store.artifacts(made)
        assert run_id is not None
        if change.dataset is not None:
            self._log_dataset(run_id, change.dataset)
        metrics = [Metric(point.name, point.value, point.time_ms, point.epoch) for point in change.points]
        while len(metrics) > METRICS_A_CALL:
            client.log_batch(run_id, metrics=metrics[:METRICS_A_CALL])
            metrics = metrics[METRICS_A_CALL:]
        params = [Param(name, value) for name, value in change.params.items()]
        if metrics or params or tags:
            late = [RunTag(name, value) for name, value in tags.items()]
            client.log_batch(run_id, metrics=metrics, params=params, tags=late)
        if change.ended_ms is not None:
            client.set_terminated(run_id, "FINISHED", change.ended_ms)
        return run_id

    def _log_dataset(self, run_id: str, dataset: tuple[str, str]) -> None:
        """Of two writers that make the experiment's entry of its data set at once one fails; then it is there."""
        from mlflow.exceptions import MlflowException

        data = [_dataset_input(*dataset)]
        try:
            self.store.client.log_inputs(run_id, data)
        except MlflowException as error:
            if "unique constraint" not in str(error).lower():
                raise
            self.store.client.log_inputs(run_id, data)

    def _known(self, run: Run, object_bytes: int | None) -> KnownRun | None:
        tags: dict[str, str] = run.data.tags
        member, status = tags.get(f"{TAG}member"), tags.get(f"{TAG}status", "")
        if member is None:
            return None
        size = tags.get(f"{TAG}artifact_bytes", "")
        return KnownRun(
            run_id=run.info.run_id,
            member=member,
            status=status,
            ended=run.info.status == "FINISHED" and status in ENDED,
            has_metrics=bool(run.data.metrics),
            running=run.info.status == "RUNNING",
            artifacts=self.store.artifacts(run).path,
            artifact_bytes=int(size) if size.isdigit() else None,
            digest=tags.get(f"{TAG}digest", ""),
            engine=tags.get(f"{TAG}engine", ""),
            artifact_uri=run.info.artifact_uri,
            object_bytes=object_bytes,
        )

    def _tags(self, member: Member, engine: str) -> dict[str, str]:
        tags = {TAG + name: value for name, value in member_tags(member, self.name, engine).items()}
        parent_run = self._parent_run(member.parent.member) if member.parent else None
        return tags if parent_run is None else tags | {"mlflow.parentRunId": parent_run}

    def _parent_run(self, parent: str) -> str | None:
        """The run of a parent in this store, if it has one: a zoo may come from elsewhere, without its runs."""
        if parent not in self._parents:
            self._parents[parent] = None
            for run in (self.parent_runs.get(parent), parent):
                with contextlib.suppress(NotFoundError):
                    if run is not None:
                        self._parents[parent] = self.store.find(run).info.run_id
                        break
        return self._parents[parent]


def _dataset_input(name: str, content_hash: str) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(name=name, digest=content_hash, source_type="local", source=dataset_source(name))
    return DatasetInput(dataset, [InputTag(*CONTEXT)])
