"""`index.html`: facts in words, static figures, and the data that the page's script makes interactive."""

from __future__ import annotations

import json
import math
from importlib import resources
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from weightzoo import analysis
from weightzoo.analysis.factors import number
from weightzoo.architectures.graph import Activation, Conv, Dropout, Flatten, Layer, Linear, MaxPool
from weightzoo.members import FACTORS
from weightzoo.report.charts import LABELS, Chart
from weightzoo.report.findings import Findings
from weightzoo.report.style import CATEGORIES, SEQUENCE, panel_svg

MOST_ROWS = 5000  # in the table of models
MOST_STATIC_ROWS = 15  # of it without script
_EXPLORED = 9000  # models x epochs that the explorer carries
_QUANTUM = 9999  # a coordinate is stored as one of this many steps of its range
_TABLE_METRICS = ("train_accuracy", "val_accuracy", "test_accuracy", "generalization_gap", "test_loss")


def render(findings: Findings, charts: list[Chart]) -> str:
    """The whole page as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("weightzoo.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    shown = _shown_rows(findings)
    columns = _model_columns(findings, shown)
    data = {
        "palette": CATEGORIES,
        "sequence": SEQUENCE,
        "columns": columns,
        "explorer": _explorer(findings, shown),
        "curves": _curves(findings),
    }
    return environment.get_template("page.html").render(
        zoo=findings.zoo,
        findings=findings,
        labels=LABELS,
        facts=_facts(findings),
        tiles=_tiles(findings),
        hyperparameters=_hyperparameters(findings),
        best=_best(findings),
        effects=_effect_rows(findings),
        snippet=_snippet(findings),
        charts={chart.name: chart for chart in charts},
        svgs={
            chart.name: [
                Markup(panel_svg(f"{chart.name}-{panel.name}", panel.draw, panel.description, chart.height))
                for panel in chart.panels
            ]
            for chart in charts
        },
        static_columns=columns,
        static_rows=_static_rows(columns),
        shown=len(shown),
        data=_script_json(data),
        css=_asset("page.css"),
        js=_asset("page.js"),
    )


# --- in words -------------------------------------------------------------------------------------------------------


def _tiles(findings: Findings) -> list[tuple[str, str, str]]:
    """The headline figures: label, figure, note."""
    statuses, summary, best = findings.statuses, findings.summary, findings.best
    notes = [f"{count:,} {status}" for status, count in statuses.items() if count]
    kept = len(findings.zoo.checkpoint_epochs)
    tiles = [
        ("Models", f"{len(findings.models):,}", ", ".join(notes)),
        ("Model states", f"{findings.states:,}", f"weights at {kept} epoch{'s' * (kept != 1)}"),
    ]
    accuracy, gap = summary.loc["test_accuracy"], summary.loc["generalization_gap"]
    if statuses["finished"]:
        spread = f"middle half {_percent(accuracy['q25'])} to {_percent(accuracy['q75'])}"
        tiles.append(("Median test accuracy", _percent(accuracy["median"]), f"last epoch; {spread}"))
        spread = f"training minus test; middle half {gap['q25'] * 100:+.1f} to {gap['q75'] * 100:+.1f}"
        tiles.append(("Median generalisation gap", f"{gap['median'] * 100:+.1f} points", spread))
    if best is not None:
        row = findings.models.iloc[best]
        note = f"model {best}, epoch {int(row['best_epoch'])}, chosen on validation ({_percent(row['best_val_accuracy'])})"
        tiles.append(("Test accuracy of the best", _percent(row["best_test_accuracy"]), note))
    main = findings.shares[findings.shares["kind"] == "main"]
    if len(main):
        top = main.loc[main["share"].idxmax()]
        tiles.append(("Strongest factor", LABELS[str(top["source"])], f"{top['share']:.0%} of the variance of test accuracy"))
    return tiles


def _facts(findings: Findings) -> list[tuple[str, str]]:
    zoo, models = findings.zoo, findings.models
    info, architecture = zoo.dataset_info, zoo.architecture
    channels, height, width = architecture.input_shape
    training: dict[str, Any] = dict((zoo.header.spec or {}).get("training") or {})
    epochs = zoo.checkpoint_epochs
    layers = "; ".join(filter(None, (_layer_in_words(layer) for layer in architecture.layers)))
    facts = [
        ("Data set", f"{info.name}: {len(info.class_names)} classes, images {width} x {height} x {channels} (hash {info.hash})"),
        ("Architecture", f"{architecture.name}, {architecture.layout.size:,} parameters: {layers}"),
        ("Training", _training_in_words(training, int(models["last_epoch"].max()), models)),
        ("Kept epochs", _epochs_in_words(epochs)),
        ("Splits by model", ", ".join(f"{name} {int((models['split'] == name).sum()):,}" for name in ("train", "val", "test"))),
        ("Trained by", ", ".join(f"engine {name} ({count:,})" for name, count in sorted(models["engine"].value_counts().items()))),
    ]
    return facts


def _training_in_words(training: dict[str, Any], last: int, models: pd.DataFrame) -> str:
    words = [f"{training.get('epochs', last)} epochs"]
    if "batch_size" in training:
        words.append(f"batch size {training['batch_size']}")
    schedule = training.get("schedule")
    if isinstance(schedule, dict) and "kind" in schedule:
        details = ", ".join(f"{key} {value}" for key, value in schedule.items() if key != "kind")
        kind = str(schedule["kind"]).replace("_", " ")
        words.append(f"{kind} learning rate" + (f" ({details})" if details else ""))
    if "momentum" in training and (models["optimizer"] == "sgd").any():
        words.append(f"momentum {training['momentum']} of SGD")
    return ", ".join(words)


def _epochs_in_words(epochs: tuple[int, ...]) -> str:
    if len(epochs) > 1 and epochs == tuple(range(epochs[0], epochs[-1] + 1)):
        return f"all from {epochs[0]} to {epochs[-1]}; epoch 0 is before training"
    return ", ".join(str(epoch) for epoch in epochs)


def _layer_in_words(layer: Layer) -> str:
    match layer:
        case Conv():
            return f"{layer.name} {layer.in_channels} to {layer.out_channels}, kernel {layer.kernel}"
        case Linear():
            return f"{layer.name} {layer.in_features} to {layer.out_features}"
        case MaxPool():
            return f"max-pool {layer.size}"
        case Activation() | Dropout() | Flatten():
            return ""


def _hyperparameters(findings: Findings) -> list[tuple[str, list[tuple[str, int]]]]:
    """Each factor with its values and how many models have each; then the seeds."""
    table: list[tuple[str, list[tuple[str, int]]]] = []
    for factor in FACTORS:
        of_model = analysis.levels(findings.models, factor)
        counts = np.bincount(np.asarray(of_model.codes), minlength=len(of_model.categories))
        table.append((LABELS[factor], [(str(label), int(n)) for label, n in zip(of_model.categories, counts, strict=True)]))
    for name, column in _seed_columns(findings.models).items():
        distinct = column.nunique()
        words = f"{distinct:,} different, {column.min()} to {column.max()}" if distinct > 1 else str(column.iloc[0])
        table.append((name, [(words, 0)]))
    return table


def _seed_columns(models: pd.DataFrame) -> dict[str, pd.Series]:
    """One column if each model's three seeds are equal, as is usual; else three."""
    columns = {f"Seed of {name}": models[f"seed_{name}"] for name in ("init", "order", "dropout")}
    first, *others = columns.values()
    return {"Seed": first} if all((first == other).all() for other in others) else columns


