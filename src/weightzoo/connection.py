"""The way to the MLflow tracking store, for writing (`tracking`) and reading (`registry`) alike.

MLflow is imported when a store is opened and not before: that takes two seconds, which no other command should pay.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Generator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit, urlunsplit

from weightzoo.errors import TrackingError, WeightzooError
from weightzoo.patience import Patience, PatientClient
from weightzoo.redaction import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_TRACKING_URI = "sqlite:///mlruns/mlflow.db"
ARTIFACTS_FOLDER = "artifacts"
TAG = "weightzoo."  # the prefix of all our tags
BUSY_SECONDS = 20.0
_log = logging.getLogger("weightzoo")


def default_tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or the SQLite database `mlruns/mlflow.db` of the current folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI


def connect(tracking_uri: str | None = None, patience: Patience | None = None) -> MlflowClient:
    """Open the tracking store; an SQLite database is made if it is not there, whole or not at all.

    SQLite is set to write-ahead logging, which persists: readers (the MLflow UI) then never wait for the trainer. The
    calls of any other store are made with `patience`, once it answered.

    Raises:
        TrackingError: it is no database, can't be written to, or no server answers.
    """
    uri = tracking_uri or default_tracking_uri()
    database = sqlite_path(uri)
    with tracking_errors(uri):
        if database is not None:
            _prepare_sqlite(database)
        elif uri.startswith(("http://", "https://")):
            _require_server(uri)
        elif "://" in uri and not uri.startswith("file:"):
            _require_database(uri)
        else:
            raise TrackingError(f"{uri}: MLflow keeps runs in a database or behind a server; use sqlite:///PATH")
        client = _client(resolved(uri))
    if database is not None:
        return client
    return cast("MlflowClient", PatientClient(client, uri, patience or Patience()))


def sqlite_path(tracking_uri: str) -> Path | None:
    """The file of an SQLite tracking URI; None if it is of another kind."""
    if not tracking_uri.startswith("sqlite:///"):
        return None
    return Path(tracking_uri.removeprefix("sqlite:///").partition("?")[0])


def resolved(tracking_uri: str) -> str:
    """The same store, also from another folder: MLflow keeps connections by URI, as long as the process lives."""
    database = sqlite_path(tracking_uri)
    if database is None:
        return tracking_uri
    _, mark, options = tracking_uri.partition("?")
    return f"sqlite:///{database.absolute()}{mark}{options}"


def local_artifacts(artifact_uri: str, tracking_uri: str) -> Path | None:
    """The folder behind a run's artifact URI; None if the artifacts lie elsewhere than in the file system.

    MLflow records absolute paths. So that a project folder can be moved or copied, artifacts that lay beside an SQLite
    database, as `artifacts/<zoo>/<run>/artifacts`, are looked for beside the database where it is now.
    """
    parts = urlsplit(artifact_uri)
    if parts.scheme not in ("", "file"):
        return None
    recorded = Path(unquote(parts.path))
    database = sqlite_path(tracking_uri)
    if database is None or len(recorded.parts) < 5 or recorded.parts[-4] != ARTIFACTS_FOLDER:
        return recorded
    here = database.absolute().parent / ARTIFACTS_FOLDER
    return here.joinpath(*recorded.parts[-3:]) if here.is_dir() or not recorded.exists() else recorded


@contextlib.contextmanager
def tracking_errors(tracking_uri: str) -> Generator[None]:
    """Whatever MLflow, its database or its server raise in the block becomes a `TrackingError` of one line."""
    try:
        yield
    except WeightzooError:
        raise
    except Exception as error:
        if isinstance(error, OSError | sqlite3.Error) or type(error).__module__.startswith(_FOREIGN):
            told = f"{tracking_uri}: {_refusal(error) or _first_line(error) + _remedy(error)}"
            shown = redact(told, tracking_uri)
            raise TrackingError(shown) from (error if redact(str(error), tracking_uri) == str(error) else None)
        raise


_FOREIGN = ("mlflow", "sqlalchemy", "alembic", "requests", "urllib3", "botocore", "boto3")


def _client(uri: str) -> MlflowClient:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # our patience takes their place
    from mlflow import MlflowClient

    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs what it raises, with a traceback
    return MlflowClient(uri)


def _prepare_sqlite(database: Path) -> None:
    database.parent.mkdir(parents=True, exist_ok=True)
    if not database.exists():
        _create_sqlite(database)
    if not os.access(database, os.W_OK) or not os.access(database.parent, os.W_OK):
        raise TrackingError(f"{database}: can't be written to; change its permissions or set MLFLOW_TRACKING_URI")
    with contextlib.closing(sqlite3.connect(database, timeout=BUSY_SECONDS)) as connection:
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    _commit_without_waiting(database.resolve())


@cache
def _commit_without_waiting(database: Path) -> None:
    """Let the commits of this process to this database not wait for the disk.

    With write-ahead logging that can't damage the database. If the machine loses power, the last commits may be
    missing: their runs are then unfinished, and trained again. A killed process loses nothing.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def relax(connection: object, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            opened = connection.execute("PRAGMA database_list").fetchone()[2]
            if opened and Path(opened).resolve() == database:
                connection.execute("PRAGMA synchronous=normal")

    event.listen(Engine, "connect", relax)


def _create_sqlite(database: Path) -> None:
    """Let MLflow make its tables under another name first: a process killed in between leaves no half database."""
    from filelock import FileLock

    with FileLock(database.with_name(f".{database.name}.lock")):
        if database.exists():  # another process was faster
            return
        _log.info("making the tracking database %s, which takes a few seconds", database)
        partial = database.with_name(f".{database.name}.partial")
        for left_over in (partial, partial.with_name(f"{partial.name}-journal")):
            left_over.unlink(missing_ok=True)
        _client(f"sqlite:///{partial}").search_experiments(max_results=1)
        partial.replace(database)


def _require_server(uri: str) -> None:
    """One quick request: what comes later is waited for, but a server that is not there at all is an error at once."""
    import urllib.error
    import urllib.request

    parts = urlsplit(uri)
    address = urlunsplit(
        parts._replace(netloc=parts.netloc.rpartition("@")[2])
    )  # a user and password are not asked for
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=10):
            pass
    except urllib.error.HTTPError:
        pass  # something answers; what it says to real requests is for those to report
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise TrackingError(
            f"{redact(uri)}: no tracking server answers ({reason}); start it or unset MLFLOW_TRACKING_URI"
        ) from None


