"""Population-based training: generations of members, of which the worst go on from the best with hyperparameters moved.

After Jaderberg et al. 2017, "Population based training of neural networks", arXiv 1711.09846: exploit by truncation
selection, explore by perturbing or drawing anew. What happens between two generations is `succession`; `Evolution`
makes members of it, each of which starts from its parent's weights with a fresh optimiser, so that its record alone
says how it is trained.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weightzoo import seeds
from weightzoo.members import FACTORS, Hyperparameters, Member, Parent, Seeds
from weightzoo.points import Result, check_complete, member, protocol_of, unique
from weightzoo.spec import EvolutionConfiguration, Factors, Range, ZooSpec

EXPLORED = ("learning_rate", "weight_decay", "dropout")  # the others are part of what the weights were trained for


@dataclass(frozen=True)
class Successor:
    """What takes a place of the next generation: whose weights, by place, and with which hyperparameters."""

    parent: int
    hyperparameters: Hyperparameters


def first_generation(factors: Factors, models: int, seed: int) -> list[Hyperparameters]:
    """Hyperparameters drawn from the factors: uniformly from lists and ranges, from the logarithm where they say so."""
    draws = seeds.uniforms(seed, "evolution", 0, size=models * len(FACTORS)).reshape(models, len(FACTORS))
    spaces = [(name, getattr(factors, name)) for name in FACTORS]
    return [
        Hyperparameters(**{name: _drawn(space, float(u)) for (name, space), u in zip(spaces, own, strict=True)})
        for own in draws
    ]


def succession(
    values: Sequence[float],
    chosen: Sequence[Hyperparameters],
    factors: Factors,
    rule: EvolutionConfiguration,
    seed: int,
    generation: int,
) -> list[Successor]:
    """The next generation, given how good each of the members is, the larger the better, NaN if it diverged.

    The worst `rule.exploit` of the members, and whoever diverged, are replaced by members of the best `rule.exploit`,
    one drawn for each, whose hyperparameters are explored: a number is divided or multiplied by `rule.perturb`, moved
    to a neighbour in a list, or with probability `rule.resample` drawn anew. All others go on as they are.
    `generation`, from 1 on, only decides the draws.

    Raises:
        ValueError: all diverged.
    """
    alive = [place for place, value in enumerate(values) if not math.isnan(value)]
    if not alive:
        raise ValueError("all members diverged, so that none is left to go on from")
    order = sorted(alive, key=lambda place: -values[place])  # stable: of equals the first is the better
    cut = min(math.floor(rule.exploit * len(values)), len(order) // 2)
    best, worst = order[: max(cut, 1)], set(order[len(order) - cut :])
    following: list[Successor] = []
    for place, own in enumerate(chosen):
        if place in worst or math.isnan(values[place]):
            draw, *draws = seeds.uniforms(seed, "evolution", generation, place, size=1 + 2 * len(EXPLORED)).tolist()
            parent = best[int(draw * len(best))]
            following.append(Successor(parent, explored(chosen[parent], factors, rule, draws)))
        else:
            following.append(Successor(place, own))
    return following


def explored(
    chosen: Hyperparameters, factors: Factors, rule: EvolutionConfiguration, draws: Sequence[float]
) -> Hyperparameters:
    """The hyperparameters moved, by two draws on [0, 1) for each of `EXPLORED`: whether to draw anew, and which way."""
    moved: dict[str, float] = {}
    for place, name in enumerate(EXPLORED):
        space, value, (anew, way) = getattr(factors, name), getattr(chosen, name), draws[2 * place : 2 * place + 2]
        if anew < rule.resample:
            moved[name] = _drawn(space, way)
        elif isinstance(space, Range):
            scaled = value * rule.perturb if way < 0.5 else value / rule.perturb
            moved[name] = min(max(scaled, space.low), space.high)
        else:
            ordered = sorted(space)
            neighbour = bisect.bisect_left(ordered, value) + (1 if way < 0.5 else -1)
            moved[name] = ordered[min(max(neighbour, 0), len(ordered) - 1)]
    return dataclasses.replace(chosen, **moved)


class Evolution:
    """The population of an evolution zoo: a batch is a generation, each member of it trained for `training.epochs`."""

    def __init__(self, spec: ZooSpec, dataset_hash: str) -> None:
        assert isinstance(spec.configuration, EvolutionConfiguration)
        self._spec, self._dataset_hash, self._rule = spec, dataset_hash, spec.configuration
        self._generation = 0
        self._members: tuple[Member, ...] = ()
        self._values: list[float] | None = None  # of the members, once they have been told

    def ask(self) -> tuple[Member, ...]:
        """The next generation; empty after the last, and where all members of one diverged.

        Raises:
            ValueError: the results of the generation before have not been told.
        """
        if self._members and self._values is None:
            raise ValueError("tell the results of the last generation before asking for the next")
        ended = self._values is not None and all(map(math.isnan, self._values))
        if self._generation == self._rule.generations or ended:
            return ()
        spec, models = self._spec, self._rule.models
        numbers = seeds.spawn(spec.seed, f"evolution seeds {self._generation}", models)
        if self._values is None:
            chosen = first_generation(spec.factors, models, spec.seed)
            made = [
                member(spec, self._dataset_hash, own, Seeds.all(number))
                for own, number in zip(chosen, numbers, strict=True)
            ]
        else:
            now = [one.hyperparameters for one in self._members]
            following = succession(self._values, now, spec.factors, self._rule, spec.seed, self._generation)
            made = [self._child(one, number) for one, number in zip(following, numbers, strict=True)]
        self._members, self._values = unique(made), None
        self._generation += 1
        return self._members

    def tell(self, results: Mapping[str, Result]) -> None:
        """The results of the generation. A member counts by the objective of its last epoch.

        Raises:
            ValueError: a member has no result.
        """
        check_complete(self._members, results)
        sign = 1 if self._rule.objective == "val_accuracy" else -1
        self._values = [
            sign * own.objective[-1] if own.status == "finished" else math.nan
            for own in (results[one.id] for one in self._members)
        ]

    def prune(self, epoch: int, values: Mapping[str, float]) -> set[str]:
        """None: a generation is trained to its end."""
        return set()

    def _child(self, one: Successor, number: int) -> Member:
        parent = self._members[one.parent]
        return Member(
            dataset=self._spec.dataset,
            dataset_hash=self._dataset_hash,
            architecture=self._spec.architecture,
            hyperparameters=one.hyperparameters,
            seeds=Seeds.all(number),
            protocol=protocol_of(self._spec.training),
            config_kind="evolution",
            parent=Parent(parent.id, self._spec.training.epochs, parent.group),
        )


def _drawn(space: Range | Sequence[Any], u: float) -> Any:
    """One value, by a draw on [0, 1)."""
    if not isinstance(space, Range):
        return space[int(u * len(space))]
    if space.log:
        return math.exp(math.log(space.low) + u * math.log(space.high / space.low))
    return space.low + u * (space.high - space.low)