def _best(findings: Findings) -> dict[str, Any] | None:
    if findings.best is None:
        return None
    row = findings.models.iloc[findings.best]
    factors = [(LABELS[factor], _value(row[factor])) for factor in FACTORS]
    return {"number": findings.best, "member": row["member"], "epoch": int(row["best_epoch"]), "factors": factors}


def _effect_rows(findings: Findings) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = findings.effects.to_dict("records")  # pyright: ignore[reportAssignmentType]
    for row in rows:
        row["label"] = LABELS[row["factor"]]
        for name in ("mean", "q25", "median", "q75"):
            row[name] = _fixed(row[name])
    return rows


def _snippet(findings: Findings) -> str:
    zoo = findings.zoo
    first, last = zoo.checkpoint_epochs[0], zoo.checkpoint_epochs[-1]
    layer = zoo.layout.layers[0]
    span = zoo.layout.span(layer)
    epochs = list(dict.fromkeys((first, last)))
    lines = [
        "import weightzoo",
        "",
        f"zoo = weightzoo.Zoo.open({'zoos/' + zoo.name!r})",
        "zoo.models                       # a DataFrame, a row a model",
        f"zoo.weights(models=[0], epochs={epochs}, layer={layer!r})  # float32 [1, {len(epochs)}, {span.stop - span.start}]",
    ]
    if findings.best is not None:
        epoch = int(findings.models["best_epoch"].iloc[findings.best])
        nearest = min(zoo.checkpoint_epochs, key=lambda kept: abs(kept - epoch))
        lines.append(f"model = zoo.module({findings.best}, epoch={nearest})  # the best model, a torch.nn.Module")
    return "\n".join(lines)


