"""What varies in a zoo: the generating factors, the seeds, and how members are chosen from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from weightzoo.mistakes import TAG, refusal, short
from weightzoo.spec.values import (
    MAX_EPOCHS,
    MAX_MODELS,
    ActivationKind,
    Distinct,
    Initialisation,
    Listed,
    NonNegative,
    Number,
    OptimizerKind,
    Positive,
    PositiveInt,
    Rate,
    Section,
    Seed,
    SeedSource,
    expand_kind,
    kind_of,
)


class Range(Section):
    """A continuous factor of a search: all values between `low` and `high`, on a logarithmic scale if `log`."""

    low: NonNegative = Field(description="`low`, the smallest value")
    high: Positive = Field(description="`high`, the largest value")
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise refusal(f"got {self.low}, which is not below high, {self.high}", "low")
        if self.log and self.low == 0:
            raise refusal("a logarithmic range can't start at 0; give a small positive number", "low")
        return self


def _values_or_range(value: object) -> str:
    return TAG + ("range" if isinstance(value, Mapping | Range) else "values")


_ValuesOrRange = Discriminator(_values_or_range)
_Range = Annotated[Range, Tag(TAG + "range")]


class Factors(Section):
    """The generating factors, each a list of values (a grid is their product) or, in a search, a range."""

    init: Annotated[tuple[Initialisation, ...], Listed, Distinct] = ("kaiming_uniform",)
    activation: Annotated[tuple[ActivationKind, ...], Listed, Distinct] = ("relu",)
    optimizer: Annotated[tuple[OptimizerKind, ...], Listed, Distinct] = ("adam",)
    learning_rate: Annotated[
        Annotated[tuple[Positive, ...], Distinct, Tag(TAG + "values")] | _Range, _ValuesOrRange, Listed
    ] = (1e-3,)
    weight_decay: Annotated[
        Annotated[tuple[NonNegative, ...], Distinct, Tag(TAG + "values")] | _Range, _ValuesOrRange, Listed
    ] = (0.0,)
    dropout: Annotated[Annotated[tuple[Rate, ...], Distinct, Tag(TAG + "values")] | _Range, _ValuesOrRange, Listed] = (
        0.0,
    )

    @model_validator(mode="after")
    def _ranges_within_bounds(self) -> Self:
        if isinstance(self.dropout, Range) and self.dropout.high >= 1:
            raise refusal(f"got {self.dropout.high}, expected a number below 1", "dropout", "high")
        if isinstance(self.learning_rate, Range) and self.learning_rate.low == 0:
            raise refusal("got 0, expected a number above 0", "learning_rate", "low")
        return self

    @property
    def ranges(self) -> tuple[str, ...]:
        """The names of the factors that are ranges."""
        return tuple(name for name in type(self).model_fields if isinstance(getattr(self, name), Range))

    @property
    def points(self) -> int:
        """The number of points of the grid.

        Raises:
            ValueError: a factor is a range.
        """
        if self.ranges:
            raise ValueError(f"{self.ranges[0]} is a range, which has no number of points")
        return math.prod(len(cast("tuple[Any, ...]", values)) for _, values in self)


class _Seeds(Section):
    """What the three kinds of seeds share: which sources of randomness vary, the others staying at the first seed."""

    vary: Annotated[tuple[SeedSource, ...], Listed, Distinct] = ("init", "order", "dropout")


class FixedSeeds(_Seeds):
    """The same seeds for every grid point: `first`, `first + 1`, ..."""

    first: Seed = 1
    count: PositiveInt = Field(description="`count`, the number of seeds; or `random: N`; or a list of seeds")

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        if self.first + self.count > 2**63:
            raise refusal("the last seed is above 2**63 - 1; start lower", "first")
        return self

    @property
    def values(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(range(self.first, self.first + self.count))


class ListedSeeds(_Seeds):
    """The same seeds for every grid point, one by one; a plain list is short for it."""

    values: Annotated[tuple[Seed, ...], Distinct]

    @property
    def count(self) -> int:
        """The number of seeds."""
        return len(self.values)


class RandomSeeds(_Seeds):
    """`random` seeds of its own for every grid point, drawn from the zoo's seed and the point."""

    random: PositiveInt

    @property
    def count(self) -> int:
        """The number of seeds a point."""
        return self.random


