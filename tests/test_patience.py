"""Waiting for a store that is away: for what, how long, and without doing anything twice."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError, EndpointConnectionError
from mlflow.exceptions import MlflowException, RestException
from sqlalchemy.exc import OperationalError, ProgrammingError

from weightzoo.errors import SpecError
from weightzoo.patience import Patience, PatientClient, is_passing


def answer(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(f"{status} Error", response=response)


def wrapped(cause: Exception) -> Exception:
    """As MLflow raises what its libraries raise."""
    try:
        try:
            raise cause
        except Exception as error:
            raise MlflowException(f"API request to http://host failed with exception {error}")  # noqa: B904
    except MlflowException as error:
        return error


def database(text: str, kind: type[OperationalError | ProgrammingError] = OperationalError) -> Exception:
    return kind("SELECT 1", {}, Exception(text))


def s3(status: int) -> ClientError:
    return ClientError({"Error": {}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")  # type: ignore[typeddict-item]


PASSING = {
    "refused": wrapped(requests.ConnectionError("connection refused")),
    "timeout": wrapped(requests.ReadTimeout("timed out")),
    "in trouble": wrapped(requests.exceptions.RetryError("too many 503 error responses")),
    "proxied artifacts": answer(500),
    "download": MlflowException("The following failures occurred\n##### File a #####\n502 Server Error: Bad Gateway"),
    "database gone": wrapped(database("server closed the connection unexpectedly")),
    "database starting": database("FATAL:  the database system is starting up"),
    "S3 gone": EndpointConnectionError(endpoint_url="http://host"),
    "S3 in trouble": s3(503),
    "another writer": RestException({"error_code": "BAD_REQUEST", "message": "(UniqueViolation) duplicate key value"}),
    "reset": ConnectionResetError("reset by peer"),
}
LASTING = {
    "wrong password": RestException({"error_code": "UNAUTHENTICATED", "message": "no"}),
    "not permitted": answer(403),
    "not there": RestException({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no run"}),
    "certificate": wrapped(requests.exceptions.SSLError("Max retries exceeded: certificate verify failed")),
    "database password": database('FATAL:  password authentication failed for user "zoo"'),
    "no table": database('relation "runs" does not exist', ProgrammingError),
    "S3 key": s3(403),
    "full disk": OSError(28, "No space left on device"),
    "a mistake of ours": KeyError("x"),
}


@pytest.mark.parametrize("case", PASSING)
def test_what_time_may_heal(case: str) -> None:
    assert is_passing(PASSING[case])


@pytest.mark.parametrize("case", LASTING)
def test_what_it_will_not(case: str) -> None:
    assert not is_passing(LASTING[case])


class Flaky:
    """A store that loses the first answers, before or after it has done what it was asked."""

    def __init__(self, *, lost: int, before: bool) -> None:
        self.lost, self.before = lost, before
        self.runs: list[Any] = []

    def create_run(self, experiment_id: str, start_time: int, tags: dict[str, str], run_name: str | None) -> Any:
        if self.lost and self.before:
            self._lose()
        info = SimpleNamespace(start_time=start_time, name=run_name)
        self.runs.append(SimpleNamespace(info=info, data=SimpleNamespace(tags={**tags, "mlflow.runName": "x"})))
        if self.lost:
            self._lose()
        return self.runs[-1]

    def search_runs(self, experiment_ids: list[str], condition: str, max_results: int) -> list[Any]:
        if self.lost:
            self._lose()
        return [run for run in self.runs if condition == f"attributes.start_time = {run.info.start_time}"]

    def _lose(self) -> None:
        self.lost -= 1
        raise requests.ConnectionError("connection aborted")


@pytest.mark.parametrize("before", [True, False])
def test_a_run_whose_answer_got_lost_is_made_once(before: bool, caplog: pytest.LogCaptureFixture) -> None:
    store = Flaky(lost=2, before=before)
    client = PatientClient(store, "http://zoo:pass-word@host", Patience(10))  # type: ignore[arg-type]
    first = client.create_run("1", 7, {"member": "a"}, "a")
    assert client.create_run("1", 7, {"member": "b"}, "b") is not first  # made in the same millisecond
    assert [run.data.tags["member"] for run in store.runs] == ["a", "b"]
    assert "http://zoo:***@host does not answer; trying again for 10 s" in caplog.text
    assert "answers again" in caplog.text
    assert "pass-word" not in caplog.text


def test_patience_is_bounded_and_can_be_ended() -> None:
    def fails(again: bool) -> None:
        raise ConnectionRefusedError("nobody there")

    with pytest.raises(ConnectionRefusedError):
        Patience(0.3).insist("store", fails)
    patience = Patience(1000)
    threading.Timer(0.2, patience.end).start()
    start = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        patience.insist("store", fails)
    assert time.monotonic() - start < 500  # it did not wait to the end


def test_the_environment_says_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHTZOO_PATIENCE", "7.5")
    assert Patience().seconds == 7.5
    monkeypatch.setenv("WEIGHTZOO_PATIENCE", "long")
    with pytest.raises(SpecError, match="give a number of seconds, such as 300"):
        Patience()