# --- the data behind the script -------------------------------------------------------------------------------------


def _shown_rows(findings: Findings) -> np.ndarray:
    """Rows of the models that the page lists: all, or an even sample with the best and the mapped ones."""
    count = len(findings.models)
    if count <= MOST_ROWS:
        return np.arange(count)
    sample = analysis.evenly(count, MOST_ROWS - len(findings.space.rows) - 1)
    best = [] if findings.best is None else [findings.best]
    return np.unique(np.concatenate([sample, findings.space.rows, best]).astype(np.int64))


def _model_columns(findings: Findings, shown: np.ndarray) -> list[dict[str, Any]]:
    """The columns of the table of models: label, kind and values.

    Metrics of diverged models are left out: what their record holds says nothing about a model.
    """
    models = findings.models.iloc[shown]
    diverged = (models["status"] == "diverged").to_numpy(bool)
    columns: list[dict[str, Any]] = [
        {"key": "model", "label": "Model", "kind": "integer", "values": shown.tolist()},
    ]
    for factor in findings.factors:
        of_all = analysis.levels(findings.models, factor)
        if findings.models[factor].nunique() > len(of_all.categories):
            values = [float(f"{value:.4g}") for value in models[factor]]
            columns.append({"key": factor, "label": LABELS[factor], "kind": "number", "digits": None, "values": values})
        else:
            columns.append(_category(factor, LABELS[factor], of_all[shown]))
    for label, column in _seed_columns(models).items():
        key = label.lower().replace(" of ", "_")
        columns.append({"key": key, "label": label, "kind": "integer", "values": column.tolist()})
    columns.append(_category("status", "Status", pd.Categorical(models["status"])))
    columns.append(_category("split", "Split", pd.Categorical(models["split"], categories=["train", "val", "test"])))
    if models["last_epoch"].nunique() > 1:
        columns.append({"key": "last_epoch", "label": "Last epoch", "kind": "integer", "values": models["last_epoch"].tolist()})
    for metric in _TABLE_METRICS:
        columns.append(_metric(metric, LABELS[metric], models[metric], diverged))
    best = models["best_epoch"].astype("Int32").mask(diverged)
    columns.append(
        {"key": "best_epoch", "label": "Best epoch", "kind": "integer", "values": [None if pd.isna(b) else int(b) for b in best]}
    )
    columns.append(_metric("best_val_accuracy", "Best validation accuracy", models["best_val_accuracy"], diverged))
    columns.append(_metric("best_test_accuracy", "Test accuracy then", models["best_test_accuracy"], diverged))
    columns.append({"key": "member", "label": "Member id", "kind": "text", "values": [str(m) for m in models["member"]]})
    return columns


def _category(key: str, label: str, values: pd.Categorical) -> dict[str, Any]:
    levels = [str(level) for level in values.categories]
    return {"key": key, "label": label, "kind": "category", "levels": levels, "values": np.asarray(values.codes).tolist()}


def _metric(key: str, label: str, column: pd.Series, hidden: np.ndarray) -> dict[str, Any]:
    values = column.to_numpy(np.float64)
    kept = [None if gone or not math.isfinite(v) else round(float(v), 4) for v, gone in zip(values, hidden, strict=True)]
    return {"key": key, "label": label, "kind": "number", "digits": 4, "values": kept}


