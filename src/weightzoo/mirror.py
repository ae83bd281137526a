"""What is known of all runs of a database, as one file beside it: read in a second, where a search takes a minute.

The file is a cache, which may be deleted at any time. It is brought up to date whenever it is read. If the database
says that nobody wrote to it since, it is not looked at. Otherwise it tells a digest of every run, by which those that
are new, or were resumed, tagged or restored, are found and read; what is not there any more is dropped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from weightzoo.connection import TAG, sqlite_path
from weightzoo.database import reading, settle
from weightzoo.records import TYPES, RunRecord, record_of
from weightzoo.redaction import redact

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

FORMAT = "weightzoo mirror 1"
FOLDER = ".cache"
_DIGEST = 16  # bytes: of a run, and of the whole file at its end
_SETTLED_SECONDS = 0.1  # behind the last write, after which file times tell two states apart
_TOGETHER = 1000  # runs that are asked for by their ids; if it is more of them, all are read
_FROM_TYPE = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "datetime": pa.int64()}
_SCHEMA = pa.schema(
    [("digest", pa.binary(_DIGEST)), ("experiment", pa.string())]
    + [(name, _FROM_TYPE[kind]) for name, kind in TYPES.items()]
)
_log = logging.getLogger("weightzoo")


@dataclass(frozen=True)
class Mirrored:
    """A run, and the name of its experiment."""

    experiment: str
    run: RunRecord


def mirror_path(tracking_uri: str) -> Path:
    """The file of a tracking store's mirror: beside an SQLite database, or in `mlruns`."""
    database = sqlite_path(tracking_uri)
    if database is not None:
        return database.parent / FOLDER / f"{database.name}.mirror"
    name = hashlib.blake2b(redact(tracking_uri, tracking_uri).encode(), digest_size=8).hexdigest()
    return Path("mlruns") / FOLDER / f"{name}.mirror"


def mirrored_runs(engine: Engine, tracking_uri: str) -> list[Mirrored]:
    """All runs that weightzoo made, in the order of zoo, member and run, as they are now.

    Raises:
        SQLAlchemyError: the database can't be read.
        FormatError: something of a run that has ended was altered since.
    """
    path = mirror_path(tracking_uri)
    state, table = _load(path)
    files = _file_state(tracking_uri)
    if files is None or files != state:
        settle(engine)
        if sqlite_path(tracking_uri) is not None:
            time.sleep(_SETTLED_SECONDS)
        files = _file_state(tracking_uri)  # before anything is read: what is written from now on is seen the next time
        with reading(engine) as connection:
            now = _server_state(connection) if sqlite_path(tracking_uri) is None else files
            if now is None or now != state:
                table, taken = _synchronised(connection, tracking_uri, table)
                _log.debug("%s: %d of %d runs taken", path, taken, table.num_rows)
                _save(path, now, table)
    return _runs(table)


def _file_state(tracking_uri: str) -> str | None:
    """What tells that nobody wrote to an SQLite database; None if that can't be told, since somebody just did."""
    database = sqlite_path(tracking_uri)
    if database is None:
        return None
    told: list[int] = []
    for path in (database, database.with_name(f"{database.name}-wal")):
        found = path.stat() if path.exists() else None
        if found is None or not found.st_size:
            told += [0, 0, 0]  # a log that is empty is as good as none
        elif time.time() - found.st_mtime < _SETTLED_SECONDS:
            return None
        else:
            told += [found.st_ino, found.st_size, found.st_mtime_ns]
    return json.dumps(told)


def _server_state(connection: Connection) -> str:
    """What PostgreSQL has of all transactions that are done: as long as it is the same, so is everything else."""
    state = "SELECT txid_current_snapshot()::text, pg_postmaster_start_time()::text, current_database()"
    return json.dumps([*connection.exec_driver_sql(state).one()])


def _synchronised(connection: Connection, tracking_uri: str, table: pa.Table) -> tuple[pa.Table, int]:
    """The table as the database has it now, and how many runs had to be read."""
    known = {
        run: (row, digest)
        for row, (run, digest) in enumerate(zip(table["run_id"].to_pylist(), table["digest"].to_pylist(), strict=True))
    }
    kept: list[int] = []
    changed: dict[str, tuple[bytes, Any, str, str]] = {}
    for info, tags, params, digest in _digests(connection):
        row, last = known.get(info.run_uuid, (-1, b""))
        if digest == last:
            kept.append(row)
        else:
            changed[info.run_uuid] = digest, info, tags, params
    metrics = _metrics(connection, list(changed))
    read = [
        (
            digest,
            info.experiment,
            record_of(
                tracking_uri,
                run_id=run_id,
                status=info.status,
                started_ms=info.start_time,
                ended_ms=info.end_time,
                artifact_uri=info.artifact_uri,
                tags={name: value for name, value in json.loads(tags).items() if value is not None},
                params=json.loads(params),
                metrics=metrics.get(run_id, {}),
            ),
        )
        for run_id, (digest, info, tags, params) in changed.items()
    ]
    if not read and len(kept) == table.num_rows:
        return table, 0
    merged = pa.concat_tables([table.take(pa.array(kept, pa.int64())), _table(read)])
    order = sorted(range(merged.num_rows), key=list(zip(*_keys(merged), strict=True)).__getitem__)
    return merged.take(pa.array(order, pa.int64())), len(read)


def _keys(table: pa.Table) -> list[list[Any]]:
    return [table[name].to_pylist() for name in ("zoo", "member", "run_id")]


