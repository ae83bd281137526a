"""All zoos of `params.yaml` in one table: models, states and bytes, told from the sections alone."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from weightzoo.architectures import architecture
from weightzoo.console import readable_size, readable_time
from weightzoo.datasets.description import describe
from weightzoo.spec import Params, SparsifySpec

TWIN_STATES: int = SparsifySpec.model_fields["epochs"].default  # one an epoch; before the first it is its parent


@dataclass(frozen=True)
class Row:
    """One zoo, or several added up."""

    name: str
    models: int
    states: int  # models times kept epochs: weight vectors of dense models; at most so many, where a search prunes
    weight_bytes: int  # of these states
    seconds: float | None  # of training, by a calibration of this machine; None if there was none

    @property
    def states_with_twins(self) -> int:
        """The states if every model had a sparse twin."""
        return self.states + TWIN_STATES * self.models

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return dataclasses.asdict(self) | {"states_with_twins": self.states_with_twins}


@dataclass(frozen=True)
class ZooRow(Row):
    """One zoo."""

    dataset: str
    source: str  # of the data set
    image_shape: tuple[int, int, int]  # channels, height, width
    architecture: str
    parameters: int  # of one model
    configuration: str
    kept_epochs: int
    collections: tuple[str, ...]


@dataclass(frozen=True)
class SumRow(Row):
    """Several zoos added up."""

    zoos: int


@dataclass(frozen=True)
class Overview:
    """All zoos of `params.yaml`, in its order."""

    zoos: tuple[ZooRow, ...]

    @property
    def collections(self) -> tuple[SumRow, ...]:
        """The zoos of each collection added up, in the order in which collections are first named."""
        names = dict.fromkeys(itertools.chain.from_iterable(zoo.collections for zoo in self.zoos))
        return tuple(_sum(name, [zoo for zoo in self.zoos if name in zoo.collections]) for name in names)

    @property
    def total(self) -> SumRow:
        """All zoos added up."""
        return _sum("all", self.zoos)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return {
            "zoos": [zoo.to_json() for zoo in self.zoos],
            "collections": [row.to_json() for row in self.collections],
            "total": self.total.to_json(),
        }

    def render(self) -> RenderableType:
        """A table for a terminal: the zoos in groups of one source and architecture, then what they add up to."""
        note = f"states: models times kept epochs; with twins: and {TWIN_STATES} for a sparse twin of every model"
        return Group(self._table(), "", Text(note, style="dim"))

    def _table(self) -> Table:
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("zoo", overflow="fold")
        timed = self.total.seconds is not None
        for title in ("models", "states", "with twins", "weights", *(["time"] if timed else [])):
            table.add_column(title, justify="right", no_wrap=True)
        for _, group in itertools.groupby(self.zoos, lambda zoo: (zoo.source, zoo.architecture)):
            for zoo in group:
                table.add_row(*_cells(zoo.name, zoo))
            table.add_row()
        for total in (*self.collections, self.total):
            table.add_row(*_cells(f"{total.name} ({total.zoos} zoos)", total), style="bold")
        return table


def overview(
    params: Params, *, calibrate: bool = False, on_zoo: Callable[[int, int, str], None] | None = None
) -> Overview:
    """All zoos of `params.yaml`, whose data sets need not be there.

    With `calibrate`, a few steps of each zoo are trained, which takes some seconds a zoo.

    Raises:
        SpecError: the architecture of a zoo does not take the images of its data set.
        EngineError: with `calibrate`, the engine of a zoo can't train it on this machine.
    """
    rows: list[ZooRow] = []
    for name, spec in params.zoos.items():
        if on_zoo is not None:
            on_zoo(len(rows), len(params.zoos), name)
        dataset = params.datasets[spec.dataset]
        data = describe(spec.dataset, dataset)
        layout = architecture(spec.architecture, data.image_shape, data.classes).layout
        kept = len(spec.training.checkpoint_epochs)
        rows.append(
            ZooRow(
                name=name,
                models=spec.models,
                states=spec.models * kept,
                weight_bytes=4 * spec.models * kept * layout.size,
                seconds=_training_time(name, params) if calibrate else None,
                dataset=spec.dataset,
                source=dataset.source,
                image_shape=data.image_shape,
                architecture=spec.architecture,
                parameters=layout.trained,
                configuration=spec.configuration.kind,
                kept_epochs=kept,
                collections=spec.collections,
            )
        )
    return Overview(tuple(rows))


def _training_time(name: str, params: Params) -> float | None:
    from weightzoo.plan import make_plan  # with PyTorch, which takes seconds to import

    return make_plan(name, params).seconds


def _sum(name: str, zoos: Sequence[ZooRow]) -> SumRow:
    times = [zoo.seconds for zoo in zoos if zoo.seconds is not None]
    return SumRow(
        name=name,
        models=sum(zoo.models for zoo in zoos),
        states=sum(zoo.states for zoo in zoos),
        weight_bytes=sum(zoo.weight_bytes for zoo in zoos),
        seconds=sum(times) if times else None,
        zoos=len(zoos),
    )


def _cells(name: str, row: Row) -> list[Text]:
    cells = [name, f"{row.models:,}", f"{row.states:,}", f"{row.states_with_twins:,}", readable_size(row.weight_bytes)]
    return [Text(cell) for cell in (*cells, *([readable_time(row.seconds)] if row.seconds is not None else []))]
