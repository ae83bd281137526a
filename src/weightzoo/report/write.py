"""`reports/<zoo>/` as a folder: the page, the figures as PNG, and data that DVC's plots and metrics show."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from weightzoo import analysis
from weightzoo.analysis.output import OUTPUTS, UNFINISHED, Stored, read_analysis
from weightzoo.analysis.performance import QUANTILES
from weightzoo.errors import FormatError
from weightzoo.members import FACTORS
from weightzoo.report import charts
from weightzoo.report.charts import Chart
from weightzoo.report.findings import ALL_LAYERS, CURVES, Findings
from weightzoo.report.page import render
from weightzoo.report.style import panels_png
from weightzoo.zoo.replace import replaced_folder

if TYPE_CHECKING:
    from weightzoo.zoo import Zoo

PAGE, METRICS, FIGURES, PLOTS = "index.html", "metrics.json", "figures", "plots"
_KEPT = (".gitignore", *OUTPUTS)  # DVC puts the first beside its outs; an analysis of the zoo writes the others
_USUAL = 7  # steps, before it is known how many there are
_log = logging.getLogger("weightzoo")
_SPREAD = ("mean", "std", "min", "q05", "q25", "median", "q75", "q95", "max")
_SUMMARISED = {metric: _SPREAD if metric == "test_accuracy" else ("mean", "median") for metric in analysis.METRICS}


def write_report(zoo: Zoo, folder: Path | str, *, on_progress: Callable[[int, int, str], None] | None = None) -> Path:
    """Write the report of a zoo into `folder`, in place of a former one, and return the path of its page.

    Files: `index.html`, which needs no other; `figures/*.png`; `plots/*.csv`, the same figures' data for
    `dvc plots show`; `metrics.json` for `dvc metrics show`. What an analysis of the zoo wrote into the folder (see
    `write_analysis`) stays there and is told on the page. They depend on the zoo and its analysis alone, not on
    provenance: the same give the same bytes. A failure leaves a former report as it was. `on_progress` is told how many
    steps of how many are done, and which comes next.

    Raises:
        FormatError: `folder` holds something other than a report, or the zoo or its analysis is corrupt.
        MissingError: a file of the zoo is missing.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100  (a link stays a link)
    _refuse_foreign(folder)
    tell = on_progress or (lambda done, total, what: None)
    tell(0, _USUAL, "findings")
    findings = Findings(zoo)
    told = _analysis(folder, zoo)
    drawn = _charts(findings) + ([charts.of_method(result) for result in told.analysed.results] if told else [])
    steps = len(drawn) + 2  # findings, the figures, the page
    with replaced_folder(folder) as partial:
        _take_over(folder, partial)
        (partial / FIGURES).mkdir()
        (partial / PLOTS).mkdir()
        for done, chart in enumerate(drawn, start=1):
            tell(done, steps, chart.title.lower())
            if not chart.panels:
                continue
            png = panels_png(f"{zoo.name}: {chart.title}", [(p.title, p.draw) for p in chart.panels], chart.height)
            (partial / FIGURES / f"{chart.name}.png").write_bytes(png)
        for name, table in _plots(findings).items():
            table.to_csv(partial / PLOTS / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
        tell(steps - 1, steps, "page")
        (partial / METRICS).write_text(json.dumps(_metrics(findings), indent=2) + "\n", encoding="utf-8")
        (partial / PAGE).write_text(render(findings, drawn, told), encoding="utf-8", newline="\n")
    return folder / PAGE


def _analysis(folder: Path, zoo: Zoo) -> Stored | None:
    """What an analysis of this very zoo left in the folder."""
    told = read_analysis(folder)
    if told is not None and not told.is_of(zoo):
        _log.warning("%s: its analysis is of another build of the zoo, and left out; analyse the zoo again", folder)
        return None
    return told


def _take_over(folder: Path, partial: Path) -> None:
    """What is in the folder and not the report's goes on to be there, as the same files."""
    for name in _KEPT:
        former = folder / name
        if former.is_dir() and not former.is_symlink():
            shutil.copytree(former, partial / name, symlinks=True, copy_function=_link)
        elif former.is_symlink() or former.exists():
            _link(former, partial / name)


def _link(source: Path | str, target: Path | str) -> None:
    os.link(source, target, follow_symlinks=False)


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise FormatError(f"{folder}: is a file; give the path of a folder")
    ours = {PAGE, METRICS, FIGURES, PLOTS, *_KEPT}
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    foreign = sorted(name for name in names if name not in ours and not name.startswith(UNFINISHED))
    if foreign:
        raise FormatError(f"{folder}: holds {foreign[0]!r}, which no report has; choose another folder or empty it")


def _charts(findings: Findings) -> list[Chart]:
    """Those that there is something to draw in."""
    best = findings.best
    own = None if best is None else {metric: findings.matrices[metric].iloc[best].to_numpy() for metric in CURVES}
    drawn = [
        charts.distributions(findings.histograms),
        charts.learning_curves({metric: findings.curves[metric] for metric in CURVES}, own),
    ]
    if findings.factors and findings.statuses["finished"]:
        drawn.append(charts.factor_effects(findings.models, findings.effects, findings.shares))
    sample = len(findings.space.rows) if len(findings.space.rows) < len(findings.models) else None
    drawn.append(charts.weight_norms(findings.norms, sample))
    if findings.has_map:
        models = findings.models.iloc[findings.space.rows]
        drawn.append(charts.weight_map(findings.space, models, findings.factors, sample))
    return drawn


def _plots(findings: Findings) -> dict[str, pd.DataFrame]:
    """The data of each figure, as tables that DVC can plot: one file a figure, the same columns for every zoo.

    The last column, which DVC draws unless told otherwise, is the one to look at first.
    """
    quantiles = ["mean", *(name for name in QUANTILES if name != "median"), "median"]
    curves = sorted(findings.curves.items(), key=lambda item: item[0] == "test_accuracy")
    learning = pd.concat([table[quantiles].add_prefix(f"{name}_") for name, table in curves], axis=1)
    learning.insert(0, "epoch", findings.curves["test_accuracy"]["epoch"])
    histogram = findings.histograms["test_accuracy"]
    epochs, centres = histogram.index.to_numpy(), histogram.columns.to_numpy()
    shares = pd.DataFrame(
        {
            "epoch": np.repeat(epochs, len(centres)),
            "test_accuracy": np.tile(centres, len(epochs)),
            "share": histogram.to_numpy().ravel(),
        }
    )
    norms = pd.concat([table.assign(layer=name) for name, table in findings.norms.items()], ignore_index=True)
    return {
        "accuracy_distributions": shares.iloc[np.flatnonzero(shares["share"])],
        "learning_curves": learning,
        "factor_effects": findings.effects,
        "variance_shares": findings.shares,
        "weight_norms": norms.reindex(columns=["layer", "epoch", *quantiles]),
        "weight_map": _map_table(findings),
    }


def _map_table(findings: Findings) -> pd.DataFrame:
    """Model number, coordinates, norm, factors and test accuracy of the mapped models at the last kept epoch."""
    space = findings.space
    chosen = np.flatnonzero(space.mapped) if findings.has_map else np.empty(0, int)
    models = findings.models.iloc[space.rows[chosen]]
    table = pd.DataFrame(
        {f"pc{axis + 1}": space.coordinates[chosen, -1, axis] for axis in range(space.coordinates.shape[2])}
    )
    table.insert(0, "model", space.rows[chosen])
    table["norm"] = space.total_norms[chosen, -1]
    for column in (*FACTORS, "test_accuracy"):
        table[column] = models[column].to_numpy()
    return table


def _metrics(findings: Findings) -> dict[str, Any]:
    """The figures by which two builds of a zoo are compared; one that does not exist is left out."""
    best = findings.best
    metrics: dict[str, Any] = {
        "models": {"total": len(findings.models), **findings.statuses},
        "states": findings.states,
        "parameters": findings.zoo.layout.trained,
        "final": {
            metric: _finite({name: findings.final(metric)[name] for name in names})
            for metric, names in _SUMMARISED.items()
        },
    }
    if best is not None:
        row = findings.models.iloc[best]
        metrics["best"] = {
            "model": best,
            "member": str(row["member"]),
            "epoch": int(row["best_epoch"]),
            **_finite({"val_accuracy": row["best_val_accuracy"], "test_accuracy": row["best_test_accuracy"]}),
        }
    shares = findings.shares[findings.shares["kind"].isin(["main", "seed"])]
    if len(shares):
        metrics["variance_share"] = _finite(dict(zip(shares["source"], shares["share"], strict=True)))
    norm = findings.norms[ALL_LAYERS]["median"].iloc[-1]
    return {**metrics, **_finite({"weight_norm": norm})}


def _finite(values: dict[Any, Any]) -> dict[str, float]:
    return {str(name): float(f"{float(value):.6g}") for name, value in values.items() if math.isfinite(value)}
