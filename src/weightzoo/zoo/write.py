"""Writing a packed zoo: model by model, in bounded memory, the same input giving the same bytes."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from weightzoo.errors import FormatError, LayoutError
from weightzoo.members import PARTIAL, STATUSES
from weightzoo.zoo import format as fmt
from weightzoo.zoo.header import StoredFile, ZooHeader, encode
from weightzoo.zoo.provenance import write_provenance
from weightzoo.zoo.replace import replaced_folder
from weightzoo.zoo.tensors import TensorWriter

_ROWS_IN_A_GROUP = 2**16  # of epochs.parquet: about 8 MB
_GIVEN = tuple(column.name for column in fmt.GIVEN)
_NOTHING = np.empty((0, 0), np.float32)
_MAY_COME = tuple(column.name for column in (*fmt.LINEAGE, *fmt.IMPORTED))


@dataclass(frozen=True)
class ModelRecord:
    """One model on its way into a zoo, with R = the number of kept epochs up to its last one.

    `weights` may be an iterable of blocks `[r, P]` in the order of the epochs, R rows in all, so that a large model's
    trajectory is never in memory as a whole; it is read once.
    `row` has the columns `format.GIVEN` of models.parquet, those of `format.LINEAGE` if it has a parent, and those of
    `format.IMPORTED` if it was imported; `weights` then has no rows for its `missing_epochs`, and NaN was not measured.
    `provenance` has those of `format.PROVENANCE_SCHEMA` that are known.
    """

    row: Mapping[str, Any]
    weights: np.ndarray | Iterable[np.ndarray]  # float32 [R, P]
    metrics: Mapping[str, np.ndarray]  # format.METRICS, and SPARSE_METRICS of sparse models, float32 [last epoch + 1]
    val_class_accuracy: np.ndarray  # float32 [last epoch + 1, classes]
    test_class_accuracy: np.ndarray  # float32 [last epoch + 1, classes]
    probe: np.ndarray | None = None  # float16 [R, images, classes]
    sparse: Mapping[str, np.ndarray | Iterable[np.ndarray]] = field(default_factory=dict[str, Any])  # tensors, [R, P]
    layer_sparsity: np.ndarray | None = None  # float32 [last epoch + 1, prunable parameters]
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])


def write_zoo(
    path: Path | str,
    header: ZooHeader,
    records: Iterable[ModelRecord],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a zoo of the `header.models` records, in their order, to the folder `path`.

    The folder appears when it is complete; a zoo that stands there is replaced then, and not before.

    Raises:
        FormatError: `path` is something other than a zoo or an empty folder.
        LayoutError: a record does not fit the header, or there are more or fewer than it says.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100  (a link stays a link)
    refuse_foreign(path)
    with replaced_folder(path) as folder:
        writer = _ZooWriter(folder, header)
        try:
            for done, record in enumerate(records, start=1):
                writer.append(record)
                if on_progress is not None:
                    on_progress(done, header.models)
            writer.finish()
        finally:
            writer.close()
    return path


def refuse_foreign(path: Path) -> None:
    """Refuse to put a zoo where something else stands.

    Raises:
        FormatError: `path` is a file, or a folder that is neither empty nor a zoo, be it without its header.
    """
    if path.exists() and not path.is_dir():
        raise FormatError(f"{path}: is a file; give the path of a folder")
    if path.is_dir() and not (path / fmt.HEADER).is_file() and not all(map(fmt.is_ours, path.iterdir())):
        raise FormatError(f"{path}: is a folder of something else than a zoo; choose another path or empty it")


class _ZooWriter:
    def __init__(self, folder: Path, header: ZooHeader) -> None:
        self._folder = folder
        self._header = header
        self._layout = header.architecture.layout
        self._per_shard = fmt.models_per_shard(len(header.checkpoint_epochs), self._layout.size)
        self._writers: dict[str, TensorWriter] = {}
        sparse = header.sparse is not None
        self._metrics = (*fmt.METRICS, *fmt.SPARSE_METRICS) if sparse else fmt.METRICS
        self._epochs_schema = fmt.epochs_schema(sparse=sparse)
        self._models: list[dict[str, Any]] = []
        self._provenance: list[dict[str, Any]] = []
        self._states = 0
        self._files: dict[str, StoredFile] = {}
        self._pending: list[ModelRecord] = []
        self._flushed = 0
        self._epochs = pq.ParquetWriter(folder / fmt.EPOCHS, self._epochs_schema, **_PARQUET)

    def append(self, record: ModelRecord) -> None:
        number = len(self._models)
        if number >= self._header.models:
            raise LayoutError(f"more than the {self._header.models} models that the header announces")
        self._check(record)
        if number % self._per_shard == 0:
            self._open_shard(number)
        self._states += self._append_states(record, "weights", np.float32, record.weights)
        for name, kind in fmt.SPARSE_TENSORS.items():
            if name in self._writers:
                self._append_states(record, name, kind, record.sparse[name])
        if record.probe is not None and "logits" in self._writers:
            self._writers["logits"].append(self._padded(record.probe))
        self._models.append({**dict.fromkeys(_MAY_COME), **record.row, **_derived(record)})
        known = {column: record.provenance.get(column) for column in fmt.PROVENANCE_SCHEMA.names}
        self._provenance.append({**known, "member": record.row["member"]})
        self._pending.append(dataclasses.replace(record, weights=_NOTHING, probe=None, sparse={}))
        if sum(_length(each) for each in self._pending) >= _ROWS_IN_A_GROUP:
            self._flush_epochs()

    def _append_states(
        self, record: ModelRecord, name: str, kind: type, blocks: np.ndarray | Iterable[np.ndarray]
    ) -> int:
        """Write a tensor of a model, NaN (0 of masks) where it has none; the number of epochs at which it has."""
        missing = record.row.get("missing_epochs") or ()
        there = [epoch < _length(record) and epoch not in missing for epoch in self._header.checkpoint_epochs]
        size, expected, found, place = self._layout.size, sum(there), 0, 0
        absent = np.full((1, size), np.nan if np.issubdtype(kind, np.floating) else 0, kind)
        for block in (blocks,) if isinstance(blocks, np.ndarray) else blocks:
            found += len(block)
            if block.dtype != kind or block.shape[1:] != (size,) or found > expected:
                break
            for rows in [block[row : row + 1] for row in range(len(block))] if missing else [block]:
                while not all(there[place : place + len(rows)]):
                    self._writers[name].append(absent)
                    place += 1
                self._writers[name].append(rows)
                place += len(rows)
        else:
            if found == expected:
                for _ in range(place, len(there)):
                    self._writers[name].append(absent)
                return expected
            block = np.empty((0, size), kind)
        got, wanted = f"{block.dtype} {[found, *block.shape[1:]]}", f"{np.dtype(kind)} {[expected, size]}"
        raise LayoutError(f"member {record.row['member']}: {name} is {got}, expected {wanted}")

    def finish(self) -> None:
        if len(self._models) != self._header.models:
            raise LayoutError(f"{len(self._models)} models, the header announces {self._header.models}")
        self._close_shard()
        self._flush_epochs()
        self._epochs.close()
        schema = fmt.models_schema(sparse=self._header.sparse is not None, rows=self._models)
        self._write_table(fmt.MODELS, self._models, schema)
        provenance = pa.Table.from_pylist(self._provenance, schema=fmt.PROVENANCE_SCHEMA)
        write_provenance(self._folder / fmt.PROVENANCE, provenance, **_PARQUET)
        for name in (fmt.MODELS, fmt.EPOCHS):
            self._files[name] = StoredFile.of(self._folder / name)
        statuses = Counter(row["status"] for row in self._models)
        counts = {
            "states": self._states,
            "parameters": self._layout.trained,
            **{status: statuses[status] for status in STATUSES},
            **({PARTIAL: statuses[PARTIAL]} if statuses[PARTIAL] else {}),
        }
        files = tuple(self._files[name] for name in sorted(self._files))
        text = json.dumps(encode(self._header, counts, files), indent=1, sort_keys=True) + "\n"
        (self._folder / fmt.HEADER).write_text(text, encoding="utf-8")
        for name in (fmt.HEADER, fmt.MODELS, fmt.EPOCHS, fmt.PROVENANCE):
            with (self._folder / name).open("rb") as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        for writer in self._writers.values():
            writer.abandon()
        if self._epochs.is_open:
            self._epochs.close()

    def _check(self, record: ModelRecord) -> None:
        """Raises LayoutError, naming the member."""
        who = f"member {record.row.get('member')}"
        wrong = {*_GIVEN, *_MAY_COME} ^ {*record.row, *_MAY_COME}
        if wrong:
            raise LayoutError(f"{who}: the row lacks or has too many of {', '.join(sorted(wrong))}")
        length, reached = _length(record), self._reached(record)
        classes = self._header.architecture.classes
        absent = set(record.row.get("missing_epochs") or ()) - {*self._header.checkpoint_epochs[:reached]}
        if absent:
            raise LayoutError(
                f"{who}: missing_epochs has {sorted(absent)}, which the zoo does not keep or it did not reach"
            )
        expected: dict[str, tuple[Any, type, tuple[int, ...]]] = {
            "val_class_accuracy": (record.val_class_accuracy, np.float32, (length, classes)),
            "test_class_accuracy": (record.test_class_accuracy, np.float32, (length, classes)),
            **{name: (record.metrics.get(name), np.float32, (length,)) for name in self._metrics},
        }
        if self._header.sparse is not None:
            lacking = [name for name in self._header.sparse.tensors if name not in record.sparse]
            if lacking:
                raise LayoutError(f"{who}: {lacking[0]} is nothing, which a zoo of sparse models holds")
            layers = len(self._header.sparse.prunable)
            expected["layer_sparsity"] = (record.layer_sparsity, np.float32, (length, layers))
        if self._header.probe_images:
            expected["probe"] = (record.probe, np.float16, (reached, self._header.probe_images, classes))
        for name, (array, kind, shape) in expected.items():
            if array is None or array.dtype != kind or array.shape != shape:
                got = "nothing" if array is None else f"{array.dtype} {list(array.shape)}"
                raise LayoutError(f"{who}: {name} is {got}, expected {np.dtype(kind)} {list(shape)}")

    def _reached(self, record: ModelRecord) -> int:
        """How many of the kept epochs the model got to."""
        return sum(epoch < _length(record) for epoch in self._header.checkpoint_epochs)

    def _padded(self, rows: np.ndarray) -> np.ndarray:
        """One model's rows `[1, kept epochs, ...]`, NaN where it did not get."""
        kept = len(self._header.checkpoint_epochs)
        if len(rows) == kept:
            return rows[None]
        padded = np.full((1, kept, *rows.shape[1:]), np.nan, rows.dtype)
        padded[0, : len(rows)] = rows
        return padded

    def _open_shard(self, first: int) -> None:
        self._close_shard()
        shard = first // self._per_shard
        header, kept = self._header, len(self._header.checkpoint_epochs)
        models = min(self._per_shard, header.models - first)
        about = {"format": fmt.FORMAT, "first_model": first, "epochs": list(header.checkpoint_epochs)}
        shape = (models, kept, self._layout.size)
        for name in ("weights", *(() if header.sparse is None else header.sparse.tensors)):
            dtype = "U8" if fmt.SPARSE_TENSORS.get(name) is np.uint8 else "F32"
            place = self._folder / fmt.tensor_file(name, shard)
            self._writers[name] = TensorWriter(place, name, dtype, shape, about, row_axes=2)
        if header.probe_images:
            shape = (models, kept, header.probe_images, header.architecture.classes)
            self._writers["logits"] = TensorWriter(self._folder / fmt.probe_file(shard), "logits", "F16", shape, about)

    def _close_shard(self) -> None:
        for writer in self._writers.values():
            writer.close()
            self._files[writer.path.name] = StoredFile(writer.path.name, writer.bytes, writer.digest)
        self._writers = {}

    def _flush_epochs(self) -> None:
        if not self._pending:
            return
        lengths = [_length(record) for record in self._pending]
        numbers = np.arange(self._flushed, self._flushed + len(lengths), dtype=np.int32)
        columns: list[pa.Array] = [
            pa.array(np.repeat(numbers, lengths)),
            pa.array(np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])),
        ]
        metrics = (np.concatenate([each.metrics[name] for each in self._pending]) for name in fmt.METRICS)
        columns.extend(pa.array(_canonical(values)) for values in metrics)
        columns.extend(self._lists(name) for name in fmt.CLASS_METRICS)
        if self._header.sparse is not None:
            sparse = (np.concatenate([each.metrics[name] for each in self._pending]) for name in fmt.SPARSE_METRICS)
            columns.extend(pa.array(_canonical(values)) for values in sparse)
            columns.append(self._lists("layer_sparsity"))
        self._epochs.write_table(pa.Table.from_arrays(columns, schema=self._epochs_schema))
        self._flushed += len(self._pending)
        self._pending = []

    def _lists(self, name: str) -> pa.Array:
        """A column of lists of the pending records."""
        values = _canonical(np.concatenate([getattr(each, name) for each in self._pending]))
        offsets = np.arange(len(values) + 1, dtype=np.int32) * np.int32(values.shape[1])
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.reshape(-1)))

    def _write_table(self, name: str, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
        table = pa.Table.from_pylist(rows, schema=schema)
        with pq.ParquetWriter(self._folder / name, schema, **_PARQUET) as writer:
            writer.write_table(table)


# Everything that decides the bytes is said here rather than left to the library's defaults.
_PARQUET: dict[str, Any] = {
    "version": "2.6",
    "compression": "zstd",
    "compression_level": 3,
    "use_dictionary": True,
    "data_page_version": "1.0",
    "write_statistics": True,
}


def _length(record: ModelRecord) -> int:
    return int(record.row["last_epoch"]) + 1


def _derived(record: ModelRecord) -> dict[str, Any]:
    """The final metrics, and those of the epoch of the highest validation accuracy, the earliest of equals.

    An imported model whose accuracy was never validated has no best epoch.
    """
    accuracy = record.metrics["val_accuracy"]
    best = int(np.argmax(np.where(np.isnan(accuracy), -1, accuracy)))
    final = {name: float(_canonical(values)[-1]) for name, values in record.metrics.items()}
    if record.row.get("source") is not None and np.isnan(accuracy).all():
        return {**final, "best_epoch": None, "best_val_accuracy": np.nan, "best_test_accuracy": np.nan}
    return {
        **final,
        "best_epoch": best,
        "best_val_accuracy": float(accuracy[best]),
        "best_test_accuracy": float(record.metrics["test_accuracy"][best]),
    }


def _canonical(values: np.ndarray) -> np.ndarray:
    """The same values with every NaN the same bits: which NaN a division gives differs between processors."""
    return np.where(np.isnan(values), np.float32(np.nan), values)
