"""`verify` finds what is wrong with a zoo, and finds nothing wrong with one that training made."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.zoo import synthetic_zoo
from weightzoo.architectures import architecture
from weightzoo.checkpoints import METRICS
from weightzoo.datasets import prepare
from weightzoo.errors import MissingError
from weightzoo.members import Cohort
from weightzoo.spec import DatasetSpec
from weightzoo.training.initial import initial_weights
from weightzoo.training.reference import ReferenceEngine
from weightzoo.verify import verify_zoo
from weightzoo.zoo import DatasetInfo, ModelRecord, Zoo, ZooHeader, write_zoo
from weightzoo.zoo.header import StoredFile

CHECKS = ["files", "tables", "weights", "duplicates", "splits", "accuracy"]


def by_check(findings) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for one in findings:
        found.setdefault(one.check, []).append((one.severity, one.message))
        assert "\n" not in str(one)
    return found


def errors(findings) -> dict[str, list[str]]:
    return {
        one.check: [f.message for f in findings if f.check == one.check] for one in findings if one.severity == "error"
    }


@pytest.fixture(scope="module")
def data():
    return prepare("digits", DatasetSpec(train=60, val=40))


@pytest.fixture(scope="module")
def measured(data, tmp_path_factory) -> Path:
    """A zoo that the reference engine trained for two epochs."""
    built = architecture("cnn-s", (1, 28, 28), 10)
    records, epochs = [], (0, 1, 2)
    for number in (0, 1, 5):
        one = synthetic_zoo.member(number, last=2)
        results = list(ReferenceEngine().train(built, Cohort((one,)), data))
        metrics = {
            name: np.array([getattr(result.metrics, name)[0] for result in results], np.float32)
            for name in METRICS
            if name != "generalization_gap"
        }
        metrics["generalization_gap"] = metrics["train_accuracy"] - metrics["test_accuracy"]
        row = dict(synthetic_zoo.record(number, synthetic_zoo.header(1, last=2), last=2).row)
        records.append(
            ModelRecord(
                row=row,
                weights=np.stack([result.state.weights[0] for result in results]),
                metrics=metrics,
                val_class_accuracy=np.stack([result.metrics.val_class_accuracy[0] for result in results]),
                test_class_accuracy=np.stack([result.metrics.test_class_accuracy[0] for result in results]),
                probe=np.stack([result.metrics.probe_logits[0] for result in results]),
            )
        )
    header = ZooHeader("measured", built, DatasetInfo.of(data), epochs, 3, probe_images=50)
    return write_zoo(tmp_path_factory.mktemp("zoos") / "measured", header, records)


@pytest.fixture
def damaged(measured, tmp_path) -> Path:
    """A copy to damage."""
    return shutil.copytree(measured, tmp_path / "damaged")


def reseal(path: Path) -> None:
    """Give zoo.json the sizes and hashes of the files as they are now: damage that hashes can't tell."""
    record = json.loads((path / "zoo.json").read_text())
    record["files"] = [dataclasses.asdict(StoredFile.of(path / each["name"])) for each in record["files"]]
    record.pop("checksum", None)
    (path / "zoo.json").write_text(json.dumps(record))


def alter(path: Path, table: str, change) -> None:
    rows = pq.read_table(path / table)
    values = rows.to_pylist()
    change(values)
    pq.write_table(pa.Table.from_pylist(values, schema=rows.schema), path / table)
    reseal(path)


def alter_weights(path: Path, change) -> None:
    weights = Zoo.open(path).weights()
    change(weights)
    file = path / "weights-00000.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) - weights.nbytes] + weights.tobytes())
    reseal(path)


def test_a_trained_zoo_is_sound(measured, data):
    found = by_check(verify_zoo(measured, data=data))
    assert list(found) == CHECKS
    assert {severity for entries in found.values() for severity, _ in entries} == {"ok"}
    assert found["accuracy"] == [("ok", "measured again on 3 models, as recorded")]


def test_a_zoo_with_diverged_and_pruned_models_is_sound(tmp_path):
    head = synthetic_zoo.header(12)
    found = by_check(verify_zoo(write_zoo(tmp_path / "zoo", head, synthetic_zoo.records(head))))
    assert [found[check][0][0] for check in CHECKS] == ["ok"] * 5 + ["note"]


@pytest.mark.parametrize(
    "name", ["weights-00000.safetensors", "probe-00000.safetensors", "models.parquet", "epochs.parquet"]
)
@pytest.mark.parametrize("place", [0.1, 0.5, 0.999])
def test_a_flipped_bit_is_found(damaged, data, name, place):
    content = bytearray((damaged / name).read_bytes())
    content[int(place * len(content))] ^= 4
    (damaged / name).write_bytes(content)
    found = errors(verify_zoo(damaged, data=data))
    assert list(found) == ["files"]
    assert [message.split()[0] for message in found["files"]] == [name]


