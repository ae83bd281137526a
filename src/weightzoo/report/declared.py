"""The figures that a method of analysis declares: its `Figure` and table, drawn as the others of the page are."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from weightzoo.analysis.factors import number
from weightzoo.analysis.results import Figure
from weightzoo.analysis.weights import evenly
from weightzoo.report.drawing import decades
from weightzoo.report.labels import LABELS
from weightzoo.report.style import ACCENT, CATEGORIES, INK, MUTED, PANEL_INCHES, PAPER, SEQUENTIAL, Draw

MOST_POINTS = 600  # each is an SVG element
MOST_CATEGORIES = len(CATEGORIES)  # that colours tell apart; more values of a number are a scale
MOST_NUMBERED = 90  # cells of a matrix that have their number written in them
_BAR_INCHES, _LINE_INCHES = 0.21, 0.15
_LINE = 20  # characters of a label beside a bar
_MANY_COLUMNS = 8  # of a matrix: their names stand upright, or are left out where the rows have the same
_ROUNDING = 1e-12
_FEW = 14  # bars that have their number beside them


def drawn(figure: Figure, table: pd.DataFrame) -> Draw:
    """What draws the figure on Matplotlib axes."""
    kinds = {"bars": _bars, "lines": _lines, "points": _points, "matrix": _matrix}
    return lambda axes: kinds[figure.kind](axes, figure, table)


def height(figure: Figure, table: pd.DataFrame) -> float:
    """Inches that the panel takes: as all others, but for bars and rows that would not fit."""
    usual = PANEL_INCHES[1]
    if figure.kind == "bars":
        groups = len(_ordered(table[figure.by])) if figure.by else 1
        legend = 0.2 * -(-groups // 2) if figure.by else 0.0
        names = _ordered(table[figure.x])
        lines = max((len(textwrap.wrap(name, _LINE)) for name in names), default=0)
        return max(usual, 0.6 + legend + len(names) * max(_BAR_INCHES * groups, _LINE_INCHES * lines))
    if figure.kind == "matrix":
        columns, rows = _ordered(table[figure.x]), _ordered(table[figure.y])
        upright = len(columns) > _MANY_COLUMNS and columns != rows
        turned = 0.075 * max(map(len, columns), default=0) if upright else 0.0
        return max(usual, 0.8 + turned + _BAR_INCHES * min(len(rows), 16))
    legend = len(_ordered(table[figure.by])) if figure.by and not _is_scale(table[figure.by]) else 0
    return usual + 0.17 * max(0, -(-legend // 2) - 1)


def _bars(axes: Axes, figure: Figure, table: pd.DataFrame) -> None:
    names = _ordered(table[figure.x])
    groups = _ordered(table[figure.by]) if figure.by else [""]
    of_name = table[figure.x].map(_text)
    of_group = table[figure.by].map(_text) if figure.by else pd.Series("", index=table.index)
    thick = 0.74 / len(groups)
    for index, group in enumerate(groups):
        own = table[of_group == group]
        places = np.array([-names.index(name) for name in of_name[own.index]], float)
        places += thick * ((len(groups) - 1) / 2 - index)
        values = _numbers(own[figure.y])
        colour = CATEGORIES[index % len(CATEGORIES)] if figure.by else ACCENT
        axes.barh(places, values, height=0.92 * thick, color=colour, label=group)
        ends = values
        if figure.low and figure.high:
            low, high = _numbers(own[figure.low]), _numbers(own[figure.high])
            reach = np.nan_to_num(np.stack([values - low, high - values]).clip(0))
            axes.errorbar(values, places, xerr=reach, fmt="none", ecolor=INK, elinewidth=0.8)
            ends = np.where(np.isfinite(high), np.maximum(values, high), values)
        if len(table) <= _FEW:
            for place, value, end in zip(places, values, ends, strict=True):
                if np.isfinite(value):
                    axes.annotate(
                        _short(value),
                        (max(end, 0), place),
                        (3, 0),
                        textcoords="offset points",
                        va="center",
                        fontsize=8.6,
                    )
    if len(table) <= _FEW:
        axes.margins(x=0.16)
    axes.set_yticks([-place for place in range(len(names))], ["\n".join(textwrap.wrap(n, _LINE)) or n for n in names])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(_label(figure.y), labelpad=1)
    values = _numbers(table[figure.y])
    _scale(axes, "x", values, log=figure.log_y)
    if np.nanmin(values, initial=0) < 0:
        axes.axvline(0, color=MUTED, lw=0.6)
    if figure.by:
        _legend(axes, groups, height(figure, table))


def _lines(axes: Axes, figure: Figure, table: pd.DataFrame) -> None:
    at, ticks = _positions(table[figure.x])
    groups = _ordered(table[figure.by]) if figure.by else [""]
    of_group = table[figure.by].map(_text) if figure.by else pd.Series("", index=table.index)
    scale = bool(figure.by) and _is_scale(table[figure.by])
    for index, group in enumerate(groups):
        here = (of_group == group).to_numpy()
        colour: Any = CATEGORIES[index % len(CATEGORIES)] if figure.by else ACCENT
        if scale:
            colour = SEQUENTIAL(index / max(len(groups) - 1, 1))
        if figure.low and figure.high:
            low, high = (_numbers(table[name])[here] for name in (figure.low, figure.high))
            axes.fill_between(at[here], low, high, color=colour, alpha=0.18, lw=0)
        style = "-" if index < MOST_CATEGORIES or scale else "--"
        marker = "o" if here.sum() < 9 else None
        axes.plot(
            at[here], _numbers(table[figure.y])[here], style, color=colour, lw=1.6, marker=marker, ms=3.6, label=group
        )
    _both_axes(axes, figure, table, at, ticks)
    if scale:
        _colour_bar(axes, _numbers(table[figure.by]), str(figure.by))
    elif figure.by:
        _legend(axes, groups, height(figure, table))


def _points(axes: Axes, figure: Figure, table: pd.DataFrame) -> None:
    table = table.iloc[evenly(len(table), MOST_POINTS)]
    at, ticks = _positions(table[figure.x])
    values = _numbers(table[figure.y])
    if figure.low and figure.high:
        low, high = _numbers(table[figure.low]), _numbers(table[figure.high])
        reach = np.nan_to_num(np.stack([values - low, high - values]).clip(0))
        axes.errorbar(at, values, yerr=reach, fmt="none", ecolor=MUTED, elinewidth=0.6, alpha=0.6)
    if figure.by and not _is_scale(table[figure.by]):
        groups = _ordered(table[figure.by])
        codes = [groups.index(group) for group in table[figure.by].map(_text)]
        axes.scatter(
            at, values, c=[CATEGORIES[code % len(CATEGORIES)] for code in codes], s=13, lw=0.25, edgecolors=PAPER
        )
        for code, group in enumerate(groups):
            axes.plot([], [], "o", color=CATEGORIES[code % len(CATEGORIES)], ms=5, label=group)
        _legend(axes, groups, height(figure, table))
    elif figure.by:
        numbers = _numbers(table[figure.by])
        axes.scatter(at, values, c=numbers, cmap=SEQUENTIAL, s=13, lw=0.25, edgecolors=MUTED)
        _colour_bar(axes, numbers, figure.by)
    else:
        axes.scatter(at, values, color=ACCENT, s=13, lw=0.25, edgecolors=PAPER)
    _both_axes(axes, figure, table, at, ticks)


def _matrix(axes: Axes, figure: Figure, table: pd.DataFrame) -> None:
    columns, rows = _ordered(table[figure.x]), _ordered(table[figure.y])
    cells = np.full((len(rows), len(columns)), np.nan)
    across, down = table[figure.x].map(_text), table[figure.y].map(_text)
    for column, row, value in zip(across, down, _numbers(table[str(figure.by)]), strict=True):
        cells[rows.index(row), columns.index(column)] = value
    mesh = axes.pcolormesh(np.ma.masked_invalid(cells), cmap=SEQUENTIAL, edgecolors="none", rasterized=cells.size > 900)
    axes.invert_yaxis()
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)
    if cells.size <= MOST_NUMBERED and len(columns) <= 10:
        low, high = np.nanmin(cells, initial=np.inf), np.nanmax(cells, initial=-np.inf)
        for (row, column), value in np.ndenumerate(cells):
            if np.isfinite(value):
                dark = high > low and (value - low) / (high - low) < 0.55
                colour = "#ffffff" if dark else "#14181d"
                axes.text(column + 0.5, row + 0.5, _short(value), ha="center", va="center", color=colour, fontsize=7.6)
    else:
        owner = axes.get_figure()
        if owner is not None:
            owner.colorbar(mesh, ax=axes, shrink=0.9, aspect=26, pad=0.02).outline.set_visible(False)  # pyright: ignore
    for axis, names in ((axes.xaxis, columns), (axes.yaxis, rows)):
        shown = evenly(len(names), 16)
        axis.set_ticks(shown + 0.5, [names[index] for index in shown])
        axis.set_tick_params(length=0)
    if len(columns) > _MANY_COLUMNS and columns == rows:
        axes.set_xticks([])
    elif len(columns) > _MANY_COLUMNS:
        axes.tick_params(axis="x", rotation=90)
    elif sum(map(len, columns)) > 34:
        _slant(axes)
    same = len(columns) > _MANY_COLUMNS and columns == rows
    axes.set_xlabel(f"{_label(figure.x)}, in the same order" if same else _label(figure.x), labelpad=1)
    axes.set_ylabel(_label(figure.y), labelpad=1)


def _both_axes(axes: Axes, figure: Figure, table: pd.DataFrame, at: np.ndarray, ticks: list[str] | None) -> None:
    axes.set_xlabel(_label(figure.x), labelpad=1)
    axes.set_ylabel(_label(figure.y), labelpad=1)
    _scale(axes, "y", _numbers(table[figure.y]), log=figure.log_y)
    if ticks is None:
        _scale(axes, "x", at, log=figure.log_x)
        if (at == at.round()).all() and not figure.log_x:
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        return
    axes.set_xticks(range(len(ticks)), ticks)
    if len(ticks) * max(map(len, ticks), default=0) > 40:
        _slant(axes)


def _slant(axes: Axes) -> None:
    axes.tick_params(axis="x", rotation=40)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right")
        label.set_rotation_mode("anchor")


def _scale(axes: Axes, which: str, values: np.ndarray, *, log: bool) -> None:
    """A plain axis with few ticks; a logarithmic one if asked for and all values are positive."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    known = values[np.isfinite(values)]
    if not log or not len(known) or known.min() <= 0:
        axis.set_major_locator(MaxNLocator(5))
        return
    set_scale: Callable[[str], None] = axes.set_xscale if which == "x" else axes.set_yscale
    set_scale("log")
    axis.set_major_locator(FixedLocator(decades(known.min(), known.max())))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def _positions(column: Any) -> tuple[np.ndarray, list[str] | None]:
    """Numbers as they are; of anything else the place in its order of appearance, with the names."""
    if _is_number(column):
        return _numbers(column), None
    names = _ordered(column)
    return np.array([names.index(name) for name in column.map(_text)], float), names


