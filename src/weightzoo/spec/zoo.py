"""Data sets, zoos and rehearsals."""

from __future__ import annotations

from typing import Annotated, Literal, Self, cast

from pydantic import Field, model_validator

from weightzoo.mistakes import refusal
from weightzoo.spec.configurations import (
    Configuration,
    EvolutionConfiguration,
    Factors,
    GridConfiguration,
    Range,
    SearchConfiguration,
)
from weightzoo.spec.training import Trained, Training
from weightzoo.spec.values import (
    MAX_MODELS,
    ArchitectureName,
    DatasetSource,
    DistinctIfAny,
    Listed,
    Name,
    Number,
    PositiveInt,
    Section,
    Seed,
)


class DatasetSpec(Section):
    """How an image data set is prepared. None stands for the source's own default (`weightzoo.datasets.sources`)."""

    source: DatasetSource = "digits"
    size: Annotated[int, Number, Field(ge=8, le=256)] | None = None
    channels: Annotated[Literal[1, 3], Number] | None = None  # 1 is grey, 3 is red, green, blue
    train: PositiveInt | None = None
    val: PositiveInt | None = None
    test: PositiveInt | None = None
    seed: Seed = 0


class ZooSpec(Trained):
    """One zoo: a population of members of one architecture on one data set."""

    dataset: str = Field(description="`dataset`, the name of a section below `datasets`")
    architecture: ArchitectureName = Field(description="`architecture`, e.g. cnn-s")
    configuration: Configuration = Field(description="`configuration`, e.g. {kind: grid, seeds: {count: 2}}")
    factors: Factors = Factors()
    training: Training = Training()
    seed: Seed = 0
    collections: Annotated[tuple[Name, ...], Listed, DistinctIfAny] = ()

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
    def _pruner_fits_training(self) -> Self:
        pruner = self.configuration.pruner if isinstance(self.configuration, SearchConfiguration) else None
        if pruner is not None and pruner.warmup_epochs >= self.training.epochs:
            raise refusal(
                f"got {pruner.warmup_epochs}, which leaves nothing to prune before epoch {self.training.epochs}",
                "configuration",
                "pruner",
                "warmup_epochs",
            )
        return self


class Scale(Section):
    """How small a rehearsal is: at most so many members, training images, and epochs."""

    members: PositiveInt = 16
    images: PositiveInt = 500
    epochs: PositiveInt = 2
