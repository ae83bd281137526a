"""The DVC pipeline: what its stages depend on, and the whole way through the real `dvc repro` on small zoos."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
from ruamel.yaml import YAML

from tests.conftest import commit, make_project
from weightzoo.analysis.methods import METHODS
from weightzoo.analysis.output import read_analysis
from weightzoo.zoo import Zoo

ROOT = Path(__file__).parent.parent
STAGES = ("prepare", "train", "assemble", "finetune", "sparsify", "analyse", "report")


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("weightzoo", exclude_type_checking_imports=True, cache_dir=None)


def imported_by(script: Path) -> set[str]:
    """The weightzoo modules that a script names in its imports."""
    return {
        node.module
        for node in ast.walk(ast.parse(script.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("weightzoo")
    }


def files_of(module: str) -> set[str]:
    """The source of a module: importing a.b.c runs the __init__ of a and a.b too."""
    parts = module.split(".")
    packages = {f"src/{'/'.join(parts[:n])}/__init__.py" for n in range(1, len(parts))}
    own = Path("src", *parts)
    return packages | {f"{own}/__init__.py" if (ROOT / own).is_dir() else f"{own}.py"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_all_code_that_it_imports_and_on_no_other(stage: str, graph: grimp.ImportGraph) -> None:
    needed = needed_code(stage, graph)
    code = [dep for dep in dependencies(stage) if dep.startswith(("src/", "pipelines/"))]

    uncovered = {file for file in needed if not any(covers(dep, file) for dep in code)}
    superfluous = {dep for dep in code if not any(covers(dep, file) for file in needed)}

    assert not uncovered, f"add to deps of {stage} in dvc.yaml: {sorted(uncovered)}"
    assert not superfluous, f"remove from deps of {stage} in dvc.yaml: {sorted(superfluous)}"


def needed_code(stage: str, graph: grimp.ImportGraph) -> set[str]:
    direct = imported_by(ROOT / "pipelines" / f"{stage}.py")
    if stage == "analyse":
        direct |= {method.module for method in METHODS}  # imported when they run
    modules = direct.union(*(graph.find_upstream_modules(module) for module in direct))
    return {f"pipelines/{stage}.py"}.union(*(files_of(module) for module in modules))


def dependencies(stage: str) -> list[str]:
    return YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"][stage]["do"]["deps"]


def covers(dep: str, file: str) -> bool:
    return dep == file or file.startswith(f"{dep}/")


ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}


def dvc(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        ["dvc", *arguments], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"dvc {' '.join(arguments)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def zoo_bytes(folder: Path, zoo: str) -> dict[str, str]:
    """The hash of every file of a packed zoo but its provenance."""
    files = sorted((folder / "zoos" / zoo).iterdir())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if "provenance" not in file.name}


ZOOS = ("digits-seed", "digits-hyp")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose pipeline has run once, undisturbed."""
    folder = make_project(tmp_path_factory.mktemp("built"), epochs=3, images=200)
    commit(folder, "start")
    dvc("repro", cwd=folder)
    commit(folder, "built")
    return folder


@pytest.fixture(scope="module")
def undisturbed(built: Path) -> dict[str, dict[str, str]]:
    """The hashes of the zoos as they were built first. Before any test that changes them asks for it."""
    return {zoo: zoo_bytes(built, zoo) for zoo in ZOOS}


@pytest.mark.parametrize("zoo", ZOOS)
def test_repro_makes_zoo_and_report(built: Path, undisturbed: dict[str, dict[str, str]], zoo: str) -> None:
    assert {"zoo.json", "models.parquet", "weights-00000.safetensors"} < set(undisturbed[zoo])
    opened = Zoo.open(built / "zoos" / zoo)
    assert len(opened.models) == {"digits-seed": 5, "digits-hyp": 16}[zoo]
    assert opened.checkpoint_epochs == (0, 1, 2, 3)
    assert (built / "reports" / zoo / "index.html").is_file()
    analysed = read_analysis(built / "reports" / zoo)
    assert analysed is not None
    assert analysed.is_of(opened)
    ran = [result.method for result in analysed.analysed.results]
    assert ran + [one.method for one in analysed.analysed.left_out]


def test_status_is_clean_and_a_second_repro_runs_nothing(built: Path) -> None:
    assert "up to date" in dvc("status", cwd=built)
    assert "Running stage" not in dvc("repro", cwd=built)


def test_dvc_shows_metrics_and_plots(built: Path) -> None:
    metrics = json.loads(dvc("metrics", "show", "--json", cwd=built))[""]["data"]
    assert set(metrics) == {f"reports/{zoo}/{name}.json" for zoo in ZOOS for name in ("metrics", "scores")}
    assert metrics["reports/digits-hyp/scores.json"]["data"]["spread"]["test accuracy"]["mean"] > 0
    dvc("plots", "show", cwd=built)
    assert "vega" in (built / "dvc_plots" / "index.html").read_text().lower()


def test_an_experiment_on_one_zoo_rebuilds_that_zoo_alone_and_trains_the_new_points_only(built: Path) -> None:
    before = zoo_bytes(built, "digits-seed"), runs_of(built)

    shown = dvc("exp", "run", "-S", "zoos.digits-hyp.factors.dropout=[0,0.5,0.3]", cwd=built)

    assert "train@digits-hyp" in shown
    assert not re.search(r"Running stage '\w+@digits-seed'", shown)
    assert zoo_bytes(built, "digits-seed") == before[0]
    assert len(Zoo.open(built / "zoos" / "digits-hyp").models) == 24
    assert runs_of(built) == {**before[1], "digits-hyp": 24}
    assert "digits-hyp" in dvc("exp", "show", "--csv", cwd=built)


def runs_of(folder: Path) -> dict[str, int]:
    """How many runs the tracking store holds of each zoo, read with plain SQL."""
    query = "SELECT e.name, count(*) FROM runs r JOIN experiments e USING (experiment_id) GROUP BY e.name"
    with contextlib.closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as database:
        return dict(database.execute(query).fetchall())


def test_a_build_killed_at_random_moments_ends_in_the_same_bytes(
    undisturbed: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    folder = make_project(tmp_path, epochs=3, images=200)
    commit(folder, "start")
    draw = random.Random(1)
    for _ in range(3):
        build = subprocess.Popen(
            ["dvc", "repro"], cwd=folder, env=ENVIRONMENT, start_new_session=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        with contextlib.suppress(subprocess.TimeoutExpired):
            build.wait(timeout=draw.uniform(2, 14))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(build.pid, signal.SIGKILL)
        build.wait()
    dvc("repro", cwd=folder)

    assert {zoo: zoo_bytes(folder, zoo) for zoo in ZOOS} == undisturbed
    assert runs_of(folder) == {"digits-seed": 5, "digits-hyp": 16}
    assert "up to date" in dvc("status", cwd=folder)
