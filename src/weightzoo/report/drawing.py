"""How each kind of panel is drawn. A function takes the numbers, and gives what draws them on Matplotlib axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from weightzoo.analysis.factors import number
from weightzoo.report.labels import LABELS
from weightzoo.report.style import ACCENT, CATEGORIES, INK, MUTED, PAPER, SEQUENTIAL, Draw, sequence_colours


def ridges(table: pd.DataFrame, epochs: Sequence[int]) -> Draw:
    """Histograms of some epochs, one below the other; `table` holds a row an epoch, a column a bin."""

    def draw(axes: Axes) -> None:
        centres = table.columns.to_numpy(np.float64)
        half = (centres[1] - centres[0]) / 2
        steps = np.repeat(np.r_[centres - half, centres[-1] + half], 2)[1:-1]
        for place, epoch in enumerate(epochs):
            base = len(epochs) - 1 - place
            shares = table.loc[epoch].to_numpy()
            height = base + 1.25 * np.repeat(np.sqrt(shares / max(shares.max(), 1e-12)), 2)
            colour = SEQUENTIAL(0.15 + 0.6 * place / max(len(epochs) - 1, 1))
            axes.fill_between(steps, base, height, color=colour, alpha=0.8, lw=0, zorder=2 * place + 2)
            axes.plot(steps, height, color=PAPER, lw=0.8, zorder=2 * place + 3)
            if shares.sum() > 0:
                median = centres[np.searchsorted(np.cumsum(shares), 0.5 * shares.sum())]
                axes.plot([median] * 2, [base - 0.14, base], color=INK, lw=1.4, zorder=99)
        axes.set_yticks(range(len(epochs)), [str(epoch) for epoch in reversed(epochs)])
        axes.set_ylabel("Epoch")
        axes.set_xlim(*_used_range(table.loc[list(epochs)], half))
        axes.set_ylim(-0.2, len(epochs) + 0.5)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(6))

    return draw


def fan(table: pd.DataFrame, best: np.ndarray | None, *, log: bool, metric: str) -> Draw:
    """Median and quantile bands over the epochs, and the best model's own curve."""

    def draw(axes: Axes) -> None:
        epochs = table["epoch"].to_numpy()
        for low, high, alpha in (("q05", "q95", 0.16), ("q25", "q75", 0.3)):
            axes.fill_between(epochs, table[low], table[high], color=ACCENT, alpha=alpha, lw=0)
        marker = "o" if len(epochs) == 1 else None
        axes.plot(epochs, table["median"], color=ACCENT, lw=1.8, marker=marker)
        if best is not None:
            axes.plot(epochs, best, color=INK, lw=1, ls=(0, (4, 2)), marker=marker)
        axes.set_xlabel("Epoch", labelpad=1)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.margins(x=0.01)
        drawn = table[["q05", "q95"]].to_numpy()
        drawn = drawn[np.isfinite(drawn)]
        if log and len(drawn) and 0 < 4 * drawn.min() < drawn.max():
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(FixedLocator(decades(drawn.min(), drawn.max())))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
        elif metric == "norm":
            axes.set_ylim(bottom=0)
        elif metric == "generalization_gap":
            axes.axhline(0, color=MUTED, lw=0.6)

    return draw


def bars(shares: pd.DataFrame) -> Draw:
    """Shares of variance as bars, factors first, the largest on top."""

    def draw(axes: Axes) -> None:
        parts = shares.to_dict("records")
        main = sorted((row for row in parts if row["kind"] == "main"), key=lambda row: -row["share"])
        pairs = [row["share"] for row in parts if row["kind"] == "pair"]
        rows: list[tuple[str, float, str]] = [(LABELS[row["source"]], row["share"], ACCENT) for row in main]
        if pairs:
            rows.append((f"all {len(pairs)} pairs" if len(pairs) > 1 else "the pair", sum(pairs), MUTED))
        rows += [("three or more", row["share"], MUTED) for row in parts if row["kind"] == "higher"]
        rows += [("seed", row["share"], CATEGORIES[7]) for row in parts if row["kind"] == "seed"]
        places = np.arange(len(rows))[::-1]
        axes.barh(places, [share for _, share, _ in rows], color=[colour for *_, colour in rows], height=0.66)
        for place, (_, share, _) in zip(places, rows, strict=True):
            axes.text(max(share, 0) + 0.012, place, f"{share:.1%}", va="center", fontsize=9.2)
        axes.set_yticks(places, [label for label, *_ in rows])
        axes.set_xlim(min(0, *(share for _, share, _ in rows)), max(share for _, share, _ in rows) * 1.18 + 0.05)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)

    return draw


