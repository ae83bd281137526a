"""The reader: every slice against the records that the zoo was written from."""

import pickle

import numpy as np
import pytest
import torch

from tests.zoo import synthetic_zoo
from weightzoo.errors import FormatError, MissingError, NotFoundError
from weightzoo.zoo import Zoo, write_zoo


def stacked(made, head) -> np.ndarray:
    full = np.full((len(made), len(head.checkpoint_epochs), head.architecture.layout.size), np.nan, np.float32)
    for row, record in zip(full, made, strict=True):
        row[: len(record.weights)] = record.weights
    return full


def test_all_weights_are_exact(written, zoo):
    _, head, made = written
    np.testing.assert_array_equal(zoo.weights(), stacked(made, head))
    assert zoo.weights().dtype == np.float32
    assert zoo.layout == head.architecture.layout
    assert zoo.checkpoint_epochs == (0, 1, 2, 3, 4)
    assert zoo.header == head
    assert (len(zoo), zoo.name, zoo.dataset_info.name) == (12, "synthetic", "digits")


@pytest.mark.parametrize(
    ("models", "rows"),
    [
        (3, [3]),
        (-1, [11]),
        (np.int64(5), [5]),
        ([2, 0, 2], [2, 0, 2]),
        (np.array([1, -2]), [1, 10]),
        (range(4, 7), [4, 5, 6]),
        (slice(None, None, -5), [11, 6, 1]),
        ([True] + [False] * 10 + [True], [0, 11]),
        ([], []),
    ],
)
@pytest.mark.parametrize(
    ("epochs", "positions"),
    [(None, [0, 1, 2, 3, 4]), (2, [2]), ([4, 0], [4, 0]), (range(1, 4), [1, 2, 3]), (slice(1, None, 2), [1, 3])],
)
@pytest.mark.parametrize("layer", [None, "conv2", "fc2.bias"])
def test_slices(written, zoo, models, rows, epochs, positions, layer):
    _, head, made = written
    span = slice(None) if layer is None else head.architecture.layout.span(layer)
    expected = stacked(made, head)[rows][:, positions][:, :, span]
    np.testing.assert_array_equal(zoo.weights(models, epochs, layer), expected)


def test_a_layer_has_the_shape_that_the_design_shows(zoo):
    assert zoo.weights(models=[3], epochs=[0, 4], layer="conv1").shape == (1, 2, 208)


def test_what_is_returned_is_a_copy(zoo):
    zoo.weights([0], [0])[:] = 7
    assert not (zoo.weights([0], [0]) == 7).any()


def test_epochs_are_numbers_not_positions(tmp_path):
    head = synthetic_zoo.header(4, last=4, kept=(0, 2, 4))
    made = synthetic_zoo.records(head)
    zoo = Zoo.open(write_zoo(tmp_path / "zoo", head, made))
    np.testing.assert_array_equal(zoo.weights([0], [2])[0, 0], made[0].weights[1])
    np.testing.assert_array_equal(zoo.weights([0], slice(1, 5))[0], made[0].weights[1:])
    assert np.isnan(zoo.weights([2], [4])).all()  # pruned behind epoch 3
    assert len(zoo.epochs[zoo.epochs.model == 0]) == 5  # metrics of all epochs
    with pytest.raises(NotFoundError, match=r"does not hold epoch 1; it holds 0, 2, 4"):
        zoo.weights(epochs=[0, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda zoo: zoo.weights([12]), "no model 12; there are 12"),
        (lambda zoo: zoo.weights(-13), "no model -13"),
        (lambda zoo: zoo.weights("abc"), "no member 'abc'"),
        (lambda zoo: zoo.weights([True]), "1 entries for 12"),
        (lambda zoo: zoo.weights([0.5]), "numbers from 0 to 11"),
        (lambda zoo: zoo.weights(epochs=5), "does not hold epoch 5; it holds 0-4"),
        (lambda zoo: zoo.weights(layer="conv9"), "no layer or parameter 'conv9'"),
        (lambda zoo: zoo.split("valid"), "there are train, val, test"),
        (lambda zoo: zoo.module(2, 4), "ended behind epoch 3"),
        (lambda zoo: zoo.module(2, 9), "does not hold epoch 9"),
        (lambda zoo: zoo.symmetries["conv7"], "no symmetry 'conv7'"),
    ],
)
def test_unknown_names_and_numbers(zoo, call, message):
    with pytest.raises(NotFoundError, match=message) as caught:
        call(zoo)
    assert "\n" not in str(caught.value)