def _explorer(findings: Findings, shown: np.ndarray) -> dict[str, Any] | None:
    """Per model and epoch, quantised: coordinates, norm and metrics; `rows` are places in the table of models."""
    space = findings.space
    if not len(space.rows):
        return None
    most = max(2, min(26, _EXPLORED // len(space.rows)))
    at = analysis.evenly(len(space.epochs), most)
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
        quantities.append((metric, LABELS[metric], matrix.iloc[space.rows][epochs].to_numpy()))
    return {
        "rows": np.searchsorted(shown, space.rows).tolist(),
        "epochs": epochs.tolist(),
        "quantities": [{"key": key, "label": label, **_quantised(values)} for key, label, values in quantities],
    }


def _quantised(values: np.ndarray) -> dict[str, Any]:
    """`[M, E]` numbers as integers 0 .. _QUANTUM of their range, epoch by epoch; None where not finite."""
    finite = np.isfinite(values)
    low, high = (float(values[finite].min()), float(values[finite].max())) if finite.any() else (0.0, 1.0)
    low, high = float(f"{low:.6g}"), float(f"{high:.6g}")
    span = high - low or 1.0
    steps = np.where(finite, np.rint((np.where(finite, values, low) - low) / span * _QUANTUM), -1).astype(int)
    return {"low": low, "high": low + span, "steps": [[None if s < 0 else int(s) for s in row] for row in steps.T]}


def _curves(findings: Findings) -> dict[str, Any]:
    """Median and quartiles of each metric and norm over the epochs: of all models, and by value of each factor."""
    sources = [(metric, LABELS[metric], findings.matrices[metric], None) for metric in analysis.METRICS]
    rows = findings.space.rows
    sources += [(f"norm {name}", f"Norm of {name}", matrix, rows) for name, matrix in findings.norm_matrices.items()]
    groups: list[tuple[str, str, list[str], np.ndarray]] = [
        ("", "all models together", ["all models"], np.zeros(len(findings.models), int))
    ]
    for factor in findings.factors:
        of_model = analysis.levels(findings.models, factor)
        groups.append((factor, LABELS[factor], [str(label) for label in of_model.categories], np.asarray(of_model.codes)))
    return {
        "groups": [{"key": key, "label": label, "levels": names} for key, label, names, _ in groups],
        "metrics": [
            {
                "key": key,
                "label": label,
                "log": key.endswith("loss"),
                "epochs": matrix.columns.tolist(),
                "groups": {name: _bands(matrix, codes if own is None else codes[own], len(names)) for name, _, names, codes in groups},
            }
            for key, label, matrix, own in sources
        ],
    }


def _bands(matrix: pd.DataFrame, codes: np.ndarray, levels: int) -> list[dict[str, list[float | None]]]:
    """q25, median and q75 by level, each a list over the epochs."""
    values = matrix.to_numpy()
    tables = [analysis.quantiles(values[codes == level]) for level in range(levels)]
    return [{name: _short(table[name].to_numpy()) for name in ("q25", "median", "q75")} for table in tables]


def _static_rows(columns: list[dict[str, Any]]) -> list[list[str]]:
    """The best models as text, for readers without script."""
    by_key = {column["key"]: column for column in columns}
    best = by_key["best_val_accuracy"]["values"]
    order = sorted(range(len(best)), key=lambda row: (best[row] is None, -(best[row] or 0)))[:MOST_STATIC_ROWS]
    return [[_cell(column, row) for column in columns] for row in order]


def _cell(column: dict[str, Any], row: int) -> str:
    value = column["values"][row]
    if value is None:
        return "–"
    if column["kind"] == "category":
        return column["levels"][value]
    if column["kind"] == "number":
        return f"{value:.{column['digits']}f}" if column["digits"] else number(value)
    return str(value)


def _script_json(data: Any) -> Markup:
    """JSON that can stand in a script element: nothing in it can end the element or open a comment."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _asset(name: str) -> Markup:
    return Markup(resources.files("weightzoo.report").joinpath(name).read_text(encoding="utf-8"))


def _short(values: np.ndarray) -> list[float | None]:
    return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values]


def _percent(value: float) -> str:
    return f"{value * 100:.1f} %" if math.isfinite(value) else "–"


def _fixed(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"


def _value(value: object) -> str:
    return number(float(value)) if isinstance(value, float | int | np.number) else str(value)
