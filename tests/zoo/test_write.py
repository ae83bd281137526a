"""The writer: bytes, atomicity, shards, and what it refuses."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open

from tests.zoo import synthetic_zoo
from weightzoo.errors import FormatError, LayoutError, SpecError
from weightzoo.zoo import METRICS, Zoo, format, write_zoo
from weightzoo.zoo.header import StoredFile


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def test_files_are_those_of_the_format(written):
    path, _, _ = written
    assert sorted(contents(path)) == [
        "epochs.parquet",
        "models.parquet",
        "probe-00000.safetensors",
        "provenance.parquet",
        "weights-00000.safetensors",
        "zoo.json",
    ]
    assert [entry.name for entry in path.parent.iterdir()] == ["synthetic"]


def test_packing_twice_gives_identical_bytes(written, tmp_path):
    path, head, made = written
    again = write_zoo(tmp_path / "again", head, iter(made))
    assert contents(again) == contents(path)


def test_only_provenance_differs_between_two_builds(written, tmp_path):
    path, head, made = written
    other = [dataclasses.replace(each, provenance={"run_id": "x", "seconds": 9.0, "machine": "there"}) for each in made]
    first, second = contents(path), contents(write_zoo(tmp_path / "again", head, other))
    assert {name for name in first if first[name] != second[name]} == {"provenance.parquet"}


def test_header_is_readable_json_with_the_true_sizes_and_hashes(written):
    path, head, _ = written
    record = json.loads((path / "zoo.json").read_text())
    assert record["format"] == "weightzoo zoo 1"
    assert record["counts"] == {"states": 59, "parameters": 2464, "finished": 10, "diverged": 1, "pruned": 1}
    assert record["models"] == 12
    assert record["dataset"]["class_names"] == list("0123456789")
    assert [each["name"] for each in record["architecture"]["parameters"]] == list(head.architecture.layout.names)
    for entry in record["files"]:
        assert StoredFile.of(path / entry["name"]) == StoredFile(**entry)
    assert {entry["name"] for entry in record["files"]} == set(contents(path)) - {"zoo.json", "provenance.parquet"}


def test_tables_have_the_columns_of_the_format(written):
    path, _, made = written
    models = pq.read_table(path / "models.parquet").to_pylist()
    expected = (
        "member group split status last_epoch diverged_epoch init activation optimizer learning_rate weight_decay"
    )
    expected += " dropout seed_init seed_order seed_dropout engine " + " ".join(METRICS)
    expected += " best_epoch best_val_accuracy best_test_accuracy parent parent_epoch"
    assert list(models[0]) == expected.split()
    for row, record in zip(models, made, strict=True):
        assert {name: row[name] for name in record.row} == dict(record.row)
        best = int(record.metrics["val_accuracy"].argmax())
        assert row["best_epoch"] == best
        assert row["best_test_accuracy"] == record.metrics["test_accuracy"][best]
        np.testing.assert_equal(row["train_loss"], record.metrics["train_loss"][-1])
    epochs = pq.read_table(path / "epochs.parquet").to_pylist()
    assert len(epochs) == sum(record.row["last_epoch"] + 1 for record in made)
    row = next(each for each in epochs if each["model"] == 5 and each["epoch"] == 3)
    assert row["test_loss"] == made[5].metrics["test_loss"][3]
    np.testing.assert_array_equal(np.float32(row["val_class_accuracy"]), made[5].val_class_accuracy[3])


def test_the_earliest_of_equally_good_epochs_is_the_best_and_nan_is_none():
    head = synthetic_zoo.header(1)
    from weightzoo.zoo.write import _derived

    made = synthetic_zoo.record(0, head)
    made.metrics["val_accuracy"][:] = np.float32([np.nan, 0.5, 0.75, 0.75, np.nan])
    assert _derived(made)["best_epoch"] == 2
    made.metrics["val_accuracy"][:] = np.nan
    assert _derived(made)["best_epoch"] == 0


def test_shards_hold_whole_models_and_read_as_one(written, tmp_path, monkeypatch):
    path, head, made = written
    monkeypatch.setattr(format, "SHARD_BYTES", 5 * (5 * 2464 * 4) + 100)
    sharded = write_zoo(tmp_path / "sharded", head, made)
    with safe_open(sharded / "weights-00001.safetensors", framework="numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("weights")[0], made[5].weights)
    assert sorted(sharded.glob("weights-*"))[-1].name == "weights-00002.safetensors"
    many, one = Zoo.open(sharded), Zoo.open(path)
    for models in (None, [11, 0, 4, 5], slice(3, 12, 2), [9]):
        np.testing.assert_array_equal(many.weights(models), one.weights(models, None))
        np.testing.assert_array_equal(many.probe(models, [1, 3]), one.probe(models, [1, 3]))


def test_a_model_larger_than_a_shard_gets_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(format, "SHARD_BYTES", 1000)
    head = synthetic_zoo.header(3)
    path = write_zoo(tmp_path / "zoo", head, synthetic_zoo.records(head))
    assert len(list(path.glob("weights-*"))) == 3
    assert Zoo.open(path).weights().shape == (3, 5, 2464)


def test_row_groups_of_the_epochs_leave_the_values_alone(written, tmp_path, monkeypatch):
    from weightzoo.zoo import write

    path, head, made = written
    monkeypatch.setattr(write, "_ROWS_IN_A_GROUP", 7)
    grouped = write_zoo(tmp_path / "zoo", head, made)
    assert pq.ParquetFile(grouped / "epochs.parquet").num_row_groups == 6
    pd.testing.assert_frame_equal(Zoo.open(grouped).epochs, Zoo.open(path).epochs)


def test_records_are_taken_one_by_one(tmp_path):
    """The writer asks for a record only when it has dealt with the one before: memory stays bounded."""
    import gc
    import weakref

    head = synthetic_zoo.header(6)
    alive: list[weakref.ref] = []
    most = 0

    def stream():
        nonlocal most
        for number in range(6):
            made = synthetic_zoo.record(number, head)
            alive.append(weakref.ref(made.weights))
            yield made
            del made
            gc.collect()
            most = max(most, sum(reference() is not None for reference in alive))

    write_zoo(tmp_path / "zoo", head, stream())
    assert most <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": np.zeros((5, 2463), np.float32)}, r"weights is float32 \[5, 2463\], expected float32 \[5, 2464\]"),
        ({"weights": np.zeros((5, 2464))}, "weights is float64"),
        ({"weights": np.zeros((4, 2464), np.float32)}, r"weights is float32 \[4, 2464\]"),
        ({"metrics": {}}, "train_loss is nothing"),
        ({"probe": None}, "probe is nothing"),
        ({"val_class_accuracy": np.zeros((5, 9), np.float32)}, r"val_class_accuracy is float32 \[5, 9\]"),
        ({"row": {"member": "abc"}}, "lacks or has too many of activation"),
    ],
)
def test_records_that_do_not_fit_are_refused_and_leave_nothing(tmp_path, change, message):
    head = synthetic_zoo.header(2)
    made = synthetic_zoo.record(0, head)
    with pytest.raises(LayoutError, match=message):
        write_zoo(tmp_path / "zoo", head, [made, dataclasses.replace(made, **change)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", [2, 4])
def test_the_number_of_records_must_be_the_announced_one(tmp_path, given):
    head = synthetic_zoo.header(3)
    with pytest.raises(LayoutError, match="3"):
        write_zoo(tmp_path / "zoo", head, [synthetic_zoo.record(n, head) for n in range(given)])
    assert list(tmp_path.iterdir()) == []


def test_epochs_must_ascend():
    with pytest.raises(LayoutError, match="ascending"):
        synthetic_zoo.header(1, kept=(2, 1))


def test_an_old_zoo_stays_until_the_new_one_is_complete(written, tmp_path):
    _, head, made = written
    path = write_zoo(tmp_path / "zoo", head, made)
    before = contents(path)

    def failing():
        yield made[0]
        assert contents(path) == before
        raise SpecError("no more")

    with pytest.raises(SpecError):
        write_zoo(path, head, failing())
    assert contents(path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["zoo"]

    smaller = synthetic_zoo.header(3)
    write_zoo(path, smaller, synthetic_zoo.records(smaller))
    assert len(Zoo.open(path)) == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["zoo"]


def test_a_reader_keeps_the_zoo_that_it_opened(written, tmp_path):
    _, head, made = written
    path = write_zoo(tmp_path / "zoo", head, made)
    zoo = Zoo.open(path)
    before = zoo.weights([7])
    write_zoo(path, head, made[::-1])
    np.testing.assert_array_equal(zoo.weights([7]), before)
    np.testing.assert_array_equal(Zoo.open(path).weights([4]), before)


def test_foreign_folders_and_files_are_left_alone(tmp_path):
    head = synthetic_zoo.header(1)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with pytest.raises(FormatError, match="something else than a zoo"):
        write_zoo(tmp_path / "thesis", head, synthetic_zoo.records(head))
    with pytest.raises(FormatError, match="is a file"):
        write_zoo(tmp_path / "thesis" / "chapter1.tex", head, synthetic_zoo.records(head))
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    assert len(Zoo.open(write_zoo(tmp_path / "empty", head, synthetic_zoo.records(head)))) == 1


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from tests.zoo import synthetic_zoo
from weightzoo.zoo import write_zoo
head = synthetic_zoo.header(40)
def stream():
    for number, record in enumerate(synthetic_zoo.records(head)):
        if number == {at}:
            if {slow}:
                print("waiting", flush=True)
                signal.pause()
            os.kill(os.getpid(), signal.SIGKILL)
        yield record
write_zoo({path!r}, head, stream())
"""


