"""The Small CNN Zoo's layout: against a convolution written out in NumPy, in TensorFlow's order of axes."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from weightzoo.architectures.gap import cnn_gap
from weightzoo.errors import FormatError, LayoutError, MissingError, UnsafeError
from weightzoo.published import Remark, open_source, pack
from weightzoo.registry import Registry
from weightzoo.zoo import Zoo

STEPS = (0, 1, 2, 3, 20, 86)
# As the published layout.csv orders them: of each layer first the bias.
SHAPES = {
    "sequential/conv2d/bias:0": (16,),
    "sequential/conv2d/kernel:0": (3, 3, 1, 16),
    "sequential/conv2d_1/bias:0": (16,),
    "sequential/conv2d_1/kernel:0": (3, 3, 16, 16),
    "sequential/conv2d_2/bias:0": (16,),
    "sequential/conv2d_2/kernel:0": (3, 3, 16, 16),
    "sequential/dense/bias:0": (10,),
    "sequential/dense/kernel:0": (16, 10),
}
SIZE = sum(int(np.prod(shape)) for shape in SHAPES.values())


def write_zoo(folder: Path, models: int = 3, dataset: str = "mnist", gaps: tuple[int, ...] = ()) -> Path:
    """Rows of all models, mixed up; rows `gaps` are left out."""
    folder.mkdir()
    drawn = np.random.default_rng(0)
    lines = [
        {
            "config.activation": ("relu", "tanh")[model % 2],
            "config.b_init": "zeros",
            "config.dataset": dataset,
            "config.dnn_architecture": "cnn",
            "config.dropout": 0.1 * model,
            "config.epochs": 86,
            "config.epochs_between_checkpoints": 20,
            "config.init_std": 0.01,
            "config.l2reg": 1e-4,
            "config.learning_rate": 0.002,
            "config.num_layers": 3,
            "config.num_units": 16,
            "config.optimizer": "rmsprop",
            "config.random_seed": 42,
            "config.train_fraction": 0.25,
            "config.w_init": "he_normal",
            "modeldir": f"/zoo/{model}",
            "step": step,
            "test_accuracy": model / 10 + step / 1000,
            "test_loss": 1.5,
            "train_accuracy": model / 10 + step / 500,
            "train_loss": 1.25,
            "laststep": step == 86,
        }
        for model in range(models)
        for step in STEPS
    ]
    order = [row for row in drawn.permutation(len(lines)) if row not in gaps]
    table = pd.DataFrame(lines).iloc[order]
    table.to_csv(folder / "metrics.csv.gz")
    weights = drawn.normal(size=(len(lines), SIZE)).astype(np.float32)[order]
    np.save(folder / "weights.npy", weights)
    ends = np.cumsum([int(np.prod(shape)) for shape in SHAPES.values()])
    starts = [0, *ends[:-1]]
    layout = {
        "varname": SHAPES,
        "start_idx": starts,
        "end_idx": ends,
        "size": ends - starts,
        "shape": map(str, SHAPES.values()),
    }
    pd.DataFrame({key: list(values) for key, values in layout.items()}).to_csv(folder / "layout.csv", index=False)
    return folder


def packed(folder: Path) -> tuple[Zoo, tuple[Remark, ...]]:
    remarks = pack(open_source(folder), folder.with_name("packed"))
    return Zoo.open(folder.with_name("packed")), remarks


def forward(row: np.ndarray, images: np.ndarray, activation) -> np.ndarray:
    """Logits `[B, 10]` of a row in TensorFlow's layout, on images `[B, height, width, 1]`, by the definition."""
    tensors, start = {}, 0
    for name, shape in SHAPES.items():
        size = int(np.prod(shape))
        tensors[name.removeprefix("sequential/").removesuffix(":0")] = row[start : start + size].reshape(shape)
        start += size
    hidden = images.astype(np.float64)
    for layer in ("conv2d", "conv2d_1", "conv2d_2"):
        kernel, bias = tensors[f"{layer}/kernel"], tensors[f"{layer}/bias"]
        side = (hidden.shape[1] - 3) // 2 + 1  # "valid", stride 2
        out = np.empty((len(hidden), side, side, 16))
        for y in range(side):
            for x in range(side):
                window = hidden[:, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3, :]
                out[:, y, x] = np.einsum("bhwi,hwio->bo", window, kernel) + bias
        hidden = activation(out)
    return hidden.mean(axis=(1, 2)) @ tensors["dense/kernel"] + tensors["dense/bias"]


