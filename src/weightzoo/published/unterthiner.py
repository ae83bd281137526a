"""Reading a zoo in the layout of the Small CNN Zoo (Unterthiner et al. 2020, arXiv 2002.11448).

    weights.npy      float32 [N, P], a row a checkpoint; memory-mapped
    metrics.csv.gz   a row a checkpoint, in the same order: config.*, modeldir, step (an epoch), losses and accuracies
    layout.csv       varname, start_idx, end_idx, size, shape: what the columns of weights.npy are

Weights are TensorFlow's: a convolution is `[height, width, in, out]`, a linear layer `[in, out]`. A model is the rows
of one `modeldir`; it has no weights and metrics between its steps. The table does not say what the batch size was.
"""

from __future__ import annotations

import ast
import io
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from weightzoo.checkpoints import METRICS, ranges
from weightzoo.errors import FormatError, LayoutError, MissingError, UnsafeError
from weightzoo.members import record_hash
from weightzoo.published.files import SourceFolder
from weightzoo.published.model import SEEDS, Identity, PublishedModel, derived
from weightzoo.published.source import Remark, Source, architecture_of, dataset_of
from weightzoo.published.values import integer, number, text

LAYOUT = "unterthiner"
WEIGHTS, METRICS_FILE, COLUMNS = "weights.npy", "metrics.csv.gz", "layout.csv"
_SIDES = {"cifar10": 32, "svhn": 32}  # of the images in pixels, if not 28
_GIVEN = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
_MAX_NPY_HEADER = 10_000  # bytes; it tells a type and two numbers
_MAX_COMPRESSED, _MAX_TABLE, _MAX_LAYOUT = 2**30, 2**31, 2**20  # bytes
_MAX_STEP = 10**6


@dataclass(frozen=True)
class _Tensor:
    """A parameter of ours: where it begins in a row, its shape there, and the order of axes that makes it ours."""

    start: int
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def our_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[axis] for axis in self.axes)


@dataclass(frozen=True)
class Rows:
    """The rows of one model; see `weightzoo.published.source.Published`."""

    folder: Path
    identity: Identity
    tensors: tuple[_Tensor, ...]
    epochs: tuple[int, ...]  # ascending
    rows: np.ndarray  # int64 [epochs], where they stand
    measured: np.ndarray  # float64 [epochs, 4], `_GIVEN`; NaN where not measured
    expected: tuple[int, ...]  # the epochs that at least one model has
    bytes: int

    def read(self) -> PublishedModel:
        """Read its rows of the weights.

        Raises:
            FormatError: `weights.npy` is damaged, or has fewer rows than the table.
            LayoutError: it fits no architecture.
        """
        weights = _open_weights(self.folder)
        side = _SIDES.get(self.identity.dataset, 28)
        architecture = architecture_of((tensor.our_shape for tensor in self.tensors), side)
        if weights.shape[1] != architecture.layout.size:
            raise LayoutError(
                f"{WEIGHTS} has {weights.shape[1]} columns, {COLUMNS} describes {architecture.layout.size}"
            )
        rows = weights[self.rows]
        vectors = np.concatenate([_ours(rows, tensor) for tensor in self.tensors], axis=1)
        last, epochs = self.epochs[-1], list(self.epochs)
        values = {name: np.full(last + 1, np.nan, np.float32) for name in METRICS if name != "generalization_gap"}
        for column, name in enumerate(_GIVEN):
            values[name][epochs] = self.measured[:, column]
        metrics = derived(values)
        planned = self.identity.protocol["epochs"] or last
        absent = [epoch for epoch in self.expected if epoch not in self.epochs and epoch <= planned]
        return PublishedModel(
            identity=self.identity,
            architecture=architecture,
            kept=self.epochs,
            weights=vectors,
            metrics=metrics,
            measured={name: ~np.isnan(metric) for name, metric in metrics.items()},
            times=np.zeros(last + 1, np.int64),
            problems=(f"no checkpoint of epoch {ranges(absent)}",) if absent else (),
        )


