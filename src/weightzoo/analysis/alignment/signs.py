"""Which hidden units may change their sign as well."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from weightzoo.architectures import Architecture
from weightzoo.architectures.graph import BatchNorm, Conv, Layer, Linear, MaxPool, Residual, Symmetry
from weightzoo.architectures.layers import walk

ODD_ACTIVATIONS = ("tanh",)


def odd_groups(architecture: Architecture, activation: str) -> frozenset[str]:
    """The groups of units whose sign is free: negating what goes into a unit and what comes out changes nothing.

    That is so where everything between is odd or linear: an odd activation, and no max-pool (in a CNN(s) behind the
    first two convolutions), batch normalisation or residual connection (Chen, Lu and Hecht-Nielsen 1993, "On the
    geometry of feedforward neural network error surfaces").
    """
    if activation not in ODD_ACTIVATIONS:
        return frozenset()
    by_layer = groups_by_layer(architecture.symmetries)
    bound = {by_layer.get(name, "") for name in _bound(architecture.layers)}
    return frozenset(group.name for group in architecture.symmetries) - bound


def groups_by_layer(symmetries: Iterable[Symmetry]) -> dict[str, str]:
    """The group that each layer's outputs belong to, by names; not of layers whose outputs have a fixed order."""
    return {
        axis.parameter.rpartition(".")[0]: group.name for group in symmetries for axis in group.axes if axis.axis == 0
    }


def _bound(layers: Iterable[Layer]) -> Iterator[str]:
    """The layers whose outputs meet something that is not odd, by name."""
    last = ""
    for layer in layers:
        match layer:
            case Conv() | Linear():
                last = layer.name
            case MaxPool() | BatchNorm():
                yield last
            case Residual():
                yield last
                yield from (one.name for one in walk([layer]) if isinstance(one, Conv | Linear))
            case _:
                pass
