"""Sealed files: what was written comes back, and whatever changed is an error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from weightzoo.errors import FormatError, MissingError
from weightzoo.sealed import opened, sealed

FORMAT = "weightzoo trial 2"
TENSORS = {
    "weights": np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32),
    "mask": np.array([[1, 0], [0, 1]], np.uint8),
    "empty": np.empty((0, 3), np.float16),
    "turned": np.arange(6, dtype=np.int32).reshape(2, 3).T,
}
HEADER = {"format": FORMAT, "epochs": [0, 1], "member": "abc"}


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    with opened(path, FORMAT, remedy="do it again") as (file, header):
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(sealed(TENSORS, HEADER))
    return tmp_path / "file"


def test_what_was_written_comes_back(path: Path) -> None:
    tensors, header = read(path)
    assert header == HEADER
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        np.testing.assert_array_equal(tensors[name], tensor)
    assert sealed(dict(reversed(TENSORS.items())), dict(reversed(HEADER.items()))) == path.read_bytes()


def test_no_bit_can_change_unnoticed(path: Path) -> None:
    content = path.read_bytes()
    bits = np.random.default_rng(1).integers(0, 8, len(content))
    for place, bit in enumerate(bits.tolist()):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        with pytest.raises(FormatError, match=r"file: .*; do it again$") as caught:
            read(path)
        assert "\n" not in str(caught.value), place


@pytest.mark.parametrize("size", [0, 7, 8, 9, 200, -1])
def test_neither_can_it_be_cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(FormatError, match="truncated"):
        read(path)


def test_a_file_of_version_1_has_no_checksum_and_is_read(path: Path) -> None:
    path.write_bytes(save(TENSORS, {"weightzoo": json.dumps({**HEADER, "format": "weightzoo trial 1"})}))
    assert read(path)[1]["epochs"] == [0, 1]


@pytest.mark.parametrize("header", [{"format": FORMAT}, {"format": "weightzoo trial 3"}, {"format": 2}, {}, [], 3])
def test_another_header_is_refused(path: Path, header: object) -> None:
    path.write_bytes(save(TENSORS, {"weightzoo": json.dumps(header)}))
    with pytest.raises(FormatError):
        read(path)
    path.unlink()
    with pytest.raises(MissingError):
        read(path)
