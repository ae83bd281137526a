"""What grids and searches share: from a point of the hyperparameter space to its members, and the results of these."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from weightzoo import seeds
from weightzoo.errors import SpecError
from weightzoo.members import Hyperparameters, Member, Protocol, Seeds
from weightzoo.spec import SeedSource, Training, ZooSpec


@dataclass(frozen=True)
class Result:
    """What a population is told of a trained member."""

    status: str  # finished | diverged | pruned
    objective: list[float]  # per epoch, 0..last


def point_seeds(zoo_seed: int, point: Hyperparameters, count: int) -> tuple[int, ...]:
    """Distinct random seeds of one point, a function of the zoo's seed and the point alone.

    So a wider grid, or one more seed a point, leaves the members there are as they are.
    """
    key = json.dumps(dataclasses.asdict(point), sort_keys=True)
    return seeds.spawn(zoo_seed, f"member seeds {key}", count)


def varied(numbers: tuple[int, ...], vary: tuple[SeedSource, ...]) -> tuple[Seeds, ...]:
    """The seeds of members: each number for the sources of randomness that vary, the first for the others."""
    sources = get_args(SeedSource)
    return tuple(Seeds(**{name: number if name in vary else numbers[0] for name in sources}) for number in numbers)


def member(spec: ZooSpec, dataset_hash: str, hyperparameters: Hyperparameters, own_seeds: Seeds) -> Member:
    """The member of a zoo with these hyperparameters and seeds."""
    return Member(
        dataset=spec.dataset,
        dataset_hash=dataset_hash,
        architecture=spec.architecture,
        hyperparameters=hyperparameters,
        seeds=own_seeds,
        protocol=protocol_of(spec.training),
        config_kind=spec.configuration.kind,
    )


def protocol_of(training: Training) -> Protocol:
    """The protocol that a section's `training` describes."""
    return Protocol(
        training.epochs,
        training.batch_size,
        training.schedule,
        training.momentum,
        training.checkpoint_epochs,
        training.augmentation,
        training.precision,
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
