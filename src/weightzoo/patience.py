"""A tracking store that is away for a while: its calls are made again until it is back, with bounded patience.

An hour of training should outlive a restart of the tracking server, of its database or of the object store behind it.
MLflow's own retries are not used: they would make a run twice whose first answer was lost.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from weightzoo.errors import SpecError
from weightzoo.redaction import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

T = TypeVar("T")
SECONDS = 300.0  # unless WEIGHTZOO_PATIENCE says otherwise
LONGEST_PAUSE = 5.0
_log = logging.getLogger("weightzoo")


class Patience:
    """How long to wait for a store; `end` it, and calls that wait give up, as do later ones at their first error."""

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = _seconds_of_environment() if seconds is None else seconds
        self._over = threading.Event()

    def end(self) -> None:
        """Wait no longer: the process was told to go."""
        self._over.set()

    def renew(self) -> None:
        """Be patient again."""
        self._over.clear()

    def insist(self, store: str, work: Callable[[bool], T]) -> T:
        """Do the work again until it meets no error that time may heal; it is told whether this is another attempt.

        Raises:
            Exception: what the work raised last, after `seconds`, or at once if waiting would not help.
        """
        start, pause, failures = time.monotonic(), 0.25, 0
        while True:
            try:
                done = work(failures > 0)
            except Exception as error:
                left = self.seconds - (time.monotonic() - start)
                if not is_passing(error) or left <= 0 or self._over.is_set():
                    raise
                failures += 1
                if failures == 2:
                    why = redact(" ".join(str(error).split()), store)[:200]
                    _log.warning("%s does not answer; trying again for %.0f s (%s)", redact(store), left, why)
                self._over.wait(min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if failures > 1:
                    _log.warning("%s answers again", redact(store))
                return done


class PatientClient:
    """MLflow's client of a store behind a network; each call is made until it is answered, and has its effect once."""

    def __init__(self, client: MlflowClient, store: str, patience: Patience) -> None:
        self._client, self._store, self._patience = client, store, patience

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *given, **named: self._patience.insist(self._store, lambda _: method(*given, **named))

    def create_run(
        self, experiment_id: str, start_time: int, tags: Mapping[str, str], run_name: str | None = None
    ) -> Run:
        """Make a run. If the answer got lost, the run that was made is found by its start and its tags."""

        def create(again: bool) -> Run:
            made = self._made(experiment_id, start_time, tags) if again else None
            return made or self._client.create_run(experiment_id, start_time, dict(tags), run_name)

        return self._patience.insist(self._store, create)

    def _made(self, experiment_id: str, start_time: int, tags: Mapping[str, str]) -> Run | None:
        found = self._client.search_runs(
            [experiment_id], f"attributes.start_time = {int(start_time)}", max_results=5000
        )
        return next((run for run in found if tags.items() <= run.data.tags.items()), None)


def is_passing(error: BaseException) -> bool:
    """Whether the error is one that time may heal: nobody answers, or an answer that the server is in trouble."""
    causes = list(_causes(error))
    return not any(_names(one) & _LASTING for one in causes) and any(_is_passing(one) for one in causes)


_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_NETWORK = {
    "requests.exceptions": {"ConnectionError", "Timeout", "ChunkedEncodingError", "RetryError"},
    "urllib3.exceptions": {"ProtocolError", "TimeoutError", "NewConnectionError"},
    "botocore.exceptions": {"ConnectionError", "HTTPClientError", "IncompleteReadError"},
}
_LASTING = {(f"{library}.exceptions", "SSLError") for library in ("requests", "urllib3", "botocore")}
_TOLD = re.compile(
    r"Max retries exceeded|Connection aborted|Could not connect to the endpoint|50[0234] Server Error"
    r"|duplicate key value|UNIQUE constraint"  # another writer recorded the same data set in the same moment
)
_BACK_SOON = re.compile(
    r"starting up|shutting down|in recovery mode|terminating connection|too many (clients|connections)"
)


def _is_passing(error: BaseException) -> bool:
    names = _names(error)
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if any(name in _NETWORK.get(module, ()) for module, name in names):
        return True
    if ("requests.exceptions", "HTTPError") in names:
        return getattr(getattr(error, "response", None), "status_code", None) in _BUSY
    if ("botocore.exceptions", "ClientError") in names:
        answer: dict[str, Any] = getattr(error, "response", {})
        return answer.get("ResponseMetadata", {}).get("HTTPStatusCode") in _BUSY
    if ("sqlalchemy.exc", "DBAPIError") in names:
        # PostgreSQL says FATAL of a wrong password as well as of a database that is about to be back
        text = str(error)
        broken = ("sqlalchemy.exc", "OperationalError") in names or getattr(error, "connection_invalidated", False)
        return broken and ("FATAL" not in text or _BACK_SOON.search(text) is not None)
    return ("mlflow.exceptions", "MlflowException") in names and _TOLD.search(str(error)) is not None


def _names(error: BaseException) -> set[tuple[str, str]]:
    """The classes of an error as module and name, which spares importing the libraries that they are from."""
    return {(kind.__module__, kind.__name__) for kind in type(error).__mro__}


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        yield current
        seen.add(id(current))
        current = current.__cause__ or current.__context__


def _seconds_of_environment() -> float:
    given = os.environ.get("WEIGHTZOO_PATIENCE")
    try:
        return SECONDS if given is None else max(0.0, float(given))
    except ValueError:
        raise SpecError(f"WEIGHTZOO_PATIENCE={given!r}: give a number of seconds, such as 300") from None
