"""A sample of `make chaos`: a disk that is full in the middle of training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.chaos.disks import FULL, LARGE, can_mount, small_disk
from tests.chaos.projects import PARAMS, hashes, inside
from tests.conftest import run


def build(folder: Path, *steps: str) -> None:
    with inside(folder):
        for step in steps:
            code, said = run(step, "a")
            assert code == 0, said


@pytest.mark.parametrize("room", [20_000, 300_000])
def test_training_goes_on_when_a_full_disk_has_room_again(tmp_path: Path, empty_database: Path, room: int) -> None:
    if not can_mount():
        pytest.skip("no tmpfs can be mounted here, which takes root")
    params = json.dumps(PARAMS)
    whole = tmp_path / "whole"
    with small_disk(tmp_path / "disk") as resize:
        for folder in (whole, tmp_path / "disk"):
            (folder / "mlruns").mkdir(parents=True)
            (folder / "mlruns" / "mlflow.db").write_bytes(empty_database.read_bytes())
            (folder / "params.yaml").write_text(params)
            build(folder, "prepare")
        build(whole, "train", "assemble")
        folder = tmp_path / "disk"
        resize(sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file()) + room)
        with inside(folder):
            code, said = run("train", "a")
        error = said.strip().splitlines()[-1]
        assert code == 1, said
        assert error.startswith("error: ")
        assert any(word in error.lower() for word in FULL), said
        resize(LARGE)
        build(folder, "train", "assemble")
        assert {name: one for name, one in hashes(folder).items() if name.startswith("zoos/")} == {
            name: one for name, one in hashes(whole).items() if name.startswith("zoos/")
        }