def is_small_cnn_zoo(path: Path) -> bool:
    """Whether a folder has the files of this layout."""
    return (path / WEIGHTS).is_file() and (path / COLUMNS).is_file()


def scan_small_cnn_zoo(path: Path | str, dataset: str | None = None) -> Source:
    """List the models of a folder from its tables; the weights are not read yet.

    Raises:
        MissingError: a file is missing.
        UnsafeError: a file leads out of the folder, or is absurdly large.
        FormatError: a table can't be read, or has not the columns or rows that it should.
        LayoutError: the table of columns contradicts itself.
    """
    path = Path(path)
    source = SourceFolder(path)
    tensors = _tensors(_table(source.read(path / COLUMNS, _MAX_LAYOUT), COLUMNS, ("varname", "start_idx", "shape")))
    name = METRICS_FILE if (path / METRICS_FILE).exists() else METRICS_FILE.removesuffix(".gz")
    packed = source.read(path / name, _MAX_COMPRESSED)
    table = _table(_unpacked(packed) if name.endswith(".gz") else packed, name, ("modeldir", "step"))
    source.refuse_outside(path / WEIGHTS)
    weights = _open_weights(path)
    if len(weights) != len(table):
        raise FormatError(f"{path}: {WEIGHTS} has {len(weights):,} rows, {name} has {len(table):,}")
    steps = _column(table, "step")
    valid = (steps >= 0) & (steps <= _MAX_STEP) & (steps == np.floor(steps))
    expected = tuple(np.unique(steps[valid]).astype(int).tolist())
    measured = np.stack([_column(table, name) for name in _GIVEN], axis=1)
    members = table.groupby("modeldir", sort=False).indices  # name -> its rows
    stated = table[[key for key in table if str(key).startswith("config.")]]
    first = stated.iloc[[int(own[0]) for own in members.values()]].to_dict("records")
    models, refused = list[Rows](), list[Remark]()
    for (model, own), config in zip(members.items(), first, strict=True):
        rows = own[np.argsort(steps[own], kind="stable")]
        if not valid[rows].all() or len(np.unique(steps[rows])) < len(rows):
            refused.append(Remark("refused", str(model), f"its {len(rows)} rows have no different steps"))
            continue
        epochs = tuple(steps[rows].astype(int).tolist())
        identity = _identity(path, str(model), config, epochs, measured[rows], dataset)
        size = 4 * len(rows) * weights.shape[1]
        models.append(Rows(path, identity, tensors, epochs, rows, measured[rows], expected, size))
    return Source(tuple(models), tuple(refused))


def _identity(
    path: Path,
    model: str,
    config: Mapping[Any, Any],
    epochs: tuple[int, ...],
    measured: np.ndarray,
    dataset: str | None,
) -> Identity:
    stated = {str(key).removeprefix("config."): None if value != value else value for key, value in config.items()}
    return Identity(
        layout=LAYOUT,
        source=model,
        stated=stated,
        dataset=dataset or dataset_of(str(stated.get("dataset", "")), str(path.absolute())),
        configuration="search",
        hyperparameters={
            "init": text(stated.get("w_init")),
            "activation": text(stated.get("activation")),
            "optimizer": text(stated.get("optimizer")),
            "learning_rate": number(stated.get("learning_rate")),
            "weight_decay": number(stated.get("l2reg")),
            "dropout": number(stated.get("dropout")),
        },
        seeds={**dict.fromkeys(SEEDS), "init": integer(stated.get("random_seed"))},
        protocol={"epochs": integer(stated.get("epochs")), "batch_size": None, "schedule": None, "momentum": None},
        digest=record_hash({"epochs": epochs, "measured": measured.tobytes().hex()}),
    )


