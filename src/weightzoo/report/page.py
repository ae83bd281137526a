"""`index.html`: facts in words, static figures, and the data that the page's script makes interactive."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from weightzoo import analysis
from weightzoo.analysis.output import Stored
from weightzoo.architectures.graph import (
    Activation,
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    Linear,
    MaxPool,
    Residual,
)
from weightzoo.checkpoints import ranges
from weightzoo.members import FACTORS
from weightzoo.report import payload
from weightzoo.report.charts import Chart
from weightzoo.report.findings import Findings
from weightzoo.report.labels import LABELS, factor_value, fixed, percent, points
from weightzoo.report.style import panel_svg
from weightzoo.report.telling import told_by_methods


def render(findings: Findings, charts: list[Chart], told: Stored | None = None) -> str:
    """The whole page as HTML, with what an analysis told of the zoo; `charts` are also those of its methods."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("weightzoo.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    data = payload.page_data(findings)
    return environment.get_template("page.html").render(
        zoo=findings.zoo,
        model_count=len(findings.models),
        tiles=_tiles(findings),
        facts=_facts(findings),
        hyperparameters=_hyperparameters(findings),
        best=_best(findings),
        effects=_effect_rows(findings),
        snippet=_snippet(findings),
        told=told and told_by_methods(told),
        charts={chart.name: chart for chart in charts},
        svgs={chart.name: [_svg(chart, index) for index in range(len(chart.panels))] for chart in charts},
        columns=data["columns"],
        static_rows=payload.static_rows(data["columns"]),
        shown=len(data["columns"][0]["values"]),
        data=payload.script_json(data),
        css=_asset("page.css"),
        js=_asset("page.js"),
    )


def _tiles(findings: Findings) -> list[tuple[str, str, str]]:
    """The headline figures: label, figure, note."""
    statuses = findings.statuses
    kept = len(findings.zoo.checkpoint_epochs)
    tiles = [
        (
            "Models",
            f"{len(findings.models):,}",
            ", ".join(f"{count:,} {status}" for status, count in statuses.items() if count),
        ),
        ("Model states", f"{findings.states:,}", f"weights at {kept} epoch{'s' * (kept != 1)}"),
    ]
    if findings.final("test_accuracy")["models"]:
        accuracy, gap = findings.final("test_accuracy"), findings.final("generalization_gap")
        spread = f"last epoch; middle half {percent(accuracy['q25'])} to {percent(accuracy['q75'])}"
        tiles.append(("Median test accuracy", percent(accuracy["median"]), spread))
        spread = f"training minus test; middle half {points(gap['q25'])} to {points(gap['q75'])}"
        tiles.append(("Median generalisation gap", f"{points(gap['median'])} points", spread))
    if findings.best is not None:
        row = findings.model(findings.best)
        chosen = f"chosen on validation ({percent(row['best_val_accuracy'])})"
        note = f"model {findings.best}, epoch {row['best_epoch']}, {chosen}"
        tiles.append(("Test accuracy of the best", percent(row["best_test_accuracy"]), note))
    if findings.main_shares:
        factor, share = max(findings.main_shares.items(), key=lambda item: item[1])
        tiles.append(("Strongest factor", LABELS[factor], f"{share:.0%} of the variance of test accuracy"))
    return tiles


def _facts(findings: Findings) -> list[tuple[str, str]]:
    zoo, models = findings.zoo, findings.models
    info, architecture = zoo.dataset_info, zoo.architecture
    channels, height, width = architecture.input_shape
    layers = "; ".join(filter(None, (_layer_in_words(layer) for layer in architecture.layers)))
    splits = {name: models["split"].tolist().count(name) for name in ("train", "val", "test")}
    engines = sorted(set(models["engine"].tolist()))
    images = f"{len(info.class_names)} classes, images {width} x {height} x {channels}"
    spec = zoo.header.spec or {}
    configuration, rehearsal = spec.get("configuration"), spec.get("rehearsal")
    return [
        *([("Rehearsal", _rehearsal_in_words(rehearsal))] if rehearsal else []),
        *([("Configuration", configuration)] if isinstance(configuration, str) else []),
        ("Data set", f"{info.name}: {images}" + (f" (hash {info.hash})" if info.hash else "")),
        ("Architecture", f"{architecture.name}, {architecture.layout.trained:,} parameters: {layers}"),
        ("Training", _training_in_words(findings)),
        ("Kept epochs", _epochs_in_words(zoo.checkpoint_epochs)),
        ("Splits by model", ", ".join(f"{name} {count:,}" for name, count in splits.items())),
        ("Engine", ", ".join(engines)),
    ]