def _require_database(uri: str) -> None:
    """One connection, for the same reason."""
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(uri)
    except ImportError as error:
        raise TrackingError(f"{redact(uri)}: {error}; install the database's Python driver") from None
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _refusal(error: Exception) -> str | None:
    """What to say if the server does not let us in, or not do this; None if it is something else."""
    answer = getattr(error, "response", None)
    status = getattr(answer, "status_code", None)
    code = getattr(error, "error_code", None)
    user = os.environ.get("MLFLOW_TRACKING_USERNAME")
    if code == "UNAUTHENTICATED" or status == 401:
        given = "requests without a user" if user is None else f"user {user!r} or the password"
        return f"the server refuses {given}; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    if code == "PERMISSION_DENIED" or status == 403:
        return (
            f"the server does not permit that to user {user!r}; have somebody who manages the experiment grant "
            "EDIT on it, or give the zoo another name"
        )
    return None


def _first_line(error: Exception) -> str:
    """What it says first; of MLflow's errors around those of a database, what that says."""
    inner = error.__cause__ if type(error).__module__.startswith("mlflow") else None
    original = getattr(inner or error, "orig", None) or error
    return " ".join(str(original).strip().splitlines()[:1]) or type(error).__name__


def _remedy(error: Exception) -> str:
    text = str(error).lower()
    if "not a database" in text or "malformed" in text:
        return "; move the file away and run `weightzoo train` again, or set MLFLOW_TRACKING_URI"
    if "locked" in text:
        return "; another program holds the database, close it and try again"
    if isinstance(error, PermissionError) or "readonly" in text or "unable to open" in text:
        return "; change the permissions of the folder or set MLFLOW_TRACKING_URI"
    return ""
