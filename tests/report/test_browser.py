"""The page's script in a real browser: no error, and the table, the explorer and the curves do what they should."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs a browser: Debian's package chromium")

LISTEN = """<script>
window.faults = [];
addEventListener("error", (event) => faults.push(String(event.message)));
console.error = console.warn = (...what) => faults.push(what.join(" "));
</script>"""
ACT = """<script>
const get = (id) => document.getElementById(id);
const column = (name) => {
  const at = [...get("table").tHead.rows[0].cells].findIndex((cell) => cell.textContent === name);
  return [...get("table").tBodies[0].rows].map((row) => row.cells[at].textContent);
};
const press = (name) => [...document.querySelectorAll("#table th button")].find((b) => b.textContent === name).click();
const filter = (text) => { get("table-filter").value = text; get("table-filter").dispatchEvent(new Event("input")); };
const choose = (id, value) => { get(id).value = value; get(id).dispatchEvent(new Event("change")); };
const visible = () => [...document.querySelectorAll("#explorer circle")].filter((c) => c.style.display !== "none");
const seen = {};
seen.first = column("Best val. accuracy");
press("Test accuracy");
seen.descending = column("Test accuracy");
press("Test accuracy");
seen.ascending = column("Test accuracy");
seen.sorted = document.querySelector("#table th[aria-sort]").textContent;
filter("relu dropout=0.5");
seen.filtered = column("Activation").map((activation, row) => [activation, column("Dropout")[row]]);
filter("test_accuracy>0.2 status=finished");
seen.good = column("Test accuracy");
seen.count = get("table-count").textContent;
filter("diverged");
seen.diverged = [column("Model"), column("Test accuracy")];
filter("accurracy>1");
seen.complaint = get("table-count").textContent;
filter("");
seen.points = visible().length;
get("explorer-slider").value = 0;
get("explorer-slider").dispatchEvent(new Event("input"));
choose("explorer-x", "norm");
choose("explorer-y", "test_accuracy");
seen.pointsAtStart = visible().length;
seen.epoch = get("explorer-epoch").textContent;
choose("explorer-colour", "column activation");
seen.legend = [...get("explorer-legend").children].map((item) => item.textContent);
seen.colours = new Set(visible().map((circle) => circle.getAttribute("fill"))).size;
const circle = visible()[0].getBoundingClientRect();
document.querySelector("#explorer svg").dispatchEvent(
  new PointerEvent("pointermove", { clientX: circle.x + circle.width / 2, clientY: circle.y + circle.height / 2, bubbles: true }));
seen.tooltip = get("tooltip").hidden ? null : get("tooltip").textContent;
choose("curves-metric", "norm all layers");
choose("curves-group", "dropout");
seen.curves = document.querySelectorAll("#curves polyline").length;
seen.curvesLegend = [...get("curves-legend").children].map((item) => item.textContent);
choose("curves-metric", "train_loss");
seen.wide = document.documentElement.scrollWidth > innerWidth;
seen.broken = [...document.querySelectorAll("svg *")].filter((e) => [...e.attributes].some((a) => /NaN|undefined/.test(a.value))).length;
seen.faults = faults;
const result = document.createElement("pre");
result.id = "result";
result.textContent = JSON.stringify(seen);
document.body.append(result);
</script>"""


def browse(page: Path, profile: Path, *flags: str) -> str:
    """The document as it stands after its scripts have run."""
    quiet = "--disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *quiet.split()]
    command += [f"--user-data-dir={profile}", *flags, "--virtual-time-budget=3000", "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.fixture(scope="module", params=[1200, 520], ids=["desktop", "phone"])
def seen(request: pytest.FixtureRequest, report: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("browser")
    text = (report / "index.html").read_text(encoding="utf-8")
    assert text.count("<head>") == 1
    assert text.count("</body>") == 1
    page = folder / "page.html"
    page.write_text(text.replace("<head>", f"<head>{LISTEN}").replace("</body>", f"{ACT}</body>"), encoding="utf-8")
    dom = browse(page, folder / "profile", f"--window-size={request.param},900")
    result = re.search(r'<pre id="result">(.*?)</pre>', dom, re.S)
    assert result, "the script of the test did not get to its end"
    return json.loads(html.unescape(result[1]))


def test_the_script_runs_without_a_fault_and_fits_the_width(seen: dict):
    assert seen["faults"] == []
    assert seen["broken"] == 0
    assert not seen["wide"]


def test_the_table_sorts_with_unknown_values_last(seen: dict):
    numbers = [float(cell) for cell in seen["descending"][:-1]]
    assert numbers == sorted(numbers, reverse=True)
    assert len(set(numbers)) > 5
    assert seen["ascending"] == [*reversed(seen["descending"][:-1]), "–"]
    assert seen["sorted"] == "Test accuracy"
    best = [float(cell) for cell in seen["first"][:-1]]
    assert best == sorted(best, reverse=True)


def test_the_table_filters_by_words_and_comparisons(seen: dict):
    assert seen["filtered"] == [["relu", "0.5"]] * 3
    expected = [cell for cell in seen["ascending"][:-1] if float(cell) > 0.2]
    assert 0 < len(seen["good"]) <= len(expected)
    assert all(float(cell) > 0.2 for cell in seen["good"])
    assert f"of {len(seen['good'])} that match, of 12 models" in seen["count"]
    assert seen["diverged"] == [["2"], ["–"]]
    assert seen["complaint"].startswith("No column accurracy; there are model, activation, dropout,")


def test_the_explorer_draws_models_while_they_live_and_tells_about_them(seen: dict):
    assert seen["points"] == 10
    assert seen["pointsAtStart"] == 12
    assert seen["epoch"] == "0"
    assert seen["legend"] == ["tanh", "relu"]
    assert seen["colours"] == 2
    assert seen["tooltip"].startswith("Model ")
    assert "Activation" in seen["tooltip"]


def test_curves_are_drawn_by_factor(seen: dict):
    assert seen["curves"] == 2
    assert seen["curvesLegend"] == ["0", "0.5"]
