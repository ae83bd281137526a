"""The command line: help with examples, one-line errors, exit codes. What the verbs do is tested where it is done."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from weightzoo.cli import app

VERBS = sorted(get_command(app).commands)  # pyright: ignore[reportAttributeAccessIssue]


def weightzoo(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200"}
    command = [sys.executable, "-c", "from weightzoo.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_verbs_mirror_the_picture() -> None:
    assert {"plan", "prepare", "train", "assemble", "query", "inspect", "verify", "report"} <= set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_an_example_of_the_verb(verb: str) -> None:
    shown = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert f"weightzoo {verb}" in shown.output.partition("Example")[2]


FAILURES = [
    (["prepare", "digits-hpy"], "did you mean 'digits-hyp'?"),
    (["train", "digits-hyp"], "weightzoo prepare"),
    (["assemble", "digits-hyp"], "digits-hyp"),
    (["report", "digits-hyp"], "digits-hyp"),
    (["sparsify", "digits-hyp"], "zoos/digits-hyp/zoo.json: no such file"),
    (["finetune", "digits-hyp"], "no zoo 'digits-hyp' below `finetune`"),
    (["verify", "nothing"], "no packed zoo 'nothing'"),
    (["inspect", "nothing"], "nothing"),
    (["analyse", "nothing"], "no packed zoo 'nothing'"),
    (["analyse", "digits-hyp", "sprad"], "no method 'sprad'; did you mean 'spread'?"),
    (["query", "test_acuracy > 0.9"], "test_accuracy"),
    (["query", "test_accuracy >"], "query"),
    (["checkpoint", "0000", "--epoch", "1"], "0000"),
    (["versions", "digits-hyp"], "no git repository"),
    (["upload", "digits-hyp", "s3://zoos/z"], "no packed zoo 'digits-hyp'"),
    (["remote", "check"], "no remote on S3"),
    (["import", "nowhere", "--to", "zoo"], "nowhere: no such folder"),
    (["import", "pipelines", "--to", "zoo"], "no zoo of a layout that is known"),
    (["export", "digits-hyp", "--layout", "ray-tune", "--to", "out"], "no packed zoo 'digits-hyp'"),
    (["export", "digits-hyp", "--layout", "tar", "--to", "out"], "no layout 'tar'; there are ray-tune, huggingface"),
    (["export", "digits-hyp", "--layout", "huggingface", "--to", "out"], "give one, such as --license cc-by-4.0"),
]


@pytest.mark.parametrize(("arguments", "part"), FAILURES, ids=[" ".join(case[0]) for case in FAILURES])
def test_a_failure_is_one_line_and_exit_code_one(arguments: list[str], part: str, project: Path) -> None:
    done = weightzoo(*arguments, cwd=project)
    assert done.returncode == 1, done.stderr
    assert part in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["train"],
        ["no-such-verb"],
        ["plan", "digits-hyp", "--all"],
        ["analyse"],
        ["assemble", "digits-hyp", "--where", "dropout == 0"],
    ],
)
def test_a_wrong_command_line_is_exit_code_two(arguments: list[str], project: Path) -> None:
    done = weightzoo(*arguments, cwd=project)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_broken_params_file_is_named(project: Path) -> None:
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("activation: [tanh, relu]", "activation: [tanh, relo]"))
    done = weightzoo("plan", "digits-hyp", cwd=project)
    assert done.returncode == 1
    assert "zoos.digits-hyp.factors.activation" in done.stderr
    assert "relu" in done.stderr
    assert done.stderr.count("\n") == 1


def test_outside_a_project_the_remedy_is_named(tmp_path: Path) -> None:
    done = weightzoo("plan", cwd=tmp_path)
    assert done.returncode == 1
    assert "params.yaml: no such file" in done.stderr


def test_importing_weightzoo_is_light() -> None:
    code = "import sys, weightzoo; print(sorted({'mlflow', 'torch', 'optuna', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
