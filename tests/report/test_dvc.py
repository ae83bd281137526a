"""What the report writes for DVC, shown by DVC itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

DVC_YAML = """
metrics:
  - report/metrics.json
plots:
  - report/figures
  - Test accuracy:
      x: epoch
      y: {report/plots/learning_curves.csv: [test_accuracy_q25, test_accuracy_median, test_accuracy_q75]}
  - report/plots/weight_map.csv: {template: scatter, x: pc1, y: pc2}
  - report/plots/variance_shares.csv: {template: bar_horizontal, x: share, y: source}
  - report/plots/weight_norms.csv
"""


def dvc(folder: Path, *arguments: str) -> Any:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(done.stdout) if "--json" in arguments else None


def test_dvc_shows_the_metrics_and_renders_the_plots(report: Path, tmp_path: Path):
    shutil.copytree(report, tmp_path / "report")
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    dvc(tmp_path, "init", "--no-scm", "--quiet")
    shown = dvc(tmp_path, "metrics", "show", "--json")
    assert shown[""]["data"]["report/metrics.json"]["data"] == json.loads((report / "metrics.json").read_text())
    plots = dvc(tmp_path, "plots", "show", "--json")
    assert not plots.get("errors")
    kinds = {name: [entry["type"] for entry in entries] for name, entries in plots["data"].items()}
    figures = {f"report/figures/{path.name}": ["image"] for path in (report / "figures").iterdir()}
    tables = [
        "Test accuracy",
        *(f"report/plots/{name}.csv" for name in ("weight_map", "variance_shares", "weight_norms")),
    ]
    assert kinds == figures | {name: ["vega"] for name in tables}
    drawn = json.dumps(plots["data"]["Test accuracy"])
    assert "test_accuracy_median" in drawn
    assert json.dumps(plots["data"]["report/plots/weight_map.csv"]).count("pc1") > 10
