"""A tensor `[models, epochs, ...]` that is spread over several files by models, read in parts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from weightzoo.errors import FormatError
from weightzoo.zoo.tensors import open_tensor


@dataclass(frozen=True)
class ShardedTensor:
    """The memory maps of all shards; each but the last has as many models as the first."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    shards: tuple[np.ndarray, ...]

    @classmethod
    def open(cls, folder: Path, name: Callable[[int], str], tensor: str, kind: type, shape: tuple[int, ...]) -> Self:
        """Map the shards `name(0)`, `name(1)`, ... of a tensor that has this shape in all.

        Raises:
            MissingError: a shard is missing.
            FormatError: one is damaged, or does not have the type and shape that it should.
        """
        shards: list[np.ndarray] = []
        while (first := sum(map(len, shards))) < shape[0]:
            path = folder / name(len(shards))
            mapped, _ = open_tensor(path, tensor)
            left = shape[0] - first
            models = min(len(shards[0]), left) if shards else max(1, min(len(mapped), left))
            expected = (models, *shape[1:])
            if mapped.dtype != kind or mapped.shape != expected:
                got, wanted = f"{mapped.dtype} {list(mapped.shape)}", f"{np.dtype(kind)} {list(expected)}"
                raise FormatError(f"{path}: {tensor} is {got}, expected {wanted}; assemble or pull the zoo again")
            shards.append(mapped)
        return cls(shape, np.dtype(kind), tuple(shards))

    def read(self, rows: np.ndarray, positions: Sequence[int], span: slice) -> np.ndarray:
        """A copy of `[rows, positions, span]`; only that is read from the disk."""
        columns = _as_slice(positions)
        width = len(range(*span.indices(self.shape[2])))
        result = np.empty((len(rows), len(positions), width, *self.shape[3:]), self.dtype)
        shard, start = np.divmod(rows, len(self.shards[0]) if self.shards else 1)
        for first, end in _runs(rows, shard):
            block = self.shards[shard[first]][start[first] : start[first] + (end - first)]
            result[first:end] = block[:, columns, span]
        return result


def _as_slice(positions: Sequence[int]) -> slice | list[int]:
    """Ascending positions at equal distances as a slice, which the memory map reads without an intermediate copy."""
    step = positions[1] - positions[0] if len(positions) > 1 else 1
    if len(positions) and step > 0 and list(positions) == list(range(positions[0], positions[-1] + 1, step)):
        return slice(positions[0], positions[-1] + 1, step)
    return list(positions)


def _runs(rows: np.ndarray, shard: np.ndarray) -> list[tuple[int, int]]:
    """`[first, end)` of each run of consecutive rows within one shard."""
    if not len(rows):
        return []
    breaks = np.flatnonzero((np.diff(rows) != 1) | (np.diff(shard) != 0)) + 1
    return list(itertools.pairwise([0, *breaks.tolist(), len(rows)]))