def _open_weights(folder: Path) -> np.ndarray:
    """`weights.npy` as a read-only memory map, float32 `[N, P]`."""
    place = folder / WEIGHTS
    try:
        with place.open("rb") as file:
            start = file.read(12)  # NumPy believes the length of the header, and takes as much memory
        if start[6:7] > b"\x01" and int.from_bytes(start[8:12], "little") > _MAX_NPY_HEADER:
            raise ValueError("a header of absurd length")
        weights = np.lib.format.open_memmap(place, mode="r")
    except FileNotFoundError:
        raise MissingError(f"{place}: no such file") from None
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        raise UnsafeError(f"{place}: no array of plain numbers, or truncated ({reason}); refused") from None
    if weights.ndim != 2 or weights.dtype != np.float32:
        raise FormatError(f"{place}: {weights.dtype} {list(weights.shape)}, expected float32 [checkpoints, parameters]")
    return weights


def _tensors(table: pd.DataFrame) -> tuple[_Tensor, ...]:
    """Our parameters in our order: layer by layer as they stand in a row, of each the weight, then the bias."""
    layers: dict[str, dict[int, _Tensor]] = {}
    taken = 0
    for line in table.sort_values("start_idx").to_dict("records"):
        name, shape = str(line["varname"]), _shape(line["shape"])
        start = integer(line["start_idx"])
        if start != taken or shape is None:
            raise LayoutError(
                f"{COLUMNS}: {name} begins at {line['start_idx']} with shape {line['shape']}, expected {taken}"
            )
        axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}.get(len(shape))
        if axes is None:
            raise LayoutError(f"{COLUMNS}: {name} has shape {list(shape)}, which no layer of a CNN has")
        layers.setdefault(name.rpartition("/")[0], {})[-len(shape)] = _Tensor(taken, shape, axes)
        taken += math.prod(shape)
    return tuple(own[rank] for own in layers.values() for rank in sorted(own))


def _ours(rows: np.ndarray, tensor: _Tensor) -> np.ndarray:
    """The elements `[N, size]` of a parameter in our order, from rows `[N, P]` in TensorFlow's."""
    theirs = rows[:, tensor.start : tensor.start + _size(tensor)].reshape(-1, *tensor.shape)
    return theirs.transpose(0, *(axis + 1 for axis in tensor.axes)).reshape(len(rows), -1)


def _size(tensor: _Tensor) -> int:
    return math.prod(tensor.shape)


def _shape(value: Any) -> tuple[int, ...] | None:
    """`(3, 3, 1, 16)` as text to a tuple."""
    try:
        shape = ast.literal_eval(str(value))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    shape = (shape,) if isinstance(shape, int) else shape
    fits = isinstance(shape, tuple | list) and len(shape) > 0 and all(type(side) is int and side > 0 for side in shape)
    return tuple(shape) if fits else None


def _column(table: pd.DataFrame, name: str) -> np.ndarray:
    """A column of numbers, float64; NaN where there is none, or no such column."""
    if name not in table:
        return np.full(len(table), np.nan)
    return np.asarray(pd.to_numeric(table[name], errors="coerce"), np.float64)


def _unpacked(content: bytes) -> bytes:
    """The table out of its gzip file, unless it would fill the memory."""
    stream = zlib.decompressobj(wbits=31)
    try:
        table = stream.decompress(content, _MAX_TABLE)
    except zlib.error as error:
        raise FormatError(f"{METRICS_FILE}: truncated or no gzip file ({error})") from None
    if stream.unconsumed_tail:
        raise UnsafeError(f"{METRICS_FILE}: unpacks to more than {_MAX_TABLE:,} bytes; refused")
    if not stream.eof:
        raise FormatError(f"{METRICS_FILE}: truncated")
    return table


def _table(content: bytes, name: str, needed: tuple[str, ...]) -> pd.DataFrame:
    try:
        table = pd.read_csv(io.BytesIO(content))
    except (ValueError, pd.errors.ParserError) as error:
        raise FormatError(f"{name}: not readable as CSV ({str(error).splitlines()[0][:80]})") from None
    missing = [column for column in needed if column not in table]
    if missing:
        raise FormatError(f"{name}: has no column {', '.join(missing)}")
    return table
