"""Results on stdout: tables, facts and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from weightzoo import console

if TYPE_CHECKING:
    from weightzoo.analysis.results import Result


def cell(value: object) -> str:
    """A value as a table shows it: numbers with four digits, nothing for what is missing."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return "" if value is None else str(value)


def print_rows(headings: Sequence[str], rows: Iterable[Sequence[str]], *, wrap: bool = True) -> None:
    """A table. Without `wrap` a cell keeps to one line, and is cut off where the terminal ends."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        table.add_column(heading, no_wrap=not wrap)
    for row in rows:
        table.add_row(*map(escape, row))
    console.stdout.print(table)


def print_frame(frame: Any, limit: int) -> None:
    """The first rows of a table of runs; stderr says how many there are."""
    rows = [[cell(value) for value in row] for row in frame.head(limit).itertuples(index=False)]
    print_rows(frame.columns, rows, wrap=False)
    more = "" if len(frame) <= limit else f", the first {limit} shown; --limit, --csv and --json show more"
    console.say(f"{len(frame):,} runs{more}")


def print_facts(facts: dict[str, Any]) -> None:
    """A line for each fact."""
    width = max(map(len, facts))
    for name, value in facts.items():
        shown = ", ".join(map(cell, value)) if isinstance(value, list) else cell(value)
        console.stdout.print(f"{name:<{width}}  {shown}", markup=False)


def print_result(result: Result) -> None:
    """The scores of an analysis, without the columns that none of them fills."""
    console.stdout.print(f"[bold]{result.method}[/]  {escape(result.title)}")
    console.stdout.print(result.summary, markup=False)
    headings = ["target", "features", "estimator", "metric", "value", "95% interval", "models", "published"]
    rows = [
        [
            score.target,
            score.features,
            score.estimator,
            score.metric,
            cell(float(score.value)),
            "" if score.low is None or score.high is None else f"{cell(score.low)} to {cell(score.high)}",
            cell(score.models),
            cell(score.published),
        ]
        for score in result.scores
    ]
    used = [column for column in range(len(headings)) if any(row[column] for row in rows)]
    print_rows([headings[one] for one in used], [[row[one] for one in used] for row in rows], wrap=False)
    console.stdout.print()


def print_json(value: object) -> None:
    """JSON, indented."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
