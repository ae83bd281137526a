"""The registry on a real tracking store, written by real training runs of a quick engine."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.execution import support
from weightzoo import checkpoints
from weightzoo.connection import local_artifacts
from weightzoo.errors import FormatError, MissingError, NotFoundError, QueryError, TrackingError
from weightzoo.execution import train_zoo
from weightzoo.population import population
from weightzoo.registry import FIELDS, Registry, Selection
from weightzoo.zoo import Zoo
from weightzoo.zoo_runs import Addition

DATA = support.image_data()


def uri(folder: Path) -> str:
    return f"sqlite:///{folder}/mlflow.db"


def train(folder: Path, name: str, kind: str, **settings) -> tuple[str, ...]:
    spec = support.zoo_spec(kind, **settings)
    return train_zoo(name, spec, DATA, support.store(folder), engine=support.DriftEngine(), shard_size=16).members


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> tuple[Path, dict[str, tuple[str, ...]]]:
    """A store with a grid zoo (a third diverges), a search with a pruner and a seed zoo that kept few epochs; and ids."""
    folder = tmp_path_factory.mktemp("store")
    members = {
        "grid": train(folder, "grid", "grid"),
        "search": train(folder, "search", "search"),
        "few": train(folder, "few", "seed", epochs=4, checkpoints=[0, 2, 4]),
    }
    return folder, members


@pytest.fixture(scope="session")
def registry(trained) -> Registry:
    return Registry(uri(trained[0]))


@pytest.fixture
def copy(trained, tmp_path) -> Path:
    """A store of one's own to damage: artifacts are found beside the database, wherever it lies."""
    return shutil.copytree(trained[0], tmp_path / "copy")


