"""The embedded data set: against scikit-learn's own arrays, with its split, its statistics and its errors."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from weightzoo.datasets import prepare
from weightzoo.datasets.images import SPLITS, ImageData
from weightzoo.errors import FormatError, MissingError, SpecError
from weightzoo.spec import DatasetSpec


@pytest.fixture(scope="module")
def data() -> ImageData:
    return prepare("digits", DatasetSpec())


def test_shapes_types_and_counts(data):
    assert {split: data.images[split].shape for split in SPLITS} == {
        "train": (1257, 1, 28, 28),
        "val": (180, 1, 28, 28),
        "test": (360, 1, 28, 28),
    }
    assert all(data.images[split].dtype == np.uint8 and data.labels[split].dtype == np.int32 for split in SPLITS)
    assert data.class_names == tuple("0123456789")
    assert data.name == "digits"


def test_every_source_image_is_in_exactly_one_split(data):
    """At the source's own size nothing is interpolated, so the pixels must be the source's grey levels, each image once."""
    exact = prepare("digits", DatasetSpec(size=8))
    source = load_digits()
    ours = np.concatenate([exact.images[split].reshape(-1, 64) for split in SPLITS]).astype(np.float64) * 16 / 255
    labels = np.concatenate([exact.labels[split] for split in SPLITS])
    ours_rows = sorted((*np.round(row).astype(int), label) for row, label in zip(ours, labels, strict=True))
    source_rows = sorted((*row.astype(int), label) for row, label in zip(source.data, source.target, strict=True))
    assert ours_rows == source_rows
    np.testing.assert_array_equal(data.labels["test"], exact.labels["test"])  # the size has no say in the split


def test_resized_images_still_show_the_digit(data):
    """Averaged back to 8x8, an image resembles its own source more than nearly all others."""
    exact = prepare("digits", DatasetSpec(size=8)).images["val"].reshape(180, 64).astype(float)
    weights = np.zeros((8, 28))
    for row in range(28):
        weights[min(int((row + 0.5) * 8 / 28), 7), row] = 1
    weights /= weights.sum(1, keepdims=True)
    back = np.einsum("ar,nrc,bc->nab", weights, data.images["val"][:, 0].astype(float), weights).reshape(180, 64)
    distances = ((back[:, None] - exact[None]) ** 2).sum(-1)
    assert (distances.argmin(1) == np.arange(180)).all()


@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_balanced(data, split):
    share = np.bincount(data.labels[split], minlength=10) / data.size(split)
    deviation = np.sqrt(0.1 * 0.9 / data.size(split))  # of a class's share in a random draw
    np.testing.assert_allclose(share, 0.1, atol=4 * deviation)


def test_normalised_train_images_have_mean_0_and_deviation_1(data):
    inputs = data.inputs["train"].astype(np.float64)
    assert abs(inputs.mean()) < 5e-4
    assert abs(inputs.std() - 1) < 5e-4
    assert data.mean == (round(data.mean[0], 4),)


@pytest.mark.parametrize(
    ("keys", "content_hash"),
    [({}, "41955fd12d714e6c"), ({"size": 32, "seed": 3}, "620e7341bac5f786"), ({"train": 100}, "9b6732074c4ea181")],
)
def test_the_content_that_existing_zoos_were_trained_on(keys, content_hash):
    assert prepare("digits", DatasetSpec(**keys)).content_hash == content_hash


def test_inputs_are_the_formula_in_float32_to_the_bit(data):
    mean, std = (np.asarray(values, np.float32)[:, None, None] for values in (data.mean, data.std))
    for split in SPLITS:
        expected = (data.images[split].astype(np.float32) / np.float32(255) - mean) / std
        np.testing.assert_array_equal(data.inputs[split], expected)
        np.testing.assert_array_equal(data.normalised(data.images[split][3:7]), expected[3:7])
        assert data.inputs[split].flags.c_contiguous


def test_colours_and_fewer_test_images(data):
    colour = prepare("digits", DatasetSpec(channels=3, test=40))
    np.testing.assert_array_equal(colour.images["test"], data.images["test"][:40].repeat(3, axis=1))
    np.testing.assert_array_equal(colour.images["train"], data.images["train"].repeat(3, axis=1))
    assert (colour.mean, colour.std) == (data.mean * 3, data.std * 3)


def test_same_section_same_content_and_every_part_of_it_counts(data):
    assert prepare("digits", DatasetSpec()).content_hash == data.content_hash
    others = [DatasetSpec(seed=1), DatasetSpec(size=20), DatasetSpec(train=1000), DatasetSpec(val=100)]
    hashes = {prepare("digits", spec).content_hash for spec in others}
    assert len(hashes | {data.content_hash}) == 5


def test_test_images_do_not_depend_on_the_counts(data):
    small = prepare("small", DatasetSpec(train=64, val=32))
    assert (small.size("train"), small.size("val"), small.size("test")) == (64, 32, 360)
    np.testing.assert_array_equal(small.images["test"], data.images["test"])
    np.testing.assert_array_equal(small.images["train"], data.images["train"][:64])


@pytest.mark.parametrize(
    ("spec", "train", "val"),
    [(DatasetSpec(train=1400), 1400, 37), (DatasetSpec(val=437), 1000, 437), (DatasetSpec(train=1436), 1436, 1)],
)
def test_a_count_left_out_takes_the_rest(spec, train, val):
    data = prepare("digits", spec)
    assert (data.size("train"), data.size("val")) == (train, val)


@pytest.mark.parametrize(
    "spec",
    [DatasetSpec(train=1437), DatasetSpec(val=1437), DatasetSpec(train=1400, val=38), DatasetSpec(train=5000, val=1)],
)
def test_impossible_counts_are_refused(spec):
    with pytest.raises(SpecError, match=r"datasets\.digits: .* share 1437 images") as caught:
        prepare("digits", spec)
    assert "\n" not in str(caught.value)


def test_round_trip_and_corruption(data, tmp_path):
    path = data.save(tmp_path / "a")
    first = path.read_bytes()
    loaded = ImageData.load(tmp_path / "a")
    assert loaded.content_hash == data.content_hash
    loaded.save(tmp_path / "b")
    assert (tmp_path / "b" / path.name).read_bytes() == first
    assert [entry.name for entry in (tmp_path / "a").iterdir()] == [path.name]

    flipped = bytearray(first)
    flipped[-1000] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(FormatError, match="does not match its hash"):
        ImageData.load(tmp_path / "a")
    path.write_bytes(first[: len(first) // 2])
    with pytest.raises(FormatError, match="prepare it again"):
        ImageData.load(tmp_path / "a")
    with pytest.raises(MissingError, match="prepare"):
        ImageData.load(tmp_path / "nowhere")
