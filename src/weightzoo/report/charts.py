"""The static figures of a report: each a chart of small panels that stand alone on a phone and side by side on paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from weightzoo.analysis.factors import levels
from weightzoo.analysis.weights import WeightSpace, evenly
from weightzoo.report.style import (
    ACCENT,
    CATEGORIES,
    INK,
    MUTED,
    PANEL_INCHES,
    PAPER,
    SEQUENTIAL,
    Draw,
    sequence_colours,
)

MOST_POINTS = 600  # in one scatter panel: each is an SVG element
MOST_PATHS = 24
MOST_LAYERS = 11
LABELS = {
    "train_loss": "Training loss",
    "train_accuracy": "Training accuracy",
    "val_loss": "Validation loss",
    "val_accuracy": "Validation accuracy",
    "test_loss": "Test loss",
    "test_accuracy": "Test accuracy",
    "generalization_gap": "Generalisation gap",
    "init": "Initialisation",
    "activation": "Activation",
    "optimizer": "Optimiser",
    "learning_rate": "Learning rate",
    "weight_decay": "Weight decay",
    "dropout": "Dropout",
}


@dataclass(frozen=True)
class Panel:
    """One plot with its title, and in words what it shows."""

    name: str
    title: str
    description: str
    draw: Draw


@dataclass(frozen=True)
class Chart:
    """Panels that belong together: one PNG, one block of the page."""

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    height: float = PANEL_INCHES[1]  # of one panel, in inches


def distributions(histograms: dict[str, pd.DataFrame]) -> Chart:
    """Ridgelines: the histogram of each metric over the models, at a handful of epochs."""

    def panel(metric: str, table: pd.DataFrame) -> Panel:
        epochs = _spread(table.index.to_numpy(), 9)
        title = f"{LABELS[metric]} by epoch"
        shown = ", ".join(str(epoch) for epoch in epochs)
        return Panel(metric, title, f"Histograms of {metric} over the models at epochs {shown}.", _ridges(table, epochs))

    caption = (
        "Each ridge is a histogram over all models measured at that epoch, the first at the top, scaled to its own "
        "highest bin. The tick below marks the median."
    )
    panels = tuple(panel(metric, table) for metric, table in histograms.items())
    return Chart("accuracy_distributions", "Distributions over the epochs", caption, panels, height=3.3)


def learning_curves(tables: dict[str, pd.DataFrame], best: dict[str, np.ndarray] | None) -> Chart:
    """Fans: quantiles of each metric over the models, epoch by epoch, with the best model's own curve."""
    caption = "Line: median model. Dark band: the middle half of the models. Light band: 5 % to 95 %."
    if best is not None:
        caption += " Dashed: the best model, chosen on validation accuracy."
    panels = tuple(
        Panel(
            metric,
            LABELS[metric],
            _curve_in_words(LABELS[metric], table),
            _fan(table, None if best is None else best[metric], log=metric.endswith("loss"), metric=metric),
        )
        for metric, table in tables.items()
    )
    return Chart("learning_curves", "Learning curves", caption, panels)


def factor_effects(models: pd.DataFrame, effects: pd.DataFrame, shares: pd.DataFrame) -> Chart:
    """The final test accuracy by value of each factor, and how much of its variance goes with each."""
    panels: list[Panel] = []
    if len(shares):
        words = ", ".join(f"{row.source} {row.share:.0%}" for row in shares.itertuples() if row.kind in ("main", "seed"))
        panels.append(Panel("shares", "Share of variance", f"Share of the variance of test accuracy: {words}.", _bars(shares)))
    for factor, table in effects.groupby("factor", sort=False):
        words = ", ".join(f"{row.level} {row.median:.3f}" for row in table.itertuples() if np.isfinite(row.median))
        of_model = levels(models, str(factor))
        groups = [
            _finite(models.loc[(np.asarray(of_model.codes) == code) & (models["status"] == "finished"), "test_accuracy"])
            for code in range(len(of_model.categories))
        ]
        draw = _violins([str(level) for level in table["level"]], groups)
        title = LABELS[str(factor)]
        panels.append(Panel(str(factor), title, f"Final test accuracy by {factor}; medians: {words}.", draw))
    caption = (
        "Final test accuracy of the finished models by each factor's value, over all values of the other factors. "
        "Shape: histogram. Bar: middle half. Dot and number on the right: median."
    )
    return Chart("factor_effects", "Effect of each factor", caption, tuple(panels))