def _training_in_words(findings: Findings) -> str:
    spec = findings.zoo.header.spec or {}
    described: Mapping[str, Any] = spec.get("protocol") or spec.get("training") or {}
    training = {key: value for key, value in described.items() if value is not None}
    words = [f"{training.get('epochs', max(findings.models['last_epoch'].tolist()))} epochs"]
    if "batch_size" in training:
        words.append(f"batch size {training['batch_size']}")
    schedule = training.get("schedule")
    if isinstance(schedule, Mapping) and "kind" in schedule:
        details = ", ".join(f"{key} {value}" for key, value in schedule.items() if key != "kind")
        kind = str(schedule["kind"]).replace("_", " ")
        words.append(f"{kind} learning rate" + (f" ({details})" if details else ""))
    if "momentum" in training and "sgd" in findings.models["optimizer"].tolist():
        words.append(f"momentum {training['momentum']} of SGD")
    augmentation = training.get("augmentation")
    if isinstance(augmentation, Mapping):
        used = (key if value is True else f"{key} {value:g}" for key, value in augmentation.items())
        words.append(f"augmented by {', '.join(used)}")
    if "precision" in training:
        words.append(str(training["precision"]))
    return ", ".join(words)


def _rehearsal_in_words(rehearsal: Mapping[str, Any]) -> str:
    limits = ", ".join(f"{rehearsal[key]:,} {words}" for key, words in _LIMITS.items())
    return f"of {rehearsal['of']}, with at most {limits}"


_LIMITS = {"members": "models", "images": "training images", "epochs": "epochs"}


def _epochs_in_words(epochs: tuple[int, ...]) -> str:
    if len(epochs) > 1 and epochs == tuple(range(epochs[-1] + 1)):
        return f"all from 0 to {epochs[-1]}; epoch 0 is before training"
    return ranges(epochs)


def _layer_in_words(layer: Layer) -> str:
    match layer:
        case Conv():
            return f"{layer.name} {layer.in_channels} to {layer.out_channels}, kernel {layer.kernel}"
        case Linear():
            return f"{layer.name} {layer.in_features} to {layer.out_features}"
        case MaxPool():
            return f"max-pool {layer.size}"
        case GlobalAveragePool():
            return "global average pool"
        case Residual():
            return f"residual block {layer.name}"
        case Activation() | BatchNorm() | Dropout() | Flatten():
            return ""


def _hyperparameters(findings: Findings) -> list[tuple[str, list[tuple[str, int]]]]:
    """Each factor with its values and how many models have each; then the seeds, without counts."""
    table: list[tuple[str, list[tuple[str, int]]]] = []
    for factor in FACTORS:
        of_model = analysis.levels(findings.models, factor)
        counts = np.bincount(np.asarray(of_model.codes), minlength=len(of_model.categories))
        labels = [str(label) for label in of_model.categories]
        table.append((LABELS[factor], list(zip(labels, counts.tolist(), strict=True))))
    for label, seeds in findings.seeds.items():
        distinct = np.unique(seeds[~pd.isna(seeds)]).tolist()
        several = f"{len(distinct):,} different, {distinct[0]} to {distinct[-1]}"
        table.append((label, [(", ".join(map(str, distinct)) if len(distinct) <= 10 else several, 0)]))
    return table


def _best(findings: Findings) -> dict[str, Any] | None:
    if findings.best is None:
        return None
    row = findings.model(findings.best)
    factors = [(LABELS[factor], factor_value(row[factor])) for factor in FACTORS]
    return {"number": findings.best, "member": row["member"], "epoch": row["best_epoch"], "factors": factors}


def _effect_rows(findings: Findings) -> list[dict[str, Any]]:
    numbers = ("mean", "q25", "median", "q75")
    return [
        {**row, "label": LABELS[row["factor"]], **{name: fixed(row[name]) for name in numbers}}
        for row in findings.effects.to_dict("records")
    ]


def _snippet(findings: Findings) -> str:
    """Code that opens the zoo and takes out its best model."""
    zoo = findings.zoo
    epochs = list(dict.fromkeys((zoo.checkpoint_epochs[0], zoo.checkpoint_epochs[-1])))
    layer = zoo.layout.layers[0]
    span = zoo.layout.span(layer)
    shape = f"float32 [1, {len(epochs)}, {span.stop - span.start}]"
    lines = [
        ("import weightzoo", ""),
        ("", ""),
        (f"zoo = weightzoo.Zoo.open({'zoos/' + zoo.name!r})", ""),
        ("zoo.models", "a DataFrame, a row a model"),
        (f"zoo.weights(models=[0], epochs={epochs}, layer={layer!r})", shape),
    ]
    if findings.best is not None:
        best_epoch = findings.model(findings.best)["best_epoch"]
        there = np.asarray(zoo.checkpoint_epochs)[zoo.present[findings.best]].tolist()
        kept = [epoch for epoch in there if epoch <= best_epoch] or there[:1]
        lines.append((f"zoo.module({findings.best}, epoch={kept[-1]})", "the best model, a torch.nn.Module"))
    width = max(len(code) for code, comment in lines if comment)
    return "\n".join(f"{code:<{width}}  # {comment}" if comment else code for code, comment in lines)


def _svg(chart: Chart, index: int) -> Markup:
    panel = chart.panels[index]
    height = panel.height or chart.height
    return Markup(panel_svg(f"{chart.name}-{panel.name}", panel.draw, panel.description, height))


def _asset(name: str) -> Markup:
    return Markup(resources.files("weightzoo.report").joinpath(name).read_text(encoding="utf-8"))
