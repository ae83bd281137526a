"""The permutation symmetries of a zoo's architecture, acting on weight vectors.

Hidden units can be reordered without changing what a network computes: 8! 6! 4! 20! ways in a CNN(s). As an
augmentation it shows a method that learns from weights one function under many weight vectors (Schürholt, Kostadinov
and Borth 2021, "Self-Supervised Representation Learning on Neural Network Weights", arXiv 2110.15288).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from weightzoo import seeds
from weightzoo.architectures.graph import Architecture, Symmetry
from weightzoo.errors import LayoutError, NotFoundError
from weightzoo.layout import Layout

if TYPE_CHECKING:
    from torch import Tensor

    Vectors = TypeVar("Vectors", np.ndarray, Tensor)


@dataclass(frozen=True)
class Symmetries:
    """The groups of interchangeable hidden units, with the layout that tells where their weights are."""

    groups: tuple[Symmetry, ...]
    layout: Layout

    @classmethod
    def of(cls, architecture: Architecture) -> Symmetries:
        """The symmetries of an architecture."""
        return cls(architecture.symmetries, architecture.layout)

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[Symmetry]:
        return iter(self.groups)

    def __getitem__(self, name: str) -> Symmetry:
        if name not in self._by_name:
            raise NotFoundError(f"no symmetry {name!r}; there are {', '.join(self._by_name)}")
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, Symmetry]:
        return {group.name: group for group in self.groups}

    def index(self, permutations: Mapping[str, np.ndarray]) -> np.ndarray:
        """Int64 `[P]` such that `weights[..., index]` are the weights with the units reordered.

        `permutations` maps the name of a group to integers `[size]`: its unit i is then what was unit `permutation[i]`.
        Groups that are not named stay as they are.

        Raises:
            NotFoundError: there is no group of that name.
            LayoutError: the integers are no permutation of the group's units.
        """
        vector = np.arange(self.layout.size)
        places = self.layout.unflatten(vector)
        for name, permutation in permutations.items():
            group = self[name]
            order = np.asarray(permutation)
            if not np.array_equal(np.sort(order), np.arange(group.size)):
                raise LayoutError(f"{name}: expected a permutation of 0..{group.size - 1}, got {order.tolist()}")
            for axis in group.axes:
                inside = np.arange(axis.block)
                taken = (order[:, None] * axis.block + inside).reshape(-1)
                places[axis.parameter][...] = np.take(places[axis.parameter], taken, axis=axis.axis)
        return vector

    def random_index(self, seed: int, *position: int) -> np.ndarray:
        """`index` of uniform permutations of all groups, a function of the seed and the position alone."""
        drawn = enumerate(self.groups)
        return self.index(
            {
                group.name: seeds.permutation(seed, "permute", *position, number, size=group.size)
                for number, group in drawn
            }
        )


class Permute:
    """A transform that reorders the hidden units at random, anew at each call; the function stays the same.

    The draws are a function of `seed` and the number of the call. In a worker of a `DataLoader` the worker's own seed
    enters as well, so that workers and epochs differ; give the loader a `generator` to have them repeat.
    """

    def __init__(self, symmetries: Symmetries, seed: int = 0) -> None:
        self.symmetries = symmetries
        self.seed = seed
        self._calls = 0

    def __call__(self, vectors: Vectors) -> Vectors:
        """Weight vectors `[..., P]`, an array or a tensor, to reordered ones: all of one call alike."""
        if isinstance(vectors, np.ndarray):
            return vectors[..., self._index(0)]
        import torch
        from torch.utils.data import get_worker_info

        worker = get_worker_info()
        return vectors[..., torch.from_numpy(self._index(worker.seed if worker else 0))]

    def _index(self, worker_seed: int) -> np.ndarray:
        self._calls += 1
        return self.symmetries.random_index(self.seed, worker_seed, self._calls)
