"""How every figure looks, and how a figure becomes bytes: a PNG for itself, or SVG that takes on the page's colours.

The same figure always gives the same bytes: fonts come with Matplotlib, and nothing dated or random is written.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

Draw = Callable[[Axes], None]

# Paul Tol's "bright" scheme (https://personal.sron.nl/~pault/), told apart with every common colour blindness.
CATEGORIES = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#8a8f98", "#c77532")
# Viridis without its darkest part, so that points show on a dark page too.
SEQUENCE = ("#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39", "#fde725")
SEQUENTIAL = LinearSegmentedColormap.from_list("weightzoo", SEQUENCE)
# Colours that the page replaces by its own variables, in light and dark; in a PNG they stay what they are here.
INK, MUTED, GRID, ACCENT, PAPER = "#1b1f24", "#5b6470", "#e3e6ea", "#2f6f9f", "#fefefe"
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", ACCENT: "--accent", PAPER: "--card"}

PANEL_INCHES = (4.0, 2.7)
_DPI = 160
_VIEW_BOX = re.compile(r'viewBox="0 0 ([\d.]+) ([\d.]+)"')
_TAG = re.compile(r"<(?:path|use|text|g|rect|image)\b[^>]*>")
_LONG_NUMBER = re.compile(r"(\d+\.\d\d)\d+")
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.8,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "axes.formatter.useoffset": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "svg.fonttype": "none",
    "svg.hashsalt": "weightzoo",
    "path.simplify": False,
}


@contextmanager
def style() -> Generator[None]:
    """Matplotlib's own defaults with our style over them, whatever the user's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)  # pyright: ignore[reportArgumentType, reportCallIssue]  (keys are literals there)
        yield


def panel_svg(name: str, draw: Draw, label: str, height: float = PANEL_INCHES[1]) -> str:
    """One panel as an `<svg>` element for an HTML page, with `label` for those who can't see it.

    `name` must be unique on the page: it keeps the ids of one figure from those of another.
    """
    with style():
        figure = Figure(figsize=(PANEL_INCHES[0], height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _for_page(buffer.getvalue(), name, label)


def panels_png(title: str, panels: list[tuple[str, Draw]], height: float = PANEL_INCHES[1]) -> bytes:
    """All panels of a chart in one PNG, up to three beside each other, on white."""
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with style():
        figure = Figure(
            figsize=(PANEL_INCHES[0] * columns, height * rows + 0.4), layout="constrained", facecolor="white"
        )
        FigureCanvasAgg(figure)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
        for index, (panel_title, draw) in enumerate(panels):
            axes = figure.add_subplot(rows, columns, index + 1)
            draw(axes)
            axes.set_title(panel_title)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def sequence_colours(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Colours RGBA `[N, 4]` of numbers on the sequential scale."""
    span = high - low
    return SEQUENTIAL((np.asarray(values, np.float64) - low) / span if span > 0 else np.full(len(values), 0.5))


def _for_page(svg: str, name: str, label: str) -> str:
    """Matplotlib's SVG document to an element of a page: no prologue, own ids, the page's colours and fonts."""
    width, height = _VIEW_BOX.findall(svg)[0]
    body = svg[svg.index("<g ") : svg.rindex("</svg>")]
    body = re.sub(r"<!--.*?-->\s*|<style.*?</style>\s*", "", body, flags=re.S)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r'\bid="', f'id="{name}-', body).replace("url(#", f"url(#{name}-")
    body = body.replace('xlink:href="#', f'href="#{name}-').replace("xlink:href=", "href=")
    body = _TAG.sub(lambda tag: _LONG_NUMBER.sub(r"\1", tag[0]), body)
    body = body.replace("'DejaVu Sans'", "var(--sans)")
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    body = re.sub(r"\s*\n\s*", "\n", body)
    body = re.sub(r"<g>\n(<use [^>]*/>)\n</g>", r"\1", body)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">\n{body}</svg>'
