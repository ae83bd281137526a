"""A packed zoo on S3: the same as on disk, without the bytes that were not asked for."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import run
from tests.servers import free_port
from tests.zoo import synthetic_zoo
from weightzoo.errors import FormatError, MissingError
from weightzoo.s3 import Folder, Location
from weightzoo.verify import verify_zoo
from weightzoo.zoo import Zoo, write_zoo
from weightzoo.zoo import format as fmt

MODELS = 40


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Zoo:
    """2 MB of weights, in two shards."""
    head = synthetic_zoo.header(MODELS)
    path = tmp_path_factory.mktemp("zoos") / "synthetic"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fmt, "SHARD_BYTES", 24 * 4 * 5 * head.architecture.layout.size)
        write_zoo(path, head, synthetic_zoo.records(head))
    return Zoo.open(path)


@pytest.fixture
def remote(local, s3_prefix) -> Folder:
    """The prefix that it was uploaded to."""
    folder = Folder.at(Location.parse(f"{s3_prefix}/lab/synthetic"))
    folder.write_all({file.name: file.read_bytes() for file in Path(str(local.path)).iterdir()})
    return folder


@pytest.fixture
def moved(monkeypatch) -> Callable[[], int]:
    """Bytes of bodies that came since it was last asked."""
    from botocore.response import StreamingBody

    counted = [0]
    read = StreamingBody.read

    def counting(self, amt=None):
        content = read(self, amt)
        counted[0] += len(content)
        return content

    monkeypatch.setattr(StreamingBody, "read", counting)

    def since() -> int:
        found, counted[0] = counted[0], 0
        return found

    return since


def put(folder: Folder, name: str, content: bytes) -> None:
    """As another program would, which stores no hash."""
    place = folder.location / name
    folder.connection.client.put_object(Bucket=place.bucket, Key=place.key, Body=content)


def test_it_reads_as_on_disk(local, remote):
    zoo = Zoo.open(str(remote))
    assert repr(zoo) == repr(local)
    assert str(zoo.path) == str(remote)
    for table in ("models", "epochs", "provenance"):
        pd.testing.assert_frame_equal(getattr(zoo, table), getattr(local, table))
    for models, epochs, layer in (
        (None, None, None),
        ([3, 38, 4, 23, 24, 3], [0, 3, 4], "conv1"),
        (slice(20, 30), [2], "fc2.bias" if "fc2.bias" in local.layout.names else local.layout.names[-1]),
        ([], [1], None),
        (-1, [4, 0], None),
    ):
        np.testing.assert_array_equal(zoo.weights(models, epochs, layer), local.weights(models, epochs, layer))
    np.testing.assert_array_equal(zoo.probe([1, 39], [4]), local.probe([1, 39], [4]))
    assert zoo.duplicates() == local.duplicates()
    view = pickle.loads(pickle.dumps(zoo.split("train").select([2, 0])))
    np.testing.assert_array_equal(view.weights(), local.split("train").select([2, 0]).weights())
    data = zoo.dataset(epochs=[4], target="test_accuracy")
    assert data[1][0].numpy().tobytes() == local.dataset(epochs=[4], target="test_accuracy")[1][0].numpy().tobytes()


def test_what_is_not_asked_for_does_not_move(local, remote, moved):
    state, kept = 4 * local.layout.size, len(local.checkpoint_epochs)
    zoo = Zoo.open(str(remote))
    look = 3 * 4096  # both shards, and the record of the zoo
    assert moved() <= len((local.path / fmt.HEADER).read_bytes())

    zoo.weights([3])
    assert moved() <= kept * state + look
    zoo.weights([30], [4])
    assert moved() == state
    span = local.layout.span("conv1.weight")
    zoo.weights([30], [4], "conv1.weight")
    assert moved() == 4 * (span.stop - span.start)
    zoo.weights([5, 25], [1])
    assert moved() == 2 * state
    zoo.weights(None, [1])  # the epochs between are nearer than a request is worth: one range a shard
    assert moved() <= MODELS * kept * state
    zoo.module(7, 4)
    assert moved() <= state + zoo.place.size(fmt.MODELS)


def test_an_object_that_is_replaced_while_it_is_read_is_noticed(local, remote):
    zoo = Zoo.open(str(remote))
    zoo.weights([0], [0])
    name = fmt.weights_file(0)
    changed = bytearray((local.path / name).read_bytes())
    changed[-1] ^= 1
    remote.write(name, bytes(changed))
    with pytest.raises(FormatError, match=f"{name}: was replaced while it was being read; open it again"):
        zoo.weights([1], [0])
    with pytest.raises(FormatError, match=f"{name}: is not the file that zoo.json names; wait for the upload"):
        Zoo.open(str(remote)).weights([1], [0])
    assert verify_zoo(str(remote))[0].message.startswith(f"{name} is damaged")


def test_damaged_and_missing_objects_are_one_line(local, remote, s3_prefix):
    with pytest.raises(MissingError, match=f"{s3_prefix}/nothing/zoo.json: no such object"):
        Zoo.open(f"{s3_prefix}/nothing")
    shard = fmt.weights_file(1)
    whole = (local.path / shard).read_bytes()
    absurd = (2**62).to_bytes(8, "little") + whole[8:]
    put(remote, shard, absurd)
    with pytest.raises(FormatError, match="no safetensors file, or truncated"):
        Zoo.open(str(remote)).weights()
    remote.write(shard, whole[:-4])
    with pytest.raises(FormatError, match="bytes, expected"):
        Zoo.open(str(remote))
    remote.delete([shard])
    with pytest.raises(MissingError, match=f"{shard}: no such file"):
        Zoo.open(str(remote))
    remote.write(fmt.HEADER, b"{" * 1000)
    with pytest.raises(FormatError, match="can't be read as JSON"):
        Zoo.open(str(remote))


def test_a_table_that_is_not_the_recorded_one_is_refused(local, remote, s3_prefix):
    content = bytearray((local.path / fmt.MODELS).read_bytes())
    content[len(content) // 2] ^= 1
    put(remote, fmt.MODELS, bytes(content))
    with pytest.raises(FormatError, match=r"is not the file that zoo.json names"):
        _ = Zoo.open(str(remote)).models


def test_inspect_verify_and_export_take_a_place_on_s3(local, remote, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("inspect", str(remote), "--json") == (0, "")
    facts = json.loads(capsys.readouterr().out)
    assert (facts["models"], facts["folder"]) == (MODELS, str(remote))
    assert run("verify", str(remote)) == (0, "")
    said = capsys.readouterr().out
    assert "files have their recorded hashes" in said
    assert "error" not in said
    code, _ = run("export", str(remote), "--layout", "huggingface", "--license", "mit", "--to", str(tmp_path / "card"))
    assert code == 0
    np.testing.assert_array_equal(Zoo.open(tmp_path / "card").weights([3]), local.weights([3]))


def test_a_server_that_refuses_or_is_away_is_one_line(local, remote, s3_server, monkeypatch):
    down = f"http://127.0.0.1:{free_port()}"
    for settings, expected in (
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "InvalidAccessKeyId: the access key is not known there; give the right one"),
        ({"AWS_SECRET_ACCESS_KEY": "guessed-secret"}, "SignatureDoesNotMatch: the secret key is not that of"),
        ({"AWS_ENDPOINT_URL": down}, f"nobody answers at {down}; start the server and do the same again"),
        ({"AWS_ENDPOINT_URL": "127.0.0.1"}, "127.0.0.1 is no URL of a server; correct it"),
        ({"AWS_PROFILE": "nobody"}, "~/.aws has no such profile"),
    ):
        with monkeypatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            code, said = run("inspect", str(remote))
            assert (code, said.count("\n")) == (1, 1), said
            assert expected in said
            assert "guessed-secret" not in said
