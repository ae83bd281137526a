"""Exports: read by the plain means of others, read back by us to the bit, and never half or over something else."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from ruamel.yaml import YAML
from safetensors import safe_open

from tests.published import experiments
from tests.zoo import synthetic_zoo
from weightzoo.architectures import architecture
from weightzoo.errors import FormatError, SpecError
from weightzoo.members import FACTORS
from weightzoo.published import export_huggingface, export_ray_tune, open_source, pack
from weightzoo.published.ray_export import tensor_names
from weightzoo.zoo import METRICS, Sparse, Zoo, write_zoo


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory) -> Zoo:
    """Twelve models, one diverged and one pruned, with dropout and without."""
    head = synthetic_zoo.header(12)
    return Zoo.open(write_zoo(tmp_path_factory.mktemp("zoos") / "synthetic", head, synthetic_zoo.records(head)))


@pytest.fixture(scope="module")
def exported(synthetic, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("exported") / "tune_zoo"
    assert export_ray_tune(synthetic, target)
    return target


def trials(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def test_an_export_is_read_with_plain_torch_and_json(synthetic, exported) -> None:
    """As the users of the published zoos do it: list the folders, load a checkpoint, pick the line of its epoch."""
    folders = trials(exported)
    assert len(folders) == 12
    for number, folder in enumerate(folders):
        assert re.fullmatch(
            rf"NN_tune_trainable_[0-9a-f]{{5}}_{number:05d}_{number}_seed={number}_[\d_-]+", folder.name
        )
        params = json.loads((folder / "params.json").read_text())
        row = synthetic.models.iloc[number]
        assert params["model::nlin"] == row["activation"]
        assert params["optim::lr"] == row["learning_rate"]
        assert params["seed"] == number
        lines = [json.loads(line) for line in (folder / "result.json").read_text().splitlines()]
        table = pd.read_csv(folder / "progress.csv")
        dropout = params["model::dropout"] > 0
        network = experiments.network(dropout_modules=dropout)
        for epoch in range(int(row["last_epoch"]) + 1):
            checkpoint = torch.load(folder / f"checkpoint_{epoch:06d}" / "checkpoints", weights_only=True)
            network.load_state_dict(checkpoint)  # strict: exactly the published names and shapes
            vector = torch.cat([tensor.flatten() for tensor in checkpoint.values()]).numpy()
            np.testing.assert_array_equal(vector, synthetic.weights([number], [epoch])[0, 0])
            line = next(line for line in lines if line["training_iteration"] == epoch)
            own = synthetic.epochs[(synthetic.epochs["model"] == number) & (synthetic.epochs["epoch"] == epoch)].iloc[0]
            assert np.float32(line["test_acc"]) == own["test_accuracy"]
            np.testing.assert_equal(np.float32(line["train_loss"]), own["train_loss"])
            assert np.float32(table["validation_acc"].iloc[epoch]) == own["val_accuracy"]
        assert len(list(folder.glob("checkpoint_*"))) == row["last_epoch"] + 1
    common = json.loads((exported / "config.json").read_text())
    assert common["model::type"] == "CNN"
    assert common["optim::optimizer"] == {"grid_search": ["adam", "sgd"]}


def test_export_and_import_give_back_every_bit(synthetic, exported, tmp_path) -> None:
    remarks = pack(open_source(exported), tmp_path / "back")
    back = Zoo.open(tmp_path / "back")
    assert [(remark.kind, remark.reason) for remark in remarks] == []
    assert back.weights().tobytes() == synthetic.weights().tobytes()
    for metric in METRICS:
        if metric != "generalization_gap":  # the synthetic one is no difference
            np.testing.assert_array_equal(back.epochs[metric], synthetic.epochs[metric])
    same = [
        *FACTORS,
        "seed_init",
        "seed_order",
        "seed_dropout",
        "group",
        "split",
        "status",
        "last_epoch",
        "diverged_epoch",
    ]
    for column in same:
        assert back.models[column].equals(synthetic.models[column]), column
    assert back.dataset_info.name == "digits"


def test_an_imported_zoo_is_exported_with_its_gaps(packed, tmp_path) -> None:
    experiment = shutil.copytree(Path(packed.path), tmp_path / "copy")
    export_ray_tune(Zoo.open(experiment), tmp_path / "out")
    first = trials(tmp_path / "out")[0]
    line = json.loads((first / "result.json").read_text().splitlines()[0])
    assert (line["train_loss"], line["train_acc"], line["validation_acc"]) == (-999, -999, -999)
    again, remarks = tmp_path / "again", pack(open_source(tmp_path / "out"), tmp_path / "again")
    assert not remarks
    pd.testing.assert_frame_equal(Zoo.open(again).epochs, packed.epochs)


@pytest.mark.parametrize(
    ("name", "dropout", "numbers"),
    [
        ("cnn-s", 0.0, [0, 3, 6, 9, 11]),
        ("cnn-s", 0.5, [0, 4, 8, 11, 14]),
        ("cnn-m", 0.0, [0, 4, 8, 13, 16]),
        ("cnn-m", 0.5, [0, 4, 8, 13, 16]),
    ],
)
def test_tensors_have_the_published_names(name, dropout, numbers) -> None:
    built = architecture(name, (3, 28, 28) if name == "cnn-s" else (3, 32, 32), 10)
    expected = [f"module_list.{number}.{role}" for number in numbers for role in ("weight", "bias")]
    assert list(tensor_names(built, dropout).values()) == expected


def test_an_export_that_was_cut_off_goes_on(synthetic, tmp_path, monkeypatch) -> None:
    target = tmp_path / "out"

    def stop(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_ray_tune(synthetic, target, on_progress=stop)
    assert not target.exists()
    kept = {path.name: path.stat().st_ino for path in trials(tmp_path / ".out.exporting")}
    assert len(kept) == 7
    assert export_ray_tune(synthetic, target)
    assert {path.name: path.stat().st_ino for path in trials(target)[:7]} == kept
    assert len(trials(target)) == 12
    assert not export_ray_tune(synthetic, target)  # it is there
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_nothing_is_written_over_something_else(synthetic, packed, exported, tmp_path) -> None:
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "thesis.tex").touch()
    file = tmp_path / "file"
    file.touch()
    link = tmp_path / "link"
    link.symlink_to(occupied)
    copy = shutil.copytree(exported, tmp_path / "export-of-another")
    for target, zoo in ((occupied, synthetic), (file, synthetic), (link, synthetic), (copy, packed)):
        with pytest.raises(FormatError, match="is there already and is no export of this zoo"):
            export_ray_tune(zoo, target)
    with pytest.raises(FormatError, match="is there already"):
        export_huggingface(synthetic, copy, "mit")
    assert [path.name for path in occupied.iterdir()] == ["thesis.tex"]


@pytest.fixture(scope="module")
def uploaded(synthetic, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("hub") / "synthetic"
    assert export_huggingface(synthetic, target, "cc-by-4.0")
    return target


def test_a_data_set_folder_is_read_with_plain_pandas_and_safetensors(synthetic, uploaded) -> None:
    models, epochs = pd.read_parquet(uploaded / "models.parquet"), pd.read_parquet(uploaded / "epochs.parquet")
    assert models["member"].tolist() == synthetic.models["member"].tolist()
    assert len(epochs) == len(synthetic.epochs)
    with safe_open(uploaded / "weights-00000.safetensors", framework="numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("weights"), synthetic.weights())
    assert len(Zoo.open(uploaded)) == 12
    assert pd.read_parquet(uploaded / "provenance.parquet")["machine"].isna().all()
    assert "*.safetensors filter=lfs" in (uploaded / ".gitattributes").read_text()


def test_the_card_is_true(synthetic, uploaded) -> None:
    text = (uploaded / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    metadata = YAML(typ="safe").load(front)
    assert metadata["license"] == "cc-by-4.0"
    assert metadata["size_categories"] == ["n<1K"]
    assert [config["data_files"] for config in metadata["configs"]] == ["models.parquet", "epochs.parquet"]
    for column in pd.read_parquet(uploaded / "models.parquet"):
        assert f"| `{column}` |" in body
    for name, shape in synthetic.layout.parameters:
        span = synthetic.layout.span(name)
        assert f"| `{name}` | {list(shape)} | {span.start}:{span.stop} |" in body
    snippets = re.findall(r"```python\n(.*?)```", body, re.DOTALL)
    assert len(snippets) == 2
    checks = "assert first_parameter.shape == (8, 8, 1, 5, 5) and len(items) and vectors.shape[1:] == (1, 2464)\n"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", "\n".join([*snippets, checks])], cwd=uploaded, env=environment, check=True)


def test_sparse_models_are_exported_with_zeros_and_with_their_masks(tmp_path) -> None:
    head = synthetic_zoo.header(2)
    head = dataclasses.replace(head, sparse=Sparse(("mask",), head.architecture.prunable))
    records = [synthetic_zoo.made_sparse(synthetic_zoo.record(number, head), head) for number in range(2)]
    zoo = Zoo.open(write_zoo(tmp_path / "zoo", head, records))
    export_ray_tune(zoo, tmp_path / "tune")
    pack(open_source(tmp_path / "tune", dataset="digits"), tmp_path / "again")
    again = Zoo.open(tmp_path / "again")
    np.testing.assert_array_equal(again.weights(), zoo.weights())
    assert (again.weights() == 0).any()
    assert again.header.sparse is None

    export_huggingface(zoo, tmp_path / "hub", "mit")
    np.testing.assert_array_equal(Zoo.open(tmp_path / "hub").masks(), zoo.masks())
    body = (tmp_path / "hub" / "README.md").read_text()
    assert "| `mask-*.safetensors` | `mask`, uint8, shape and rows of `weights`: 0 where a weight is dropped |" in body
    assert "raw, zero where `mask` is 0 |" in body
    assert "| `sparsity` | float | share of the prunable weights" in body


def test_a_card_needs_a_licence(synthetic, tmp_path) -> None:
    for given in ("", "two words", "a: b", "-x"):
        with pytest.raises(SpecError, match=r"expected an identifier such as cc-by-4\.0"):
            export_huggingface(synthetic, tmp_path / "out", given)
    assert not list(tmp_path.iterdir())
