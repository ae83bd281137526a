"""The packed zoo on disk: file names, columns and types. README, "File formats", is its prose.

zoo.json                     what holds for the whole zoo, and the size and hash of every other file
models.parquet               a row a model
epochs.parquet               a row a model and epoch, every epoch from 0 to the model's last one
weights-00000.safetensors    "weights" float32 [models, kept epochs, P], shards of at most 1 GiB (at least one model)
probe-00000.safetensors      "logits" float16 [models, kept epochs, images, classes], the same models a shard
provenance.parquet           what differs between two builds of one zoo; not in the file list of zoo.json

and of a zoo of sparse models:

mask-00000.safetensors           "mask" uint8 [models, kept epochs, P], 0 where a weight is dropped
log-variance-00000.safetensors   "log_variance" float32 [models, kept epochs, P], if variational dropout made it sparse
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from weightzoo.checkpoints import METRICS, SPARSE_METRICS

FORMAT = "weightzoo zoo 1"
HEADER, MODELS, EPOCHS, PROVENANCE = "zoo.json", "models.parquet", "epochs.parquet", "provenance.parquet"
SHARD_BYTES = 2**30

CLASS_METRICS = ("val_class_accuracy", "test_class_accuracy")


def _field(name: str, kind: pa.DataType, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable)


# The columns of models.parquet that a record brings along ...
GIVEN = (
    _field("member", pa.string()),
    _field("group", pa.string()),
    _field("split", pa.string()),
    _field("status", pa.string()),
    _field("last_epoch", pa.int32()),
    _field("diverged_epoch", pa.int32(), nullable=True),
    _field("init", pa.string()),
    _field("activation", pa.string()),
    _field("optimizer", pa.string()),
    _field("learning_rate", pa.float64()),
    _field("weight_decay", pa.float64()),
    _field("dropout", pa.float64()),
    _field("seed_init", pa.int64()),
    _field("seed_order", pa.int64()),
    _field("seed_dropout", pa.int64()),
    _field("engine", pa.string()),
)
# ... those that follow from its metrics ...
DERIVED = (
    *(_field(name, pa.float32()) for name in METRICS),
    _field("best_epoch", pa.int32()),
    _field("best_val_accuracy", pa.float32()),
    _field("best_test_accuracy", pa.float32()),
)
# ... and the lineage of a twin or fine-tuned model.
LINEAGE = (_field("parent", pa.string(), nullable=True), _field("parent_epoch", pa.int32(), nullable=True))
# Some zoos have more columns: those of sparse models ...
SPARSE = tuple(_field(name, pa.float32()) for name in SPARSE_METRICS)
# ... and those with imported models: the model's name where it came from, all that was said of it there as JSON, and
# the kept epochs up to its last whose weights it lacks.
IMPORTED = (
    _field("source", pa.string(), nullable=True),
    _field("source_config", pa.string(), nullable=True),
    _field("missing_epochs", pa.list_(pa.int32()), nullable=True),
)
# What is not known of every imported model: these columns are nullable in a zoo where something is missing.
MAY_MISS = (
    *("init", "activation", "optimizer", "learning_rate", "weight_decay", "dropout"),
    *("seed_init", "seed_order", "seed_dropout", "best_epoch"),
)
# The columns of epochs.parquet, and what those of sparse models have beside SPARSE.
MEASURED = (
    _field("model", pa.int32()),
    _field("epoch", pa.int32()),
    *(_field(name, pa.float32()) for name in METRICS),
    *(_field(name, pa.list_(pa.float32())) for name in CLASS_METRICS),
)
LAYER_SPARSITY = _field("layer_sparsity", pa.list_(pa.float32()))
PROVENANCE_SCHEMA = pa.schema(
    [
        _field("member", pa.string()),
        _field("run_id", pa.string(), nullable=True),
        _field("seconds", pa.float64(), nullable=True),
        _field("started", pa.timestamp("ms", tz="UTC"), nullable=True),
        _field("ended", pa.timestamp("ms", tz="UTC"), nullable=True),
        _field("machine", pa.string(), nullable=True),
        _field("version", pa.string(), nullable=True),
    ]
)
NULLABLE_INTEGERS = ("diverged_epoch", "parent_epoch")
# The tensors [models, kept epochs, P] of sparse models, beside the weights, and their types.
SPARSE_TENSORS: dict[str, type[np.generic]] = {"mask": np.uint8, "log_variance": np.float32}


def models_schema(*, sparse: bool, rows: Sequence[Mapping[str, Any]] = ()) -> pa.Schema:
    """The columns of models.parquet: what every zoo of such models has, and what is needed for these rows."""
    missing = {name for name in MAY_MISS if any(row[name] is None for row in rows)}
    fields = [field.with_nullable(True) if field.name in missing else field for field in (*GIVEN, *DERIVED, *LINEAGE)]
    imported = [field for field in IMPORTED if any(row[field.name] is not None for row in rows)]
    return pa.schema([*fields, *(SPARSE if sparse else ()), *imported])


def epochs_schema(*, sparse: bool) -> pa.Schema:
    """The columns of epochs.parquet."""
    return pa.schema([*MEASURED, *((*SPARSE, LAYER_SPARSITY) if sparse else ())])


def plain(schema: pa.Schema) -> pa.Schema:
    """The columns that a table would have if none of its models were imported."""
    fields = (field for field in schema if field not in IMPORTED)
    return pa.schema([field.with_nullable(False) if field.name in MAY_MISS else field for field in fields])


def is_ours(path: Path) -> bool:
    """Whether a file has the name of one of a zoo's.

    >>> [is_ours(Path(name)) for name in ("zoo.json", "log-variance-00003.safetensors", "thesis.tex")]
    [True, True, False]
    """
    if path.name in (HEADER, MODELS, EPOCHS, PROVENANCE):
        return True
    return re.fullmatch(r"(weights|probe|mask|log-variance)-\d{5,}\.safetensors", path.name) is not None


def weights_file(shard: int) -> str:
    """The name of a shard of weights."""
    return tensor_file("weights", shard)


def tensor_file(name: str, shard: int) -> str:
    """The name of a shard of a tensor `[models, kept epochs, P]`."""
    return f"{name.replace('_', '-')}-{shard:05d}.safetensors"


def probe_file(shard: int) -> str:
    """The name of a shard of probe outputs."""
    return f"probe-{shard:05d}.safetensors"


def models_per_shard(epochs: int, parameters: int) -> int:
    """How many models' weights fit in one shard; at least one."""
    return max(1, SHARD_BYTES // (4 * epochs * parameters))