def test_truncated_and_missing_files_are_found(damaged):
    file = damaged / "weights-00000.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    assert "weights-00000.safetensors" in errors(verify_zoo(damaged))["files"][0]
    file.unlink()
    assert "no such file" in errors(verify_zoo(damaged))["files"][0]
    (damaged / "zoo.json").write_text("{}")
    assert "format None" in errors(verify_zoo(damaged))["files"][0]
    (damaged / "zoo.json").unlink()
    with pytest.raises(MissingError, match="no zoo here"):
        verify_zoo(damaged)


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        ("models.parquet", lambda rows: rows.pop(), "has 2 rows"),
        ("epochs.parquet", lambda rows: rows.pop(), "has 8 rows, expected 9"),
        ("epochs.parquet", lambda rows: rows.reverse(), "has 9 rows"),
        ("epochs.parquet", lambda rows: rows[4].update(epoch=2), "do not count from 0"),
        ("models.parquet", lambda rows: rows[1].update(status="diverged"), "diverged_epoch is there if and only if"),
        ("models.parquet", lambda rows: rows[1].update(status="lost"), "zoo.json has"),
        ("models.parquet", lambda rows: rows[2].update(test_loss=0.5), "final test_loss .* model 2"),
        ("models.parquet", lambda rows: rows[0].update(best_val_accuracy=2.0), "best_val_accuracy .* model 0"),
        ("models.parquet", lambda rows: rows[0].update(best_epoch=7), "best_epoch is behind"),
    ],
)
def test_tables_that_contradict_each_other(damaged, table, change, message):
    alter(damaged, table, change)
    found = errors(verify_zoo(damaged))
    assert list(found) == ["tables"]
    assert any(re.search(message, text) for text in found["tables"]), found


def test_weights_that_are_not_finite(damaged):
    def spoil(weights):
        weights[1, 2, 77] = np.inf
        weights[2, 0, 0] = np.nan

    alter_weights(damaged, spoil)
    found = errors(verify_zoo(damaged))
    assert found["weights"] == ["weights are finite up to divergence: not so for models 1, 2"]


def test_weights_of_a_diverged_model_may_be_anything_from_then_on(tmp_path):
    head = synthetic_zoo.header(3)
    made = synthetic_zoo.records(head)
    early = made[1].weights.copy()
    early[1, 5] = np.nan  # it diverged at epoch 2
    path = write_zoo(tmp_path / "zoo", head, [made[0], dataclasses.replace(made[1], weights=early), made[2]])
    assert errors(verify_zoo(path))["weights"] == ["weights are finite up to divergence: not so for model 1"]


def test_weights_behind_the_end_of_a_pruned_model(tmp_path):
    head = synthetic_zoo.header(3)
    path = write_zoo(tmp_path / "zoo", head, synthetic_zoo.records(head))
    alter_weights(path, lambda weights: weights[2, 4].fill(1))
    assert errors(verify_zoo(path))["weights"] == ["weights behind the last epoch are absent: not so for model 2"]


def test_duplicates_are_a_warning(damaged):
    alter_weights(damaged, lambda weights: weights.__setitem__((2, 2), weights[0, 2]))
    found = by_check(verify_zoo(damaged))
    assert found["duplicates"] == [("warning", "models 0, 2 have the same final weights")]


def test_splits(damaged):
    alter(
        damaged,
        "models.parquet",
        lambda rows: rows[1].update(group=rows[0]["group"], split="val", member=rows[0]["member"]),
    )
    alter(damaged, "models.parquet", lambda rows: rows[0].update(split="train"))
    found = errors(verify_zoo(damaged))["splits"]
    assert found[0] == "a member is there once: not so for model 1"
    assert found[1].endswith("is in the splits train, val")


@pytest.mark.parametrize("metric", ["val_accuracy", "test_accuracy", "val_loss", "test_loss"])
def test_a_recorded_result_that_does_not_come_out_again(damaged, data, metric):
    step = 1.5 / len(data.labels[metric.partition("_")[0]])

    def lie(rows):
        """The same lie in both tables, so that they don't contradict each other."""
        for row in rows:
            for name in {metric, f"best_{metric}"} & set(row):
                row[name] = row[name] * 1.01 if "loss" in metric else row[name] + step

    alter(damaged, "models.parquet", lie)
    alter(damaged, "epochs.parquet", lie)
    messages = errors(verify_zoo(damaged, data=data))["accuracy"]
    assert len(messages) >= 3
    assert all(metric.replace("_", " ") in message for message in messages)


def test_a_changed_weight_is_noticed_by_what_it_computes(damaged, data):
    alter_weights(damaged, lambda weights: np.multiply(weights[:, :, -210:], 1.05, out=weights[:, :, -210:]))
    messages = errors(verify_zoo(damaged, data=data))["accuracy"]
    assert any("loss" in message for message in messages)
    assert any("probe" in message for message in messages)


def test_another_data_set_is_noticed(measured):
    other = prepare("digits", DatasetSpec(train=60, val=41))
    assert "the data set at hand has hash" in errors(verify_zoo(measured, data=other))["accuracy"][0]


def test_only_the_sample_is_evaluated(measured, data):
    assert by_check(verify_zoo(measured, data=data, sample=2))["accuracy"][0][1].startswith("measured again on 2")
    assert by_check(verify_zoo(measured, data=data, sample=0))["accuracy"][0][0] == "ok"


def test_fresh_weights_are_those_of_the_record(measured):
    """A check of this file's own fixture: its models are the members that it says."""
    zoo = Zoo.open(measured)
    members = tuple(synthetic_zoo.member(number, last=2) for number in (0, 1, 5))
    for number, one in enumerate(members):
        np.testing.assert_array_equal(zoo.weights([number], [0])[0], initial_weights(zoo.architecture, (one,)))
