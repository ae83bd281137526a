"""`params.yaml` as typed models: what a zoo is made of, checked before anything runs.

Unknown keys and impossible values are refused with the place where they stand and what may stand there instead.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.error import MarkedYAMLError

from weightzoo.errors import MissingError, SpecError
from weightzoo.mistakes import TAG, Location, explain, nearest, refusal, short

Initialisation = Literal["uniform", "normal", "kaiming_uniform", "kaiming_normal"]
ActivationKind = Literal["tanh", "sigmoid", "relu", "gelu", "leaky_relu", "silu"]
OptimizerKind = Literal["adam", "adamw", "sgd"]
ArchitectureName = Literal["cnn-s", "cnn-m", "resnet-18", "cnn-gap"]
Precision = Literal["float32", "bfloat16"]
EngineChoice = Literal["auto", "reference", "torch", "lanes"]
SeedSource = Literal["init", "order", "dropout"]
DatasetSource = Literal[
    "digits", "mnist", "fashion-mnist", "svhn", "usps", "stl10", "cifar10", "cifar100", "tiny-imagenet"
]

MAX_MODELS = 1_000_000
MOST_VALUES = 1_000_000  # of a whole file
MAX_EPOCHS = 10_000
MAX_BATCH = 65_536
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_DEVICE = re.compile(r"cpu|mps|cuda(:\d{1,3})?")


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise refusal(f"got {short(value)}, expected a number")
    return value


def _plain_zero(value: float) -> float:
    return value + 0.0  # -0.0 would be another member than 0.0


_Number = BeforeValidator(_no_bool)
Seed = Annotated[int, _Number, Field(ge=0, lt=2**63)]
PositiveInt = Annotated[int, _Number, Field(ge=1, le=MAX_MODELS)]
Rate = Annotated[float, _Number, Field(ge=0, lt=1, allow_inf_nan=False), AfterValidator(_plain_zero)]
NonNegative = Annotated[float, _Number, Field(ge=0, le=1000, allow_inf_nan=False), AfterValidator(_plain_zero)]
Positive = Annotated[float, _Number, Field(gt=0, le=1000, allow_inf_nan=False)]
Divisor = Annotated[float, _Number, Field(ge=1, le=1e12, allow_inf_nan=False)]
Degrees = Annotated[float, _Number, Field(ge=0, le=180, allow_inf_nan=False), AfterValidator(_plain_zero)]
Fraction = Annotated[float, _Number, Field(gt=0, lt=1, allow_inf_nan=False)]


def _name(value: object) -> object:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise refusal(
            f"{short(value)} is no name; names are file names: a letter, then up to 63 letters, digits, '-' and '_'"
        )
    return value


def _device(value: object) -> object:
    if not isinstance(value, str) or not _DEVICE.fullmatch(value):
        raise refusal(f"got {short(value)}, expected cpu, cuda, cuda:0, cuda:1, ... or mps")
    return value


Name = Annotated[str, BeforeValidator(_name)]


def _kind_of(value: object) -> str:
    """The tag of a section's `kind`; a bare tag if it has none."""
    if isinstance(value, Mapping):
        return f"{TAG}{cast('Mapping[str, object]', value).get('kind', '')}"
    return f"{TAG}{getattr(value, 'kind', '')}"


def _expand_kind(value: object) -> object:
    """`schedule: cosine` is short for `schedule: {kind: cosine}`."""
    return {"kind": value} if isinstance(value, str) else value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Range(_Section):
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


def _listed(value: object) -> object:
    """One value for a list of one; a range as it is."""
    return value if isinstance(value, Mapping | Range | list | tuple) else (value,)


def _values_or_range(value: object) -> str:
    return TAG + ("range" if isinstance(value, Mapping | Range) else "values")


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise refusal("got an empty list, expected at least one value")
    for index, value in enumerate(values):
        if value in values[:index]:
            raise refusal(f"{short(value)} is there twice; remove one", index)
    return values