def weight_norms(tables: dict[str, pd.DataFrame]) -> Chart:
    """Fans of the Euclidean norm of each layer."""
    names = [*tables]
    shown = [names[index] for index in evenly(len(names), MOST_LAYERS + 1)]
    caption = "Euclidean norm of a layer's weights and biases; line and bands as in the learning curves."
    if len(shown) < len(names):
        caption += f" {len(shown) - 1} of {len(names) - 1} layers, evenly picked."
    panels = tuple(
        Panel(
            _identifier(name),
            name,
            _curve_in_words(f"Norm of {name}", tables[name]),
            _fan(tables[name], None, log=False, metric="norm"),
        )
        for name in shown
    )
    return Chart("weight_norms", "Weight norms", caption, panels, height=2.3)


def weight_map(space: WeightSpace, models: pd.DataFrame, factors: Sequence[str]) -> Chart:
    """The first two principal components of the final weights: by test accuracy, by factor, and the ways there.

    `models` are the rows of the space, in its order.
    """
    chosen = np.flatnonzero(space.mapped)
    shown = chosen[evenly(len(chosen), MOST_POINTS)]
    points, own = space.coordinates[shown, -1, :2], models.iloc[shown]
    first, second = (f"PC {axis + 1} ({space.explained[axis]:.1%})" for axis in (0, 1))
    accuracy = own["test_accuracy"].to_numpy(np.float64)
    where = f"Models on principal components 1 and 2 of their final weights, {space.explained[:2].sum():.1%} of variance"
    panels = [Panel("accuracy", "Final test accuracy", f"{where}, coloured by test accuracy.", _scatter(points, accuracy, first, second))]
    if len(space.epochs) > 1:
        order = shown[np.argsort(accuracy, kind="stable")]
        paths = order[evenly(len(order), MOST_PATHS)]
        ends = models["test_accuracy"].to_numpy(np.float64)[paths]
        limits = float(np.min(accuracy)), float(np.max(accuracy))
        title = f"Training paths of {len(paths)} models"
        words = f"Paths of {len(paths)} models from epoch {space.epochs[0]} (small dot) to {space.epochs[-1]} (large dot)."
        panels.append(Panel("paths", title, words, _paths(space.coordinates[paths, :, :2], ends, limits, first, second)))
    for factor in factors:
        of_model = levels(models, factor)
        codes = np.asarray(of_model.codes)[shown]
        labels = [str(label) for label in of_model.categories]
        draw = _scatter_by(points, codes, labels, first, second)
        panels.append(Panel(factor, LABELS[factor], f"{where}, coloured by {factor}: {', '.join(labels)}.", draw))
    caption = (
        f"Principal components of the weights at epoch {space.epochs[-1]} of {len(chosen):,} finished models; the first "
        f"two carry {space.explained[0]:.1%} and {space.explained[1]:.1%} of the variance. Weights are compared as they "
        "are, hidden units not aligned."
    )
    if len(shown) < len(chosen):
        caption += f" Drawn: an even sample of {len(shown):,}."
    return Chart("weight_map", "Weight-space map", caption, tuple(panels), height=3.2)


# --- what is drawn in a panel ---------------------------------------------------------------------------------------


def _ridges(table: pd.DataFrame, epochs: Sequence[int]) -> Draw:
    def draw(axes: Axes) -> None:
        centres = table.columns.to_numpy(np.float64)
        half = (centres[1] - centres[0]) / 2
        steps = np.repeat(np.r_[centres - half, centres[-1] + half], 2)[1:-1]
        for place, epoch in enumerate(epochs):
            base = len(epochs) - 1 - place
            shares = table.loc[epoch].to_numpy()
            height = base + 1.35 * np.repeat(shares / max(shares.max(), 1e-12), 2)
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


def _fan(table: pd.DataFrame, best: np.ndarray | None, *, log: bool, metric: str) -> Draw:
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
        positive = table[["q05", "median"]].to_numpy()
        if log and np.isfinite(positive).any() and np.nanmin(positive) > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(FixedLocator([m * 10.0**e for e in range(-8, 9) for m in (1, 2, 5)]))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        elif metric == "norm":
            axes.set_ylim(bottom=0)
        elif metric == "generalization_gap":
            axes.axhline(0, color=MUTED, lw=0.6)

    return draw


