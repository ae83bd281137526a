"""MLflow's database itself, for what its public calls are too slow for: many runs at a time.

Its tables are no public interface. They are used where the version of MLflow and the revision of the tables are known
here, and nowhere else: everything then goes through the public calls, as it does with a tracking server.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import sqlite3
from collections.abc import Generator
from functools import cache
from typing import TYPE_CHECKING

from weightzoo.connection import resolved, sqlite_path
from weightzoo.redaction import redact

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

KNOWN = {"3.17": "dc11669786a5"}  # minor version of MLflow -> revision of its tables
BUSY_SECONDS = 60.0  # that another writer may hold an SQLite database
_log = logging.getLogger("weightzoo")


def open_database(tracking_uri: str) -> Engine | None:
    """The database of a tracking store; None if it is behind a server, or not known, of which the log says why.

    Raises:
        SQLAlchemyError: it can't be read.
    """
    if tracking_uri.startswith(("http://", "https://")):
        return None
    unknown = _unknown_installation() or _unknown_kind(tracking_uri)
    if unknown is None:
        engine = _engine(resolved(tracking_uri))
        unknown = _unknown_tables(engine)
        if unknown is None:
            return engine
        engine.dispose()
    _tell_once(redact(tracking_uri), unknown)
    return None


@cache
def _tell_once(store: str, why: str) -> None:
    _log.warning("%s: runs are written and read one by one through MLflow, since %s", store, why)


@contextlib.contextmanager
def writing(engine: Engine) -> Generator[Connection]:
    """One transaction, whose changes are there all together or not at all; of SQLite it is the only one that writes."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection
        connection.commit()


@contextlib.contextmanager
def reading(engine: Engine) -> Generator[Connection]:
    """One transaction, in which nothing changes whatever others write."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")
        else:
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        yield connection


def settle(engine: Engine) -> None:
    """Have SQLite move its log into the database, unless others are at work there; else who closes it last does so."""
    from sqlalchemy.exc import DBAPIError

    if engine.dialect.name == "sqlite":
        with contextlib.suppress(DBAPIError), engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout=0")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(truncate)")


def _engine(tracking_uri: str) -> Engine:
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import NullPool

    if sqlite_path(tracking_uri) is None:
        return create_engine(tracking_uri, pool_pre_ping=True)
    by_hand = {"timeout": BUSY_SECONDS, "isolation_level": None}  # Python would begin where it sees fit
    engine = create_engine(tracking_uri, poolclass=NullPool, connect_args=by_hand)

    @event.listens_for(engine, "connect")
    def _(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA foreign_keys=on")
        connection.execute("PRAGMA cache_size=-65536")  # KiB: all that a transaction writes

    return engine


def _unknown_installation() -> str | None:
    version = importlib.metadata.version("mlflow")
    if ".".join(version.split(".")[:2]) not in KNOWN:
        return f"MLflow {version} is none of those whose tables are known ({', '.join(KNOWN)})"
    if os.environ.get("MLFLOW_ENABLE_WORKSPACES", "").lower() in ("1", "true"):
        return "workspaces are enabled"
    return None


def _unknown_kind(tracking_uri: str) -> str | None:
    from sqlalchemy import make_url

    kind = make_url(tracking_uri).get_backend_name()
    return None if kind in ("sqlite", "postgresql") else f"{kind} is neither SQLite nor PostgreSQL"


def _unknown_tables(engine: Engine) -> str | None:
    from sqlalchemy.exc import DBAPIError

    try:
        with engine.connect() as connection:
            found = [revision for (revision,) in connection.exec_driver_sql("SELECT version_num FROM alembic_version")]
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        return "it has no tables of MLflow"
    return None if found in [[known] for known in KNOWN.values()] else f"its tables are of revision {', '.join(found)}"
