"""A zoo's section of `params.yaml` to its members: seeds, grids, and searches that ask for members batch by batch."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol as Interface

from weightzoo import seeds
from weightzoo.errors import SpecError
from weightzoo.members import FACTORS, Hyperparameters, Member, Protocol, Seeds
from weightzoo.spec import RandomSeeds, SearchConfiguration, ZooSpec


@dataclass(frozen=True)
class Result:
    """What a population is told of a trained member."""

    status: str  # finished | diverged | pruned
    objective: list[float]  # per epoch, 0..last


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
    if isinstance(configuration, SearchConfiguration):
        from weightzoo.search import search  # Optuna takes a third of a second to import

        return search(spec, dataset_hash)
    return FixedPopulation(grid_members(spec, dataset_hash))


def grid_members(spec: ZooSpec, dataset_hash: str) -> tuple[Member, ...]:
    """All members of a seed or grid zoo: the grid's points in order, the seeds of a point side by side."""
    configuration = spec.configuration
    assert not isinstance(configuration, SearchConfiguration)
    wanted = configuration.seeds
    return unique(
        member(spec, dataset_hash, point, Seeds.all(seed))
        for point in grid(spec)
        for seed in (point_seeds(spec.seed, point, wanted.random) if isinstance(wanted, RandomSeeds) else wanted.values)
    )


def grid(spec: ZooSpec) -> list[Hyperparameters]:
    """The product of all factor values, the last factor varying fastest.

    Optuna's GridSampler draws the same points, but its cost grows with the cube of their number (6 s at 576 points,
    47 s at 1,200), so the product is taken directly.
    """
    values = [getattr(spec.factors, name) for name in FACTORS]
    return [Hyperparameters(*point) for point in itertools.product(*values)]


def point_seeds(zoo_seed: int, point: Hyperparameters, count: int) -> tuple[int, ...]:
    """Distinct random seeds of one point, a function of the zoo's seed and the point alone.

    So a wider grid, or one more seed a point, leaves the members there are as they are.
    """
    key = json.dumps(dataclasses.asdict(point), sort_keys=True)
    return seeds.spawn(zoo_seed, f"member seeds {key}", count)


def member(spec: ZooSpec, dataset_hash: str, hyperparameters: Hyperparameters, own_seeds: Seeds) -> Member:
    """The member of a zoo with these hyperparameters and seeds."""
    return Member(
        dataset=spec.dataset,
        dataset_hash=dataset_hash,
        architecture=spec.architecture,
        hyperparameters=hyperparameters,
        seeds=own_seeds,
        protocol=protocol_of(spec),
        config_kind=spec.configuration.kind,
    )


def protocol_of(spec: ZooSpec) -> Protocol:
    """The training protocol of a zoo's section."""
    training = spec.training
    return Protocol(
        training.epochs, training.batch_size, training.schedule, training.momentum, training.checkpoint_epochs
    )


def unique(members: Iterable[Member]) -> tuple[Member, ...]:
    """The members, after a check that no two of them are the same model.

    Raises:
        SpecError: two are.
    """
    listed: dict[str, Member] = {}
    for one in members:
        if one.id in listed:
            raise SpecError(f"the zoo has the same model twice: {one.hyperparameters} with {one.seeds}; remove a seed")
        listed[one.id] = one
    return tuple(listed.values())


def check_complete(batch: tuple[Member, ...], results: Mapping[str, Result]) -> None:
    """Check that every member of a batch has its result.

    Raises:
        ValueError: one has none.
    """
    missing = [one.id for one in batch if one.id not in results]
    if missing:
        raise ValueError(f"no result for {len(missing)} of {len(batch)} members, the first is {missing[0]}")
