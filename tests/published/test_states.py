"""Reading what `torch.save` wrote: against `torch.load`, and what must be refused."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from tests.published import experiments
from weightzoo.errors import FormatError, UnsafeError
from weightzoo.published.states import MAX_PICKLE, StateReader


def saved(state: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer, **options)
    return buffer.getvalue()


def assert_as_torch_loads(reader: StateReader, content: bytes) -> None:
    expected = torch.load(io.BytesIO(content), weights_only=True)
    found = reader.read(content, "here")
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(found[name], tensor.numpy())


SHARED = torch.arange(12.0)
STATES = {
    "state dict": experiments.state(1),
    "with dropout": experiments.state(2, dropout_modules=True),
    "a plain dict": {"a.weight": torch.randn(3, 2), "a.bias": torch.zeros(3)},
    "views of one storage": {"a": SHARED[2:6], "b": SHARED[6:].view(2, 3), "c": SHARED},
    "transposed": {"a": torch.randn(3, 4).t(), "b": torch.randn(2)},
    "channels last": {"a": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)},
    "expanded": {"a": torch.ones(1).expand(5)},
    "integers among floats": {"a": torch.randn(3), "num_batches_tracked": torch.tensor(7)},
    "empty tensor": {"a": torch.empty(0, 3), "b": torch.ones(2)},
    "scalar": {"a": torch.tensor(1.5)},
    "nothing": OrderedDict(),
    "special values": {"a": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])},
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
@pytest.mark.parametrize("zipped", [True, False], ids=["archive", "older format"])
def test_reads_what_torch_loads(state, zipped) -> None:
    reader = StateReader()
    for _ in range(3):  # the first is learnt from, the others are read from the places that were learnt
        assert_as_torch_loads(reader, saved(state, _use_new_zipfile_serialization=zipped))
        state = {name: tensor.clone() if name == "a" else tensor for name, tensor in state.items()}


def test_a_pickle_that_is_known_is_not_loaded_again(monkeypatch) -> None:
    reader = StateReader()
    first, other = saved(experiments.state(1)), saved(experiments.state(2))
    reader.read(first, "first")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("loaded again"))
    np.testing.assert_array_equal(
        reader.read(other, "other")["module_list.0.bias"], experiments.state(2)["module_list.0.bias"]
    )
    assert np.array_equal(
        np.concatenate([t.ravel() for t in reader.read(other, "other").values()]), experiments.vector(2)
    )


def rewritten(content: bytes, change) -> bytes:
    """The archive with `change(name, data) -> data` applied to its entries and right checksums."""
    copy = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(copy, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return copy.getvalue()


def test_the_byte_order_of_an_archive_is_heeded() -> None:
    reader, content = StateReader(), saved({"a": torch.arange(4.0)})
    assert_as_torch_loads(reader, content)
    swapped = rewritten(
        content,
        lambda name, data: b"big" if name.endswith("byteorder") else data if "/data/" not in name else swap(data),
    )
    np.testing.assert_array_equal(reader.read(swapped, "swapped")["a"], np.arange(4, dtype=np.float32))


def swap(data: bytes) -> bytes:
    return np.frombuffer(data, "<f4").astype(">f4").tobytes()


class Malicious:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_calls_something_is_refused(zipped) -> None:
    content = saved({"a": torch.ones(2), "b": Malicious()}, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeError, match=r"^here: its pickle calls \S*exec; only tensors are read, refused$"):
        StateReader().read(content, "here")


def test_a_known_pickle_does_not_let_another_in() -> None:
    reader = StateReader()
    good = saved({"a": torch.ones(2)})
    reader.read(good, "good")
    bad = rewritten(good, lambda name, data: pickle.dumps(Malicious(), 2) if name.endswith("data.pkl") else data)
    with pytest.raises(UnsafeError, match="pickle calls"):
        reader.read(bad, "bad")


def test_an_archive_that_would_grow_is_refused() -> None:
    good = saved({"a": torch.zeros(1000)})
    deflated = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(UnsafeError, match=r"not such as torch\.save writes"):
        StateReader().read(deflated.getvalue(), "here")
    large = rewritten(good, lambda name, data: bytes(MAX_PICKLE + 1) if name.endswith("data.pkl") else data)
    with pytest.raises(UnsafeError, match=r"data\.pkl has 16,000,001 bytes"):
        StateReader().read(large, "here")
    with pytest.raises(UnsafeError, match="more than the file"):
        StateReader().read(saved({"a": torch.ones(1).expand(10**9)}), "here")


def test_every_truncation_and_bit_flip_of_data_is_noticed() -> None:
    reader, content = StateReader(), saved({"a": torch.randn(5), "b": torch.randn(3, 2)})
    reader.read(content, "whole")
    for length in range(0, len(content), 37):
        with pytest.raises(FormatError, match=r"^cut: "):
            reader.read(content[:length], "cut")
    start = reader.read(content, "whole")["a"].tobytes()
    place = content.index(start)
    flipped = bytearray(content)
    flipped[place] ^= 1
    with pytest.raises(FormatError, match="checksum differs"):
        reader.read(bytes(flipped), "flipped")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([torch.ones(1)], "holds a list"),
        ({"a": 1.0}, "holds a float as 'a'"),
        ({1: torch.ones(1)}, "as 1, expected tensors by name"),
        ({"a": torch.ones(2, dtype=torch.bfloat16)}, "bfloat16"),
        ({"a": torch.ones(2).to_sparse()}, "sparse"),
    ],
)
def test_what_is_no_state_dict_is_refused(state, message) -> None:
    with pytest.raises(FormatError, match=message):
        StateReader().read(saved(state), "here")


def test_what_is_no_file_of_torch_is_refused() -> None:
    for content in (b"", b"text", b"PK\x03\x04", bytes(1000), pickle.dumps({"a": 1})):
        with pytest.raises(FormatError):
            StateReader().read(content, "here")
