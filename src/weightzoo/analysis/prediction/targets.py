"""What is predicted: properties of models, and of their states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from weightzoo.errors import NotFoundError
from weightzoo.zoo import METRICS, Zoo

Scale = Literal["linear", "log10", "quantile"]
LEAST = 5  # models that a property must be known of in each split


@dataclass(frozen=True)
class Target:
    """A property: a metric at the state's epoch, the epoch itself, or a column of `zoo.models`.

    A number on a `quantile` scale is best predicted as its rank, and turned back: of models that all give one class,
    the accuracies are a few values, which ranks keep and a mean between them would not.
    """

    name: str
    column: str
    kind: Literal["number", "name"] = "number"
    scale: Scale = "linear"


ACCURACY = Target("accuracy", "test_accuracy", scale="quantile")
GAP = Target("generalisation gap", "generalization_gap")
TARGETS = (
    ACCURACY,
    GAP,
    Target("epoch", "epoch"),
    Target("learning rate", "learning_rate", scale="log10"),
    Target("weight decay", "weight_decay", scale="log10"),
    Target("dropout", "dropout"),
    Target("activation", "activation", "name"),
    Target("init", "init", "name"),
    Target("optimiser", "optimizer", "name"),
    Target("diverged", "diverged", "name"),
)


@dataclass(frozen=True)
class Known:
    """The values of a target at some states: float64 `[N]`, NaN where not known; for names int64 codes, -1.

    `labels` are the names behind the codes.
    """

    target: Target
    values: np.ndarray
    labels: tuple[str, ...] = ()

    @property
    def is_known(self) -> np.ndarray:
        """Bool `[N]`."""
        return self.values >= 0 if self.labels else np.isfinite(self.values)


def values_of(zoo: Zoo, target: Target, states: pd.DataFrame) -> Known:
    """The values at the states (`model`, `epoch`). Learning rate and weight decay are log10 where all are above 0.

    Raises:
        NotFoundError: there is no such column.
    """
    models = states["model"].to_numpy(np.int64)
    if target.column == "epoch":
        return Known(target, states["epoch"].to_numpy(np.float64))
    if target.column in METRICS:
        measured = zoo.epochs.set_index(["model", "epoch"])[target.column]
        at = pd.MultiIndex.from_arrays([models, states["epoch"]])
        found = measured.reindex(at).to_numpy(np.float64)
        return Known(target, np.where(np.isfinite(found), found, np.nan))
    if target.column == "diverged":
        names = np.where(zoo.models["status"] == "diverged", "yes", "no").astype(object)
    elif target.column in zoo.models:
        names = zoo.models[target.column].to_numpy()
    else:
        raise NotFoundError(f"no property {target.column!r} of models; there are {', '.join(zoo.models.columns)}")
    if target.kind == "name":
        labels = ("no", "yes") if target.column == "diverged" else _labels(zoo, target.column)
        return Known(target, np.asarray(pd.Categorical(names, list(labels)).codes, np.int64)[models], labels)
    numbers = zoo.models[target.column].to_numpy(np.float64, na_value=np.nan)
    if target.scale == "log10" and np.nanmin(zoo.whole.models[target.column].to_numpy(np.float64)) > 0:
        numbers = np.log10(numbers)
    return Known(target, numbers[models])


def _labels(zoo: Zoo, column: str) -> tuple[str, ...]:
    return tuple(sorted(map(str, zoo.whole.models[column].dropna().unique())))


def varies(known: Known, models: np.ndarray) -> bool:
    """Whether it is known of at least `LEAST` of the `models [N]` that the states are of, and not one value alone."""
    there = known.is_known
    return len(np.unique(models[there])) >= LEAST and len(np.unique(known.values[there])) > 1
