"""Every command and every snippet of the README runs, in the order of the text, on small zoos of the same names."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import commit, make_project
from tests.servers import MLflow, PostgreSQL, SeaweedFS, free_port, require

ROOT = Path(__file__).parent.parent
VENV = Path(sys.prefix)
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
README = (ROOT / "README.md").read_text()
BLOCKS = BLOCK.findall(README)
INSTEAD = {
    "make test": "true",  # it is what runs this test
    "make bench": f"PYTHONPATH={ROOT} python -m tests.benchmarks.engines --help",  # takes a quarter of an hour
    "make bench-scale": f"PYTHONPATH={ROOT} python -m tests.benchmarks.scale --help",  # takes ten minutes
    "make chaos": f"PYTHONPATH={ROOT} python -m tests.chaos.corruption --help",  # takes half an hour
    "make ui": "make --dry-run ui",  # serves until it is stopped; tests/test_ui.py opens it in earnest
    "source .venv/bin/activate": "true",  # the test runs in an activated environment
    # it serves until it is stopped, here at the end of all tests
    "make server": f"(PYTHONPATH={ROOT} setsid make -o {VENV}/.installed VENV={VENV} server > server.log 2>&1 & "
    "echo $! > server.pid); timeout 120 sh -c 'until grep -qE \"Ctrl-C|error\" server.log; do sleep 0.2; done'; "
    "cat server.log; grep -q Ctrl-C server.log",
    "make lint": "make --dry-run lint",  # continuous integration runs it beside the tests
    "weightzoo train digits-seed --force": "echo y | weightzoo train digits-seed --force",  # a person answers
}


RAY_PORT = free_port()


def prepared(script: str) -> str:
    lines = [INSTEAD.get(line, line) for line in script.replace("6399", str(RAY_PORT)).splitlines()]
    if any(line.startswith("ray start") for line in lines):
        lines.insert(0, "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT")  # also if a command fails
    return "\n".join(re.sub(r"^make (zoo|look)$", rf"make -o {VENV}/.installed VENV={VENV} \1", line) for line in lines)


@pytest.fixture(scope="module")
def readme_project() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="readme-") as parent:
        Path(parent).chmod(0o711)  # where the tests run as root, PostgreSQL runs as another user
        folder = make_project(Path(parent), epochs=50, images=60)
        params = (folder / "params.yaml").read_text()
        section = re.search(r"^```yaml\n(finetune:\n.*?)^```", README, re.MULTILINE | re.DOTALL)
        zoo = re.search(r"^```yaml\nzoos:\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
        assert section is not None
        assert zoo is not None
        params = params.replace("finetune: {}\n", section[1]) + zoo[1]  # the zoos are at its end
        (folder / "params.yaml").write_text(params)
        commit(folder, "start")
        yield folder
        stop_server(folder)


def stop_server(folder: Path) -> None:
    """As Ctrl-C does."""
    if (folder / "server.pid").exists():
        server = int((folder / "server.pid").read_text())
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server, signal.SIGINT)
            for _ in range(300):
                os.kill(server, 0)
                time.sleep(0.1)
        assert "stopped" in (folder / "server.log").read_text()


@pytest.mark.parametrize(("language", "script"), BLOCKS, ids=[f"{n}-{block[0]}" for n, block in enumerate(BLOCKS)])
def test_block_runs(language: str, script: str, readme_project: Path) -> None:
    if script.startswith(("make server", "source .server/env")):
        require(PostgreSQL, SeaweedFS, MLflow)
    environment = os.environ | {"PATH": f"{VENV / 'bin'}:{os.environ['PATH']}"}
    command = (
        ["bash", "-euo", "pipefail", "-c", prepared(script)] if language == "bash" else [sys.executable, "-c", script]
    )

    done = subprocess.run(
        command, cwd=readme_project, env=environment, capture_output=True, text=True, timeout=300, check=False
    )

    assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert "Traceback" not in done.stderr


def test_readme_has_the_two_commands() -> None:
    commands = [line for language, script in BLOCKS if language == "bash" for line in script.splitlines()]
    assert commands[0] == "make zoo"
    assert "make test" in commands
