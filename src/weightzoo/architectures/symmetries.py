"""Permutation symmetries as a table, found by following the units of each layer through the graph."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from weightzoo.architectures.layers import BatchNorm, Conv, Layer, Linear, Residual, Shape, output_shape, tensors


@dataclass(frozen=True)
class PermutedAxis:
    """One axis of one parameter that a permutation acts on, in blocks of `block` consecutive entries.

    `block` is 1 but behind a flatten, where each channel owns `height * width` consecutive input features.
    """

    parameter: str
    axis: int
    block: int = 1


@dataclass(frozen=True)
class Symmetry:
    """A group of hidden units whose order is free: permuting all `axes` alike leaves the function unchanged."""

    name: str
    size: int
    axes: tuple[PermutedAxis, ...]


def find_symmetries(layers: Iterable[Layer], input_shape: Shape) -> tuple[Symmetry, ...]:
    """The groups of a graph in order, each named after the first layer that gives its units."""
    streams = _Streams()
    pixels = streams.new("", input_shape[0])
    logits, _ = streams.through(layers, pixels, input_shape)
    fixed = {streams.find(pixels), streams.find(logits)}
    axes: dict[int, list[tuple[str, int, int]]] = {}
    for stream, touched in streams.touched:
        axes.setdefault(streams.find(stream), []).append(touched)
    return tuple(
        Symmetry(
            streams.names[root],
            units := streams.units[root],
            tuple(PermutedAxis(name, axis, length // units) for name, axis, length in axes.get(root, [])),
        )
        for root in sorted(set(map(streams.find, range(len(streams.names)))) - fixed)
    )


class _Streams:
    """Sets of units that must keep a common order: what a layer gives, and all that it is added to (union-find).

    Every stream is numbered in graph order and knows its parent; a root is the first of its set.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.units: list[int] = []
        self.touched: list[tuple[int, tuple[str, int, int]]] = []  # stream, and parameter, axis, length of the axis
        self._parents: list[int] = []

    def new(self, name: str, units: int) -> int:
        self.names.append(name)
        self.units.append(units)
        self._parents.append(len(self._parents))
        return self._parents[-1]

    def find(self, stream: int) -> int:
        while self._parents[stream] != stream:
            stream = self._parents[stream]
        return stream

    def tie(self, one: int, other: int) -> int:
        """Make two streams one. If only one of them went through a flatten, whole channels keep together."""
        first, second = sorted((self.find(one), self.find(other)))
        self._parents[second] = first
        self.units[first] = math.gcd(self.units[first], self.units[second])
        return first

    def through(self, layers: Iterable[Layer], stream: int, shape: Shape) -> tuple[int, Shape]:
        """The stream and the shape behind some layers."""
        for layer in layers:
            match layer:
                case Conv() | Linear():
                    weight, *bias = tensors(layer)
                    self.touched.append((stream, (weight[0], 1, weight[1][1])))
                    stream = self.new(layer.name, weight[1][0])
                    self.touched += [(stream, (name, 0, own[0])) for name, own in (weight, *bias)]
                case BatchNorm():
                    self.touched += [(stream, (name, 0, own[0])) for name, own in tensors(layer)]
                case Residual():
                    body, _ = self.through(layer.body, stream, shape)
                    shortcut, _ = self.through(layer.shortcut, stream, shape)
                    stream = self.tie(body, shortcut)
                case _:
                    pass
            shape = output_shape(layer, shape, "")
        return stream, shape
