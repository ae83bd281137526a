"""The sizes of a convolution with the max-pooling behind it, and the arrays that follow from them."""

from __future__ import annotations

from dataclasses import dataclass

from weightzoo.training.lanes.choice import choice_type
from weightzoo.training.lanes.language import ArrayType


@dataclass(frozen=True)
class Geometry:
    """The sizes of a convolution. `pool` is 1 without pooling; what fills no window is never computed."""

    in_channels: int
    height: int
    width: int
    out_channels: int
    kernel: int
    stride: int
    padding: int
    pool: int

    @property
    def conv_output(self) -> tuple[int, int]:
        """Rows and columns before pooling."""
        height, width = (
            1 + (side + 2 * self.padding - self.kernel) // self.stride for side in (self.height, self.width)
        )
        return height, width

    @property
    def out_height(self) -> int:
        """Rows behind pooling."""
        return self.conv_output[0] // self.pool

    @property
    def out_width(self) -> int:
        """Columns behind pooling."""
        return self.conv_output[1] // self.pool

    @property
    def output(self) -> tuple[int, int, int]:
        """The shape behind pooling."""
        return self.out_channels, self.out_height, self.out_width

    @property
    def padded(self) -> tuple[int, int, int]:
        """The shape of the input with its zero border."""
        return self.in_channels, self.height + 2 * self.padding, self.width + 2 * self.padding

    @property
    def weight(self) -> ArrayType:
        """`[out, in, kernel, kernel]`."""
        return ArrayType((self.out_channels, self.in_channels, self.kernel, self.kernel))

    @property
    def choice(self) -> ArrayType:
        """Which conv output of each window is the greatest (see `choice`)."""
        return choice_type(self.output, self.pool)

    @property
    def spread(self) -> ArrayType:
        """The gradient of the conv outputs, `stride` apart and zero in between (see `spread_gradient`)."""
        rows, columns = (1 + (size * self.pool - 1) * self.stride for size in (self.out_height, self.out_width))
        return ArrayType((self.out_channels, rows, columns))

    @property
    def is_spread(self) -> bool:
        """Whether the input gradient needs `spread_gradient` first."""
        return self.pool > 1 or self.stride > 1
