"""The kinds of values that sections of `params.yaml` have, and what every section is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from weightzoo.mistakes import TAG, refusal, short

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


Number = BeforeValidator(_no_bool)
Seed = Annotated[int, Number, Field(ge=0, lt=2**63)]
PositiveInt = Annotated[int, Number, Field(ge=1, le=MAX_MODELS)]
Rate = Annotated[float, Number, Field(ge=0, lt=1, allow_inf_nan=False), AfterValidator(_plain_zero)]
NonNegative = Annotated[float, Number, Field(ge=0, le=1000, allow_inf_nan=False), AfterValidator(_plain_zero)]
Positive = Annotated[float, Number, Field(gt=0, le=1000, allow_inf_nan=False)]
Divisor = Annotated[float, Number, Field(ge=1, le=1e12, allow_inf_nan=False)]
Degrees = Annotated[float, Number, Field(ge=0, le=180, allow_inf_nan=False), AfterValidator(_plain_zero)]
Fraction = Annotated[float, Number, Field(gt=0, lt=1, allow_inf_nan=False)]


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
Device = Annotated[str, BeforeValidator(_device)]


def kind_of(value: object) -> str:
    """The tag of a section's `kind`; a bare tag if it has none."""
    if isinstance(value, Mapping):
        return f"{TAG}{cast('Mapping[str, object]', value).get('kind', '')}"
    return f"{TAG}{getattr(value, 'kind', '')}"


def expand_kind(value: object) -> object:
    """`schedule: cosine` is short for `schedule: {kind: cosine}`."""
    return {"kind": value} if isinstance(value, str) else value


class Section(BaseModel):
    """A mapping of `params.yaml`: no other keys than its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _listed(value: object) -> object:
    """One value for a list of one; a section as it is."""
    return value if isinstance(value, Mapping | Section | list | tuple) else (value,)


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise refusal("got an empty list, expected at least one value")
    for index, value in enumerate(values):
        if value in values[:index]:
            raise refusal(f"{short(value)} is there twice; remove one", index)
    return values


def _distinct_if_any(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return _distinct(values) if values else values


Listed, Distinct = BeforeValidator(_listed), AfterValidator(_distinct)
DistinctIfAny = AfterValidator(_distinct_if_any)
