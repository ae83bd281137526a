"""A tensor `[models, epochs, ...]` that is spread over several files by models, read in parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from weightzoo.errors import FormatError
from weightzoo.zoo.place import Place
from weightzoo.zoo.tensors import TensorRows


@dataclass(frozen=True)
class ShardedTensor:
    """All shards; each but the last has as many models as the first."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    shards: tuple[TensorRows, ...]

    @classmethod
    def open(cls, place: Place, name: Callable[[int], str], tensor: str, kind: type, shape: tuple[int, ...]) -> Self:
        """Look at the shards `name(0)`, `name(1)`, ... of a tensor that has this shape in all.

        Raises:
            MissingError: a shard is missing.
            FormatError: one is damaged, or does not have the type and shape that it should.
        """
        shards: list[TensorRows] = []
        while (first := sum(shard.shape[0] for shard in shards)) < shape[0]:
            file = name(len(shards))
            found = place.tensor(file, tensor)
            left = shape[0] - first
            own = found.shape[0] if found.shape else 0
            models = min(shards[0].shape[0], left) if shards else max(1, min(own, left))
            expected = (models, *shape[1:])
            if found.dtype != kind or found.shape != expected:
                got, wanted = f"{found.dtype} {list(found.shape)}", f"{np.dtype(kind)} {list(expected)}"
                path = place.name(file)
                raise FormatError(f"{path}: {tensor} is {got}, expected {wanted}; assemble or pull the zoo again")
            shards.append(found)
        return cls(shape, np.dtype(kind), tuple(shards))

    def read(self, rows: np.ndarray, positions: Sequence[int], span: slice) -> np.ndarray:
        """A copy of `[rows, positions, span]`; only that is read."""
        width = len(range(*span.indices(self.shape[2])))
        result = np.empty((len(rows), len(positions), width, *self.shape[3:]), self.dtype)
        shard, start = np.divmod(rows, self.shards[0].shape[0] if self.shards else 1)
        for number in np.unique(shard):
            (own,) = np.nonzero(shard == number)
            if len(own) == own[-1] - own[0] + 1:
                self.shards[number].read_into(result[own[0] : own[-1] + 1], start[own], positions, span)
            else:
                part = np.empty((len(own), *result.shape[1:]), self.dtype)
                self.shards[number].read_into(part, start[own], positions, span)
                result[own] = part
        return result