def _expand_seeds(value: object) -> object:
    if isinstance(value, list | tuple):
        return {"values": value}
    if not isinstance(value, Mapping | _Seeds):
        raise refusal(f"got {short(value)}, expected {{count: N}}, {{random: N}} or a list of seeds")
    return value


def _seeds_kind(value: object) -> str:
    keys = value if isinstance(value, Mapping) else type(cast("_Seeds", value)).model_fields
    return TAG + ("random seeds" if "random" in keys else "listed seeds" if "values" in keys else "fixed seeds")


AnySeeds = Annotated[
    Annotated[FixedSeeds, Tag(TAG + "fixed seeds")]
    | Annotated[ListedSeeds, Tag(TAG + "listed seeds")]
    | Annotated[RandomSeeds, Tag(TAG + "random seeds")],
    Discriminator(_seeds_kind),
    BeforeValidator(_expand_seeds),
]
_SEEDS = "`seeds`: {count: N}, {random: N} or a list of seeds"


class SeedConfiguration(Section):
    """One set of hyperparameters, many seeds."""

    kind: Literal["seed"]
    seeds: AnySeeds = Field(description=_SEEDS)


class GridConfiguration(Section):
    """The full product of all factors, each point with several seeds; or `members` of these, spread over the grid."""

    kind: Literal["grid"]
    seeds: AnySeeds = Field(description=_SEEDS)
    members: PositiveInt | None = None


class Pruner(Section):
    """Stops members early, by what earlier batches of the search reached at the same epoch.

    `median` stops those below the median of the members trained to the end, from `warmup_epochs` on (Golovin et al.
    2017, "Google Vizier", median stopping); `halving` stops, at the epochs `warmup_epochs`, times `reduction`, times
    `reduction` squared, ..., all but the best 1/`reduction` (asynchronous successive halving, Li et al. 2018, arXiv
    1810.05934).
    """

    kind: Literal["median", "halving"] = "median"
    warmup_epochs: PositiveInt = 5
    reduction: Annotated[int, Number, Field(ge=2, le=100)] = 3


class SearchConfiguration(Section):
    """Points drawn from the factors by a sampler; TPE learns from the members trained so far, batch by batch.

    Every member has a random seed of its own, drawn from the zoo's seed and its point.
    """

    kind: Literal["search"]
    sampler: Literal["random", "qmc", "tpe"] = "random"
    models: PositiveInt = Field(description="`models`, the number of models to train")
    batch: PositiveInt = 64
    objective: Literal["val_accuracy", "val_loss"] = "val_accuracy"
    pruner: Annotated[Pruner | None, BeforeValidator(expand_kind)] = None

    @model_validator(mode="after")
    def _pruner_has_something_to_compare_with(self) -> Self:
        if self.pruner is not None and self.models <= self.batch:
            raise refusal(
                f"got {self.batch} for {self.models} models; a pruner compares with earlier batches, make it smaller",
                "batch",
            )
        return self


class EvolutionConfiguration(Section):
    """Population-based training (Jaderberg et al. 2017, arXiv 1711.09846): generations of `models` members each.

    The first draws its hyperparameters from the factors. Behind each, the worst `exploit` of the members take over
    weights and hyperparameters of the best `exploit` and explore: learning rate, weight decay and dropout are each
    multiplied or divided by `perturb`, or drawn anew with probability `resample`. All others go on as they are. Every
    member is trained for `training.epochs`: from the first state to the last it is `generations` times as many.
    """

    kind: Literal["evolution"]
    models: Annotated[int, Number, Field(ge=2, le=MAX_MODELS)] = Field(
        description="`models`, the number of models of a generation"
    )
    generations: Annotated[int, Number, Field(ge=2, le=MAX_EPOCHS)] = 10
    objective: Literal["val_accuracy", "val_loss"] = "val_accuracy"
    exploit: Annotated[float, Number, Field(ge=0, le=0.5)] = 0.2
    perturb: Annotated[float, Number, Field(gt=1, le=100)] = 1.2
    resample: Annotated[float, Number, Field(ge=0, le=1)] = 0.25


Configuration = Annotated[
    Annotated[SeedConfiguration, Tag(TAG + "seed")]
    | Annotated[GridConfiguration, Tag(TAG + "grid")]
    | Annotated[SearchConfiguration, Tag(TAG + "search")]
    | Annotated[EvolutionConfiguration, Tag(TAG + "evolution")],
    Discriminator(kind_of),
    BeforeValidator(expand_kind),
]
