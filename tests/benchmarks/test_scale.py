"""The frame of `make bench-scale`; what it measures is measured there and not here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.benchmarks import scale
from tests.benchmarks.scale import Figure

GOOD, BAD = Figure.at_least("speed", 15, 20, "runs/s"), Figure.under("time", 2, 3.14159, "s")


def run(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str, **parts: list[Figure] | None) -> int:
    """`main` with these parts, of which None breaks."""
    for name, figures in parts.items():
        module = ModuleType(name)
        module.measure = lambda quick, figures=figures: list(figures)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, f"tests.benchmarks.scale_{name}", module)
    monkeypatch.setattr(scale, "parts", lambda: sorted(parts))
    return scale.main([*arguments, "--output", str(folder)])


def test_a_figure_holds_if_it_reaches_what_is_wanted():
    assert Figure("speed", "at least 15 runs/s", "20 runs/s", True) == GOOD
    assert Figure("time", "under 2 s", "3.14 s", False) == BAD


def test_figures_are_written_and_one_that_breaks_stops_no_other(monkeypatch, tmp_path, capsys):
    assert run(monkeypatch, tmp_path, a=None, b=[GOOD, BAD]) == 1
    broken, *others = json.loads((tmp_path / "scale.json").read_text())
    assert (broken["name"], broken["holds"]) == ("a", False)
    assert broken["reached"].startswith("broke off: TypeError")
    assert [Figure(**each) for each in others] == [GOOD, BAD]
    table = capsys.readouterr().out.splitlines()
    assert [line.split("|")[4].strip() for line in table[2:]] == ["NO", "yes", "NO"]


def test_parts_that_are_not_asked_for_stay(monkeypatch, tmp_path):
    run(monkeypatch, tmp_path, a=[GOOD], b=[BAD])
    better = Figure.under("time", 2, 1, "s")
    assert run(monkeypatch, tmp_path, "b", a=[], b=[better]) == 0
    assert [Figure(**each) for each in json.loads((tmp_path / "scale.json").read_text())] == [GOOD, better]
    assert run(monkeypatch, tmp_path, "--quick", a=[], b=[BAD]) == 1
    assert json.loads((tmp_path / "scale.json").read_text())[1]["holds"]


def test_an_unknown_part_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        scale.main(["speeed", "--output", str(tmp_path)])
    assert f"there are {', '.join(scale.parts())}" in capsys.readouterr().err