def test_state_dict_and_module(written, zoo):
    _, head, made = written
    state = zoo.state_dict(8, 3)
    assert list(state) == list(head.architecture.layout.names)
    np.testing.assert_array_equal(head.architecture.layout.flatten(state), made[8].weights[3])
    module = zoo.module(8, epoch=3)
    assert not module.training
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), state[name])
    rates = [layer.p for layer in module.modules() if isinstance(layer, torch.nn.Dropout)]
    assert set(rates) == {zoo.models.dropout[8]} == {0.5}
    assert any(isinstance(layer, torch.nn.GELU) for layer in module.modules()) == (zoo.models.activation[8] == "gelu")
    assert module(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    member = zoo.models.member[8]
    np.testing.assert_array_equal(zoo.state_dict(member, 3)["fc1.bias"], state["fc1.bias"])


def test_probe(written, zoo, tmp_path):
    _, _, made = written
    np.testing.assert_array_equal(zoo.probe([4, 2], [3]), np.stack([made[4].probe[3:4], made[2].probe[3:4]]))
    assert zoo.probe().shape == (12, 5, 5, 10)
    assert np.isnan(zoo.probe(2, 4)).all()
    silent = synthetic_zoo.header(1)
    silent = type(silent)(**{**vars(silent), "probe_images": 0})
    path = write_zoo(tmp_path / "zoo", silent, synthetic_zoo.records(silent))
    assert not list(path.glob("probe-*"))
    with pytest.raises(NotFoundError, match="holds no probe"):
        Zoo.open(path).probe()


def test_nullable_columns(zoo):
    assert zoo.models.diverged_epoch[1] == 2
    assert zoo.models.diverged_epoch.isna().sum() == 11
    assert zoo.models.parent.isna().all()
    assert zoo.provenance.run_id[3] == "run3"
    assert zoo.provenance.seconds.dtype == np.float64


def test_views_number_their_own_models(written, zoo):
    _, _, made = written
    view = zoo.select([7, 2, 5])
    assert list(view.models.member) == [made[row].row["member"] for row in (7, 2, 5)]
    assert list(view.models.index) == [0, 1, 2]
    np.testing.assert_array_equal(view.weights([1, 0], [3]), zoo.weights([2, 7], [3]))
    np.testing.assert_array_equal(view.select([2]).weights(), zoo.weights([5]))
    second = view.epochs[view.epochs.model == 1]
    np.testing.assert_array_equal(second.test_loss, made[2].metrics["test_loss"])
    assert list(view.epochs.model) == [0] * 5 + [1] * 4 + [2] * 5
    assert list(view.provenance.run_id) == ["run7", "run2", "run5"]
    assert len(view.whole) == 12
    masked = zoo.select(zoo.models.status == "finished")
    assert len(masked) == 10


def test_splits_part_the_models(zoo):
    parts = [zoo.split(name) for name in ("train", "val", "test")]
    assert sorted(np.concatenate([part.rows for part in parts]).tolist()) == list(range(12))
    for part, name in zip(parts, ("train", "val", "test"), strict=True):
        assert set(part.models.split) <= {name}


def test_pickling_keeps_the_view(zoo):
    view = zoo.select([7, 2])
    again = pickle.loads(pickle.dumps(view))
    np.testing.assert_array_equal(again.weights(), view.weights())
    assert len(pickle.dumps(view)) < 1000


def test_duplicates(tmp_path):
    import dataclasses

    head = synthetic_zoo.header(6)
    made = synthetic_zoo.records(head)
    for copy, source in ((4, 0), (5, 2)):
        weights = made[copy].weights.copy()
        weights[-1] = made[source].weights[-1]
        made[copy] = dataclasses.replace(made[copy], weights=weights)
    zoo = Zoo.open(write_zoo(tmp_path / "zoo", head, made))
    assert zoo.duplicates() == ((0, 4), (2, 5))  # 2 ended behind epoch 3: its last weights, not the padding
    assert zoo.select([0, 1, 2, 3]).duplicates() == ()


@pytest.mark.parametrize("name", ["zoo.json", "models.parquet", "weights-00000.safetensors", "epochs.parquet"])
def test_missing_and_truncated_files(tmp_path, name):
    head = synthetic_zoo.header(2)
    path = write_zoo(tmp_path / "zoo", head, synthetic_zoo.records(head))
    whole = (path / name).read_bytes()
    (path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match=name) as caught:
        Zoo.open(path)
    assert "\n" not in str(caught.value)
    (path / name).unlink()
    with pytest.raises(MissingError, match=name):
        Zoo.open(path)


def test_altered_contents(tmp_path):
    head = synthetic_zoo.header(2)
    path = write_zoo(tmp_path / "zoo", head, synthetic_zoo.records(head))
    for name in ("models.parquet", "epochs.parquet", "provenance.parquet"):
        (path / name).write_bytes(bytes((path / name).stat().st_size))
    with pytest.raises(FormatError, match=r"models\.parquet: altered"):
        Zoo.open(path).models  # noqa: B018
    with pytest.raises(FormatError, match=r"epochs\.parquet: altered"):
        Zoo.open(path).epochs  # noqa: B018
    with pytest.raises(FormatError, match="no readable Parquet"):
        Zoo.open(path).provenance  # noqa: B018
    (path / "weights-00000.safetensors").write_bytes(bytes((path / "weights-00000.safetensors").stat().st_size))
    with pytest.raises(FormatError, match="weights-00000"):
        Zoo.open(path).weights()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"weightzoo zoo 1"', '"weightzoo zoo 2"'),
        ('"checksum"', '"check"'),
        ('"models": 2', '"models": "many"'),
        ('"checkpoint_epochs"', '"epochs"'),
        ('"kernel": 5', '"kernel": 7'),
        ('"class_names"', '"names"'),
        ("{", "["),
    ],
)
def test_foreign_headers(tmp_path, old, new):
    head = synthetic_zoo.header(2)
    path = write_zoo(tmp_path / "zoo", head, synthetic_zoo.records(head))
    text = (path / "zoo.json").read_text()
    assert old in text
    (path / "zoo.json").write_text(text.replace(old, new, 1))
    with pytest.raises(FormatError) as caught:
        Zoo.open(path)
    assert "\n" not in str(caught.value)


def test_places_that_are_no_zoo(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(MissingError, match="assemble or pull"):
            Zoo.open(place)
    with pytest.raises(FormatError, match="https://host/zoo: a zoo is opened from a folder or from s3://"):
        Zoo.open("https://host/zoo")
