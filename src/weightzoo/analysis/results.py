"""What a method of analysis gives: scores with their intervals, the tables behind them, and how these are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import pandas as pd

if TYPE_CHECKING:
    from weightzoo.datasets.images import ImageData
    from weightzoo.zoo import Zoo


@dataclass(frozen=True)
class Score:
    """One number that a method found.

    `target` is what was predicted or measured, `features` from what (`s(W)`), `estimator` by what (`ridge`), `metric`
    how it is counted (`R2`). `low` and `high` bound it, as a 95% bootstrap interval over models unless the result says
    otherwise. `published` is the number of the same row in a paper, in the same unit.
    """

    target: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    features: str = ""
    estimator: str = ""
    models: int | None = None  # that it was computed on
    published: float | None = None


@dataclass(frozen=True)
class Figure:
    """How a table is drawn: columns for the axes, one for the colour or the line, two for error bars or a band."""

    kind: Literal["bars", "lines", "points", "matrix"]
    table: str
    title: str
    caption: str
    x: str
    y: str
    by: str | None = None  # a line, colour or group each; of a matrix, the column with the number of each cell
    low: str | None = None
    high: str | None = None
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Result:
    """All that a method found in a zoo."""

    method: str
    title: str
    summary: str  # what was found, in a sentence or two with the numbers
    scores: tuple[Score, ...]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict[str, pd.DataFrame])
    figures: tuple[Figure, ...] = ()
    references: tuple[str, ...] = ()  # the papers whose method or formula it is


@dataclass(frozen=True)
class Context:
    """What a method may use beside the zoo.

    A method draws from `numpy.random.default_rng([seed, ...])` of its own, so that its result depends neither on which
    other methods ran nor on `threads`. `quick` asks for a first look: fewer models, smaller estimators. `images` is
    the image data set of the zoo, None if it is not at hand.
    """

    seed: int = 0
    quick: bool = False
    threads: int = 1
    images: ImageData | None = None
    on_progress: Callable[[int, int], None] = lambda done, total: None


Analysis = Callable[["Zoo", Context], Result]
"""A method: from a zoo to what it says.

Raises:
    NotFoundError: the zoo lacks what the method needs (sparse twins, a varied factor, images); the message says what.
"""
