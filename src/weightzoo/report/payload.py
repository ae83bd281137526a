"""The data behind the page's script: the table of models, the explorer and the curves by factor, as compact JSON."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from weightzoo import analysis
from weightzoo.analysis.factors import number
from weightzoo.report.findings import Findings
from weightzoo.report.labels import LABELS
from weightzoo.report.style import CATEGORIES, SEQUENCE

MOST_ROWS = 5000  # in the table of models
MOST_STATIC_ROWS = 15  # of it without script
_EXPLORED = 9000  # models x epochs that the explorer carries
_QUANTUM = 9999  # a quantity is stored in so many steps of its range
_WIDE = 30
_TABLE_METRICS = ("test_accuracy", "val_accuracy", "train_accuracy", "generalization_gap", "test_loss")

Column = dict[
    str, Any
]  # key, label, kind, values; a category has `levels`, a number `digits` (None: as short as can be)


def page_data(findings: Findings) -> dict[str, Any]:
    """All of it; plain JSON values."""
    shown = _shown_rows(findings)
    return {
        "palette": CATEGORIES,
        "sequence": SEQUENCE,
        "quantum": _QUANTUM,
        "columns": _model_columns(findings, shown),
        "explorer": _explorer(findings, shown),
        "curves": _curves(findings),
    }


def script_json(data: Any) -> Markup:
    """JSON that can stand in a script element: nothing in it can end the element or open a comment."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def static_rows(columns: list[Column]) -> list[list[str]]:
    """The best models as text, for readers without script."""
    best = next(column["values"] for column in columns if column["key"] == "best_val_accuracy")
    order = sorted(range(len(best)), key=lambda row: (best[row] is None, -(best[row] or 0)))[:MOST_STATIC_ROWS]
    return [[_cell(column, row) for column in columns] for row in order]


# --- the table of models --------------------------------------------------------------------------------------------


def _shown_rows(findings: Findings) -> np.ndarray:
    """Rows of the models that the page lists: all, or an even sample with the best and the mapped ones."""
    count = len(findings.models)
    if count <= MOST_ROWS:
        return np.arange(count)
    sample = analysis.evenly(count, MOST_ROWS - len(findings.space.rows) - 1)
    best = [] if findings.best is None else [findings.best]
    return np.unique(np.concatenate([sample, findings.space.rows, best]).astype(np.int64))


def _model_columns(findings: Findings, shown: np.ndarray) -> list[Column]:
    """Metrics of diverged models are left out: what their record holds says nothing about a model."""
    models = findings.models.iloc[shown]
    measured = np.asarray(models["status"] != "diverged")
    columns = [_integers("model", "Model", shown)]
    for factor in findings.factors:
        of_all = analysis.levels(findings.models, factor)
        if len(pd.unique(np.asarray(findings.models[factor]))) > len(of_all.categories):
            values = [float(f"{value:.4g}") if value == value else None for value in models[factor].tolist()]
            columns.append({"key": factor, "label": LABELS[factor], "kind": "number", "digits": None, "values": values})
        else:
            columns.append(_category(factor, LABELS[factor], of_all[shown]))
    seeds = findings.seeds.items()
    columns += [_integers(label.lower().replace(" of ", "_"), label, values[shown]) for label, values in seeds]
    columns += [_metric(metric, LABELS[metric], models, measured) for metric in _TABLE_METRICS]
    columns.append(_integers("best_epoch", "Best epoch", np.asarray(models["best_epoch"]), measured))
    columns.append(_metric("best_val_accuracy", "Best val. accuracy", models, measured))
    columns.append(_metric("best_test_accuracy", "Test accuracy then", models, measured))
    columns.append(_category("status", "Status", pd.Categorical(models["status"].tolist())))
    columns.append(_category("split", "Split", pd.Categorical(models["split"].tolist(), ["train", "val", "test"])))
    if len(set(findings.models["last_epoch"].tolist())) > 1:
        columns.append(_integers("last_epoch", "Last epoch", np.asarray(models["last_epoch"])))
    columns.append({"key": "member", "label": "Member id", "kind": "text", "values": models["member"].tolist()})
    return columns


def _category(key: str, label: str, values: pd.Categorical) -> Column:
    names, codes = [str(name) for name in values.categories], np.asarray(values.codes).tolist()
    return {"key": key, "label": label, "kind": "category", "levels": names, "values": codes}


def _integers(key: str, label: str, values: np.ndarray, known: np.ndarray | None = None) -> Column:
    usable = ~pd.isna(values) if known is None else known & ~pd.isna(values)
    kept = [int(v) if use else None for v, use in zip(values.tolist(), usable.tolist(), strict=True)]
    return {"key": key, "label": label, "kind": "integer", "values": kept}


