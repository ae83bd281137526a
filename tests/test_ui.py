"""`make ui`: MLflow's real server on a small project, asked for what a person would look at."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import make_project
from tests.servers import listening

VENV = Path(sys.prefix)
ENVIRONMENT = os.environ | {"PATH": f"{VENV / 'bin'}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server started by `make ui` on a project with one trained zoo."""
    project = make_project(tmp_path_factory.mktemp("ui"), epochs=3, images=60)
    for step in ("prepare", "train"):
        command = [sys.executable, f"pipelines/{step}.py", "digits-seed"]
        subprocess.run(command, cwd=project, env=ENVIRONMENT, check=True, capture_output=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        ["make", "-o", f"{VENV}/.installed", f"VENV={VENV}", f"PORT={port}", "ui"],
        cwd=project,
        env=ENVIRONMENT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until_healthy(address)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_healthy(address: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(f"{address}/health"):
            return
        time.sleep(0.2)
    pytest.fail("the server did not start")


def ask(address: str, call: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}/{call}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_a_run_shows_parameters_curves_and_checkpoints(server: str) -> None:
    api = "api/2.0/mlflow"
    experiment = ask(server, f"{api}/experiments/get-by-name?experiment_name=digits-seed")["experiment"]
    found = ask(server, f"{api}/runs/search", {"experiment_ids": [experiment["experiment_id"]]})["runs"]
    assert len(found) == 5

    run = found[0]
    params = {param["key"]: param["value"] for param in run["data"]["params"]}
    assert (params["activation"], params["optimizer"], params["learning_rate"]) == ("tanh", "adam", "0.0003")
    assert run["inputs"]["dataset_inputs"][0]["dataset"]["name"] == "digits"

    run_id = run["info"]["run_id"]
    history = ask(server, f"{api}/metrics/get-history?run_id={run_id}&metric_key=test_accuracy")["metrics"]
    assert sorted(int(point.get("step", 0)) for point in history) == [0, 1, 2, 3]

    files = ask(server, f"{api}/artifacts/list?run_id={run_id}&path=checkpoints")["files"]
    assert [file["path"] for file in files] == ["checkpoints/epochs_0000-0003.safetensors"]


def test_it_listens_on_loopback_only(server: str) -> None:
    assert listening(int(server.rpartition(":")[2])) == {"127.0.0.1"}


def test_the_page_itself_is_served(server: str) -> None:
    with urllib.request.urlopen(server) as answer:
        assert b"MLflow" in answer.read()