def _distinct_if_any(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return _distinct(values) if values else values


_Listed, _Distinct = BeforeValidator(_listed), AfterValidator(_distinct)
_ValuesOrRange = Discriminator(_values_or_range)
_Range = Annotated[Range, Tag(TAG + "range")]


class Factors(_Section):
    """The generating factors, each a list of values (a grid is their product) or, in a search, a range."""

    init: Annotated[tuple[Initialisation, ...], _Listed, _Distinct] = ("kaiming_uniform",)
    activation: Annotated[tuple[ActivationKind, ...], _Listed, _Distinct] = ("relu",)
    optimizer: Annotated[tuple[OptimizerKind, ...], _Listed, _Distinct] = ("adam",)
    learning_rate: Annotated[
        Annotated[tuple[Positive, ...], _Distinct, Tag(TAG + "values")] | _Range, _ValuesOrRange, _Listed
    ] = (1e-3,)
    weight_decay: Annotated[
        Annotated[tuple[NonNegative, ...], _Distinct, Tag(TAG + "values")] | _Range, _ValuesOrRange, _Listed
    ] = (0.0,)
    dropout: Annotated[
        Annotated[tuple[Rate, ...], _Distinct, Tag(TAG + "values")] | _Range, _ValuesOrRange, _Listed
    ] = (0.0,)

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


class _Seeds(_Section):
    """What the three kinds of seeds share: which sources of randomness vary, the others staying at the first seed."""

    vary: Annotated[tuple[SeedSource, ...], _Listed, _Distinct] = ("init", "order", "dropout")


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

    values: Annotated[tuple[Seed, ...], _Distinct]

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


class SeedConfiguration(_Section):
    """One set of hyperparameters, many seeds."""

    kind: Literal["seed"]
    seeds: AnySeeds = Field(description=_SEEDS)


class GridConfiguration(_Section):
    """The full product of all factors, each point with several seeds; or `members` of these, spread over the grid."""

    kind: Literal["grid"]
    seeds: AnySeeds = Field(description=_SEEDS)
    members: PositiveInt | None = None


class Pruner(_Section):
    """Stops members early, by what earlier batches of the search reached at the same epoch.

    `median` stops those below the median of the members trained to the end, from `warmup_epochs` on (Golovin et al.
    2017, "Google Vizier", median stopping); `halving` stops, at the epochs `warmup_epochs`, times `reduction`, times
    `reduction` squared, ..., all but the best 1/`reduction` (asynchronous successive halving, Li et al. 2018, arXiv
    1810.05934).
    """

    kind: Literal["median", "halving"] = "median"
    warmup_epochs: PositiveInt = 5
    reduction: Annotated[int, _Number, Field(ge=2, le=100)] = 3


class SearchConfiguration(_Section):
    """Points drawn from the factors by a sampler; TPE learns from the members trained so far, batch by batch.

    Every member has a random seed of its own, drawn from the zoo's seed and its point.
    """

    kind: Literal["search"]
    sampler: Literal["random", "qmc", "tpe"] = "random"
    models: PositiveInt = Field(description="`models`, the number of models to train")
    batch: PositiveInt = 64
    objective: Literal["val_accuracy", "val_loss"] = "val_accuracy"
    pruner: Annotated[Pruner | None, BeforeValidator(_expand_kind)] = None

    @model_validator(mode="after")
    def _pruner_has_something_to_compare_with(self) -> Self:
        if self.pruner is not None and self.models <= self.batch:
            raise refusal(
                f"got {self.batch} for {self.models} models; a pruner compares with earlier batches, make it smaller",
                "batch",
            )
        return self


class EvolutionConfiguration(_Section):
    """Population-based training (Jaderberg et al. 2017, arXiv 1711.09846): generations of `models` members each.

    The first draws its hyperparameters from the factors. Behind each, the worst `exploit` of the members take over
    weights and hyperparameters of the best `exploit` and explore: learning rate, weight decay and dropout are each
    multiplied or divided by `perturb`, or drawn anew with probability `resample`. All others go on as they are. Every
    member is trained for `training.epochs`: from the first state to the last it is `generations` times as many.
    """

    kind: Literal["evolution"]
    models: Annotated[int, _Number, Field(ge=2, le=MAX_MODELS)] = Field(
        description="`models`, the number of models of a generation"
    )
    generations: Annotated[int, _Number, Field(ge=2, le=MAX_EPOCHS)] = 10
    objective: Literal["val_accuracy", "val_loss"] = "val_accuracy"
    exploit: Annotated[float, _Number, Field(ge=0, le=0.5)] = 0.2
    perturb: Annotated[float, _Number, Field(gt=1, le=100)] = 1.2
    resample: Annotated[float, _Number, Field(ge=0, le=1)] = 0.25


Configuration = Annotated[
    Annotated[SeedConfiguration, Tag(TAG + "seed")]
    | Annotated[GridConfiguration, Tag(TAG + "grid")]
    | Annotated[SearchConfiguration, Tag(TAG + "search")]
    | Annotated[EvolutionConfiguration, Tag(TAG + "evolution")],
    Discriminator(_kind_of),
    BeforeValidator(_expand_kind),
]


class Constant(_Section):
    """The learning rate stays as it is."""

    kind: Literal["constant"] = "constant"


class OneCycle(_Section):
    """One cycle up to the learning rate and down again (Smith & Topin 2018, arXiv 1708.07120), annealed by cosine."""

    kind: Literal["one_cycle"] = "one_cycle"
    warmup: Fraction = 0.3
    start_divisor: Divisor = 25.0
    end_divisor: Divisor = 1e4
    base_momentum: Rate = 0.85
    max_momentum: Rate = 0.95

    @model_validator(mode="after")
    def _momentum_ordered(self) -> Self:
        if self.base_momentum > self.max_momentum:
            raise refusal(
                f"got {self.base_momentum}, which is above max_momentum, {self.max_momentum}", "base_momentum"
            )
        return self


class Cosine(_Section):
    """From the learning rate down to `end` times it, by half a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983)."""

    kind: Literal["cosine"] = "cosine"
    end: Rate = 0.0


class StepDecay(_Section):
    """The learning rate times `factor` every `every` epochs."""

    kind: Literal["step"] = "step"
    every: PositiveInt = Field(description="`every`, the number of epochs between two steps")
    factor: Fraction = 0.1


Schedule = Annotated[
    Annotated[Constant, Tag(TAG + "constant")]
    | Annotated[OneCycle, Tag(TAG + "one_cycle")]
    | Annotated[Cosine, Tag(TAG + "cosine")]
    | Annotated[StepDecay, Tag(TAG + "step")],
    Discriminator(_kind_of),
    BeforeValidator(_expand_kind),
]


class Every(_Section):
    """Every n-th epoch from `first` on (0 is before training), and always the last."""

    every: PositiveInt = Field(description="`every`, the number of epochs between two checkpoints")
    first: Annotated[int, _Number, Field(ge=0)] = 0


def _checkpoints_kind(value: object) -> str:
    if isinstance(value, Mapping | Every):
        return TAG + "every"
    return TAG + ("epochs" if isinstance(value, list | tuple) else "all")


def _checkpoints(value: object) -> object:
    if value != "all" and not isinstance(value, Mapping | Every | list | tuple):
        raise refusal(f"got {short(value)}, expected all, {{every: N}} or a list of epochs")
    return value


class Augmentation(_Section):
    """What training does at random to each image it visits; validation and test images stay as they are.

    `crop`: as large a part as the image, from the image with so many black pixels around it. `flip`: half of the images
    left to right. `rotation`: by up to so many degrees either way, black where nothing was. In this order.
    """

    crop: Annotated[int, _Number, Field(ge=0, le=256)] = 0
    flip: Annotated[bool, Field(strict=True)] = False
    rotation: Degrees = 0.0

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not (self.crop or self.flip or self.rotation):
            raise refusal("nothing is to be done; set crop, flip or rotation, or leave augmentation out")
        return self


class Training(_Section):
    """The training protocol, the same for all members of a zoo."""

    epochs: Annotated[int, _Number, Field(ge=1, le=MAX_EPOCHS)] = 50
    batch_size: Annotated[int, _Number, Field(ge=1, le=MAX_BATCH)] = 10
    schedule: Schedule = Constant()
    momentum: Rate = 0.9
    augmentation: Augmentation | None = None
    precision: Precision = "float32"
    checkpoints: Annotated[
        Annotated[Literal["all"], Tag(TAG + "all")]
        | Annotated[Every, Tag(TAG + "every")]
        | Annotated[tuple[Annotated[int, _Number, Field(ge=0)], ...], _Distinct, Tag(TAG + "epochs")],
        Discriminator(_checkpoints_kind),
        BeforeValidator(_checkpoints),
    ] = "all"

    @model_validator(mode="after")
    def _checkpoints_within_training(self) -> Self:
        if isinstance(self.checkpoints, tuple):
            for index, epoch in enumerate(self.checkpoints):
                if epoch > self.epochs:
                    raise refusal(f"got {epoch}, which is after the last epoch, {self.epochs}", "checkpoints", index)
        elif isinstance(self.checkpoints, Every) and self.checkpoints.first > self.epochs:
            given = self.checkpoints.first
            raise refusal(f"got {given}, which is after the last epoch, {self.epochs}", "checkpoints", "first")
        return self

    @property
    def checkpoint_epochs(self) -> tuple[int, ...]:
        """The epochs whose weights are kept, ascending; 0 is before training."""
        if isinstance(self.checkpoints, tuple):
            return tuple(sorted(set(self.checkpoints)))
        kept = self.checkpoints if isinstance(self.checkpoints, Every) else Every(every=1)
        return tuple(sorted({*range(kept.first, self.epochs + 1, kept.every), self.epochs}))


class LocalExecution(_Section):
    """Trained in the process that asks for it."""

    kind: Literal["local"] = "local"


class RayExecution(_Section):
    """Trained on the nodes of a Ray cluster: that at `address`, host:port, or of RAY_ADDRESS, or a new one here."""

    kind: Literal["ray"] = "ray"
    address: str | None = None


Execution = Annotated[
    Annotated[LocalExecution, Tag(TAG + "local")] | Annotated[RayExecution, Tag(TAG + "ray")],
    Discriminator(_kind_of),
    BeforeValidator(_expand_kind),
]


class DatasetSpec(_Section):
    """How an image data set is prepared. None stands for the source's own default (`weightzoo.datasets.sources`)."""

    source: DatasetSource = "digits"
    size: Annotated[int, _Number, Field(ge=8, le=256)] | None = None
    channels: Annotated[Literal[1, 3], _Number] | None = None  # 1 is grey, 3 is red, green, blue
    train: PositiveInt | None = None
    val: PositiveInt | None = None
    test: PositiveInt | None = None
    seed: Seed = 0


class ZooSpec(_Section):
    """One zoo: a population of members of one architecture on one data set."""

    dataset: str = Field(description="`dataset`, the name of a section below `datasets`")
    architecture: ArchitectureName = Field(description="`architecture`, e.g. cnn-s")
    configuration: Configuration = Field(description="`configuration`, e.g. {kind: grid, seeds: {count: 2}}")
    factors: Factors = Factors()
    training: Training = Training()
    engine: EngineChoice = "auto"
    device: Annotated[str, BeforeValidator(_device)] = "cpu"
    compile: Annotated[bool, Field(strict=True)] = False
    execution: Execution | None = None
    seed: Seed = 0
    collections: Annotated[tuple[Name, ...], _Listed, AfterValidator(_distinct_if_any)] = ()

    @property
    def models(self) -> int:
        """The number of its members."""
        configuration = self.configuration
        if isinstance(configuration, SearchConfiguration):
            return configuration.models
        if isinstance(configuration, EvolutionConfiguration):
            return configuration.models * configuration.generations
        wanted = configuration.members if isinstance(configuration, GridConfiguration) else None
        return wanted or self.factors.points * configuration.seeds.count

    @model_validator(mode="after")
    def _factors_fit_configuration(self) -> Self:
        kind = self.configuration.kind
        several = [name for name, values in self.factors if isinstance(values, Range) or len(values) > 1]
        drawn = kind in ("search", "evolution")
        if not drawn and self.factors.ranges:
            raise refusal(
                "a range, which only a search or an evolution can draw from; list values, or use kind: search",
                "factors",
                self.factors.ranges[0],
            )
        if kind == "seed" and several:
            raise refusal("several values, a seed zoo has one; use kind: grid", "factors", several[0])
        if drawn and not several:
            raise refusal("every factor has one value, so there is nothing to search; use kind: seed", "factors")
        return self

    @model_validator(mode="after")
    def _dropout_fits_architecture(self) -> Self:
        dropout = self.factors.dropout
        if self.architecture == "resnet-18" and (isinstance(dropout, Range) or any(dropout)):
            given = dropout.high if isinstance(dropout, Range) else max(dropout)
            raise refusal(f"got {given}; resnet-18 has no dropout layers, leave it at 0", "factors", "dropout")
        return self

    @model_validator(mode="after")
    def _members_differ(self) -> Self:
        if isinstance(self.configuration, SearchConfiguration | EvolutionConfiguration):
            return self
        own = self.configuration.seeds
        if own.vary == ("dropout",) and own.count > 1 and 0.0 in cast("tuple[float, ...]", self.factors.dropout):
            raise refusal(
                "without dropout, models that differ in its seed alone are equal", "configuration", "seeds", "vary"
            )
        models = self.factors.points * own.count
        if models > MAX_MODELS:
            raise refusal(f"{models:,} models, expected at most {MAX_MODELS:,}; list fewer values or seeds")
        wanted = self.configuration.members if isinstance(self.configuration, GridConfiguration) else None
        if wanted is not None and wanted > models:
            raise refusal(f"got {wanted}, the grid has {models:,} members", "configuration", "members")
        return self

    @model_validator(mode="after")
    def _generations_follow_each_other(self) -> Self:
        if not isinstance(self.configuration, EvolutionConfiguration):
            return self
        training, schedule = self.training, self.training.schedule.kind
        if training.epochs not in training.checkpoint_epochs:
            message = f"epoch {training.epochs} is missing, which the next generation starts from"
            raise refusal(message, "training", "checkpoints")
        if schedule != "constant":
            message = f"got {schedule}, which would start anew in each generation; leave it out"
            raise refusal(message, "training", "schedule")
        return self

    @model_validator(mode="after")
    def _training_fits(self) -> Self:
        if self.engine == "lanes" and self.device != "cpu":
            raise refusal(f"got lanes, which runs on the cpu, not on {self.device}; use auto or torch", "engine")
        pruner = self.configuration.pruner if isinstance(self.configuration, SearchConfiguration) else None
        if pruner is not None and pruner.warmup_epochs >= self.training.epochs:
            raise refusal(
                f"got {pruner.warmup_epochs}, which leaves nothing to prune before epoch {self.training.epochs}",
                "configuration",
                "pruner",
                "warmup_epochs",
            )
        return self


class Scale(_Section):
    """How small a rehearsal is: at most so many members, training images, and epochs."""

    members: PositiveInt = 16
    images: PositiveInt = 500
    epochs: PositiveInt = 2


def _start_epoch(value: object) -> object:
    if value not in ("last", "best") and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise refusal(f"got {short(value)}, expected last, best or the number of an epoch")
    return value


class Start(_Section):
    """Where members start from: models of a packed zoo below `zoos/`, behind an epoch.

    `last` is the last that the zoo holds of a model, `best` the one of the highest validation accuracy. `where` is a
    condition on the columns of the zoo's table of models.
    """

    zoo: Name = Field(description="`zoo`, the name of a packed zoo below zoos/")
    epoch: Annotated[Literal["last", "best"] | int, BeforeValidator(_start_epoch)] = "last"
    where: str | None = None


class Overrides(_Section):
    """Hyperparameters that replace those of the models started from; several values make a grid.

    The activation is part of the function that the weights were trained for, and stays.
    """

    init: Annotated[tuple[Initialisation, ...], _Listed, _Distinct] | None = None
    optimizer: Annotated[tuple[OptimizerKind, ...], _Listed, _Distinct] | None = None
    learning_rate: Annotated[tuple[Positive, ...], _Listed, _Distinct] | None = None
    weight_decay: Annotated[tuple[NonNegative, ...], _Listed, _Distinct] | None = None
    dropout: Annotated[tuple[Rate, ...], _Listed, _Distinct] | None = None


class Variational(_Section):
    """Sparsification by variational dropout (Molchanov et al. 2017, arXiv 1701.05369).

    The weight of the Kullback-Leibler term rises to `kl_weight` at the last epoch; weights whose log alpha reaches
    `threshold` are dropped; `log_variance` is the log sigma^2 that every weight starts with.
    """

    kind: Literal["variational"] = "variational"
    kl_weight: NonNegative = 0.01
    threshold: Annotated[float, _Number, Field(gt=-8, lt=8)] = 3.0
    log_variance: Annotated[float, _Number, Field(ge=-50, le=50)] = -10.0


class Magnitude(_Section):
    """Sparsification by iterative pruning of the smallest weights (Han et al. 2015, arXiv 1506.02626).

    To each of the `sparsities` in turn, at equal distances over all epochs, with training in between. The smallest
    weights are those of the whole network or, with `scope: layer`, of every layer.
    """

    kind: Literal["magnitude"] = "magnitude"
    sparsities: Annotated[tuple[Fraction, ...], _Listed, _Distinct] = Field(
        description="`sparsities`, shares of weights to prune, e.g. [0.5, 0.8, 0.9]"
    )
    scope: Literal["network", "layer"] = "network"

    @model_validator(mode="after")
    def _rising(self) -> Self:
        for index, (one, following) in enumerate(itertools.pairwise(self.sparsities), start=1):
            if following < one:
                raise refusal(f"got {following} behind {one}; pruned weights stay pruned", "sparsities", index)
        return self


Sparsification = Annotated[
    Annotated[Variational, Tag(TAG + "variational")] | Annotated[Magnitude, Tag(TAG + "magnitude")],
    Discriminator(_kind_of),
    BeforeValidator(_expand_kind),
]


class SparsifySpec(_Section):
    """A zoo of sparse twins: models of a packed zoo that are made sparse while they are trained on.

    Each with its own optimiser, learning rate, schedule, batch size and seeds, on the images that it was trained on.
    """

    start: Start = Field(description="`start`, e.g. {zoo: digits-seed}")
    method: Sparsification = Variational()
    epochs: Annotated[int, _Number, Field(ge=1, le=MAX_EPOCHS)] = 25
    engine: EngineChoice = "auto"
    device: Annotated[str, BeforeValidator(_device)] = "cpu"
    compile: Annotated[bool, Field(strict=True)] = False
    execution: Execution | None = None

    @model_validator(mode="after")
    def _an_epoch_a_step(self) -> Self:
        if isinstance(self.method, Magnitude) and len(self.method.sparsities) > self.epochs:
            raise refusal(f"got {self.epochs} for {len(self.method.sparsities)} sparsities; give each one", "epochs")
        return self


class FinetuneSpec(_Section):
    """A zoo whose members start from trained models, on any data set of the same image shape.

    Every model chosen by `start` is trained once for each point of `factors` and each of the `seeds`; what `factors`
    leaves out, and the seeds, are by default the model's own.
    """

    start: Start = Field(description="`start`, e.g. {zoo: digits-seed}")
    dataset: str = Field(description="`dataset`, the name of a section below `datasets`")
    factors: Overrides = Overrides()
    seeds: AnySeeds | None = None
    training: Training = Training()
    engine: EngineChoice = "auto"
    device: Annotated[str, BeforeValidator(_device)] = "cpu"
    compile: Annotated[bool, Field(strict=True)] = False
    execution: Execution | None = None
    seed: Seed = 0


class AnalysisSpec(_Section):
    """How zoos are analysed."""

    quick: Annotated[bool, Field(strict=True)] = False
    seed: Seed = 0


class Params(_Section):
    """All of `params.yaml`."""

    build: Annotated[tuple[str, ...], AfterValidator(_distinct_if_any)] = Field(
        description="`build`, the list of zoos that `dvc repro` builds"
    )
    rehearsal: Mapping[ArchitectureName, Scale] = {}
    execution: Execution = LocalExecution()
    datasets: Mapping[Name, DatasetSpec] = Field(description="`datasets`, a section a data set")
    zoos: Mapping[Name, ZooSpec] = Field(description="`zoos`, a section a zoo")
    finetune: Mapping[Name, FinetuneSpec] = Field(default_factory=dict[str, FinetuneSpec])
    sparsify: Mapping[Name, SparsifySpec] = Field(default_factory=dict[str, SparsifySpec])
    analysis: AnalysisSpec = AnalysisSpec()

    @model_validator(mode="after")
    def _names_resolve(self) -> Self:
        for index, name in enumerate(self.build):
            if name not in self.zoos:
                raise refusal(f"no zoo {short(name)} below `zoos`; {nearest(name, self.zoos)}", "build", index)
        for section, zoos in (("zoos", self.zoos), ("finetune", self.finetune)):
            for name, zoo in zoos.items():
                if zoo.dataset not in self.datasets:
                    remedy = nearest(zoo.dataset, self.datasets)
                    raise refusal(
                        f"no data set {short(zoo.dataset)} below `datasets`; {remedy}", section, name, "dataset"
                    )
        taken = dict.fromkeys(self.zoos, "zoos")
        for section, zoos in (("finetune", self.finetune), ("sparsify", self.sparsify)):
            for name in zoos:
                if name in taken:
                    raise refusal(f"there is a zoo of that name below `{taken[name]}`; choose another", section, name)
            taken |= dict.fromkeys(zoos, section)
        return self

    def zoo(self, name: str) -> ZooSpec:
        """The section of one zoo.

        Raises:
            SpecError: there is none of that name; the message names the nearest.
        """
        if name not in self.zoos:
            raise SpecError(f"no zoo {name!r} in params.yaml; {nearest(name, self.zoos)}")
        return self.zoos[name]

    def sparsified(self, name: str) -> tuple[str, SparsifySpec]:
        """The section of one zoo of sparse twins; or by default, if `name` is another zoo's, that of `<name>-sparse`.

        Returns:
            The name of the zoo of twins, and its section.
        """
        if name in self.sparsify:
            return name, self.sparsify[name]
        twins = f"{name}-sparse"
        return twins, self.sparsify.get(twins) or SparsifySpec(start=Start(zoo=name))

    def finetuned(self, name: str) -> FinetuneSpec:
        """The section of one zoo of fine-tuned models.

        Raises:
            SpecError: there is none of that name; the message names the nearest.
        """
        if name not in self.finetune:
            raise SpecError(f"no zoo {name!r} below `finetune` in params.yaml; {nearest(name, self.finetune)}")
        return self.finetune[name]


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check `params.yaml`, as YAML 1.2 and with the parser that DVC reads it with.

    Raises:
        MissingError: there is no such file.
        SpecError: it is no YAML, has a key twice, an unknown key or an impossible value.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file; run from the project's folder") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: can't be read as text: {error}") from None
    try:
        content = YAML(typ="safe").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise SpecError(
            f"{path}{line}: not valid YAML: {' '.join(str(error.problem or error.context).split())}"
        ) from None
    except (YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that does not exist, and the like
        raise SpecError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if _values(content, {}) > MOST_VALUES:
        raise SpecError(f"{path}: more than {MOST_VALUES:,} values, written out with its aliases; refused")
    return parse_params(content, source=str(path))


def _values(content: object, counted: dict[int, int]) -> int:
    """How many values there are when every alias is written out; what contains itself is left to the checks behind."""
    if not isinstance(content, dict | list):
        return 1
    if id(content) not in counted:
        counted[id(content)] = 0
        parts = content.values() if isinstance(content, dict) else content
        counted[id(content)] = 1 + sum(_values(part, counted) for part in parts)
    return counted[id(content)]


def parse_params(content: object, source: str = "params") -> Params:
    """Check what was read from `params.yaml`.

    Raises:
        SpecError: a line for every mistake: where it is, what was given, what is expected.
    """
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise SpecError("\n".join(f"{source}: {line}" for line in explain(error, content, _section_at))) from None


_SECTIONS: dict[str, type[BaseModel]] = {
    "factors": Factors,
    "training": Training,
    "augmentation": Augmentation,
    "pruner": Pruner,
    "start": Start,
    TAG + "variational": Variational,
    TAG + "magnitude": Magnitude,
    TAG + "range": Range,
    TAG + "fixed seeds": FixedSeeds,
    TAG + "listed seeds": ListedSeeds,
    TAG + "random seeds": RandomSeeds,
    TAG + "every": Every,
    TAG + "seed": SeedConfiguration,
    TAG + "grid": GridConfiguration,
    TAG + "search": SearchConfiguration,
    TAG + "evolution": EvolutionConfiguration,
    TAG + "constant": Constant,
    TAG + "one_cycle": OneCycle,
    TAG + "cosine": Cosine,
    TAG + "step": StepDecay,
    TAG + "local": LocalExecution,
    TAG + "ray": RayExecution,
}


_ZOO_SECTIONS: dict[str, type[BaseModel]] = {
    "datasets": DatasetSpec,
    "rehearsal": Scale,
    "finetune": FinetuneSpec,
    "sparsify": SparsifySpec,
}


def _section_at(location: Location) -> type[BaseModel]:
    """The section that the last part of a location is a key of."""
    section: type[BaseModel] = Params
    for depth, part in enumerate(location[:-1]):
        if depth == 1:  # the user's name of a data set or zoo, or an architecture
            section = _ZOO_SECTIONS.get(str(location[0]), ZooSpec)
        elif location[0] == "finetune" and part == "factors":
            section = Overrides
        elif depth > 1:
            section = _SECTIONS.get(str(part), section)
    return section
