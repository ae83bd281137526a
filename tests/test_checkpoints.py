import numpy as np
import pytest

from weightzoo import checkpoints as files
from weightzoo.checkpoints import Checkpoints, RecordedMetrics
from weightzoo.errors import FormatError, LayoutError, MissingError, NotFoundError
from weightzoo.layout import Layout

LAYOUT = Layout((("conv.weight", (2, 1, 2, 2)), ("conv.bias", (2,)), ("fc.weight", (3, 2)), ("fc.bias", (3,))))


def weights(epochs: int) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal((epochs, LAYOUT.size)).astype(np.float32)
    values[-1, 0] = np.nan
    return values


def recorded(epochs: int = 4, classes: int = 3) -> RecordedMetrics:
    rng = np.random.default_rng(1)
    return RecordedMetrics(
        member="abc",
        epochs=np.arange(epochs, dtype=np.int32),
        values={name: rng.random(epochs, dtype=np.float32) for name in files.METRICS},
        val_class_accuracy=rng.random((epochs, classes), dtype=np.float32),
        test_class_accuracy=rng.random((epochs, classes), dtype=np.float32),
        checkpoint_epochs=np.array([0, 3], np.int32),
        probe_logits=rng.random((2, 5, classes)).astype(np.float16),
    )


def write(folder, kept=(0, 1, 4, 6), per_part=4):
    values = weights(len(kept))
    for start in range(0, len(kept), per_part):
        part = Checkpoints("abc", tuple(kept[start : start + per_part]), values[start : start + per_part])
        target = folder / files.CHECKPOINTS_FOLDER / files.part_name(part.epochs)
        files.write_atomically(target, files.encode_checkpoints(part, LAYOUT))
    return values


@pytest.mark.parametrize("per_part", [1, 3, 4])
def test_weights_come_back_bit_for_bit(tmp_path, per_part):
    values = write(tmp_path, per_part=per_part)
    whole = files.read_checkpoints(tmp_path, LAYOUT)
    assert (whole.member, whole.epochs) == ("abc", (0, 1, 4, 6))
    assert whole.weights.tobytes() == values.tobytes()
    some = files.read_checkpoints(tmp_path, LAYOUT, epochs=[6, 1])
    assert some.epochs == (1, 6)
    assert some.weights.tobytes() == values[[1, 3]].tobytes()
    state = files.read_state(tmp_path, 4)
    assert LAYOUT.flatten(state).tobytes() == values[2].tobytes()
    assert state["conv.weight"].shape == (2, 1, 2, 2)


def test_the_same_content_is_the_same_bytes():
    part = Checkpoints("abc", (0, 1), weights(2))
    assert files.encode_checkpoints(part, LAYOUT) == files.encode_checkpoints(part, LAYOUT)
    assert files.encode_metrics(recorded()) == files.encode_metrics(recorded())


def test_metrics_come_back(tmp_path):
    files.write_atomically(tmp_path / files.METRICS_FILE, files.encode_metrics(recorded()))
    back, given = files.read_metrics(tmp_path), recorded()
    assert back.member == "abc"
    assert back.last_epoch == 3
    for name in files.METRICS:
        assert back.values[name].tobytes() == given.values[name].tobytes()
    for name in ("epochs", "val_class_accuracy", "test_class_accuracy", "checkpoint_epochs", "probe_logits"):
        assert getattr(back, name).tobytes() == getattr(given, name).tobytes(), name
        assert getattr(back, name).dtype == getattr(given, name).dtype, name


def test_the_best_epoch_is_the_first_of_equals_and_never_a_nan():
    metrics = recorded()
    metrics.values["val_accuracy"][:] = [np.nan, 0.5, 0.7, 0.7]
    assert metrics.best_epoch == 2


def test_an_epoch_that_was_not_kept_is_named(tmp_path):
    write(tmp_path)
    with pytest.raises(NotFoundError, match="epoch 5"):
        files.read_checkpoints(tmp_path, LAYOUT, epochs=[1, 5])
    with pytest.raises(NotFoundError, match="epoch 2; the run has 0-1, 4, 6"):
        files.read_state(tmp_path, 2)


def test_nothing_there(tmp_path):
    with pytest.raises(MissingError):
        files.read_checkpoints(tmp_path, LAYOUT)
    with pytest.raises(MissingError):
        files.read_metrics(tmp_path)


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_a_truncated_file_is_refused(tmp_path, size):
    write(tmp_path)
    path = files.checkpoint_files(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(FormatError, match="truncated"):
        files.read_checkpoints(tmp_path, LAYOUT)


def test_a_file_of_another_kind_is_refused(tmp_path):
    files.write_atomically(tmp_path / files.METRICS_FILE, files.encode_metrics(recorded()))
    (tmp_path / files.METRICS_FILE).rename(tmp_path / "m")
    write(tmp_path)
    files.checkpoint_files(tmp_path)[0].rename(tmp_path / files.METRICS_FILE)
    with pytest.raises(FormatError, match="weightzoo checkpoints 2"):
        files.read_metrics(tmp_path)


def test_another_architecture_is_refused(tmp_path):
    write(tmp_path)
    other = Layout((("conv.weight", (2, 1, 2, 2)), ("conv.bias", (2,)), ("fc.weight", (2, 3)), ("fc.bias", (3,))))
    with pytest.raises(LayoutError, match=r"fc\.weight"):
        files.read_checkpoints(tmp_path, other)


def test_parts_hold_eight_megabytes():
    assert files.epochs_per_part(2464) == 811
    assert files.epochs_per_part(11_173_962) == 1
