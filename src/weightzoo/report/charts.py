"""The static figures of a report: charts of small panels that stand alone on a phone and side by side on paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from weightzoo.analysis.factors import levels
from weightzoo.analysis.performance import finished
from weightzoo.analysis.results import Result
from weightzoo.analysis.weights import WeightSpace, evenly
from weightzoo.report import declared, drawing
from weightzoo.report.labels import LABELS
from weightzoo.report.style import PANEL_INCHES, Draw

MOST_POINTS = 600  # in one scatter panel: each is an SVG element
MOST_PATHS = 24
MOST_LAYERS = 11


@dataclass(frozen=True)
class Panel:
    """One plot with its title, and in words what it shows."""

    name: str
    title: str
    description: str
    draw: Draw
    caption: str = ""  # of its own, beside that of the chart
    height: float | None = None  # in inches, if not that of the chart


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
        return Panel(
            metric, title, f"Histograms of {metric} over the models at epochs {shown}.", drawing.ridges(table, epochs)
        )

    caption = (
        "Each ridge is a histogram over all models measured at that epoch, the first at the top, scaled to its own "
        "highest bin; heights are square roots of the counts, so that rare values show. The tick below marks the "
        "median."
    )
    panels = tuple(panel(metric, table) for metric, table in histograms.items())
    return Chart("accuracy_distributions", "Distributions over the epochs", caption, panels, height=3.3)


def learning_curves(tables: dict[str, pd.DataFrame], best: dict[str, np.ndarray] | None) -> Chart:
    """Fans: quantiles of each metric over the models, epoch by epoch, with the best model's own curve."""
    caption = "Line: median model. Inner band: the middle half of the models. Outer band: 5\u00a0% to 95\u00a0%."
    if best is not None:
        caption += " Dashed: the best model, chosen on validation accuracy."
    panels = tuple(
        Panel(
            metric,
            LABELS[metric],
            _curve_in_words(LABELS[metric], table),
            drawing.fan(table, None if best is None else best[metric], log=metric.endswith("loss"), metric=metric),
        )
        for metric, table in tables.items()
    )
    return Chart("learning_curves", "Learning curves", caption, panels)


def factor_effects(models: pd.DataFrame, effects: pd.DataFrame, shares: pd.DataFrame) -> Chart:
    """The final test accuracy by value of each factor, and how much of its variance goes with each."""
    panels: list[Panel] = []
    if len(shares):
        parts = [row for row in shares.to_dict("records") if row["kind"] in ("main", "seed")]
        words = ", ".join(f"{row['source']} {row['share']:.0%}" for row in parts)
        description = f"Share of the variance of test accuracy: {words}."
        panels.append(Panel("shares", "Share of variance", description, drawing.bars(shares)))
    done = finished(models)
    accuracy = np.asarray(models["test_accuracy"], np.float64)
    for factor in dict.fromkeys(effects["factor"].tolist()):
        of_model = levels(models, factor)
        labels, codes = [str(label) for label in of_model.categories], np.asarray(of_model.codes)
        groups = [accuracy[done & (codes == code) & np.isfinite(accuracy)] for code in range(len(labels))]
        medians = [f"{label} {np.median(own):.3f}" for label, own in zip(labels, groups, strict=True) if len(own)]
        description = f"Final test accuracy by {factor}; medians: {', '.join(medians)}."
        panels.append(Panel(factor, LABELS[factor], description, drawing.violins(labels, groups)))
    caption = (
        "Final test accuracy of the finished models by each factor's value, over all values of the other factors. "
        "Shape: histogram, its heights square roots of the counts. Bar: middle half. Dot and number on the right: "
        "median."
    )
    return Chart("factor_effects", "Effect of each factor", caption, tuple(panels))


def weight_norms(tables: dict[str, pd.DataFrame], sample: int | None = None) -> Chart:
    """Fans of the Euclidean norm of each layer, of all models or of an even sample of so many."""
    names = [*tables]
    shown = [names[index] for index in evenly(len(names), MOST_LAYERS + 1)]
    caption = "Euclidean norm of a layer's weights and biases; line and bands as in the learning curves."
    if sample is not None:
        caption += f" Of an even sample of {sample:,} models."
    if len(shown) < len(names):
        caption += f" {len(shown) - 1} of {len(names) - 1} layers, evenly picked."
    panels = tuple(
        Panel(
            _identifier(name),
            name,
            _curve_in_words(f"Norm of {name}", tables[name]),
            drawing.fan(tables[name], None, log=True, metric="norm"),
        )
        for name in shown
    )
    return Chart("weight_norms", "Weight norms", caption, panels, height=2.3)