def violins(labels: list[str], groups: list[np.ndarray]) -> Draw:
    """One histogram a group on a common axis, with quartiles and median."""

    def draw(axes: Axes) -> None:
        present = np.concatenate(groups) if groups else np.empty(0)
        low, high = (present.min(), present.max()) if len(present) else (0.0, 1.0)
        pad = max(0.02 * (high - low), 1e-3)
        edges = np.linspace(low - pad, high + pad, 41)
        steps = np.repeat(edges, 2)[1:-1]
        shapes = [np.histogram(group, edges)[0] / max(len(group), 1) for group in groups]
        tallest = max((shape.max() for shape in shapes), default=1) or 1
        for place, (group, shape) in enumerate(zip(groups, shapes, strict=True)):
            base, colour = len(groups) - 1 - place, CATEGORIES[place % len(CATEGORIES)]
            axes.fill_between(
                steps, base, base + 0.72 * np.repeat(np.sqrt(shape / tallest), 2), color=colour, alpha=0.55, lw=0
            )
            if len(group):
                q25, median, q75 = np.quantile(group, (0.25, 0.5, 0.75))
                axes.plot([q25, q75], [base - 0.12] * 2, color=colour, lw=4, solid_capstyle="butt")
                axes.plot([median], [base - 0.12], "o", color=INK, ms=4.5)
                across = axes.get_yaxis_transform()
                axes.text(1.01, base + 0.12, f"{median:.3f}", transform=across, va="center", fontsize=9.2, color=INK)
            else:
                axes.text(low, base, "none finished", va="center", fontsize=9, color=MUTED)
        axes.set_yticks(range(len(groups)), [label.replace("_", "\n") for label in reversed(labels)])
        axes.set_ylim(-0.55, len(groups) - 0.1)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)

    return draw


def scatter(points: np.ndarray, values: np.ndarray, first: str, second: str) -> Draw:
    """Points `[N, 2]` coloured by a number each."""

    def draw(axes: Axes) -> None:
        drawn = axes.scatter(*points.T, c=values, cmap=SEQUENTIAL, s=13, lw=0.25, edgecolors=MUTED)
        figure = axes.get_figure()
        if figure is not None:
            bar = figure.colorbar(drawn, ax=axes, shrink=0.9, aspect=26, pad=0.02)
            bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        _map_axes(axes, first, second)

    return draw


def scatter_by(points: np.ndarray, codes: np.ndarray, labels: list[str], first: str, second: str) -> Draw:
    """Points `[N, 2]` coloured by category, with a legend."""

    def draw(axes: Axes) -> None:
        # One call with all points in their own order, so that no value hides another by being drawn last.
        colours = [CATEGORIES[code % len(CATEGORIES)] for code in codes]
        axes.scatter(*points.T, c=colours, s=13, lw=0.25, edgecolors=PAPER)
        for code, label in enumerate(labels):
            axes.plot([], [], "o", color=CATEGORIES[code % len(CATEGORIES)], ms=5, label=label)
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.46, -0.13),
            ncols=2,
            frameon=False,
            fontsize=9.2,
            handletextpad=0.1,
            columnspacing=1,
        )
        _map_axes(axes, first, second)

    return draw


def paths(ways: np.ndarray, ends: np.ndarray, limits: tuple[float, float], first: str, second: str) -> Draw:
    """Ways `[M, E, 2]` with their start and end, coloured by a number each, on the scale of `limits`."""

    def draw(axes: Axes) -> None:
        colours = sequence_colours(ends, *limits)
        axes.add_collection(LineCollection(list(ways), colors=colours, linewidths=1, alpha=0.8))
        axes.scatter(*ways[:, 0].T, color=MUTED, s=5, lw=0, zorder=3)
        axes.scatter(*ways[:, -1].T, c=colours, s=22, lw=0.3, edgecolors=MUTED, zorder=4)
        axes.autoscale_view()
        _map_axes(axes, first, second)

    return draw


def _map_axes(axes: Axes, first: str, second: str) -> None:
    axes.set_xlabel(first, labelpad=1)
    axes.set_ylabel(second, labelpad=1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))


def decades(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis: 1, 2, 5 of each power of ten within a decade and a half, else few powers."""
    span = math.log10(high / low)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    if span < 1.5:
        return [m * 10.0**e for e in exponents for m in (1, 2, 5)]
    step = math.ceil(span / 5)
    return [10.0**e for e in exponents if e % step == 0]


def _used_range(table: pd.DataFrame, half: float) -> tuple[float, float]:
    """From the first to the last bin that any ridge uses."""
    centres = table.columns.to_numpy(np.float64)
    used = np.flatnonzero(table.to_numpy().sum(axis=0) > 0)
    if len(used) == 0:
        return float(centres[0] - half), float(centres[-1] + half)
    return float(centres[used[0]] - 2 * half), float(centres[used[-1]] + 2 * half)