def _metric(key: str, label: str, models: pd.DataFrame, measured: np.ndarray) -> Column:
    values = np.asarray(models[key], np.float64)
    usable = measured & np.isfinite(values)
    kept = [round(v, 4) if use else None for v, use in zip(values.tolist(), usable.tolist(), strict=True)]
    return {"key": key, "label": label, "kind": "number", "digits": 4, "values": kept}


def _cell(column: Column, row: int) -> str:
    value = column["values"][row]
    if value is None:
        return "–"
    if column["kind"] == "category":
        return column["levels"][value]
    if column["kind"] == "number":
        return number(value) if column["digits"] is None else f"{value:.{column['digits']}f}"
    return str(value)


# --- the explorer ---------------------------------------------------------------------------------------------------


def _explorer(findings: Findings, shown: np.ndarray) -> dict[str, Any] | None:
    """Coordinates, norm and metrics by epoch and model; `rows` are the models' places in the table."""
    space = findings.space
    at = analysis.evenly(len(space.epochs), max(2, min(26, _EXPLORED // max(len(space.rows), 1))))
    epochs = space.epochs[at]
    quantities: list[tuple[str, str, np.ndarray]] = []
    if findings.has_map:
        for axis, share in enumerate(space.explained):
            if share > 0:
                label = f"PC {axis + 1} ({share:.1%} of variance)"
                quantities.append((f"pc{axis + 1}", label, space.coordinates[:, at, axis]))
    quantities.append(("norm", "Weight norm", space.total_norms[:, at]))
    for metric in ("test_accuracy", "train_accuracy", "generalization_gap"):
        matrix = findings.matrices[metric]
        quantities.append((metric, LABELS[metric], matrix[epochs].to_numpy()[space.rows]))
    return {
        "rows": np.searchsorted(shown, space.rows).tolist(),
        "epochs": epochs.tolist(),
        "quantities": [{"key": key, "label": label, **_quantised(values)} for key, label, values in quantities],
    }


def _quantised(values: np.ndarray) -> dict[str, Any]:
    """`[M, E]` numbers as integers 0 .. _QUANTUM of their range, epoch by epoch; None where not finite.

    Positive numbers that span more than `_WIDE` go by their logarithm to base 10, and so do `low` and `high` then.
    """
    finite = np.isfinite(values)
    log = bool(finite.any() and 0 < values[finite].min() * _WIDE < values[finite].max())
    if log:
        values = np.log10(np.where(finite, values, 1.0))
    low, high = (float(values[finite].min()), float(values[finite].max())) if finite.any() else (0.0, 1.0)
    low, high = float(f"{low:.6g}"), float(f"{high:.6g}")
    span = high - low or 1.0
    steps = np.rint((np.where(finite, values, low) - low) / span * _QUANTUM).clip(0, _QUANTUM).astype(int)
    nested = [
        [step if known else None for step, known in zip(own.tolist(), there.tolist(), strict=True)]
        for own, there in zip(steps.T, finite.T, strict=True)
    ]
    return {"log": log, "low": low, "high": low + span, "steps": nested}


# --- curves by factor -----------------------------------------------------------------------------------------------


def _curves(findings: Findings) -> dict[str, Any]:
    """Median and quartiles of each metric and norm over the epochs: of all models, and by value of each factor."""
    everyone = np.arange(len(findings.models))
    sources = [(metric, LABELS[metric], findings.matrices[metric], everyone) for metric in analysis.METRICS]
    sources += [
        (f"norm {name}", f"Norm of {name}", matrix, findings.space.rows)
        for name, matrix in findings.norm_matrices.items()
    ]
    groups = [("", "all models together", ["all models"], np.zeros(len(everyone), int))]
    for factor in findings.factors:
        of_model = analysis.levels(findings.models, factor)
        names = [str(label) for label in of_model.categories]
        groups.append((factor, LABELS[factor], names, np.asarray(of_model.codes)))
    shares = findings.main_shares
    return {
        "first": max(shares, key=lambda factor: shares[factor]) if shares else "",
        "groups": [{"key": key, "label": label, "levels": names} for key, label, names, _ in groups],
        "metrics": [
            {
                "key": key,
                "label": label,
                "log": key.endswith("loss") or key.startswith("norm"),
                "epochs": matrix.columns.tolist(),
                "groups": {group: _bands(matrix, codes[rows], len(names)) for group, _, names, codes in groups},
            }
            for key, label, matrix, rows in sources
        ],
    }


def _bands(matrix: pd.DataFrame, codes: np.ndarray, levels: int) -> list[dict[str, list[float | None]]]:
    """q25, median and q75 by level, each a list over the epochs."""
    values = matrix.to_numpy()
    tables = [analysis.quantiles(values[codes == level]) for level in range(levels)]
    return [{name: _short(table[name].tolist()) for name in ("q25", "median", "q75")} for table in tables]


def _short(values: list[float]) -> list[float | None]:
    return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values]
