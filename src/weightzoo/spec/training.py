"""How the members of a zoo are trained, and where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from weightzoo.mistakes import TAG, refusal, short
from weightzoo.spec.values import (
    MAX_BATCH,
    MAX_EPOCHS,
    Degrees,
    Device,
    Distinct,
    Divisor,
    EngineChoice,
    Fraction,
    Number,
    PositiveInt,
    Precision,
    Rate,
    Section,
    expand_kind,
    kind_of,
)


class Constant(Section):
    """The learning rate stays as it is."""

    kind: Literal["constant"] = "constant"


class OneCycle(Section):
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


class Cosine(Section):
    """From the learning rate down to `end` times it, by half a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983)."""

    kind: Literal["cosine"] = "cosine"
    end: Rate = 0.0


class StepDecay(Section):
    """The learning rate times `factor` every `every` epochs."""

    kind: Literal["step"] = "step"
    every: PositiveInt = Field(description="`every`, the number of epochs between two steps")
    factor: Fraction = 0.1


Schedule = Annotated[
    Annotated[Constant, Tag(TAG + "constant")]
    | Annotated[OneCycle, Tag(TAG + "one_cycle")]
    | Annotated[Cosine, Tag(TAG + "cosine")]
    | Annotated[StepDecay, Tag(TAG + "step")],
    Discriminator(kind_of),
    BeforeValidator(expand_kind),
]


class Every(Section):
    """Every n-th epoch from `first` on (0 is before training), and always the last."""

    every: PositiveInt = Field(description="`every`, the number of epochs between two checkpoints")
    first: Annotated[int, Number, Field(ge=0)] = 0


def _checkpoints_kind(value: object) -> str:
    if isinstance(value, Mapping | Every):
        return TAG + "every"
    return TAG + ("epochs" if isinstance(value, list | tuple) else "all")


def _checkpoints(value: object) -> object:
    if value != "all" and not isinstance(value, Mapping | Every | list | tuple):
        raise refusal(f"got {short(value)}, expected all, {{every: N}} or a list of epochs")
    return value


class Augmentation(Section):
    """What training does at random to each image it visits; validation and test images stay as they are.

    `crop`: as large a part as the image, from the image with so many black pixels around it. `flip`: half of the images
    left to right. `rotation`: by up to so many degrees either way, black where nothing was. In this order.
    """

    crop: Annotated[int, Number, Field(ge=0, le=256)] = 0
    flip: Annotated[bool, Field(strict=True)] = False
    rotation: Degrees = 0.0

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not (self.crop or self.flip or self.rotation):
            raise refusal("nothing is to be done; set crop, flip or rotation, or leave augmentation out")
        return self


class Training(Section):
    """The training protocol, the same for all members of a zoo."""

    epochs: Annotated[int, Number, Field(ge=1, le=MAX_EPOCHS)] = 50
    batch_size: Annotated[int, Number, Field(ge=1, le=MAX_BATCH)] = 10
    schedule: Schedule = Constant()
    momentum: Rate = 0.9
    augmentation: Augmentation | None = None
    precision: Precision = "float32"
    checkpoints: Annotated[
        Annotated[Literal["all"], Tag(TAG + "all")]
        | Annotated[Every, Tag(TAG + "every")]
        | Annotated[tuple[Annotated[int, Number, Field(ge=0)], ...], Distinct, Tag(TAG + "epochs")],
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


class LocalExecution(Section):
    """Trained in the process that asks for it."""

    kind: Literal["local"] = "local"


class RayExecution(Section):
    """Trained on the nodes of a Ray cluster: that at `address`, host:port, or of RAY_ADDRESS, or a new one here."""

    kind: Literal["ray"] = "ray"
    address: str | None = None


Execution = Annotated[
    Annotated[LocalExecution, Tag(TAG + "local")] | Annotated[RayExecution, Tag(TAG + "ray")],
    Discriminator(kind_of),
    BeforeValidator(expand_kind),
]


class Trained(Section):
    """What trains a population, and where. Nothing of it is part of a member's identity."""

    engine: EngineChoice = "auto"
    device: Device = "cpu"
    compile: Annotated[bool, Field(strict=True)] = False
    execution: Execution | None = None

    @model_validator(mode="after")
    def _engine_fits_device(self) -> Self:
        if self.engine == "lanes" and self.device != "cpu":
            raise refusal(f"got lanes, which runs on the cpu, not on {self.device}; use auto or torch", "engine")
        return self