def artifacts(folder: Path, run) -> Path:
    found = local_artifacts(run.artifact_uri, uri(folder))
    assert found is not None
    return found


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def test_records_are_complete_typed_and_frozen(registry, trained):
    assert len(registry.runs) == 12 + 16 + 20
    by_member = {run.member: run for run in registry.runs}
    members = {one.id: one for one in population(support.zoo_spec(), DATA.content_hash).ask()}
    for member, definition in members.items():
        run = by_member[member]
        assert (run.init, run.activation, run.optimizer) == dataclasses.astuple(definition.hyperparameters)[:3]
        assert run.learning_rate == definition.hyperparameters.learning_rate
        assert (run.seed_init, run.seed_order, run.seed_dropout) == dataclasses.astuple(definition.seeds)
        assert (run.group, run.split, run.zoo, run.engine) == (definition.group, definition.split, "grid", "drift")
        assert json.loads(run.definition) == definition.definition()
        assert run.seconds == 0.25 * 7
        assert run.last_epoch == 6
        folder = artifacts(trained[0], run)
        metrics = checkpoints.read_metrics(folder)
        np.testing.assert_equal(run.test_accuracy, float(metrics.values["test_accuracy"][-1]))
        assert run.best_epoch == metrics.best_epoch
        assert (run.status == "diverged") == (run.learning_rate == support.DIVERGES)
        assert run.diverged_epoch == (2 if run.status == "diverged" else None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        registry.runs[0].status = "finished"
    assert {run.status for run in registry.runs} == {"finished", "diverged", "pruned"}


@pytest.mark.parametrize(
    ("text", "oracle"),
    [
        ("zoo == 'grid' and activation == 'tanh'", lambda run: run.zoo == "grid" and run.activation == "tanh"),
        ("status in ('diverged', 'pruned')", lambda run: run.status in ("diverged", "pruned")),
        (
            "learning_rate <= 0.01 and not optimizer == 'adam'",
            lambda r: r.learning_rate <= 0.01 and r.optimizer != "adam",
        ),
        ("diverged_epoch == 2 or last_epoch < 4", lambda run: run.diverged_epoch == 2 or run.last_epoch < 4),
        ("test_accuracy > best_val_accuracy", lambda run: run.test_accuracy > run.best_val_accuracy),
        ("seconds >= 1.5 and engine == 'drift'", lambda run: run.seconds >= 1.5),
        ("epochs == 4 and batch_size == 4 and momentum == 0.9", lambda run: run.zoo == "few"),
        ("parent is None and seed_init in [3, 4]", lambda run: run.seed_init in (3, 4)),
    ],
)
def test_queries_select_what_they_say(registry, text, oracle):
    found = registry.query(text)
    expected = [run for run in registry.runs if oracle(run)]
    assert list(found) == expected
    assert 0 < len(found) < len(registry.runs)


def test_frame(registry):
    frame = registry.query("zoo == 'grid'").frame()
    assert set(FIELDS) <= set(frame.columns)
    assert len(frame) == 12
    assert frame.diverged_epoch.dtype == pd.Int64Dtype()
    assert frame.diverged_epoch.isna().sum() == 8
    assert frame.learning_rate.dtype == np.float64
    assert (frame.ended >= frame.started).all()
    assert json.loads(frame.to_json(orient="records", date_format="iso"))[0]["zoo"] == "grid"
    empty = registry.query("zoo == 'nothing'").frame()
    assert len(empty) == 0
    assert list(empty.columns) == list(frame.columns)


def test_wrong_names_are_refused_before_the_store_is_opened(tmp_path):
    with pytest.raises(QueryError, match="did you mean test_accuracy"):
        Registry(uri(tmp_path / "nowhere")).query("test_acuracy > 0.9")


def test_no_store_is_an_error_and_makes_none(tmp_path):
    with pytest.raises(MissingError, match="no runs yet"):
        Registry(uri(tmp_path / "nowhere")).query("test_accuracy > 0.9")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mlflow.db").write_text("this is a text, not a database, and long enough to be read as one" * 20)
    with pytest.raises(TrackingError, match="not a database"):
        Registry(uri(tmp_path)).query("test_accuracy > 0.9")


def test_members_come_in_the_order_asked_for(registry, trained):
    wanted = trained[1]["grid"][::-1]
    assert [run.member for run in registry.members(wanted)] == list(wanted)
    assert [run.member for run in registry.members(wanted, zoo="grid")] == list(wanted)
    with pytest.raises(NotFoundError, match=r"2 of 3 members have no finished run.*weightzoo train few"):
        registry.members([trained[1]["few"][0], *wanted[:2]], zoo="few")
    with pytest.raises(NotFoundError, match="first is 0123"):
        registry.members(["0123"])


def test_the_zoo_has_exactly_what_the_runs_recorded(registry, trained, tmp_path):
    folder, members = trained
    seen = []
    zoo = registry.members(members["grid"]).assemble(
        tmp_path / "grid", data=DATA, on_progress=lambda *where: seen.append(where)
    )
    assert seen == [(done, 12) for done in range(1, 13)]
    assert list(zoo.models.member) == list(members["grid"])
    assert (zoo.name, zoo.checkpoint_epochs, zoo.layout.size) == ("grid", tuple(range(7)), 2317)
    assert zoo.dataset_info.class_names == ("a", "b", "c")
    assert zoo.dataset_info.mean == (0.5,)
    for number, run in enumerate(registry.members(members["grid"])):
        source = artifacts(folder, run)
        metrics = checkpoints.read_metrics(source)
        np.testing.assert_array_equal(
            zoo.weights([number])[0], checkpoints.read_checkpoints(source, zoo.layout).weights
        )
        np.testing.assert_array_equal(zoo.probe([number])[0], metrics.probe_logits)
        own = zoo.epochs[zoo.epochs.model == number]
        for name in checkpoints.METRICS:
            np.testing.assert_array_equal(own[name], metrics.values[name])
        np.testing.assert_array_equal(np.stack(own.test_class_accuracy), metrics.test_class_accuracy)
        row, provenance = zoo.models.iloc[number], zoo.provenance.iloc[number]
        assert row.best_epoch == run.best_epoch
        np.testing.assert_equal(row.test_loss, np.float32(run.test_loss))
        assert (row.activation, row.learning_rate, row.group) == (run.activation, run.learning_rate, run.group)
        assert (provenance.run_id, provenance.seconds, provenance.version) == (run.run_id, run.seconds, run.version)
        assert provenance.ended == run.ended
    assert zoo.counts["diverged"] == 4
    assert zoo.header.spec["protocol"]["batch_size"] == 4


def test_assembling_twice_gives_the_same_bytes(registry, tmp_path):
    chosen = registry.query("zoo == 'grid' and optimizer == 'adam'")
    first = chosen.assemble(tmp_path / "a", name="x", data=DATA).path
    second = Registry(registry.tracking_uri).query("optimizer == 'adam' and zoo == 'grid'")
    assert contents(second.assemble(tmp_path / "b", name="x", data=DATA).path) == contents(first)


def test_training_twice_gives_the_same_bytes_but_for_provenance(registry, trained, tmp_path):
    train(tmp_path, "grid", "grid")
    members = trained[1]["grid"]
    one = contents(registry.members(members).assemble(tmp_path / "a", name="x", data=DATA).path)
    two = contents(Registry(uri(tmp_path)).members(members).assemble(tmp_path / "b", name="x", data=DATA).path)
    assert {name for name in one if one[name] != two[name]} == {"provenance.parquet"}


def test_pruned_models_end_early(registry, tmp_path):
    chosen = registry.query("zoo == 'search'")
    zoo = chosen.assemble(tmp_path / "search", data=DATA)
    pruned = np.flatnonzero(zoo.models.status == "pruned")
    assert 0 < len(pruned) < 16
    for number in pruned:
        last = zoo.models.last_epoch[number]
        finite = np.isfinite(zoo.weights([number])[0]).all(-1)
        assert finite.tolist() == [epoch <= last for epoch in range(7)]


def test_without_the_data_set_classes_are_numbered(registry, tmp_path):
    zoo = registry.query("zoo == 'few'").assemble(tmp_path / "few")
    assert zoo.dataset_info == type(zoo.dataset_info)("noise", DATA.content_hash, ("0", "1", "2"))
    assert zoo.checkpoint_epochs == (0, 2, 4)
    assert zoo.module(0, 4) is not None


def test_chosen_epochs(registry, tmp_path):
    full = registry.query("zoo == 'grid'").assemble(tmp_path / "a", data=DATA)
    part = registry.query("zoo == 'grid'").assemble(tmp_path / "b", epochs=[6, 1], data=DATA)
    assert part.checkpoint_epochs == (1, 6)
    np.testing.assert_array_equal(part.weights(), full.weights(epochs=[1, 6]))
    np.testing.assert_array_equal(part.probe(), full.probe(epochs=[1, 6]))
    pd.testing.assert_frame_equal(part.epochs, full.epochs)


def test_runs_of_different_length_and_kept_epochs(registry, tmp_path):
    """Epochs that all kept; behind the end of a shorter training nothing can have been kept, which is no hindrance."""
    zoo = registry.query("zoo in ('grid', 'few') and status == 'finished'").assemble(tmp_path / "z", data=DATA)
    assert zoo.checkpoint_epochs == (0, 2, 4, 5, 6)
    short = (zoo.models.last_epoch == 4).to_numpy()
    assert short.sum() == 20
    assert np.isnan(zoo.weights(short, [5, 6])).all()
    assert np.isfinite(zoo.weights(short, [0, 2, 4])).all()
    assert np.isfinite(zoo.weights(~short)).all()
    assert zoo.header.spec["protocol"] is None
    with pytest.raises(NotFoundError, match="did not keep epoch 1; it kept 0, 2, 4"):
        registry.query("zoo == 'few'").assemble(tmp_path / "y", epochs=[0, 1])


def refused(selection: Selection, path: Path, kind: type[Exception], message: str, **options) -> None:
    with pytest.raises(kind, match=message) as caught:
        selection.assemble(path, **options)
    assert "\n" not in str(caught.value)
    assert not path.exists()
    assert not list(path.parent.glob(f".{path.name}.partial-*"))


def test_mixtures_are_refused_by_name(registry, tmp_path):
    runs = registry.query("zoo == 'grid'").runs
    mixed = Selection(registry, (runs[0], dataclasses.replace(runs[1], architecture="cnn-m")))
    refused(mixed, tmp_path / "z", QueryError, r"several architectures, cnn-s \(1\), cnn-m \(1\)")
    mixed = Selection(registry, (runs[0], dataclasses.replace(runs[1], dataset_hash="abc")))
    refused(mixed, tmp_path / "z", QueryError, r"several data sets, noise .* \(1\), noise abc \(1\)")
    refused(Selection(registry, ()), tmp_path / "z", NotFoundError, "no runs to assemble")
    other = dataclasses.replace(DATA, mean=(0.25,))
    refused(registry.query("zoo == 'grid'"), tmp_path / "z", FormatError, "prepare it as it was", data=other)


def test_runs_that_are_not_finished_are_refused(copy, tmp_path):
    client = support.store(copy).client
    run = Registry(uri(copy)).query("zoo == 'grid'").runs[3]
    client.set_terminated(run.run_id, "FAILED")
    registry = Registry(uri(copy))
    assert [each.run_id for each in registry.query("status == 'training'")] == [run.run_id]
    message = f"1 of 12 runs are not finished, the first is {run.run_id}; train on, or leave them out"
    refused(registry.query("zoo == 'grid'"), tmp_path / "z", MissingError, message)
    assert len(registry.query("zoo == 'grid' and status != 'training'").assemble(tmp_path / "z", data=DATA)) == 11
    with pytest.raises(NotFoundError, match="1 of 1 members"):
        registry.members([run.member])


def damage_checkpoint(folder: Path) -> str:
    (file,) = checkpoints.checkpoint_files(folder)
    file.write_bytes(file.read_bytes()[:-100])
    return file.name


def damage_metrics(folder: Path) -> str:
    (folder / "metrics.safetensors").write_bytes(b"")
    return "metrics.safetensors"


def remove_checkpoints(folder: Path) -> str:
    shutil.rmtree(folder / "checkpoints")
    return "checkpoints"


def remove_everything(folder: Path) -> str:
    shutil.rmtree(folder)
    return "metrics.safetensors"


@pytest.mark.parametrize("position", [0, 5])
@pytest.mark.parametrize("harm", [damage_checkpoint, damage_metrics, remove_checkpoints, remove_everything])
def test_damaged_artifacts_are_named_with_run_and_remedy(copy, tmp_path, harm, position):
    chosen = Registry(uri(copy)).query("zoo == 'grid'")
    run = chosen.runs[position]
    file = harm(artifacts(copy, run))
    message = rf"run {run.run_id} of member {run.member}: .*{file}.*delete the run and run `weightzoo train grid`"
    refused(chosen, tmp_path / "z", (MissingError, FormatError), message)  # type: ignore[arg-type]


def test_artifacts_of_another_member_are_refused(copy, tmp_path):
    chosen = Registry(uri(copy)).query("zoo == 'grid'")
    one, other = (artifacts(copy, run) for run in chosen.runs[4:6])
    shutil.copy(other / "metrics.safetensors", one / "metrics.safetensors")
    refused(
        chosen, tmp_path / "z", FormatError, f"its artifacts are those of member {chosen.runs[5].member}", data=DATA
    )


def test_metrics_that_end_early_are_refused(copy, tmp_path):
    chosen = Registry(uri(copy)).query("zoo == 'grid'")
    folder = artifacts(copy, chosen.runs[2])
    metrics = checkpoints.read_metrics(folder)
    shorter = dataclasses.replace(
        metrics,
        epochs=metrics.epochs[:-1],
        values={name: values[:-1] for name, values in metrics.values.items()},
        val_class_accuracy=metrics.val_class_accuracy[:-1],
        test_class_accuracy=metrics.test_class_accuracy[:-1],
    )
    (folder / "metrics.safetensors").write_bytes(checkpoints.encode_metrics(shorter))
    refused(chosen, tmp_path / "z", FormatError, "its metrics cover epochs 0-5, the run ended at 6", data=DATA)


def test_of_two_runs_of_a_member_the_newest_is_used_and_reported(trained, copy, tmp_path, caplog):
    """Should not be; but two machines that trained one zoo into one store can leave such runs."""
    store = support.store(copy)
    old = Registry(uri(copy)).query("zoo == 'grid'").runs[0]
    member = next(one for one in population(support.zoo_spec(), DATA.content_hash).ask() if one.id == old.member)
    zoo = store.zoo("grid")
    (again,) = zoo.create([member], "drift", 1)
    files = {
        str(f.relative_to(artifacts(copy, old))): f.read_bytes()
        for f in artifacts(copy, old).rglob("*.*")
        if f.is_file()
    }
    zoo.put(again, files)
    tags = {"last_epoch": "6", "status": old.status}
    if old.diverged_epoch is not None:
        tags["diverged_epoch"] = str(old.diverged_epoch)
    zoo.log([Addition(again, tags=tags, describe=member)])
    zoo.end(again, int(old.ended.timestamp() * 1000) + 10_000)
    registry = Registry(uri(copy))
    with caplog.at_level(logging.WARNING, "weightzoo"):
        packed = registry.query("zoo == 'grid'").assemble(tmp_path / "z", data=DATA)
    assert len(packed) == 12
    assert packed.provenance.run_id[0] == again
    assert f"member {old.member} has 2 finished runs; {again}" in caplog.text
    assert [run.run_id for run in registry.members([old.member])] == [again]


def test_artifacts_elsewhere_are_downloaded(registry, trained, tmp_path, monkeypatch):
    """As with S3 or a server: the artifact store is not looked into as a folder."""
    from weightzoo import artifacts

    here = registry.query("zoo == 'grid'").assemble(tmp_path / "a", name="x", data=DATA)
    monkeypatch.setattr(artifacts, "local_artifacts", lambda *_: None)
    there = registry.query("zoo == 'grid'").assemble(tmp_path / "b", name="x", data=DATA)
    assert contents(here.path) == contents(there.path)


KILLED = """
import os, signal, sys
from weightzoo.registry import Registry
def kill(done, total):
    if done == 5:
        os.kill(os.getpid(), signal.SIGKILL)
Registry(sys.argv[1]).query("zoo == 'grid'").assemble(sys.argv[2], name="x", on_progress=kill)
"""


def test_a_kill_in_the_middle_of_assembly_leaves_the_old_zoo_or_nothing(registry, tmp_path):
    command = [sys.executable, "-c", KILLED, registry.tracking_uri, str(tmp_path / "z")]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    assert not (tmp_path / "z").exists()
    before = contents(registry.query("zoo == 'grid' and optimizer == 'sgd'").assemble(tmp_path / "z").path)
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    assert contents(tmp_path / "z") == before
    assert len(registry.query("zoo == 'grid'").assemble(tmp_path / "z")) == 12
    assert os.listdir(tmp_path) == ["z"]  # noqa: PTH208
    assert len(Zoo.open(tmp_path / "z")) == 12