@pytest.mark.parametrize(("dataset", "side", "name"), [("mnist", 28, "mnist"), ("svhn_cropped", 32, "svhn")])
def test_models_compute_what_the_published_ones_do(dataset, side, name, tmp_path) -> None:
    import torch

    folder = write_zoo(tmp_path / "zoo", dataset=dataset)
    zoo, remarks = packed(folder)
    assert remarks == ()
    assert zoo.dataset_info.name == name
    assert zoo.architecture == cnn_gap((1, side, side), 10)
    assert zoo.layout.size == zoo.layout.trained == SIZE == 4970
    rows, table = np.load(folder / "weights.npy"), pd.read_csv(folder / "metrics.csv.gz")
    images = np.random.default_rng(1).normal(size=(2, side, side, 1))
    for number, epoch in ((0, 0), (1, 20), (2, 86)):
        row = zoo.models.iloc[number]
        at = np.flatnonzero((table["modeldir"] == row["source"]) & (table["step"] == epoch))[0]
        activation = np.tanh if row["activation"] == "tanh" else lambda values: np.maximum(values, 0)
        given = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
        logits = zoo.module(number, epoch)(given).detach().numpy()
        np.testing.assert_allclose(logits, forward(rows[at], images, activation), rtol=1e-4, atol=1e-4)


def test_the_table_says_what_is_known(tmp_path) -> None:
    zoo, _ = packed(write_zoo(tmp_path / "zoo"))
    assert zoo.checkpoint_epochs == STEPS
    models = zoo.models.set_index("source").loc[["/zoo/0", "/zoo/1", "/zoo/2"]]
    assert models["activation"].tolist() == ["relu", "tanh", "relu"]
    assert models["init"].tolist() == ["he_normal"] * 3
    assert models["weight_decay"].tolist() == [1e-4] * 3
    assert models["dropout"].tolist() == [0.0, 0.1, 0.2]
    assert models["seed_init"].tolist() == [42] * 3
    assert set(models["status"]) == {"finished"}
    assert '"train_fraction":0.25' in models["source_config"].iloc[0]
    own = zoo.epochs[zoo.epochs["model"] == 0].set_index("epoch")["test_accuracy"]
    source = int(zoo.models["source"].iloc[0].rpartition("/")[2])
    assert own.dropna().index.tolist() == list(STEPS)
    np.testing.assert_array_equal(own.dropna(), np.float32([source / 10 + step / 1000 for step in STEPS]))
    assert len(zoo.dataset(target="epoch")) == 3 * len(STEPS)


def test_missing_rows_are_missing_epochs(tmp_path) -> None:
    zoo, remarks = packed(write_zoo(tmp_path / "zoo", gaps=(1, 11)))  # model 0 at step 1, model 1 at step 86
    assert {(remark.kind, remark.source, remark.reason) for remark in remarks} == {
        ("partial", "/zoo/0", "no checkpoint of epoch 1"),
        ("partial", "/zoo/1", "no checkpoint of epoch 86"),
    }
    by_source = zoo.models.set_index("source")
    assert by_source.loc["/zoo/0", "missing_epochs"].tolist() == [1]
    assert by_source.loc["/zoo/1", "status"] == "partial"
    assert int(zoo.present.sum()) == 3 * len(STEPS) - 2


def test_runs_give_the_same_zoo(tmp_path, new_store) -> None:
    from weightzoo.importing import import_runs
    from weightzoo.tracking import RunStore

    folder = write_zoo(tmp_path / "zoo")
    zoo, _ = packed(folder)
    store = RunStore(f"sqlite:///{new_store('store')}/mlflow.db")
    done = import_runs(open_source(folder), "small", store)
    again = Registry(store.uri).members(done.members).assemble(tmp_path / "again", name="packed")
    for name in ("zoo.json", "models.parquet", "epochs.parquet", "weights-00000.safetensors"):
        assert (zoo.path / name).read_bytes() == (again.path / name).read_bytes(), name
    assert import_runs(open_source(folder), "small", store).new == 0