def _digests(connection: Connection) -> Iterator[tuple[Any, str, str, bytes]]:
    """Of every run of ours its row, its tags and params as JSON, and a digest of all there is of it."""
    sqlite = connection.dialect.name == "sqlite"
    collate = "" if sqlite else ' COLLATE "C"'
    collected = "json_group_object(key, {})" if sqlite else "jsonb_object_agg(key, {})::text"
    exactly = "CASE WHEN is_nan THEN 'nan' ELSE quote(value) END" if sqlite else "(value, is_nan)::text"

    def column(table: str, value: str) -> Callable[[str], str]:
        rows = connection.exec_driver_sql(
            f"SELECT run_uuid, {collected.format(value)} FROM {table} GROUP BY run_uuid ORDER BY run_uuid{collate}"
        )
        return _in_step(iter(rows))

    columns = [column("tags", "value"), column("params", "value"), column("latest_metrics", exactly)]
    runs = connection.exec_driver_sql(
        "SELECT run_uuid, status, start_time, end_time, artifact_uri, experiments.name AS experiment "
        "FROM runs JOIN experiments ON experiments.experiment_id = runs.experiment_id "
        "WHERE runs.lifecycle_stage = 'active' AND experiments.lifecycle_stage = 'active' "
        f"ORDER BY run_uuid{collate}"
    )
    for info in runs:
        tags, params, metrics = (of(info.run_uuid) for of in columns)
        if f'"{TAG}member"' in tags:
            whole = "\0".join((repr(tuple(info)), tags, params, metrics))
            yield info, tags, params, hashlib.blake2b(whole.encode(), digest_size=_DIGEST).digest()


def _in_step(rows: Iterator[Any]) -> Callable[[str], str]:
    """What gives the value of a run, if asked for runs in their order; `{}` if it has none."""
    head = next(rows, None)

    def of(run: str) -> str:
        nonlocal head
        while head is not None and head[0] < run:
            head = next(rows, None)
        return head[1] if head is not None and head[0] == run else "{}"

    return of


def _metrics(connection: Connection, runs: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
    """The latest metrics of runs, exactly."""
    from sqlalchemy import bindparam, text

    select = "SELECT run_uuid, key, value, is_nan FROM latest_metrics"
    if not runs:
        return {}
    if len(runs) > _TOGETHER:
        rows = connection.exec_driver_sql(select)
    else:
        some = text(f"{select} WHERE run_uuid IN :runs").bindparams(bindparam("runs", expanding=True))
        rows = connection.execute(some, {"runs": [*runs]})
    found: dict[str, dict[str, float]] = {run: {} for run in runs}
    for run, key, value, is_nan in rows:
        if run in found:
            found[run][key] = float("nan") if is_nan else value
    return found


def _table(read: Sequence[tuple[bytes, str, RunRecord]]) -> pa.Table:
    def stored(value: Any, kind: str) -> Any:
        return round(value.timestamp() * 1000) if kind == "datetime" and value is not None else value

    columns: dict[str, list[Any]] = {"digest": [one[0] for one in read], "experiment": [one[1] for one in read]}
    for name, kind in TYPES.items():
        columns[name] = [stored(getattr(run, name), kind) for _, _, run in read]
    return pa.table(columns, schema=_SCHEMA)


def _runs(table: pa.Table) -> list[Mirrored]:
    fields = (_values(table[name], kind) for name, kind in TYPES.items())
    runs = (RunRecord(*values) for values in zip(*fields, strict=True))
    return [Mirrored(*pair) for pair in zip(_values(table["experiment"], "str"), runs, strict=True)]


def _values(column: pa.ChunkedArray, kind: str) -> list[Any]:
    """A column as Python's objects, in a tenth of the time that `to_pylist` takes."""
    whole = column.combine_chunks()
    if kind == "str":
        return whole.to_numpy(zero_copy_only=False).tolist()
    values: list[Any] = whole.fill_null(0).to_numpy(zero_copy_only=False).tolist()
    if kind == "datetime":
        values = [datetime.fromtimestamp(value / 1000, UTC) for value in values]
    for row in np.flatnonzero(whole.is_null().to_numpy(zero_copy_only=False)).tolist():
        values[row] = None
    return values


def _load(path: Path) -> tuple[str | None, pa.Table]:
    """The state of the database that the file has seen, and its runs; nothing if it is not there or not to be used."""
    empty = None, _SCHEMA.empty_table()
    try:
        content = path.read_bytes()
        body, digest = content[:-_DIGEST], content[-_DIGEST:]
        if hashlib.blake2b(body, digest_size=_DIGEST).digest() != digest:
            return empty
        table = pq.read_table(pa.BufferReader(body))
        header = json.loads((table.schema.metadata or {}).get(b"weightzoo", b"{}"))
    except (OSError, pa.ArrowException, ValueError):
        return empty
    if header.get("format") != FORMAT or not table.schema.remove_metadata().equals(_SCHEMA):
        return empty
    return header["state"], table.replace_schema_metadata(None)


def _save(path: Path, state: str | None, table: pa.Table) -> None:
    """Write the file whole; where that is not permitted, it goes without."""
    buffer = pa.BufferOutputStream()
    header = {"weightzoo": json.dumps({"format": FORMAT, "state": state})}
    pq.write_table(table.replace_schema_metadata(header), buffer, compression="zstd")
    body = buffer.getvalue().to_pybytes()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _partial(path) as file:
            file.write(body + hashlib.blake2b(body, digest_size=_DIGEST).digest())
    except OSError as error:
        _log.debug("%s: %s; runs are read anew each time", path, error.strerror)


@contextlib.contextmanager
def _partial(path: Path) -> Generator[Any]:
    """A file that takes the place of another when it is complete; several processes may do so at once."""
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