def start_killed(path: Path, at: int, slow: bool = False) -> subprocess.Popen:
    code = KILLED.format(tests=str(Path(__file__).parents[2]), path=str(path), at=at, slow=slow)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_a_kill_in_the_middle_leaves_the_old_zoo_and_the_next_build_clears_up(written, tmp_path):
    _, head, made = written
    path = write_zoo(tmp_path / "zoo", head, made)
    before = contents(path)
    for at in (0, 25):
        with start_killed(path, at) as process:
            process.wait(60)
        assert process.returncode == -signal.SIGKILL
        assert contents(path) == before
    assert len(list(tmp_path.iterdir())) >= 2  # what the killed processes left
    write_zoo(path, head, made)
    assert contents(path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["zoo"]


def test_a_kill_of_the_first_build_leaves_no_zoo(tmp_path):
    path = tmp_path / "zoo"
    with start_killed(path, 10) as process:
        process.wait(60)
    assert not path.exists()
    assert process.returncode == -signal.SIGKILL


def test_a_build_that_is_under_way_is_not_cleared_up(tmp_path):
    path = tmp_path / "zoo"
    with start_killed(path, 10, slow=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "waiting"
        head = synthetic_zoo.header(3)
        write_zoo(path, head, synthetic_zoo.records(head))
        assert len(list(tmp_path.glob(".zoo.partial-*"))) == 1
        os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while list(tmp_path.glob(".zoo.partial-*")) and time.monotonic() < deadline:
        write_zoo(path, head, synthetic_zoo.records(head))
    assert [entry.name for entry in tmp_path.iterdir()] == ["zoo"]


def in_blocks(record, sizes):
    cuts = np.cumsum(sizes)[:-1]
    return dataclasses.replace(record, weights=iter(np.split(record.weights, cuts)))


def test_weights_given_in_blocks_give_the_same_bytes(written, tmp_path):
    head = synthetic_zoo.header(4)
    cut = [
        in_blocks(one, sizes)
        for one, sizes in zip(synthetic_zoo.records(head), ([1, 4], [5], [1, 1, 2], [2, 3]), strict=True)
    ]
    write_zoo(tmp_path / "cut", head, cut)
    write_zoo(tmp_path / "whole", head, synthetic_zoo.records(head))
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "cut" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([np.zeros((2, 2464), np.float32)], r"weights is float32 \[2, 2464\], expected float32 \[5, 2464\]"),
        ([np.zeros((3, 2464), np.float32)] * 2, r"weights is float32 \[6, 2464\], expected float32 \[5, 2464\]"),
        ([np.zeros((5, 2463), np.float32)], r"weights is float32 \[5, 2463\], expected"),
        ([np.zeros((1, 2464))], r"weights is float64 \[1, 2464\], expected"),
        ([], r"weights is float32 \[0, 2464\], expected"),
    ],
)
def test_blocks_that_do_not_fit_are_refused_and_leave_nothing(tmp_path, blocks, message):
    head = synthetic_zoo.header(1)
    (one,) = synthetic_zoo.records(head)
    with pytest.raises(LayoutError, match=message):
        write_zoo(tmp_path / "zoo", head, [dataclasses.replace(one, weights=iter(blocks))])
    assert not list(tmp_path.iterdir())
