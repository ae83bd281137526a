"""The columns that only some zoos have, of sparse models and of imported ones, alone and together."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.zoo import synthetic_zoo
from weightzoo.errors import FormatError
from weightzoo.verify import verify_zoo
from weightzoo.zoo import ModelRecord, Sparse, Zoo, ZooHeader, write_zoo
from weightzoo.zoo.header import StoredFile

LACKING = 2  # the epoch whose weights an imported model lacks


def imported(made: ModelRecord) -> ModelRecord:
    """The record without the weights of an epoch, and without two of the seeds."""
    there = np.arange(len(made.weights)) != LACKING
    row = {**made.row, "seed_order": None, "seed_dropout": None, "source": "elsewhere", "missing_epochs": [LACKING]}
    return dataclasses.replace(
        made, row=row, weights=made.weights[there], sparse={name: own[there] for name, own in made.sparse.items()}
    )


def header(*, sparse: bool) -> ZooHeader:
    head = dataclasses.replace(synthetic_zoo.header(3), probe_images=0)
    return dataclasses.replace(
        head, sparse=Sparse(("mask", "log_variance"), head.architecture.prunable) if sparse else None
    )


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("foreign", [False, True])
def test_a_zoo_has_the_columns_of_its_models_and_no_others(tmp_path, sparse, foreign) -> None:
    head = header(sparse=sparse)
    records = [synthetic_zoo.record(number, head) for number in range(3)]
    records = [synthetic_zoo.made_sparse(made, head) for made in records] if sparse else records
    if foreign:
        records[1] = imported(records[1])
    zoo = Zoo.open(write_zoo(tmp_path / "zoo", head, records))

    schema = pq.read_schema(zoo.path / "models.parquet")
    after = schema.names[schema.names.index("parent_epoch") + 1 :]
    assert after == ["train_objective", "sparsity"] * sparse + ["source", "missing_epochs"] * foreign
    assert [schema.field(name).nullable for name in ("seed_init", "seed_order", "seed_dropout")] == [
        False,
        foreign,
        foreign,
    ]
    assert ("layer_sparsity" in zoo.epochs) == sparse
    assert {finding.severity for finding in verify_zoo(zoo.path)} == {"ok", "note"}
    present = np.ones((3, 5), bool)
    present[1, LACKING] = not foreign
    np.testing.assert_array_equal(zoo.present, present)
    np.testing.assert_array_equal(np.isnan(zoo.weights(raw=True)).all(-1), ~present)
    np.testing.assert_array_equal(zoo.weights(1, 4, raw=True)[0, 0], np.asarray(records[1].weights)[-1])
    if sparse:
        np.testing.assert_array_equal((zoo.masks() == 0).all(-1), ~present)
        np.testing.assert_array_equal(zoo.masks(1, 4)[0, 0], records[1].sparse["mask"][-1])  # pyright: ignore
        np.testing.assert_array_equal(np.isnan(zoo.log_variances()).all(-1), ~present)


def test_columns_that_the_header_does_not_announce_are_refused(tmp_path) -> None:
    head = header(sparse=True)
    records = [synthetic_zoo.made_sparse(synthetic_zoo.record(number, head), head) for number in range(3)]
    write_zoo(tmp_path / "sparse", head, records)
    dense = header(sparse=False)
    write_zoo(tmp_path / "dense", dense, [synthetic_zoo.record(number, dense) for number in range(3)])
    table = tmp_path / "dense" / "models.parquet"
    table.write_bytes((tmp_path / "sparse" / "models.parquet").read_bytes())
    place = tmp_path / "dense" / "zoo.json"
    record = json.loads(place.read_text())
    own = [file for file in record["files"] if file["name"] != table.name]
    record["files"] = [*own, dataclasses.asdict(StoredFile.of(table))]
    del record["checksum"]
    place.write_text(json.dumps(record))
    zoo = Zoo.open(tmp_path / "dense")
    with pytest.raises(FormatError, match=r"columns differ from the format at .*sparsity"):
        _ = zoo.models
