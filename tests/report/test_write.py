"""The report as files: self-contained, the same bytes each time, right numbers, nothing foreign touched."""

from __future__ import annotations

import csv
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.report.gallery import gallery
from tests.report.synthetic import HYP, synthetic_zoo
from weightzoo.analysis.output import OUTPUTS, write_analysis
from weightzoo.analysis.results import Context
from weightzoo.errors import FormatError
from weightzoo.report import payload, write_report
from weightzoo.report.findings import Findings
from weightzoo.zoo import Zoo

ONE = {factor: values[:1] for factor, values in HYP.items()}


class Page(HTMLParser):
    """Every tag with its attributes, every id, and the text of the scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.words.append(data)

    @property
    def data(self) -> dict:
        return json.loads(self.scripts[0])

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_page_needs_nothing_but_itself(report: Path):
    page = Page(report / "index.html")
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "img", "video", "audio"), tag
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            target = attributes.get(name)
            assert target is None or target.startswith(("#", "data:image/png;base64,")), (tag, target)
        assert not [name for name in attributes if name.startswith("on")], tag
    text = (report / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"url\((?!#)|@import|\bfetch\(|XMLHttpRequest|WebSocket|\bimport\(", text)
    addresses = set(re.findall(r"https?://[^\s\"')<]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # a name, never loaded


def test_every_reference_on_the_page_has_its_one_target(report: Path):
    page = Page(report / "index.html")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    text = (report / "index.html").read_text(encoding="utf-8")
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    assert used <= set(ids)
    assert set(re.findall(r'(?<![.\w])get\("([^"]+)"\)', text)) <= set(ids)


def test_every_figure_says_what_it_shows(report: Path):
    drawings = [attributes for tag, attributes in Page(report / "index.html").tags if tag == "svg"]
    assert len(drawings) >= 6 + 3 + 3 + 4 + 6 + 8
    assert all(len(drawing["aria-label"] or "") > 20 and drawing["role"] == "img" for drawing in drawings)


def test_the_same_zoo_gives_the_same_bytes_whatever_its_provenance(zoo: Zoo, report: Path, tmp_path: Path):
    write_analysis(tmp_path / "elsewhere", zoo, Context(), gallery())
    again = write_report(Zoo.open(zoo.path), tmp_path / "elsewhere").parent
    assert files(again) == files(report)


def test_the_files(report: Path):
    charts = {"accuracy_distributions", "learning_curves", "factor_effects", "weight_norms", "weight_map"}
    charts |= {"analysis-spread"}
    names = {str(Path(name)) for name in files(report) if not name.startswith(OUTPUTS)}
    assert names == {
        "index.html",
        "metrics.json",
        *(f"figures/{chart}.png" for chart in charts),
        *(f"plots/{table}.csv" for table in charts - {"analysis-spread"} | {"variance_shares"}),
    }
    for chart in charts:
        image = Image.open(report / "figures" / f"{chart}.png")
        assert min(image.size) >= 400
        assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_the_page_tells_what_the_methods_found(report: Path):
    page = Page(report / "index.html")
    for words in (
        "What the weights tell",
        "It found 3 things.",
        "0.971",
        "0.950 to 0.980",
        "0.815",
        "−0.020",
        "Nobody et al.",
    ):
        assert words in page.text
    assert "<i>odd</i>" in page.text
    assert "needs sparse twins" in page.text
    names = [attributes["id"] for _, attributes in page.tags if (attributes.get("id") or "").startswith("method-")]
    assert names == ["method-spread", "method-other"]


def test_an_analysis_of_another_build_is_not_told(zoo: Zoo, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_analysis(tmp_path, zoo.select([0, 1, 2]), Context(), gallery())
    page = write_report(zoo, tmp_path)
    assert "of another build of the zoo" in caplog.text
    assert "What the weights tell" not in page.read_text(encoding="utf-8")
    (tmp_path / "methods.json").write_text("{")
    with pytest.raises(FormatError, match="analyse the zoo again"):
        write_report(zoo, tmp_path)


def test_metrics_are_those_of_the_zoo(zoo: Zoo, report: Path):
    metrics = json.loads((report / "metrics.json").read_text())
    assert metrics["models"] == {"total": 12, "finished": 10, "diverged": 1, "pruned": 1}
    assert metrics["states"] == 11 * 7 + 3
    assert metrics["parameters"] == 2464
    done = zoo.models[zoo.models["status"] == "finished"]
    final = done["test_accuracy"].to_numpy(np.float64)
    found = metrics["final"]["test_accuracy"]
    assert found["mean"] == pytest.approx(final.mean(), rel=1e-5)
    assert found["median"] == pytest.approx(np.median(final), rel=1e-5)
    assert found["q05"] == pytest.approx(np.quantile(final, 0.05), rel=1e-5)
    assert found["std"] == pytest.approx(final.std(ddof=1), rel=1e-5)
    gap = done["train_accuracy"].to_numpy(np.float64) - final
    assert metrics["final"]["generalization_gap"]["mean"] == pytest.approx(gap.mean(), rel=1e-4)
    best = zoo.models[zoo.models["status"] != "diverged"]["best_val_accuracy"].idxmax()
    assert metrics["best"]["model"] == best
    assert metrics["best"]["member"] == zoo.models["member"][best]
    assert metrics["best"]["test_accuracy"] == pytest.approx(zoo.models["best_test_accuracy"][best], rel=1e-5)
    assert set(metrics["variance_share"]) == {"activation", "dropout", "seed"}


def test_plot_data_are_the_curves(zoo: Zoo, report: Path):
    with (report / "plots" / "learning_curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == list(range(7))
    at_last = zoo.epochs[(zoo.epochs["epoch"] == 6) & (zoo.epochs["model"] != 2)]["test_accuracy"]
    assert float(rows[-1]["test_accuracy_median"]) == pytest.approx(at_last.median(), rel=1e-5)
    at_first = zoo.epochs[zoo.epochs["epoch"] == 0]["test_accuracy"]  # here the model that diverges later still counts
    assert float(rows[0]["test_accuracy_mean"]) == pytest.approx(at_first.mean(), rel=1e-5)


def test_diverged_and_pruned_models_are_listed_without_metrics_that_mean_nothing(report: Path):
    page = Page(report / "index.html")
    assert "10 finished, 1 diverged, 1 pruned" in page.text
    columns = {column["key"]: column for column in page.data["columns"]}
    status = [columns["status"]["levels"][code] for code in columns["status"]["values"]]
    assert status == ["finished", "finished", "diverged", *["finished"] * 4, "pruned", *["finished"] * 4]
    assert columns["test_accuracy"]["values"][2] is None
    assert columns["test_accuracy"]["values"][7] is not None
    assert columns["last_epoch"]["values"][7] == 2


def test_the_explorer_carries_what_the_zoo_holds(zoo: Zoo, report: Path):
    explorer = Page(report / "index.html").data["explorer"]
    accuracy = next(quantity for quantity in explorer["quantities"] if quantity["key"] == "test_accuracy")
    at = explorer["epochs"].index(6)
    step = accuracy["steps"][at][0]
    value = accuracy["low"] + step / 9999 * (accuracy["high"] - accuracy["low"])
    assert value == pytest.approx(zoo.models["test_accuracy"][0], abs=1e-4)
    assert accuracy["steps"][at][2] is None
    assert accuracy["steps"][at][7] is None


def test_a_name_is_text_and_never_markup(tmp_path: Path):
    name = """</script><script>alert("x")</script><b id='data'>&$\\frac{"""
    zoo = synthetic_zoo(
        tmp_path / "zoo", {**ONE, "dropout": [0.0, 0.5]}, seeds=2, epochs=2, name=name, class_names=("<i>", "&")
    )
    zoo.models["member"] = ["</script><script>alert(1)</script>", "<!--", "a&b", "ok"]
    zoo.models["init"] = ["<img src=x onerror=alert(1)>", "$x^{$", "<img src=x onerror=alert(1)>", "$x^{$"]
    page = Page(write_report(zoo, tmp_path / "report"))
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 2
    assert "b" not in tags
    assert "img" not in tags
    members = page.data["columns"][-1]["values"]
    assert members == ["</script><script>alert(1)</script>", "<!--", "a&b", "ok"]
    assert 'alert("x")' in page.text


@pytest.mark.parametrize(
    ("seeds", "epochs", "kept", "broken"),
    [(1, 1, None, []), (2, 1, (1,), []), (3, 3, (0, 3), [0, 1, 2]), (4, 2, None, [1, 3])],
    ids=["one model", "one kept epoch", "all diverged", "two finished"],
)
def test_small_and_broken_zoos_have_a_report(tmp_path: Path, seeds: int, epochs: int, kept: tuple | None, broken: list):
    zoo = synthetic_zoo(tmp_path / "zoo", ONE, seeds=seeds, epochs=epochs, kept=kept, diverged=broken)
    page = write_report(zoo, tmp_path / "report")
    assert "Effect of each factor" not in page.read_text(encoding="utf-8")
    metrics = json.loads((page.parent / "metrics.json").read_text())
    assert metrics["models"]["diverged"] == len(broken)
    assert ("best" in metrics) == (len(broken) < seeds)
    assert "NaN" not in (page.parent / "metrics.json").read_text()


def test_a_search_over_ranges_bins_its_factors_and_lists_their_values(tmp_path: Path):
    rates = [float(rate) for rate in np.geomspace(1e-4, 1e-2, 12)]
    zoo = synthetic_zoo(tmp_path / "zoo", {**ONE, "learning_rate": rates}, seeds=1, epochs=2)
    page = Page(write_report(zoo, tmp_path / "report"))
    column = next(column for column in page.data["columns"] if column["key"] == "learning_rate")
    assert column["values"] == pytest.approx(rates, rel=1e-3)
    assert "1e-4 to" in page.text


def test_above_some_thousands_the_page_shows_a_sample_with_the_best(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(payload, "MOST_ROWS", 8)
    monkeypatch.setattr("weightzoo.report.findings.MOST_MAPPED", 3)
    page = Page(write_report(zoo, tmp_path / "report"))
    rows = page.data["columns"][0]["values"]
    assert len(rows) <= 8
    assert Findings(zoo).best in rows
    explored = [rows[place] for place in page.data["explorer"]["rows"]]
    assert explored == [0, 6, 11]
    assert f"{len(rows)} of 12 models" in page.text
    assert "Worked out on an even sample of 3 models." in page.text


def test_a_former_report_is_replaced_and_anything_else_refused(zoo: Zoo, tmp_path: Path):
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(FormatError, match=r"thesis\.tex"):
        write_report(zoo, folder)
    assert files(folder) == {"thesis.tex": b"years of work"}
    (folder / "thesis.tex").rename(tmp_path / "thesis.tex")
    (folder / "index.html").write_text("old")
    (folder / ".gitignore").write_text("/plots\n")
    write_report(zoo, folder)
    assert (folder / "index.html").stat().st_size > 10_000
    assert (folder / ".gitignore").read_text() == "/plots\n"


def test_a_failure_leaves_the_former_report(zoo: Zoo, report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "report"
    shutil.copytree(report, folder)
    before = files(tmp_path)

    def fail(*_: object) -> bytes:
        raise FormatError("a shard is truncated")

    monkeypatch.setattr("weightzoo.report.write.panels_png", fail)
    with pytest.raises(FormatError, match="truncated"):
        write_report(zoo, folder)
    assert files(tmp_path) == before


def test_an_analysis_in_the_folder_stays_as_it_is(zoo: Zoo, tmp_path: Path):
    folder = tmp_path / "report"
    (folder / "analysis").mkdir(parents=True)
    (folder / ".analysis.partial-0123456789abcdef").mkdir()  # left behind by a killed process
    (folder / "analysis" / "spread-by_epoch.csv").write_text("epoch\n")
    (folder / "analysis.json").write_text("[]\n")
    (folder / "scores.json").symlink_to("analysis.json")
    write_report(zoo, folder)
    write_report(zoo, folder)
    assert (folder / "analysis" / "spread-by_epoch.csv").read_text() == "epoch\n"
    assert (folder / "analysis.json").read_text() == "[]\n"
    assert (folder / "scores.json").is_symlink()
    assert not list(folder.glob(".analysis*"))
    assert (folder / "index.html").is_file()
