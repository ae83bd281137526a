"""Published models as MLflow runs: like any other run, once each, and the same zoo as when packed straight away."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.execution import support
from tests.published import experiments
from weightzoo.architectures.cnn import cnn_s
from weightzoo.errors import FormatError, NotFoundError, SpecError
from weightzoo.execution import train_zoo
from weightzoo.execution.retraining import recorded_member
from weightzoo.importing import Imported, import_runs
from weightzoo.lineage import finetuned_members, sparse_members
from weightzoo.members import Seeds
from weightzoo.published import open_source, pack
from weightzoo.registry import Registry
from weightzoo.spec import FinetuneSpec, SparsifySpec
from weightzoo.tracking import RunStore
from weightzoo.zoo import Zoo


@pytest.fixture
def store(new_store) -> RunStore:
    return RunStore(f"sqlite:///{new_store('store')}/mlflow.db")


@pytest.fixture
def irregular(tmp_path) -> Path:
    """Four trials: whole, with a gap, that ends early, and one that can't be read."""
    folder = tmp_path / "tune_zoo_mnist_uniform"
    experiments.write_trial(folder, 0)
    gap = experiments.write_trial(folder, 1)
    (gap / "checkpoint_000001" / "checkpoints").write_bytes(b"")
    experiments.write_trial(folder, 2, epochs=2)
    broken = experiments.write_trial(folder, 3)
    (broken / "params.json").unlink()
    return folder


def imported(folder: Path, store: RunStore, **options) -> Imported:
    return import_runs(open_source(folder), "published", store, **options)


def test_runs_have_all_that_is_known(irregular, store) -> None:
    done = imported(irregular, store)
    assert (len(done.members), done.new) == (3, 3)
    assert [(remark.kind, remark.source[24:29]) for remark in done.remarks] == [
        ("refused", "00003"),
        ("partial", "00001"),
        ("partial", "00002"),
    ]
    registry = Registry(store.uri)
    whole, gap, early = registry.members(done.members, "published")
    assert (whole.engine, whole.status, gap.status, early.status) == ("imported", "finished", "finished", "partial")
    assert whole.source == "NN_tune_trainable_a1b2c_00000_0_seed=0_2022-05-17_09-17-12"
    assert (whole.dataset, whole.dataset_hash, whole.architecture, whole.configuration) == (
        "mnist",
        None,
        "cnn-s",
        "seed",
    )
    assert (whole.learning_rate, whole.dropout, whole.seed_init, whole.seed_order) == (3e-4, 0.0, 0, None)
    assert (whole.epochs, whole.batch_size, whole.momentum, whole.schedule) == (3, 10, 0.9, "constant")
    assert (whole.last_epoch, early.last_epoch, whole.best_epoch, whole.seconds) == (3, 2, None, 40.0)
    assert whole.test_accuracy == np.float32(experiments.result(3, 0, {})["test_acc"])
    assert json.loads(whole.source_config or "") == experiments.params(0)
    history = store.client.get_metric_history(whole.run_id, "train_loss")
    assert [point.step for point in history] == [1, 2, 3]  # -999 at epoch 0 is no measurement
    assert [point.timestamp for point in history] == [1650000010_000, 1650000020_000, 1650000030_000]
    assert len(registry.query("source == 'nobody' or engine == 'imported' and test_accuracy >= 0")) == 3
    state = store.checkpoint(done.members[0], 2)
    np.testing.assert_array_equal(cnn_s(1, 10).layout.flatten(state), experiments.vector(2))


def test_a_zoo_from_runs_is_the_zoo_from_the_folder(irregular, store, tmp_path) -> None:
    done = imported(irregular, store)
    from_runs = Registry(store.uri).members(done.members, "published").assemble(tmp_path / "runs" / "zoo")
    pack(open_source(irregular), tmp_path / "folder" / "zoo")
    for file in from_runs.path.iterdir():
        if file.name != "provenance.parquet":
            assert file.read_bytes() == (tmp_path / "folder" / "zoo" / file.name).read_bytes(), file.name


def test_importing_twice_imports_nothing_twice(irregular, store) -> None:
    first = imported(irregular, store)
    runs = {run.run_id for run in Registry(store.uri).runs}
    again = imported(irregular, store)
    assert again.new == 0
    assert (again.members, set(again.remarks)) == (first.members, set(first.remarks))
    assert {run.run_id for run in Registry(store.uri).runs} == runs


def test_a_renamed_experiment_is_the_same_and_a_mended_trial_is_new(irregular, store, tmp_path) -> None:
    first = imported(irregular, store)
    moved = irregular.rename(tmp_path / "elsewhere")
    mended = sorted(moved.glob("NN_*_00001_*"))[0] / "checkpoint_000001" / "checkpoints"
    torch.save(experiments.state(101), mended)
    again = imported(moved, store)
    assert (again.new, again.members) == (1, first.members)
    runs = Registry(store.uri).runs
    assert len(runs) == 3
    zoo = Registry(store.uri).members(again.members).assemble(tmp_path / "zoo")
    np.testing.assert_array_equal(zoo.weights([1], [1])[0, 0], experiments.vector(101))
    assert "missing_epochs" not in zoo.models  # the one that ends early has all up to there