def _ordered(column: Any) -> list[str]:
    return list(dict.fromkeys(column.map(_text)))


def _is_number(column: Any) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _is_scale(column: Any) -> bool:
    return _is_number(column) and column.nunique() > MOST_CATEGORIES


def _numbers(column: Any) -> np.ndarray:
    values = np.asarray(column, np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _text(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return "–" if not np.isfinite(value) else number(float(value))
    return LABELS.get(str(value), str(value).replace("_", " "))


def _short(value: float) -> str:
    written = number(value) if abs(value) >= _ROUNDING else "0"
    if 5e-4 <= abs(value) < 10:
        written = f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"
    return written.replace("-", "−") if written.startswith("-") else written


def _label(column: str) -> str:
    words = LABELS.get(column, column.replace("_", " "))
    return words[:1].upper() + words[1:]


def _legend(axes: Axes, names: list[str], inches: float) -> None:
    """Below the axes of a panel so many inches high."""
    if not names:
        return
    longest = max(map(len, names))
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.46, -0.31 / (inches - 0.9)),
        ncols=1 if longest > 24 else 2 if longest > 11 else 3,
        frameon=False,
        fontsize=9.2,
        handlelength=1.4,
        handletextpad=0.4,
        columnspacing=1,
    )


def _colour_bar(axes: Axes, values: np.ndarray, name: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    owner = axes.get_figure()
    if owner is not None:
        shades = ScalarMappable(Normalize(np.nanmin(values), np.nanmax(values)), SEQUENTIAL)
        bar = owner.colorbar(shades, ax=axes, shrink=0.9, aspect=26, pad=0.02)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        bar.set_label(_label(name), fontsize=9)
