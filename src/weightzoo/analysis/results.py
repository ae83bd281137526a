"""What a method of analysis gives: scores with their intervals, the tables behind them, and how these are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import pandas as pd

from weightzoo.errors import NotFoundError

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
    """How a table is drawn: columns for the axes, one for the colour or the line, two for error bars or a band.

    - `bars`: `x` names the bars, `y` is how long they are; with `by`, a bar of each of its values side by side.
    - `lines`: a line for each value of `by`, through the rows in their order; `low` and `high` bound a band.
    - `points`: coloured by `by`, a category or a number; `low` and `high` bound an error bar along `y`.
    - `matrix`: `x` names the columns, `y` the rows, both in order of appearance; `by` is the number of each cell.
    """

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

    def __post_init__(self) -> None:
        for figure in self.figures:
            table = self.tables.get(figure.table)
            columns = (figure.x, figure.y, figure.by, figure.low, figure.high)
            missing = [name for name in columns if name is not None and (table is None or name not in table)]
            if missing:
                raise ValueError(f"figure {figure.title!r} draws {missing}, which table {figure.table!r} has not")


@dataclass(frozen=True)
class LeftOut:
    """A method for which the zoo lacks something, and what."""

    method: str
    reason: str


@dataclass(frozen=True)
class Analysed:
    """What the methods that ran found in a zoo, in the order of the report, and which could not run."""

    results: tuple[Result, ...]
    left_out: tuple[LeftOut, ...]


def _unheard(done: int, total: int) -> None:
    """Nobody asked how far a method is."""


@dataclass(frozen=True)
class Context:
    """What a method may use beside the zoo.

    A method draws from `numpy.random.default_rng([seed, ...])` of its own, so that its result depends neither on which
    other methods ran nor on `threads`. `quick` asks for a first look: fewer models, smaller estimators. `images` is
    the image data set of the zoo, None if it is not at hand; `other` a second zoo, for methods that compare two.
    """

    seed: int = 0
    quick: bool = False
    threads: int = 1
    images: ImageData | None = None
    on_progress: Callable[[int, int], None] = _unheard
    other: Zoo | None = None


def images_of(zoo: Zoo, context: Context) -> ImageData:
    """The images that the models were trained on.

    Raises:
        NotFoundError: they are not at hand.
    """
    if context.images is None:
        raise NotFoundError(
            f"needs the images of {zoo.dataset_info.name} that the models were trained on, and data/{zoo.path.name} is "
            f"not there or holds others; `weightzoo prepare {zoo.path.name}` makes it"
        )
    return context.images


Analysis = Callable[["Zoo", Context], Result]
"""A method: from a zoo to what it says.

Raises:
    NotFoundError: the zoo lacks what the method needs (sparse twins, a varied factor, images); the message says what.
"""
