"""Many runs at a time, straight into MLflow's tables: what MLflow's own calls would write, at a tenth of their cost.

Everything of a `write` is one transaction. Rows that are there already stay as they are, tags are replaced, and the
latest value of a metric is that of its last epoch, so that work that was cut off is simply done again.
"""

from __future__ import annotations

import json
import math
import re
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from weightzoo.database import writing
from weightzoo.errors import TrackingError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

LARGEST = 250  # runs of a transaction; more are written in several
ANALYSED = ("experiments", "runs", "tags", "params", "metrics", "latest_metrics", "datasets", "inputs", "input_tags")
CONTEXT = ("mlflow.data.context", "training")  # of a run's data set
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,249}")
_LONGEST_PARAM, _LONGEST_TAG = 6000, 8000  # characters; longer ones MLflow cuts, and says so


class Point(NamedTuple):
    """One metric of one epoch; the time is in milliseconds since 1970."""

    name: str
    value: float
    epoch: int
    time_ms: int


@dataclass(frozen=True)
class NewRun:
    """What a run is made with."""

    experiment_id: str
    artifact_location: str  # of the experiment
    name: str
    started_ms: int


@dataclass(frozen=True)
class Change:
    """All that is written of one run at one time."""

    run_id: str | None  # None: a new run, which is given one
    new: NewRun | None = None
    points: Sequence[Point] = ()
    params: Mapping[str, str] = field(default_factory=dict[str, str])
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    dataset: tuple[str, str] | None = None  # name and content hash
    ended_ms: int | None = None  # the run is FINISHED

    @property
    def plain(self) -> bool:
        """Whether MLflow would write it as it is, rather than refuse or shorten something."""
        names = {point.name for point in self.points} | self.params.keys() | self.tags.keys()
        return (
            all(map(_NAME.fullmatch, names))
            and all(len(value) <= _LONGEST_PARAM for value in self.params.values())
            and all(len(value) <= _LONGEST_TAG for value in self.tags.values())
            and "mlflow.runName" not in self.tags  # which is the run's name as well
        )


def artifact_uri(location: str, run_id: str) -> str:
    """Where the artifacts of a run are in its experiment's location."""
    from mlflow.utils.uri import append_to_uri_path

    return append_to_uri_path(location, run_id, "artifacts")


def dataset_source(name: str) -> str:
    """What MLflow keeps as the source of a data set: only its name is known here."""
    return json.dumps({"name": name})


class BulkWriter:
    """Writes to a database that `weightzoo.database` knows; `insist` does work again where a server may be away."""

    def __init__(self, engine: Engine, insist: Callable[[Callable[[], None]], None] = lambda work: work()) -> None:
        self._engine, self._insist = engine, insist

    def write(self, changes: Sequence[Change]) -> list[str]:
        """Write changes of different runs; their ids. Up to `LARGEST` are there all together or not at all.

        Raises:
            TrackingError: a run is not there or was deleted, so is its experiment, or a param has another value.
            SQLAlchemyError: the database can't be written to.
        """
        ids = [change.run_id or uuid.uuid4().hex for change in changes]
        for start in range(0, len(changes), LARGEST):
            part = list(zip(ids, changes, strict=True))[start : start + LARGEST]
            self._insist(lambda part=part: self._write(part))
        return ids

    def analyse(self) -> None:
        """Let the database count its rows and values, by which it plans how to search them.

        Raises:
            SQLAlchemyError: the database can't be written to.
        """
        with writing(self._engine) as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA analysis_limit=1000")
            for table in ANALYSED:
                connection.exec_driver_sql(f"ANALYZE {table}")

    def _write(self, changes: Sequence[tuple[str, Change]]) -> None:
        with writing(self._engine) as connection:
            transaction = _Transaction(connection)
            old = [(run_id, change) for run_id, change in changes if change.new is None]
            transaction.require_runs([run_id for run_id, _ in old])
            transaction.require_params(old)
            transaction.make_runs([(run_id, change) for run_id, change in changes if change.new is not None])
            transaction.add_tags(changes)
            transaction.add_params(changes)
            transaction.add_datasets(changes)
            transaction.add_points(changes)
            transaction.end_runs(old)


