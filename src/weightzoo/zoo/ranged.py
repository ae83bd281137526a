"""Parts of a tensor in a file that is far away: which bytes they are, and by how few requests they come."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from weightzoo.s3.folder import BLOCK
from weightzoo.zoo.tensors import TensorEntry

# Between two wanted parts so many unwanted bytes are read along rather than asked around: at 50 MB/s they take the
# millisecond that one more request costs even on the same machine, and on a long way much less than that.
GAP = 2**16


class RangedTensor:
    """A tensor `[models, epochs, P, ...]` of which only what is asked for is read, by ranges of bytes."""

    def __init__(self, entry: TensorEntry, read: Callable[[Sequence[tuple[int, int]]], Iterator[bytes]]) -> None:
        """`read` gives the content of ranges `[begin, end)` of the file, in their order."""
        self.shape, self.dtype = entry.shape, entry.dtype
        self._start, self._read = entry.start, read

    def read_into(self, out: np.ndarray, rows: np.ndarray, positions: Sequence[int], span: slice) -> None:
        """Fill `out` `[rows, positions, span, ...]`, which is contiguous."""
        begin, end, _ = span.indices(self.shape[2])
        if not out.size:
            return
        inner = math.prod(self.shape[3:]) * self.dtype.itemsize
        states = rows.astype(np.int64)[:, None] * self.shape[1] + np.asarray(positions, np.int64)[None, :]
        starts = self._start + (states.ravel() * self.shape[2] + begin) * inner
        pieces = _pieces(starts, (end - begin) * inner)
        ranges = _ranges(pieces)
        target = out.reshape(-1).view(np.uint8)
        left: Iterator[Any] = iter(pieces)
        piece = next(left, None)
        for (first, last), content in zip(ranges, self._read(ranges), strict=True):
            block = np.frombuffer(content, np.uint8)
            while piece is not None and piece[0] + piece[1] <= last:
                start, length, place = piece
                target[place : place + length] = block[start - first : start - first + length]
                piece = next(left, None)


def _pieces(starts: np.ndarray, length: int) -> list[tuple[int, int, int]]:
    """`(start in the file, bytes, place in the result)` of equally long parts, in the order of the file.

    Long parts are cut, so that a connection that breaks costs little.
    """
    cuts = range(0, length, BLOCK)
    order = np.argsort(starts, kind="stable")
    return [
        (int(starts[part]) + cut, min(BLOCK, length - cut), int(part) * length + cut) for part in order for cut in cuts
    ]


def _ranges(pieces: Sequence[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Ranges of at most `BLOCK` bytes that cover the pieces, each piece in one of them, in their order."""
    ranges: list[tuple[int, int]] = []
    begin, end = pieces[0][0], pieces[0][0]
    for start, length, _ in pieces:
        last = max(end, start + length)
        if start - end > GAP or last - begin > BLOCK:
            ranges.append((begin, end))
            begin, last = start, start + length
        end = last
    return [*ranges, (begin, end)]
