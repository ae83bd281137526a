"""How loops are cut into register tiles. Tiles decide the speed, never a result."""

from __future__ import annotations

from collections.abc import Iterator

L1_BYTES = 32 * 1024  # what a kernel may reuse of the first-level cache


def block_size(total: int, limit: int) -> int:
    """The size of the blocks that `total` is cut into: a divisor if one is near `limit`, else as even as possible."""
    limit = max(1, min(total, limit))
    divisor = max(size for size in range(1, limit + 1) if total % size == 0)
    return divisor if divisor * 3 >= limit * 2 else -(-total // -(-total // limit))


def spans(total: int, size: int) -> Iterator[tuple[int, int, int]]:
    """`(start, stop, block)`: the whole blocks of `size`, then the remainder as one smaller block."""
    whole = total // size * size
    if whole:
        yield 0, whole, size
    if whole < total:
        yield whole, total, total - whole
