"""`params.yaml` as typed models: what a zoo is made of, checked before anything runs.

Unknown keys and impossible values are refused with the place where they stand and what may stand there instead.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from weightzoo.errors import MissingError, SpecError

Initialisation = Literal["uniform", "normal", "kaiming_uniform", "kaiming_normal"]
ActivationKind = Literal["tanh", "sigmoid", "relu", "gelu", "leaky_relu", "silu"]
OptimizerKind = Literal["adam", "adamw", "sgd"]
EngineChoice = Literal["auto", "reference", "torch", "lanes"]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
PositiveInt = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Range(_Section):
    """A continuous factor of a search: all values between `low` and `high`, on a logarithmic scale if `log`."""

    low: NonNegative
    high: Positive
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.log and self.low == 0:
            raise ValueError("a logarithmic range can't start at 0")
        return self


class Factors(_Section):
    """The generating factors, each a list of values (a grid is their product) or, in a search, a range."""

    init: tuple[Initialisation, ...] = ("kaiming_uniform",)
    activation: tuple[ActivationKind, ...] = ("relu",)
    optimizer: tuple[OptimizerKind, ...] = ("adam",)
    learning_rate: tuple[Positive, ...] | Range = (1e-3,)
    weight_decay: tuple[NonNegative, ...] | Range = (0.0,)
    dropout: tuple[Rate, ...] | Range = (0.0,)

    @field_validator("*")
    @classmethod
    def _not_empty_not_doubled(cls, value: object) -> object:
        if isinstance(value, tuple):
            values = cast("tuple[object, ...]", value)
            if not values:
                raise ValueError("needs at least one value")
            if len(set(values)) < len(values):
                raise ValueError(f"has a value twice: {list(values)}")
        return value

    @property
    def ranges(self) -> tuple[str, ...]:
        """The names of the factors that are ranges."""
        return tuple(name for name in type(self).model_fields if isinstance(getattr(self, name), Range))


class FixedSeeds(_Section):
    """The same seeds for every grid point: `first`, `first + 1`, ..."""

    first: Seed = 1
    count: PositiveInt

    @property
    def values(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(range(self.first, self.first + self.count))


class RandomSeeds(_Section):
    """Seeds of its own for every grid point, drawn once from the zoo's seed."""

    random: PositiveInt


class SeedConfiguration(_Section):
    """One set of hyperparameters, many seeds."""

    kind: Literal["seed"]
    seeds: FixedSeeds


class GridConfiguration(_Section):
    """The full product of all factors, each point with several seeds."""

    kind: Literal["grid"]
    seeds: FixedSeeds | RandomSeeds


class Pruner(_Section):
    """Stops members early: those below the `median`, or all but the best 1/`reduction` at each rung of `halving`."""

    kind: Literal["median", "halving"] = "median"
    warmup_epochs: PositiveInt = 5
    reduction: Annotated[int, Field(ge=2)] = 3


class SearchConfiguration(_Section):
    """Points drawn from the factors by a sampler; TPE learns from the members trained so far, batch by batch."""

    kind: Literal["search"]
    sampler: Literal["random", "qmc", "tpe"] = "random"
    models: PositiveInt
    batch: PositiveInt = 64
    objective: Literal["val_accuracy", "val_loss"] = "val_accuracy"
    pruner: Pruner | None = None


Configuration = Annotated[SeedConfiguration | GridConfiguration | SearchConfiguration, Field(discriminator="kind")]


class Constant(_Section):
    """The learning rate stays as it is."""

    kind: Literal["constant"] = "constant"


class OneCycle(_Section):
    """One cycle up to the learning rate and down again (Smith & Topin 2018, arXiv 1708.07120), annealed by cosine."""

    kind: Literal["one_cycle"]
    warmup: Annotated[float, Field(gt=0, lt=1)] = 0.3
    start_divisor: Annotated[float, Field(ge=1)] = 25.0
    end_divisor: Annotated[float, Field(ge=1)] = 1e4
    base_momentum: Rate = 0.85
    max_momentum: Rate = 0.95


class Cosine(_Section):
    """From the learning rate down to `end` times it, by half a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983)."""

    kind: Literal["cosine"]
    end: Rate = 0.0


class StepDecay(_Section):
    """The learning rate times `factor` every `every` epochs."""

    kind: Literal["step"]
    every: PositiveInt
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1


Schedule = Annotated[Constant | OneCycle | Cosine | StepDecay, Field(discriminator="kind")]


class Every(_Section):
    """Every n-th epoch, and always the first (0) and the last."""

    every: PositiveInt


