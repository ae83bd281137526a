"""A zoo's section of `params.yaml` to its members: seeds, grids, and searches that ask for members batch by batch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Protocol as Interface

from weightzoo.evolution import Evolution
from weightzoo.members import FACTORS, Hyperparameters, Member
from weightzoo.points import Result, check_complete, member, point_seeds, unique, varied
from weightzoo.spec import EvolutionConfiguration, GridConfiguration, RandomSeeds, SearchConfiguration, ZooSpec
from weightzoo.spread import spread

__all__ = ["FixedPopulation", "Population", "Result", "grid", "grid_members", "population"]


class Population(Interface):
    """The members of a zoo, handed out in batches. What is asked for depends on the section and on what was told, only.

    So a killed build replays itself: ask, tell the results of the members that are already trained, train the others.
    """

    def ask(self) -> tuple[Member, ...]:
        """The next members to train; empty when there are no more. The former batch must have been told."""
        ...

    def tell(self, results: Mapping[str, Result]) -> None:
        """The results of the whole batch asked for last, by member id.

        Raises:
            ValueError: a member of the batch has no result.
        """
        ...

    def prune(self, epoch: int, values: Mapping[str, float]) -> set[str]:
        """Which members to stop behind `epoch`, by the objective of those still training; member ids on both sides."""
        ...


class FixedPopulation:
    """A population that is known beforehand: one batch with all members."""

    def __init__(self, members: tuple[Member, ...]) -> None:
        self.members = members
        self._asked = False

    def ask(self) -> tuple[Member, ...]:
        """All members at the first call, none after it."""
        asked, self._asked = self._asked, True
        return () if asked else self.members

    def tell(self, results: Mapping[str, Result]) -> None:
        """Nothing is learnt from results; that they are complete is checked all the same."""
        check_complete(self.members, results)

    def prune(self, epoch: int, values: Mapping[str, float]) -> set[str]:
        """None: all members are trained to the end."""
        return set()


def population(spec: ZooSpec, dataset_hash: str) -> Population:
    """The population of a zoo on the data set with this content hash."""
    configuration = spec.configuration
    if isinstance(configuration, EvolutionConfiguration):
        return Evolution(spec, dataset_hash)
    if isinstance(configuration, SearchConfiguration):
        from weightzoo.search import Search  # Optuna takes a third of a second to import

        return Search(spec, dataset_hash)
    return FixedPopulation(grid_members(spec, dataset_hash))


def grid_members(spec: ZooSpec, dataset_hash: str) -> tuple[Member, ...]:
    """All members of a seed or grid zoo: the grid's points in order, the seeds of a point side by side.

    Of a grid that asks for some `members` only, these, in the same order.
    """
    configuration = spec.configuration
    assert not isinstance(configuration, SearchConfiguration | EvolutionConfiguration)
    wanted = configuration.seeds
    everyone = unique(
        member(spec, dataset_hash, point, own)
        for point in grid(spec)
        for own in varied(
            point_seeds(spec.seed, point, wanted.random) if isinstance(wanted, RandomSeeds) else wanted.values,
            wanted.vary,
        )
    )
    some = configuration.members if isinstance(configuration, GridConfiguration) else None
    if some is None:
        return everyone
    axes = [*(len(getattr(spec.factors, name)) for name in FACTORS), wanted.count]
    return tuple(everyone[position] for position in spread(axes, some, spec.seed))


def grid(spec: ZooSpec) -> list[Hyperparameters]:
    """The product of all factor values, the last factor varying fastest.

    Optuna's GridSampler draws the same points, but its cost grows with the cube of their number (6 s at 576 points,
    47 s at 1,200), so the product is taken directly.
    """
    values = [getattr(spec.factors, name) for name in FACTORS]
    return [Hyperparameters(*point) for point in itertools.product(*values)]