class _Transaction:
    def __init__(self, connection: Connection) -> None:
        from mlflow.store.tracking.dbmodels import models

        self._connection, self._models = connection, models

    def require_runs(self, ids: Sequence[str]) -> None:
        run = self._models.SqlRun
        there = dict(self._select(run.run_uuid, run.lifecycle_stage, where=run.run_uuid, values=ids))
        for run_id in ids:
            if there.get(run_id) != "active":
                raise TrackingError(f"run {run_id} {'was deleted' if run_id in there else 'is not there'}; train again")

    def require_params(self, changes: Iterable[tuple[str, Change]]) -> None:
        wanted = {run_id: change.params for run_id, change in changes if change.params}
        param = self._models.SqlParam
        for run_id, key, value in self._select(
            param.run_uuid, param.key, param.value, where=param.run_uuid, values=list(wanted)
        ):
            if wanted[run_id].get(key, value) != value:
                raise TrackingError(
                    f"run {run_id}: its param {key} is {value!r} and can't become {wanted[run_id][key]!r}; "
                    "delete the run and train again"
                )

    def make_runs(self, changes: Iterable[tuple[str, Change]]) -> None:
        made = [(run_id, change, change.new) for run_id, change in changes if change.new is not None]
        experiment = self._models.SqlExperiment
        wanted = sorted({int(new.experiment_id) for _, _, new in made})
        where = experiment.experiment_id
        there = dict(self._select(experiment.experiment_id, experiment.lifecycle_stage, where=where, values=wanted))
        for experiment_id in wanted:
            if there.get(experiment_id) != "active":
                raise TrackingError(f"experiment {experiment_id} was deleted; restore it in MLflow or rename the zoo")
        rows = [
            {
                "run_uuid": run_id,
                "name": new.name,
                "source_type": "UNKNOWN",
                "source_name": "",
                "entry_point_name": "",
                "user_id": "unknown",
                "status": "RUNNING" if change.ended_ms is None else "FINISHED",
                "start_time": new.started_ms,
                "end_time": change.ended_ms,
                "source_version": "",
                "lifecycle_stage": "active",
                "artifact_uri": artifact_uri(new.artifact_location, run_id),
                "experiment_id": int(new.experiment_id),
            }
            for run_id, change, new in made
        ]
        if rows:
            self._insert(self._models.SqlRun, tuple(rows[0]), [tuple(row.values()) for row in rows])

    def add_tags(self, changes: Iterable[tuple[str, Change]]) -> None:
        rows = [
            (key, value, run_id)
            for run_id, change in changes
            for key, value in {**change.tags, **({"mlflow.runName": change.new.name} if change.new else {})}.items()
        ]
        replace = "(key, run_uuid) DO UPDATE SET value = excluded.value"
        self._insert(self._models.SqlTag, ("key", "value", "run_uuid"), rows, replace)

    def add_params(self, changes: Iterable[tuple[str, Change]]) -> None:
        rows = [(key, value, run_id) for run_id, change in changes for key, value in change.params.items()]
        self._insert(self._models.SqlParam, ("key", "value", "run_uuid"), rows)

    def add_datasets(self, changes: Iterable[tuple[str, Change]]) -> None:
        wanted = {run_id: change.dataset for run_id, change in changes if change.dataset is not None}
        if not wanted:
            return
        of_run = self._experiments(changes, list(wanted))
        uuids = self._datasets(sorted({(of_run[run_id], *dataset) for run_id, dataset in wanted.items()}))
        edge = self._models.SqlInput
        is_there = {
            (source, run_id)
            for source, run_id, kind in self._select(
                edge.source_id, edge.destination_id, edge.source_type, where=edge.destination_id, values=list(wanted)
            )
            if kind == "DATASET"
        }
        edges = {run_id: uuids[of_run[run_id], *dataset] for run_id, dataset in wanted.items()}
        rows = [
            (uuid.uuid4().hex, "DATASET", source, "RUN", run_id)
            for run_id, source in edges.items()
            if (source, run_id) not in is_there
        ]
        columns = ("input_uuid", "source_type", "source_id", "destination_type", "destination_id")
        self._insert(edge, columns, rows)
        tags = [(input_uuid, *CONTEXT) for input_uuid, *_ in rows]
        self._insert(self._models.SqlInputTag, ("input_uuid", "name", "value"), tags)

    def _experiments(self, changes: Iterable[tuple[str, Change]], ids: Sequence[str]) -> dict[str, int]:
        new = {run_id: int(change.new.experiment_id) for run_id, change in changes if change.new is not None}
        run, old = self._models.SqlRun, [run_id for run_id in ids if run_id not in new]
        return new | dict(self._select(run.run_uuid, run.experiment_id, where=run.run_uuid, values=old))

    def _datasets(self, wanted: Sequence[tuple[int, str, str]]) -> dict[tuple[int, str, str], str]:
        """The ids of data sets, which are made if they are not there; another writer may do so in the same moment."""
        model = self._models.SqlDataset
        experiments = sorted({experiment for experiment, _, _ in wanted})

        def there() -> dict[tuple[int, str, str], str]:
            columns = (model.experiment_id, model.name, model.digest, model.dataset_uuid)
            found = self._select(*columns, where=model.experiment_id, values=experiments)
            return {(experiment, name, digest): own for experiment, name, digest, own in found}

        known = there()
        missing = [each for each in wanted if each not in known]
        if not missing:
            return known
        columns = ("experiment_id", "name", "digest", "dataset_uuid", "dataset_source_type", "dataset_source")
        rows = [(*each, uuid.uuid4().hex, "local", dataset_source(each[1])) for each in missing]
        self._insert(model, columns, rows)
        return there()

    def add_points(self, changes: Iterable[tuple[str, Change]]) -> None:
        rows: list[tuple[Any, ...]] = []
        latest: list[tuple[Any, ...]] = []
        for run_id, change in changes:
            newest: dict[str, tuple[int, int, float]] = {}
            by_name: dict[str, tuple[Any, ...]] = {}
            for name, given, epoch, time_ms in change.points:
                value, is_nan = _storable(given)
                row = (name, value, time_ms, epoch, is_nan, run_id)
                rows.append(row)
                place = (epoch, time_ms, value)
                if name not in newest or place > newest[name]:
                    newest[name], by_name[name] = place, row
            latest += by_name.values()
        columns = ("key", "value", "timestamp", "step", "is_nan", "run_uuid")
        self._insert(self._models.SqlMetric, columns, rows)
        place = ("step", "timestamp", "value")
        newer = [f"({', '.join(f'{table}.{name}' for name in place)})" for table in ("excluded", "latest_metrics")]
        overwritten = ", ".join(f"{name} = excluded.{name}" for name in (*place, "is_nan"))
        replace = f"(key, run_uuid) DO UPDATE SET {overwritten} WHERE {newer[0]} > {newer[1]}"
        self._insert(self._models.SqlLatestMetric, columns, latest, replace)

    def end_runs(self, changes: Iterable[tuple[str, Change]]) -> None:
        from sqlalchemy import bindparam, update

        run = self._models.SqlRun.__table__
        ended = [{"run": run_id, "ended": change.ended_ms} for run_id, change in changes if change.ended_ms is not None]
        if ended:
            end = update(run).where(run.c.run_uuid == bindparam("run"))
            self._connection.execute(end.values(status="FINISHED", end_time=bindparam("ended")), ended)

    def _select(self, *columns: Any, where: Any, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        from sqlalchemy import select

        if not values:
            return []
        return [tuple(row) for row in self._connection.execute(select(*columns).where(where.in_(values)))]

    def _insert(
        self, model: Any, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]], conflict: str = "DO NOTHING"
    ) -> None:
        """Insert rows in the form that the database takes fastest."""
        if not rows:
            return
        table = model.__table__
        into = f"INSERT INTO {table.name} ({', '.join(columns)})"
        if self._connection.dialect.name == "sqlite":
            values = ", ".join("?" * len(columns))
            self._connection.exec_driver_sql(f"{into} VALUES ({values}) ON CONFLICT {conflict}", [*rows])
            return
        mark = "%b" if self._connection.dialect.driver == "psycopg" else "%s"  # binary: strings need no quotes
        arrays = ", ".join(f"{mark}::{_POSTGRESQL[table.c[name].type.python_type]}[]" for name in columns)
        statement = f"{into} SELECT * FROM unnest({arrays}) ON CONFLICT {conflict}"
        self._connection.exec_driver_sql(statement, tuple(list(column) for column in zip(*rows, strict=True)))


_POSTGRESQL = {str: "text", int: "bigint", float: "double precision", bool: "boolean"}


def _storable(value: float) -> tuple[float, bool]:
    """A value as MLflow keeps it, and whether it is NaN: databases know neither that nor infinity."""
    if math.isfinite(value):
        return float(value), False
    if math.isnan(value):
        return 0.0, True
    return math.copysign(sys.float_info.max, value), False
