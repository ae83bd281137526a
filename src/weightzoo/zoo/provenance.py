"""`provenance.parquet`: it differs between two builds, so `zoo.json` can't hold its hash; it has a checksum itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from weightzoo.errors import FormatError
from weightzoo.zoo.tensors import HASH_BYTES

_KEY = b"weightzoo.checksum"


def write_provenance(path: Path, table: pa.Table, **options: Any) -> None:
    """Write a table of `format.PROVENANCE_SCHEMA`, with the checksum of its rows."""
    pq.write_table(table.replace_schema_metadata({_KEY: _checksum(table)}), path, **options)


def require_unaltered(table: pa.Table, path: str) -> None:
    """Compare the rows with their checksum; the first versions wrote none.

    Raises:
        FormatError: they are not those that were written.
    """
    metadata = table.schema.metadata or {}
    try:
        unaltered = not metadata or metadata.get(_KEY) == _checksum(table)
    except (ValueError, pa.ArrowException):  # texts that are none any more, dates beyond the calendar
        unaltered = False
    if not unaltered:
        raise FormatError(f"{path}: altered since it was written; assemble or pull the zoo again")


def _checksum(table: pa.Table) -> bytes:
    rows = json.dumps(table.to_pylist(), default=str, sort_keys=True)
    return hashlib.blake2b(rows.encode(), digest_size=HASH_BYTES).hexdigest().encode()
