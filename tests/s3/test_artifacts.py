"""Runs whose artifacts lie on S3: the whole life of a zoo is the one that it has in the file system, byte for byte."""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from tests.execution import support
from tests.servers import free_port
from weightzoo import assembly
from weightzoo.artifacts import RunArtifacts
from weightzoo.errors import FormatError, MissingError, StorageError
from weightzoo.execution import TrainSummary, train_zoo
from weightzoo.execution.force import planned_deletion
from weightzoo.registry import Registry
from weightzoo.s3 import Folder, Location
from weightzoo.tracking import RunStore

SPEC = support.zoo_spec(epochs=2)


def store(folder: Path, s3_prefix: str) -> RunStore:
    return RunStore(f"sqlite:///{folder}/mlflow.db", artifact_root=f"{s3_prefix}/lab/runs")


def train(runs: RunStore, **settings: object) -> TrainSummary:
    options: dict[str, object] = {"engine": support.DriftEngine(), "shard_size": 16, **settings}
    return train_zoo("z", SPEC, support.image_data(), runs, **options)  # type: ignore[arg-type]


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name != "provenance.parquet"}


@pytest.fixture
def folder(new_store) -> Path:
    return new_store("store")


def test_a_zoo_trained_and_assembled_on_s3_has_the_bytes_of_a_local_one(s3_prefix, folder, new_store, tmp_path):
    runs = store(folder, s3_prefix)
    members = train(runs).members
    assert not list(folder.rglob("*.safetensors"))
    assert train(store(folder, s3_prefix)).trained == 0

    local = new_store("local")
    assert support.train(local, SPEC).members == members
    here = Registry(f"sqlite:///{local}/mlflow.db").members(members).assemble(tmp_path / "here" / "z")
    there = Registry(runs.uri).members(members).assemble(tmp_path / "there" / "z")

    assert contents(here.path) == contents(there.path)
    for epoch in (0, 2):
        expected = support.store(local).checkpoint(members[0], epoch)
        for name, value in runs.checkpoint(members[0], epoch).items():
            np.testing.assert_array_equal(value, expected[name])
    known = runs.zoo("z").known()
    assert runs.zoo("z").metrics(known[members[0]][0]).member == members[0]


def test_an_error_waits_for_what_is_being_fetched(s3_prefix, folder, tmp_path, monkeypatch):
    """What is under way writes into a folder that goes with the error."""
    runs = store(folder, s3_prefix)
    members = train(runs).members
    fetch, turns, under_way, held = assembly._fetch, count(), Event(), []

    def slowly(artifacts: RunArtifacts, place: str) -> object:
        turn = next(turns)  # the first fetches the head of the zoo, alone
        if turn == 1:
            assert under_way.wait(30)
            raise FormatError("damaged")
        if turn > 1:
            under_way.set()
            time.sleep(0.3)
            held.append(Path(place).is_dir())
        return fetch(artifacts, place)

    monkeypatch.setattr(assembly, "_fetch", slowly)
    with pytest.raises(FormatError, match="damaged"):
        Registry(runs.uri).members(members).assemble(tmp_path / "z")
    assert held
    assert all(held)


def test_lost_and_altered_artifacts_are_noticed_and_trained_again(s3_prefix, folder, tmp_path):
    runs = store(folder, s3_prefix)
    summary = train(runs)
    objects = Folder.at(Location.parse(f"{s3_prefix}/lab/runs/z"))
    lost, altered = (runs.find(member).info.run_id for member in summary.members[:2])
    (name,) = [name for name in objects.list() if name.startswith(lost) and "checkpoints" in name]
    objects.delete([name])

    with pytest.raises(MissingError, match=f"run {lost} .*no checkpoints"):
        Registry(runs.uri).members(summary.members).assemble(tmp_path / "z")
    again = train(store(folder, s3_prefix))
    assert (again.trained, again.digest) == (1, summary.digest)

    (name,) = [name for name in objects.list() if name.startswith(altered) and "checkpoints" in name]
    there = objects.location / name
    content, stored = objects.read(name)
    changed = bytearray(content)
    changed[-5] ^= 1
    objects.connection.client.put_object(  # as if a disk had done it: the hash stored with it is the old one
        Bucket=there.bucket, Key=there.key, Body=bytes(changed), Metadata={"blake2b": str(stored.blake2b)}
    )
    with pytest.raises(FormatError, match="its hash is not the one that it was written with"):
        Registry(runs.uri).members(summary.members).assemble(tmp_path / "z")
    assert not (tmp_path / "z").exists()


def test_force_deletes_the_objects(s3_prefix, folder):
    runs = store(folder, s3_prefix)
    train(runs)
    objects = Folder.at(Location.parse(f"{s3_prefix}/lab/runs"))
    size = sum(stored.bytes for stored in objects.list().values())
    deletion = planned_deletion(runs, "z")
    assert (deletion.bytes, deletion.remote) == (size, 0)
    deletion.carry_out()
    assert not objects.list()


def test_a_server_that_is_down_stops_training_in_one_line_and_loses_nothing(s3_prefix, folder, monkeypatch, s3_server):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    runs = store(folder, s3_prefix)
    runs.patience.seconds = 0.0
    with pytest.raises(StorageError, match=r"nobody answers at http://127.0.0.1:\d+; start the server"):
        train(runs)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.url)
    engine = support.DriftEngine()
    assert train(store(folder, s3_prefix), engine=engine).trained == 12
    assert all(len(own) == 1 and own[0].ended for own in store(folder, s3_prefix).zoo("z").known().values())
