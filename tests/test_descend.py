"""The steps that go on from a packed zoo, from `params.yaml` to the packed descendants."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.execution.support import store
from weightzoo.datasets import prepare
from weightzoo.errors import FormatError, LayoutError, MissingError, SpecError
from weightzoo.execution import train_zoo
from weightzoo.registry import Registry
from weightzoo.spec import DatasetSpec, parse_params
from weightzoo.stages.finetune import finetune
from weightzoo.stages.sparsify import sparsify
from weightzoo.workspace import Workspace
from weightzoo.zoo import Zoo

DATASETS = {"digits": {"train": 60, "val": 40}, "colour": {"train": 60, "val": 40, "channels": 3}}
DENSE = {
    "dataset": "digits",
    "architecture": "cnn-s",
    "configuration": {"kind": "seed", "seeds": {"count": 2}},
    "training": {"epochs": 1},
    "engine": "torch",
}
FINETUNE = {
    "tuned": {"start": {"zoo": "dense"}, "dataset": "digits", "training": {"epochs": 1}, "engine": "torch"},
    "coloured": {"start": {"zoo": "dense"}, "dataset": "colour"},
    "lost": {"start": {"zoo": "nothing"}, "dataset": "digits"},
}
SPARSIFY = {"dense-sparse": {"start": {"zoo": "dense"}, "epochs": 2, "engine": "torch"}}
PARAMS = {"build": [], "datasets": DATASETS, "zoos": {"dense": DENSE}, "finetune": FINETUNE, "sparsify": SPARSIFY}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, empty_database) -> Path:
    """A project folder with a small dense zoo."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "mlruns").mkdir()
    shutil.copy(empty_database, folder / "mlruns" / "mlflow.db")
    data = prepare("digits", DatasetSpec.model_validate(DATASETS["digits"]))
    members = train_zoo("dense", parse_params(PARAMS).zoo("dense"), data, store(folder / "mlruns")).members
    registry = Registry(f"sqlite:///{folder}/mlruns/mlflow.db")
    registry.members(members, "dense").assemble(folder / "zoos" / "dense", data=data)
    return folder


@pytest.fixture
def workspace(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    folder = shutil.copytree(trained, tmp_path / "project")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlruns/mlflow.db")
    return described(Workspace(folder), PARAMS)


def described(workspace: Workspace, params: dict) -> Workspace:
    workspace.params.write_text(json.dumps(params))  # JSON is YAML
    return workspace


def test_zoos_of_descendants_are_built_and_built_again(workspace: Workspace) -> None:
    finetune("tuned", workspace)
    sparsify("dense", workspace)
    for name, epochs in (("tuned", (0, 1)), ("dense-sparse", (1, 2))):
        zoo = Zoo.open(workspace.zoo(name))
        assert zoo.checkpoint_epochs == epochs
        assert zoo.models["parent"].tolist() == Zoo.open(workspace.zoo("dense")).models["member"].tolist()
        assert (workspace.data(name) / "images.safetensors").is_file()
    written = {file: file.read_bytes() for file in workspace.zoo("dense-sparse").iterdir()}
    shutil.rmtree(workspace.zoo("dense-sparse"))
    sparsify("dense-sparse", workspace)
    assert {file: file.read_bytes() for file in written} == written


def test_what_does_not_fit_is_refused_before_a_run_is_made(workspace: Workspace) -> None:
    with pytest.raises(LayoutError, match=r"images of 3x28x28 has \[8, 3, 5, 5\]; choose a data set of the same image"):
        finetune("coloured", workspace)
    with pytest.raises(MissingError, match=r"nothing/zoo.json: no such file; assemble or pull the zoo"):
        finetune("lost", workspace)
    changed = {"digits": DATASETS["digits"] | {"train": 50}, "colour": DATASETS["colour"]}
    with pytest.raises(FormatError, match=r"data set digits has hash .* describe it in params.yaml as it was then"):
        sparsify("dense", described(workspace, PARAMS | {"datasets": changed}))
    assert not workspace.data("dense-sparse").exists()
    others = {"digitz": DATASETS["digits"]}
    without = {"datasets": others, "zoos": {}, "finetune": {}}
    with pytest.raises(SpecError, match=r"no data set 'digits' below `datasets` .*; did you mean 'digitz'"):
        sparsify("dense", described(workspace, PARAMS | without))
    experiments = store(workspace.runs).client.search_experiments()
    assert {one.name for one in experiments} == {"Default", "dense"}