def weight_map(space: WeightSpace, models: pd.DataFrame, factors: Sequence[str], sample: int | None = None) -> Chart:
    """The first two principal components of the final weights: by test accuracy, by factor, and the ways there.

    `models` are the rows of the space, in its order; `sample` is their number if there are more in the zoo.
    """
    chosen = np.flatnonzero(space.mapped)
    shown = chosen[evenly(len(chosen), MOST_POINTS)]
    points = space.coordinates[shown, -1, :2]
    share_1, share_2 = (f"{space.explained[axis]:.1%}" for axis in (0, 1))
    axes = f"PC 1 ({share_1})", f"PC 2 ({share_2})"
    accuracy = np.asarray(models["test_accuracy"], np.float64)
    where = f"Models on the first two principal components of their final weights ({share_1} and {share_2} of variance)"
    draw = drawing.scatter(points, accuracy[shown], *axes)
    panels = [Panel("accuracy", "Final test accuracy", f"{where}, coloured by test accuracy.", draw)]
    if len(space.epochs) > 1:
        ranked = shown[np.argsort(accuracy[shown], kind="stable")]
        paths = ranked[evenly(len(ranked), MOST_PATHS)]
        title = f"Training paths of {len(paths)} models"
        limits = float(np.min(accuracy[shown])), float(np.max(accuracy[shown]))
        draw = drawing.paths(space.coordinates[paths, :, :2], accuracy[paths], limits, *axes)
        description = (
            f"{title}, epoch {space.epochs[0]} (small dot) to {space.epochs[-1]} (large dot), by test accuracy."
        )
        panels.append(Panel("paths", title, description, draw))
    for factor in factors:
        of_model = levels(models, factor)
        labels = [str(label) for label in of_model.categories]
        draw = drawing.scatter_by(points, np.asarray(of_model.codes)[shown], labels, *axes)
        panels.append(Panel(factor, LABELS[factor], f"{where}, coloured by {factor}: {', '.join(labels)}.", draw))
    caption = (
        f"Principal components of the weights at epoch {space.epochs[-1]} of {len(chosen):,} finished models, each "
        f"weight vector scaled to length 1; the first two carry {share_1} and {share_2} of the variance. Hidden units "
        "are not aligned."
    )
    if sample is not None:
        caption += f" Worked out on an even sample of {sample:,} models."
    if len(shown) < len(chosen):
        caption += f" Drawn: {len(shown):,} of them."
    return Chart("weight_map", "Weight-space map", caption, tuple(panels), height=3.2)


def of_method(result: Result) -> Chart:
    """The figures of a method of analysis."""
    panels = tuple(
        Panel(
            f"{number}-{_identifier(figure.table)}",
            figure.title,
            f"{figure.title}. {figure.caption}",
            declared.drawn(figure, result.tables[figure.table]),
            figure.caption,
            declared.height(figure, result.tables[figure.table]),
        )
        for number, figure in enumerate(result.figures)
    )
    tallest = max((panel.height or 0 for panel in panels), default=PANEL_INCHES[1])
    return Chart(f"analysis-{result.method}", result.title, "", panels, tallest)


def _spread(epochs: np.ndarray, count: int) -> list[int]:
    """Some of the epochs, dense at the start where most happens: evenly spaced in the square root."""
    last = len(epochs) - 1
    places = np.unique((np.linspace(0, np.sqrt(last), min(count, last + 1)) ** 2).round().astype(int))
    return [int(epochs[place]) for place in places]


def _curve_in_words(label: str, table: pd.DataFrame) -> str:
    first, last = table.iloc[0], table.iloc[-1]
    return (
        f"{label} over the epochs: median {first['median']:.3g} at epoch {int(first['epoch'])}, "
        f"{last['median']:.3g} at epoch {int(last['epoch'])}, where the middle half lies between "
        f"{last['q25']:.3g} and {last['q75']:.3g}."
    )


def _identifier(name: str) -> str:
    return "".join(character if character.isalnum() else "-" for character in name)
