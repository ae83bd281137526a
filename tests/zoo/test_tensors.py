"""One tensor a file, written row by row: against the safetensors library."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from weightzoo.errors import FormatError, MissingError
from weightzoo.zoo.tensors import TensorWriter, open_tensor


def write(path, rows, blocks=(2, 1, 4), metadata=None):
    writer = TensorWriter(path, "weights", "F32", rows.shape, metadata or {"b": [1], "a": "ü"})
    start = 0
    with writer:
        for block in blocks:
            writer.append(rows[start : start + block])
            start += block
    return writer


def test_the_library_reads_what_was_written_in_blocks(tmp_path):
    rows = np.random.default_rng(0).normal(size=(7, 3, 5)).astype(np.float32)
    writer = write(tmp_path / "a", rows)
    with safe_open(tmp_path / "a", framework="numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("weights"), rows)
        assert json.loads(file.metadata()["weightzoo"]) == {"a": "ü", "b": [1]}
    assert writer.bytes == (tmp_path / "a").stat().st_size
    mapped, metadata = open_tensor(tmp_path / "a", "weights")
    np.testing.assert_array_equal(mapped, rows)
    assert metadata == {"a": "ü", "b": [1]}


def test_how_rows_are_cut_into_blocks_leaves_the_bytes_alone(tmp_path):
    rows = np.random.default_rng(0).normal(size=(7, 3, 5)).astype(np.float32)
    first = write(tmp_path / "a", rows, metadata={"a": 1, "b": 2})
    second = write(tmp_path / "b", rows[:, ::-1][:, ::-1], (7,), metadata={"b": 2, "a": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert first.digest == second.digest


@pytest.mark.parametrize("name", ["w", "weights", "a-rather-long-name"])
def test_data_begin_at_a_multiple_of_8(tmp_path, name):
    with TensorWriter(tmp_path / "a", name, "F16", (2, 3), {}) as writer:
        writer.append(np.ones((2, 3), np.float16))
    assert ((tmp_path / "a").stat().st_size - 2 * 3 * 2) % 8 == 0


def test_wrong_rows_are_refused_and_missing_ones_noticed(tmp_path):
    writer = TensorWriter(tmp_path / "a", "weights", "F32", (2, 3), {})
    with pytest.raises(ValueError, match=r"float64 \[1, 3\], expected float32"):
        writer.append(np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"\[1, 4\]"):
        writer.append(np.zeros((1, 4), np.float32))
    writer.append(np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match="3 were given"):
        writer.append(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="only 1 were given"):
        writer.close()


def test_a_map_can_not_be_written_through(tmp_path):
    write(tmp_path / "a", np.zeros((7, 2, 2), np.float32))
    mapped, _ = open_tensor(tmp_path / "a", "weights")
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 1


@pytest.mark.parametrize("length", [0, 4, 8, 20, 150, -1])
def test_truncated_files_are_refused(tmp_path, length):
    path = tmp_path / "a"
    write(path, np.zeros((7, 2, 2), np.float32))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(FormatError, match=r"truncated|header"):
        open_tensor(path, "weights")


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "a"
    for content in (b"PAR1" * 100, b"\xff" * 64, b"\x02" + b"\0" * 7 + b"[]", b"\x04" + b"\0" * 7 + b"null"):
        path.write_bytes(content)
        with pytest.raises(FormatError) as caught:
            open_tensor(path, "weights")
        assert "\n" not in str(caught.value)
    save_file({"other": np.zeros(3, np.float32)}, path)
    with pytest.raises(FormatError, match="'weights'"):
        open_tensor(path, "weights")
    save_file({"weights": np.zeros(3, np.int64)}, path)
    with pytest.raises(FormatError, match="'weights'"):
        open_tensor(path, "weights")
    with pytest.raises(MissingError):
        open_tensor(tmp_path / "none", "weights")
