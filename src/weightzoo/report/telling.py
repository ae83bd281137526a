"""What the methods of analysis found, in the words and cells of the page."""

from __future__ import annotations

import math
from typing import Any

from weightzoo.analysis.factors import number
from weightzoo.analysis.methods import METHODS
from weightzoo.analysis.output import Stored
from weightzoo.analysis.results import Score


def told_by_methods(told: Stored) -> dict[str, Any]:
    """Sections with their methods in the order of the report, and how the analysis was made."""
    section_of = {method.name: method.section for method in METHODS}
    sections: dict[str, list[dict[str, Any]]] = {}
    for result in told.analysed.results:
        sections.setdefault(section_of.get(result.method, "Further methods"), []).append(
            {
                "name": result.method,
                "title": result.title,
                "summary": result.summary,
                "references": result.references,
                "chart": f"analysis-{result.method}",
                "tables": [f"{result.method}-{name}.csv" for name in result.tables],
                "scores": [_cells(score) for score in result.scores],
            }
        )
    return {
        "made": told.made,
        "sections": sections,
        "left_out": told.analysed.left_out,
        "any_published": any(score.published is not None for one in told.analysed.results for score in one.scores),
    }


def _cells(score: Score) -> dict[str, str]:
    bounded = score.low is not None and score.high is not None
    return {
        "target": score.target,
        "how": ", ".join(filter(None, (score.features, score.estimator))),
        "metric": score.metric,
        "value": _number(score.value),
        "interval": f"{_number(score.low)} to {_number(score.high)}" if bounded else "",
        "published": "" if score.published is None else _number(score.published),
        "models": "" if score.models is None else f"{score.models:,}",
    }


def _number(value: float | None) -> str:
    """Three decimals where they tell something, else three digits."""
    if value is None or not math.isfinite(value):
        return "–"
    if abs(value) >= 5 and value == round(value):
        return f"{value:,.0f}".replace("-", "−")
    written = f"{value:.3f}" if 5e-3 <= abs(value) < 100 else number(value)
    return written.replace("-", "−") if written.startswith("-") else written