def spoil_table(change):
    def spoil(folder: Path) -> None:
        table = pd.read_csv(folder / "metrics.csv.gz")
        change(table).to_csv(folder / "metrics.csv.gz", index=False)

    return spoil


def objects(folder: Path) -> None:
    np.save(folder / "weights.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def huge_header(folder: Path) -> None:
    text = (b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), }" + b" " * 200_000) + b"\n"
    (folder / "weights.npy").write_bytes(b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text + bytes(4))


def link_out(folder: Path) -> None:
    (folder / "weights.npy").rename(folder.with_name("elsewhere.npy"))
    (folder / "weights.npy").symlink_to(folder.with_name("elsewhere.npy"))


def bomb(folder: Path) -> None:
    (folder / "metrics.csv.gz").write_bytes(gzip.compress(bytes(3_000_000)))


SPOILT = {
    "pickled objects": (objects, UnsafeError, "no array of plain numbers"),
    "a huge header": (huge_header, UnsafeError, "no array of plain numbers"),
    "a link out": (link_out, UnsafeError, "weights.npy: is a link out of the folder"),
    "truncated weights": (lambda folder: os.truncate(folder / "weights.npy", 1000), UnsafeError, "truncated"),
    "double precision": (
        lambda folder: np.save(folder / "weights.npy", np.zeros((18, SIZE))),
        FormatError,
        "float64 .18, 4970., expected float32",
    ),
    "rows are missing": (
        lambda folder: np.save(folder / "weights.npy", np.zeros((17, SIZE), np.float32)),
        FormatError,
        "has 17 rows, metrics.csv.gz has 18",
    ),
    "no table": (lambda folder: (folder / "metrics.csv.gz").unlink(), MissingError, "metrics.csv: no such file"),
    "no gzip file": (lambda folder: (folder / "metrics.csv.gz").write_bytes(b"a,b"), FormatError, "no gzip file"),
    "a truncated table": (lambda folder: os.truncate(folder / "metrics.csv.gz", 100), FormatError, "truncated"),
    "no column of models": (
        spoil_table(lambda table: table.drop(columns="modeldir")),
        FormatError,
        "metrics.csv.gz: has no column modeldir",
    ),
    "a layout with a hole": (
        lambda folder: (folder / "layout.csv").write_text('varname,start_idx,shape\nx/kernel:0,4,"(16, 10)"\n'),
        LayoutError,
        r"x/kernel:0 begins at 4 .*expected 0",
    ),
    "a layout of something else": (
        lambda folder: (folder / "layout.csv").write_text('varname,start_idx,shape\nx/kernel:0,0,"(4970,)"\n'),
        FormatError,
        "none of the 3 models can be imported.*tensors of shapes 4970 are no",
    ),
}


@pytest.mark.parametrize(("spoil", "error", "message"), SPOILT.values(), ids=SPOILT)
def test_what_is_damaged_or_unsafe_is_one_error(spoil, error, message, tmp_path) -> None:
    folder = write_zoo(tmp_path / "zoo")
    spoil(folder)
    with pytest.raises(error, match=message) as raised:
        packed(folder)
    assert "\n" not in str(raised.value)


def test_a_table_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch) -> None:
    folder = write_zoo(tmp_path / "zoo")
    bomb(folder)
    monkeypatch.setattr("weightzoo.published.unterthiner._MAX_TABLE", 1_000_000)
    with pytest.raises(UnsafeError, match="unpacks to more than 1,000,000 bytes"):
        open_source(folder)


def test_a_model_with_a_step_twice_is_refused(tmp_path) -> None:
    folder = write_zoo(tmp_path / "zoo")
    spoil_table(lambda table: table.assign(step=table["step"].where(table["modeldir"] != "/zoo/1", 3)))(folder)
    zoo, remarks = packed(folder)
    assert [(remark.kind, remark.source) for remark in remarks] == [("refused", "/zoo/1")]
    assert sorted(zoo.models["source"]) == ["/zoo/0", "/zoo/2"]