def test_a_run_that_was_cut_off_or_damaged_is_made_anew(irregular, store) -> None:
    done = imported(irregular, store)
    runs = store.zoo("published").known()
    cut, damaged = (runs[member][0] for member in done.members[:2])
    store.client.update_run(cut.run_id, status="RUNNING")
    assert damaged.artifacts is not None
    shutil.rmtree(damaged.artifacts / "checkpoints")
    assert imported(irregular, store).new == 2
    known = store.zoo("published").known()
    assert sorted(known) == sorted(done.members)
    assert all(len(own) == 1 and own[0].ended and not own[0].damaged for own in known.values())


def test_several_processes_record_the_same(irregular, store, new_store, monkeypatch) -> None:
    alone = imported(irregular, store)
    monkeypatch.setattr("weightzoo.importing.worth_it", lambda workers, *_: workers)
    other = RunStore(f"sqlite:///{new_store('other')}/mlflow.db")
    assert imported(irregular, other, workers=2).members == alone.members

    def told(one: RunStore) -> list[dict[str, object]]:
        differing = ("run_id", "artifact_uri", "version")
        return [
            {key: value for key, value in vars(run).items() if key not in differing} for run in Registry(one.uri).runs
        ]

    assert told(other) == told(store)


def test_zoos_that_were_trained_here_are_left_alone(irregular, store) -> None:
    train_zoo("own", support.zoo_spec(), support.image_data(), store, engine=support.DriftEngine())
    with pytest.raises(SpecError, match="zoo 'own' has models that were trained here"):
        import_runs(open_source(irregular), "own", store)


def test_an_imported_model_can_not_be_trained_again(irregular, store) -> None:
    done = imported(irregular, store)
    with pytest.raises(FormatError, match="was imported"):
        recorded_member(store, done.members[0])


def test_imported_models_can_be_fine_tuned_but_not_made_sparse(irregular, tmp_path) -> None:
    pack(open_source(irregular), tmp_path / "packed")
    packed, data = Zoo.open(tmp_path / "packed"), support.image_data()
    start = {"start": {"zoo": "packed", "epoch": 1}, "dataset": "noise"}
    members = finetuned_members(FinetuneSpec.model_validate(start), packed, data)
    assert [one.parent.member for one in members if one.parent] == packed.models["member"].iloc[[0, 2]].tolist()
    assert [one.seeds for one in members] == [Seeds.all(0), Seeds.all(2)]  # the one seed that is known, for all three
    best = FinetuneSpec.model_validate({**start, "start": {"zoo": "packed", "epoch": "best"}})
    with pytest.raises(NotFoundError, match="without validation accuracies"):
        finetuned_members(best, packed, data)
    with pytest.raises(FormatError, match="does not say on which images"):
        sparse_members(SparsifySpec.model_validate({"start": {"zoo": "packed"}}), packed)


def test_hyperparameters_that_are_not_known_must_be_given(tmp_path) -> None:
    config = {key: value for key, value in experiments.params(1).items() if key not in ("optim::lr", "seed")}
    experiments.write_trial(tmp_path / "tune_zoo_mnist", 1, config=config)
    pack(open_source(tmp_path / "tune_zoo_mnist"), tmp_path / "packed")
    packed, data = Zoo.open(tmp_path / "packed"), support.image_data()
    start = {"start": {"zoo": "packed"}, "dataset": "noise"}
    with pytest.raises(FormatError, match="was imported without learning_rate; give them under factors"):
        finetuned_members(FinetuneSpec.model_validate(start), packed, data)
    given = FinetuneSpec.model_validate({**start, "factors": {"learning_rate": [0.01]}})
    (member,) = finetuned_members(given, packed, data)
    assert member.hyperparameters.learning_rate == 0.01
    assert member.seeds == finetuned_members(given, packed, data)[0].seeds  # drawn by the parent's id


def test_nothing_to_import_is_an_error(tmp_path, store) -> None:
    trial = experiments.write_trial(tmp_path / "tune_zoo_mnist_uniform", 0)
    (trial / "params.json").write_text("{")
    with pytest.raises(FormatError, match="none of the 1 models can be imported"):
        imported(trial.parent, store)
    assert not Registry(store.uri).runs


def test_the_command_lists_what_it_can_not_import(irregular, new_store, tmp_path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    uri = {"MLFLOW_TRACKING_URI": f"sqlite:///{new_store('store')}/mlflow.db"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from weightzoo.cli import main; main()", "import", *arguments]
        return subprocess.run(command, cwd=project, env=os.environ | uri, capture_output=True, text=True, check=False)

    done = run(str(irregular), "--to", "published")
    assert done.returncode == 1, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["refused", "partial", "partial"]
    assert "import    published: 3 models, 3 of them new, 2 partial; 1 refused" in done.stderr
    listed = json.loads((project / "zoos" / "published.import.json").read_text())
    assert (listed["models"], len(listed["remarks"])) == (3, 3)
    assert len(Zoo.open(project / "zoos" / "published")) == 3

    for trial in irregular.iterdir():
        shutil.rmtree(trial, ignore_errors=True)
        trial.mkdir()
    (irregular / "empty_trainable_1").mkdir()
    done = run(str(irregular), "--to", "other", "--no-runs")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: none of the 5 models can be imported")
    assert len(json.loads((project / "zoos" / "other.import.json").read_text())["remarks"]) == 5
    assert not (project / "zoos" / "other").exists()
