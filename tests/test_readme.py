"""Every command and every snippet of the README runs, in the order of the text, on small zoos of the same names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import commit, make_project

ROOT = Path(__file__).parent.parent
VENV = Path(sys.prefix)
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall((ROOT / "README.md").read_text())
INSTEAD = {
    "make test": "true",  # it is what runs this test
    "make bench": f"PYTHONPATH={ROOT} python -m tests.benchmarks.engines --help",  # takes a quarter of an hour
    "make ui": "make --dry-run ui",  # serves until it is stopped; tests/test_ui.py opens it in earnest
    "source .venv/bin/activate": "true",  # the test runs in an activated environment
    "make lint": "make --dry-run lint",  # continuous integration runs it beside the tests
    "weightzoo train digits-seed --force": "echo y | weightzoo train digits-seed --force",  # a person answers
}


def prepared(script: str) -> str:
    lines = [INSTEAD.get(line, line) for line in script.splitlines()]
    return "\n".join(f"make -o {VENV}/.installed VENV={VENV} zoo" if line == "make zoo" else line for line in lines)


@pytest.fixture(scope="module")
def readme_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("readme"), epochs=50, images=60)
    params = (folder / "params.yaml").read_text()
    (section,) = re.findall(
        r"^```yaml\n(finetune:\n.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    (folder / "params.yaml").write_text(params.replace("finetune: {}\n", section))
    commit(folder, "start")
    return folder


@pytest.mark.parametrize(("language", "script"), BLOCKS, ids=[f"{n}-{block[0]}" for n, block in enumerate(BLOCKS)])
def test_block_runs(language: str, script: str, readme_project: Path) -> None:
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
