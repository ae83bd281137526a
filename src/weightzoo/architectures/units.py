"""The parameters of an architecture as a graph of units: which weights join which units, and which units are alike.

Units are nodes, the entries of biases and normalisation are a node's features, the weights between two units those of
an edge (Kofinas et al. 2024, arXiv 2403.12143; Lim et al. 2023, arXiv 2312.04501). All is read off the layout and the
symmetries, so it holds for every architecture that has these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from weightzoo.architectures.graph import Architecture

if TYPE_CHECKING:
    from torch import Tensor

    Vectors = TypeVar("Vectors", np.ndarray, Tensor)


@dataclass(frozen=True)
class Units:
    """`size` units, and the vectors that hold `block` entries for each. If `free`, their order means nothing."""

    size: int
    free: bool
    vectors: tuple[tuple[str, slice, int], ...]  # parameter, where it is in the weight vector, block

    @property
    def features(self) -> int:
        """How many entries the vectors hold for a unit."""
        return sum(block for *_, block in self.vectors)


@dataclass(frozen=True)
class Edges:
    """A weight tensor as `features` numbers for each unit of `target` and each of `source` (numbers of groups)."""

    parameter: str
    span: slice
    source: int
    target: int
    shape: tuple[int, int, int, int]  # target units, entries a target unit, source units, entries a source unit

    @property
    def features(self) -> int:
        """How many weights join two units."""
        return self.shape[1] * self.shape[3]


@dataclass(frozen=True)
class WeightGraph:
    """Groups of units, the input channels first and the logits last, and the edges in the order of the layout."""

    units: tuple[Units, ...]
    edges: tuple[Edges, ...]

    @classmethod
    def of(cls, architecture: Architecture) -> WeightGraph:
        """The graph of an architecture."""
        layout, groups = architecture.layout, architecture.symmetries
        owner = {(axis.parameter, axis.axis): number for number, group in enumerate(groups, 1) for axis in group.axes}
        sizes = [architecture.input_shape[0], *(group.size for group in groups), architecture.classes]
        vectors: list[list[tuple[str, slice, int]]] = [[] for _ in sizes]
        edges: list[Edges] = []
        for name, shape in layout.parameters:
            target = owner.get((name, 0), len(sizes) - 1)
            rows = sizes[target]
            if len(shape) == 1:
                vectors[target].append((name, layout.span(name), shape[0] // rows))
            else:
                source = owner.get((name, 1), 0)
                columns = sizes[source]
                split = (rows, shape[0] // rows, columns, math.prod(shape[1:]) // columns)
                edges.append(Edges(name, layout.span(name), source, target, split))
        units = (Units(size, 0 < number <= len(groups), tuple(vectors[number])) for number, size in enumerate(sizes))
        return cls(tuple(units), tuple(edges))

    def unit_features(self, weights: Vectors, group: int) -> list[Vectors]:
        """What each vector of a group holds for its units: `[N, units, block]` of weights `[N, P]`."""
        return [weights[:, span].reshape(len(weights), -1, block) for _, span, block in self.units[group].vectors]

    def edge_features(self, weights: Vectors, edges: Edges) -> Vectors:
        """The weights between each two units, `[N, target units, source units, features]`, of weights `[N, P]`."""
        split = weights[:, edges.span].reshape(len(weights), *edges.shape)
        return split.swapaxes(2, 3).reshape(len(weights), edges.shape[0], edges.shape[2], edges.features)
