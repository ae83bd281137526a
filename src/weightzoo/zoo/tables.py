"""Reading a table of a zoo: only if its columns are those of the format, and it does not grow beyond measure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from weightzoo.errors import FormatError, UnsafeError
from weightzoo.zoo import format as fmt

GROWTH = 100  # how many times its file a table may take in memory; those of real zoos take three to ten times
SMALL = 16_000_000  # bytes that any table may take


def read_table(source: Path | pa.NativeFile, size: int, schema: pa.Schema, name: str) -> pa.Table:
    """The table of a Parquet file of `size` bytes; its footer is looked at before anything is unpacked.

    Raises:
        FormatError: it has other columns.
        UnsafeError: it would take a hundred times its size.
        ArrowException: it is no Parquet file, or truncated.
        OSError: it can't be read.
    """
    with pq.ParquetFile(source) as file:
        found = fmt.plain(file.schema_arrow)
        if not found.equals(schema):
            differing = sorted(set(schema) ^ set(found), key=str)
            raise FormatError(f"{name}: columns differ from the format at {', '.join(map(str, differing))}")
        unpacked = _unpacked(file.metadata)
        if unpacked > GROWTH * size + SMALL:
            raise UnsafeError(f"{name}: {size:,} bytes would take {unpacked:,} when read; refused")
        return file.read()


def _unpacked(metadata: Any) -> int:
    """About how many bytes the columns take: as encoded, or at eight bytes a value where runs are stored as one."""
    columns = (
        metadata.row_group(group).column(column)
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    )
    return sum(max(one.total_uncompressed_size, 8 * one.num_values) for one in columns)