class Training(_Section):
    """The training protocol, the same for all members of a zoo."""

    epochs: PositiveInt = 50
    batch_size: PositiveInt = 10
    schedule: Schedule = Constant()
    momentum: Rate = 0.9
    checkpoints: Literal["all"] | Every | tuple[Annotated[int, Field(ge=0)], ...] = "all"

    @model_validator(mode="after")
    def _checkpoints_within_training(self) -> Self:
        if isinstance(self.checkpoints, tuple):
            late = [epoch for epoch in self.checkpoints if epoch > self.epochs]
            if late:
                raise ValueError(f"checkpoints {late} come after the last epoch, {self.epochs}")
            if not self.checkpoints:
                raise ValueError("checkpoints needs at least one epoch")
        return self

    @property
    def checkpoint_epochs(self) -> tuple[int, ...]:
        """The epochs whose weights are kept, ascending; 0 is before training."""
        if isinstance(self.checkpoints, tuple):
            return tuple(sorted(set(self.checkpoints)))
        step = self.checkpoints.every if isinstance(self.checkpoints, Every) else 1
        return tuple(sorted({*range(0, self.epochs + 1, step), self.epochs}))


class DatasetSpec(_Section):
    """How an image data set is prepared."""

    source: Literal["digits"] = "digits"
    size: Annotated[int, Field(ge=8, le=256)] = 28
    train: PositiveInt | None = None
    val: PositiveInt | None = None
    seed: Seed = 0


class ZooSpec(_Section):
    """One zoo: a population of members of one architecture on one data set."""

    dataset: str
    architecture: str
    configuration: Configuration
    factors: Factors = Factors()
    training: Training = Training()
    engine: EngineChoice = "auto"
    device: str = "cpu"
    seed: Seed = 0

    @model_validator(mode="after")
    def _factors_fit_configuration(self) -> Self:
        kind = self.configuration.kind
        if kind != "search" and self.factors.ranges:
            raise ValueError(f"factors.{self.factors.ranges[0]} is a range, which only a search can draw from")
        if kind == "seed":
            several = [name for name, value in self.factors if len(value) > 1]
            if several:
                raise ValueError(f"a seed zoo has one value a factor, {several[0]} has several; use kind: grid")
        return self


class Params(_Section):
    """All of `params.yaml`."""

    build: tuple[str, ...]
    datasets: Mapping[str, DatasetSpec]
    zoos: Mapping[str, ZooSpec]

    @model_validator(mode="after")
    def _names_resolve(self) -> Self:
        for name in self.build:
            self.zoo(name)
        for name, zoo in self.zoos.items():
            if zoo.dataset not in self.datasets:
                known = ", ".join(self.datasets)
                raise ValueError(f"zoos.{name}.dataset is {zoo.dataset!r}; the data sets are {known}")
        return self

    def zoo(self, name: str) -> ZooSpec:
        """The section of one zoo.

        Raises:
            SpecError: there is none of that name; the message names the nearest.
        """
        if name not in self.zoos:
            near = difflib.get_close_matches(name, self.zoos, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self.zoos)}"
            raise SpecError(f"no zoo {name!r} in params.yaml; {hint}")
        return self.zoos[name]


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check `params.yaml`.

    Raises:
        MissingError: there is no such file.
        SpecError: it is no YAML, has an unknown key or an impossible value.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingError(f"{path}: no such file; run from the project's folder or pass --params") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: can't be read as text: {error}") from None
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return parse_params(content, source=str(path))


def parse_params(content: object, source: str = "params") -> Params:
    """Check what was read from `params.yaml`.

    Raises:
        SpecError: naming every place that is wrong, and the remedy.
    """
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise SpecError(f"{source}: " + "; ".join(_explain(error))) from None


def _explain(error: ValidationError) -> list[str]:
    explained: list[str] = []
    for problem in error.errors():
        place = _place(problem["loc"])
        if problem["type"] == "extra_forbidden":
            explained.append(f"{place}: unknown key{_nearest(problem['loc'])}")
        elif problem["type"] == "value_error":
            explained.append(f"{place}: {problem['msg'].removeprefix('Value error, ')}".removeprefix(": "))
        else:
            explained.append(f"{place}: {problem['msg']}, got {_short(problem.get('input'))}")
    return list(dict.fromkeys(explained))


def _place(location: tuple[int | str, ...]) -> str:
    """`('zoos', 'a', 'configuration', 'grid', 'seeds')` to `zoos.a.configuration.seeds`: union branches are no keys."""
    branches = {"grid", "seed", "search", "constant", "one_cycle", "cosine", "step"}
    parts: list[str] = []
    for index, part in enumerate(location):
        text = str(part)
        is_branch = index > 0 and text in branches and location[index - 1] in ("configuration", "schedule")
        is_type = text[:1].isupper() or "[" in text
        if not (is_branch or is_type):
            parts.append(text)
    return ".".join(parts)


def _nearest(location: tuple[int | str, ...]) -> str:
    sections = (Params, ZooSpec, DatasetSpec, Factors, Training, Range, FixedSeeds, RandomSeeds, Pruner)
    sections += (SeedConfiguration, GridConfiguration, SearchConfiguration, OneCycle, Cosine, StepDecay, Every)
    known = {field for section in sections for field in section.model_fields}
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"; did you mean {near[0]!r}?" if near else "; remove it"


def _short(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