def _bars(shares: pd.DataFrame) -> Draw:
    def draw(axes: Axes) -> None:
        main = shares[shares["kind"] == "main"].sort_values("share", ascending=False, kind="stable")
        pairs = shares[shares["kind"] == "pair"].sort_values("share", ascending=False, kind="stable")
        rows: list[tuple[str, float, str]] = [(LABELS[row.source], row.share, ACCENT) for row in main.itertuples()]
        if len(pairs):
            rows.append((f"all {len(pairs)} pairs" if len(pairs) > 1 else "pair", pairs["share"].sum(), MUTED))
        rows += [("three or more", row.share, MUTED) for row in shares[shares["kind"] == "higher"].itertuples()]
        rows += [("seed", row.share, CATEGORIES[7]) for row in shares[shares["kind"] == "seed"].itertuples()]
        places = np.arange(len(rows))[::-1]
        axes.barh(places, [share for _, share, _ in rows], color=[colour for *_, colour in rows], height=0.66)
        for place, (_, share, _) in zip(places, rows, strict=True):
            axes.text(max(share, 0) + 0.012, place, f"{share:.1%}", va="center", fontsize=8.5)
        axes.set_yticks(places, [label for label, *_ in rows])
        axes.set_xlim(min(0, *(share for _, share, _ in rows)), max(share for _, share, _ in rows) * 1.18 + 0.05)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)

    return draw


def _violins(labels: list[str], groups: list[np.ndarray]) -> Draw:
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
            axes.fill_between(steps, base, base + 0.72 * np.repeat(shape / tallest, 2), color=colour, alpha=0.55, lw=0)
            if len(group):
                q25, median, q75 = np.quantile(group, (0.25, 0.5, 0.75))
                axes.plot([q25, q75], [base - 0.12] * 2, color=colour, lw=4, solid_capstyle="butt")
                axes.plot([median], [base - 0.12], "o", color=INK, ms=4.5)
                across = axes.get_yaxis_transform()
                axes.text(1.01, base + 0.12, f"{median:.3f}", transform=across, va="center", fontsize=8.5, color=INK)
            else:
                axes.text(low, base, "none finished", va="center", fontsize=8, color=MUTED)
        axes.set_yticks(range(len(groups)), [label.replace("_", "\n") for label in reversed(labels)])
        axes.set_ylim(-0.55, len(groups) - 0.1)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)

    return draw


def _scatter(points: np.ndarray, values: np.ndarray, first: str, second: str) -> Draw:
    def draw(axes: Axes) -> None:
        drawn = axes.scatter(*points.T, c=values, cmap=SEQUENTIAL, s=13, lw=0.25, edgecolors=MUTED)
        figure = axes.get_figure()
        if figure is not None:
            bar = figure.colorbar(drawn, ax=axes, shrink=0.9, aspect=26, pad=0.02)
            bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        _map_axes(axes, first, second)

    return draw


def _scatter_by(points: np.ndarray, codes: np.ndarray, labels: list[str], first: str, second: str) -> Draw:
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
            fontsize=8.5,
            handletextpad=0.1,
            columnspacing=1,
        )
        _map_axes(axes, first, second)

    return draw


def _paths(ways: np.ndarray, ends: np.ndarray, limits: tuple[float, float], first: str, second: str) -> Draw:
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


# --- helpers --------------------------------------------------------------------------------------------------------


def _spread(epochs: np.ndarray, count: int) -> list[int]:
    """Some of the epochs, dense at the start where most happens: evenly spaced in the square root."""
    last = len(epochs) - 1
    places = np.unique((np.linspace(0, np.sqrt(last), min(count, last + 1)) ** 2).round().astype(int))
    return [int(epochs[place]) for place in places]


def _used_range(table: pd.DataFrame, half: float) -> tuple[float, float]:
    """From the first to the last bin that any ridge uses."""
    centres = table.columns.to_numpy(np.float64)
    used = np.flatnonzero(table.to_numpy().sum(axis=0) > 0)
    if len(used) == 0:
        return float(centres[0] - half), float(centres[-1] + half)
    return float(centres[used[0]] - 2 * half), float(centres[used[-1]] + 2 * half)


def _curve_in_words(label: str, table: pd.DataFrame) -> str:
    first, last = table.iloc[0], table.iloc[-1]
    return (
        f"{label} over the epochs: median {first['median']:.3g} at epoch {int(first['epoch'])}, {last['median']:.3g} at "
        f"epoch {int(last['epoch'])}, where the middle half lies between {last['q25']:.3g} and {last['q75']:.3g}."
    )


def _finite(column: pd.Series) -> np.ndarray:
    values = column.to_numpy(np.float64)
    return values[np.isfinite(values)]


def _identifier(name: str) -> str:
    return "".join(character if character.isalnum() else "-" for character in name)

