"""Methods of analysis as data, run in turn or in processes, and the files that an analysis leaves."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.report.synthetic import HYP, synthetic_zoo
from weightzoo.analysis.methods import METHODS, Method, chosen_methods
from weightzoo.analysis.output import OUTPUTS, read_analysis, write_analysis
from weightzoo.analysis.results import Analysed, Context, Figure, LeftOut, Result, Score, images_of
from weightzoo.analysis.run import run_methods
from weightzoo.errors import FormatError, NotFoundError, WeightzooError
from weightzoo.stages.analyse import analyse
from weightzoo.workspace import Workspace
from weightzoo.zoo import Zoo

SMALL = {**{factor: values[:1] for factor, values in HYP.items()}, "activation": ["tanh", "relu"]}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return synthetic_zoo(tmp_path_factory.mktemp("zoos") / "small", SMALL, seeds=3, epochs=2)


def norms(zoo: Zoo, context: Context) -> Result:
    """Something that depends on the weights, the seed, and on how a sum is ordered."""
    weights = zoo.weights(epochs=[2])[:, 0]
    drawn = np.random.default_rng([context.seed, 7]).normal(size=(weights.shape[1], 40)).astype(np.float32)
    context.on_progress(1, 2)
    table = pd.DataFrame({"model": np.arange(len(weights)), "norm": np.linalg.norm(weights @ drawn, axis=1)})
    scores = (
        Score("norm", "mean", float(table["norm"].mean()), 0.1, None, models=len(weights), published=3.0),
        Score("norm", "odd", math.nan, features="W", estimator="none"),
    )
    figure = Figure("points", "norms", "Norms", "Of all models.", x="model", y="norm", log_y=True)
    return Result("norms", "Norms", "Found.", scores, {"norms": table}, (figure,), ("A paper",))


def words(zoo: Zoo, context: Context) -> Result:
    """Text that looks like something else."""
    table = pd.DataFrame({"value": ["None", "0.50", "", 'é, "x"'], "number": [1.0, np.nan, 1e-5, 1 / 3]})
    return Result("words", "Words", "", (Score("count", "n", 4.0),), {"words": table})


def images(zoo: Zoo, context: Context) -> Result:
    images_of(zoo, context)
    raise AssertionError("there are none")


def twins(zoo: Zoo, context: Context) -> Result:
    raise NotFoundError("needs twins")


def broken(zoo: Zoo, context: Context) -> Result:
    raise FormatError("what it read is corrupt")


def deadly(zoo: Zoo, context: Context) -> Result:
    raise SystemExit(3)


def method(name: str, **changes) -> Method:
    return Method(name, name.title(), "Learning dynamics", f"{__name__}:{name}", "nobody", **changes)


FOUR = [method("norms"), method("words"), method("images"), method("twins")]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_registry_names_functions_that_exist() -> None:
    assert len({one.name for one in METHODS}) == len(METHODS)
    for one in METHODS:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", one.name)
        assert callable(one.load())
        assert one.title
        assert one.paper


def test_methods_are_chosen_in_the_order_of_the_report() -> None:
    names = [one.name for one in METHODS]
    assert chosen_methods() == METHODS
    assert chosen_methods(names[::-1]) == METHODS
    assert set(chosen_methods(quick=True)) == {one for one in METHODS if one.quick}
    with pytest.raises(NotFoundError, match="no method 'sprad'; did you mean 'spread'"):
        chosen_methods(["sprad"])


def test_a_result_is_the_same_alone_with_others_and_in_processes(zoo: Zoo, tmp_path: Path) -> None:
    context = Context(seed=3)
    told: list[tuple[int, int, str]] = []
    in_turn = run_methods(zoo, FOUR, context, on_progress=lambda *what: told.append(what))
    in_processes = run_methods(zoo, FOUR, dataclasses.replace(context, threads=2))
    alone = run_methods(zoo, FOUR[:1], context)

    assert (0, 4, "norms 50%") in told
    assert [one.method for one in in_turn.results] == ["norms", "words"]
    assert [one.method for one in in_turn.left_out] == ["images", "twins"]
    assert "weightzoo prepare small" in in_turn.left_out[0].reason
    assert in_processes.left_out == in_turn.left_out
    for other in (in_processes, alone):
        pd.testing.assert_frame_equal(other.results[0].tables["norms"], in_turn.results[0].tables["norms"])
    for folder, analysed in (("a", in_turn), ("b", in_processes)):
        write_analysis(tmp_path / folder, zoo, context, analysed)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_an_error_ends_the_run_wherever_it_happens(zoo: Zoo) -> None:
    for threads in (1, 2):
        with pytest.raises(FormatError, match="what it read is corrupt"):
            run_methods(zoo, [method("words"), method("broken")], Context(threads=threads))
    with pytest.raises(WeightzooError, match="deadly: its process ended"):
        run_methods(zoo, [method("words"), method("deadly")], Context(threads=2))


def test_what_is_written_is_read_again(zoo: Zoo, tmp_path: Path) -> None:
    analysed = run_methods(zoo, FOUR, Context(seed=3))
    write_analysis(tmp_path, zoo, Context(seed=3), analysed)

    assert {path.name for path in tmp_path.iterdir()} == set(OUTPUTS)
    stored = read_analysis(tmp_path)
    assert stored is not None
    assert stored.is_of(zoo)
    assert not stored.is_of(zoo.select([0, 1]))
    assert stored.made == {"zoo": "small", "hash": stored.made["hash"], "seed": 3, "quick": False}
    assert stored.analysed.left_out == analysed.left_out
    for found, told in zip(analysed.results, stored.analysed.results, strict=True):
        assert (told.title, told.summary, told.figures, told.references) == (
            found.title,
            found.summary,
            found.figures,
            found.references,
        )
        for name, table in found.tables.items():
            pd.testing.assert_frame_equal(told.tables[name], table.replace("", np.nan), rtol=1e-5, check_dtype=False)
    known, odd = stored.analysed.results[0].scores
    assert known == dataclasses.replace(analysed.results[0].scores[0], value=float(f"{known.value:.6g}"))
    assert math.isnan(odd.value)
    records = json.loads((tmp_path / "analysis.json").read_text())
    assert [record["method"] for record in records] == ["norms", "norms", "words"]
    assert records[1]["value"] is None
    metrics = json.loads((tmp_path / "scores.json").read_text())
    assert metrics == {"norms": {"norm": {"mean": known.value}}, "words": {"count": {"n": 4.0}}}


def test_what_other_methods_found_in_the_same_zoo_stays(zoo: Zoo, tmp_path: Path) -> None:
    def write(name: str, value: float, seed: int = 0, of: Zoo = zoo) -> dict[str, float]:
        found = Result(name, name, "", (Score("x", "y", value),), {"t": pd.DataFrame({"a": [value]})})
        write_analysis(tmp_path, of, Context(seed=seed), Analysed((found,), (LeftOut("none", "never"),)))
        stored = read_analysis(tmp_path)
        assert stored is not None
        assert {path.stem for path in (tmp_path / "analysis").iterdir()} == {
            f"{result.method}-t" for result in stored.analysed.results
        }
        return {result.method: result.scores[0].value for result in stored.analysed.results}

    first, second = METHODS[0].name, "other"
    assert write(first, 1.0) == {first: 1.0}
    assert write(second, 2.0) == {first: 1.0, second: 2.0}
    assert write(first, 3.0) == {first: 3.0}  # a method that is no longer one goes
    assert write(second, 4.0, seed=1) == {second: 4.0}
    assert write(first, 5.0, of=zoo.select([0, 1])) == {first: 5.0}


@pytest.mark.parametrize("name", ["analysis.json", "methods.json", "analysis/norms-norms.csv"])
def test_a_damaged_analysis_is_named(zoo: Zoo, tmp_path: Path, name: str) -> None:
    assert read_analysis(tmp_path) is None
    write_analysis(tmp_path, zoo, Context(), run_methods(zoo, FOUR[:1], Context()))
    if name == "methods.json":
        content = (tmp_path / name).read_text()
        (tmp_path / name).write_text(content[: len(content) // 2])
    elif name == "analysis.json":
        content = (tmp_path / name).read_text()
        (tmp_path / name).write_text(content.replace('"value": ', '"value": 1', 1))
    else:
        (tmp_path / name).unlink()
    with pytest.raises(FormatError, match=f"{name}: .*; analyse the zoo again"):
        read_analysis(tmp_path)


def test_a_zoo_is_no_other_zoo_than_itself(zoo: Zoo, tmp_path: Path) -> None:
    for on in (None, str(zoo.path)):
        with pytest.raises(NotFoundError, match="another-zoo of small: needs another zoo"):
            analyse(str(zoo.path), Workspace(tmp_path), methods=["another-zoo"], on=on)


def test_a_figure_of_a_column_that_is_not_there_is_refused() -> None:
    figure = Figure("lines", "t", "A figure", "", x="a", y="b")
    with pytest.raises(ValueError, match=r"draws \['b'\]"):
        Result("m", "", "", (), {"t": pd.DataFrame({"a": [1]})}, (figure,))
