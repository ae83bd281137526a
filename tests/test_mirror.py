"""The mirror of a tracking store: what it tells is what a search tells, whatever happened to the runs or to its file."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.benchmarks.population import finished_run, finished_runs, members
from weightzoo import database, mirror
from weightzoo.errors import FormatError
from weightzoo.mirror import mirror_path
from weightzoo.records import FIELDS, RunRecord
from weightzoo.registry import Registry
from weightzoo.tracking import RunStore
from weightzoo.zoo_runs import Addition, Point


def searched(uri: str) -> Registry:
    """A registry that asks MLflow."""
    registry = Registry(uri)
    registry.__dict__["_mirrored"] = None  # where it is kept once it is known
    return registry


def taken(uri: str, caplog: pytest.LogCaptureFixture) -> int:
    """How many runs a synchronisation took, which must be followed by the answer of a search."""
    caplog.clear()
    caplog.set_level(logging.DEBUG, "weightzoo")
    assert repr(Registry(uri).runs) == repr(searched(uri).runs)  # NaN is NaN in words
    told = [re.search(r"(\d+) of \d+ runs taken", record.getMessage()) for record in caplog.records]
    return sum(int(found[1]) for found in told if found)


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where the mirror of PostgreSQL is


def test_only_what_is_new_or_changed_is_taken(
    new_uri: Callable[[], str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = new_uri()
    store = RunStore(uri, artifact_root=str(tmp_path))
    runs, client = store.zoo("one"), store.client
    whole = list(finished_runs(8))
    whole[3] = replace(whole[3], points=[Point("val_loss", math.nan, 0, 1), Point("test_loss", math.inf, 0, 1)])
    whole[4] = replace(whole[4], points=[Point("val_loss", value, 0, 1) for value in (0.1 + 0.2, 5e-324, 1 / 3)][:1])
    ids = runs.record(whole[:6])
    client.create_run(runs.experiment_id, 1, {"theirs": "1"})
    assert taken(uri, caplog) == 6
    assert taken(uri, caplog) == 0
    ids += runs.record(whole[6:])
    assert taken(uri, caplog) == 2
    for change in (
        lambda: client.set_tag(ids[0], "theirs", "odd"),
        lambda: client.set_tag(ids[0], "theirs", "od2"),  # as long as before
        lambda: client.delete_tag(ids[0], "theirs"),
        lambda: client.log_param(ids[2], "later", "1"),
        lambda: client.log_metric(ids[2], "theirs", 7.0, step=99),
        lambda: client.update_run(ids[3], status="RUNNING"),
        lambda: runs.log([Addition(ids[3], [Point("theirs", 0.25, 51, 9)], {"status": "finished"}, ended_ms=8)]),
    ):
        change()
        assert taken(uri, caplog) == 1
    client.delete_run(ids[5])
    assert taken(uri, caplog) == 0
    assert len(Registry(uri).runs) == 7
    client.restore_run(ids[5])
    assert taken(uri, caplog) == 1
    store.zoo("two").record([finished_run(member, 200 + number) for number, member in enumerate(members(3, "other"))])
    assert taken(uri, caplog) == 3
    assert [run.zoo for run in Registry(uri).members([whole[0].tags["member"]], "one")] == ["one"]
    client.delete_experiment(runs.experiment_id)
    assert taken(uri, caplog) == 0
    assert {run.zoo for run in Registry(uri).runs} == {"two"}


def test_nothing_is_read_where_nobody_wrote(
    new_uri: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = new_uri()
    runs = RunStore(uri, artifact_root=str(tmp_path)).zoo("z")
    runs.record(list(finished_runs(3)))
    first = Registry(uri).runs
    with monkeypatch.context() as patched:
        patched.setattr(mirror, "_synchronised", lambda *_: 1 / 0)
        assert Registry(uri).runs == first
    runs.record(list(finished_runs(4))[3:])
    assert len(Registry(uri).runs) == 4


def test_what_is_written_in_the_same_moment_is_seen(new_uri: Callable[[], str], tmp_path: Path) -> None:
    uri = new_uri()
    store = RunStore(uri, artifact_root=str(tmp_path))
    (run,) = finished_runs(1)
    (run_id,) = store.zoo("z").record([replace(run, tags=dict(run.tags) | {"status": "training"})])
    for number in range(10):
        store.client.set_tag(run_id, "weightzoo.split", str(number))
        assert Registry(uri).runs[0].split == str(number)


def alterations() -> list[str]:
    """An update for each thing that a query tells of a run."""
    (run,) = finished_runs(1)
    metrics = {point.name for point in run.points}
    changes = [f"UPDATE latest_metrics SET value = value + 0.125 WHERE key = '{name}'" for name in sorted(metrics)]
    changes += [f"UPDATE params SET value = value || '1' WHERE key = '{name}'" for name in run.params if name in FIELDS]
    tags = [name for name in ("zoo", *run.tags) if name in FIELDS and name not in ("status", "last_epoch")]
    changes += [f"UPDATE tags SET value = value || '1' WHERE key = 'weightzoo.{name}'" for name in tags]
    return [
        *changes,
        "UPDATE latest_metrics SET is_nan = 1 WHERE key = 'val_loss'",
        "UPDATE params SET key = 'x' WHERE key = 'seed_init'",
        "DELETE FROM params WHERE key = 'epochs'",
        "UPDATE tags SET value = 'pruned' WHERE key = 'weightzoo.status'",
        "UPDATE tags SET value = '0' WHERE key = 'weightzoo.last_epoch'",
        "UPDATE tags SET value = 'a' WHERE key = 'weightzoo.seal'",
    ]


@pytest.mark.parametrize("change", alterations())
def test_what_was_altered_is_never_told(change: str, small: str) -> None:
    """A database has no checksums."""
    altered = Registry(small).runs[1]
    with contextlib.closing(sqlite3.connect(small.removeprefix("sqlite:///"))) as file, file:
        assert file.execute(f"{change} AND run_uuid = '{altered.run_id}'").rowcount == 1
    for registry in (Registry(small), searched(small)):
        with pytest.raises(FormatError, match=f"mlflow.db: .* of run {altered.run_id} .* run `weightzoo repair z1?`"):
            registry.runs  # noqa: B018


@pytest.fixture
def small(new_store: Callable[[str], Path]) -> str:
    uri = f"sqlite:///{new_store('small')}/mlflow.db"
    RunStore(uri).zoo("z").record(list(finished_runs(3)))
    Registry(uri).runs  # noqa: B018
    return uri


def damages(content: bytes, other: bytes) -> Iterator[bytes]:
    yield b""
    yield content[:-1]
    yield content[: len(content) // 2]
    yield other
    for place in range(0, len(content), max(1, len(content) // 25)):
        altered = bytearray(content)
        altered[place] ^= 0x10
        yield bytes(altered)


def test_a_damaged_or_foreign_file_is_made_anew(small: str, caplog: pytest.LogCaptureFixture) -> None:
    path = mirror_path(small)
    content = path.read_bytes()
    buffer = path.with_suffix(".parquet")
    pq.write_table(mirror._SCHEMA.empty_table(), buffer)
    for damage in damages(content, buffer.read_bytes()):
        path.write_bytes(damage)
        assert taken(small, caplog) == 3
    path.unlink()
    assert taken(small, caplog) == 3
    assert [file.name for file in path.parent.iterdir() if file != buffer] == [path.name]


@pytest.mark.parametrize("what", ["FORMAT", "_SCHEMA"])
def test_a_file_of_another_version_is_made_anew(
    small: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    with monkeypatch.context() as patched:
        other = "weightzoo mirror 0" if what == "FORMAT" else mirror._SCHEMA.remove(3)
        patched.setattr(mirror, what, other)
        mirror._save(mirror_path(small), "state", mirror._SCHEMA.empty_table())
    assert taken(small, caplog) == 3


def test_where_the_file_can_not_be_written_it_goes_without(small: str, caplog: pytest.LogCaptureFixture) -> None:
    path = mirror_path(small)
    path.unlink()
    path.mkdir()
    assert taken(small, caplog) == 3
    assert taken(small, caplog) == 3
    assert [*path.parent.iterdir()] == [path]


def test_several_at_once(small: str) -> None:
    expected = searched(small).runs
    with ThreadPoolExecutor(4) as pool:
        assert all(found == expected for found in pool.map(lambda _: Registry(small).runs, range(8)))


def test_a_copied_store_is_read_as_it_is(small: str, new_store: Callable[[str], Path]) -> None:
    """With a mirror that is of another database."""
    other = f"sqlite:///{new_store('other')}/mlflow.db"
    RunStore(other).zoo("z").record(list(finished_runs(5))[2:])
    mirror_path(other).parent.mkdir()
    mirror_path(other).write_bytes(mirror_path(small).read_bytes())
    assert Registry(other).runs == searched(other).runs


def test_unknown_tables_are_searched(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Registry(small).runs
    mirror_path(small).unlink()
    monkeypatch.setattr(database, "KNOWN", {})
    assert Registry(small).runs == expected
    assert not mirror_path(small).exists()


def test_no_password_is_in_the_name_of_the_file() -> None:
    paths = {mirror_path(f"postgresql://me:{word}@host/db") for word in ("secret", "other")}
    assert len(paths) == 1
    assert os.fspath(*paths).startswith("mlruns/.cache/")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> tuple[Registry, Registry]:
    folder = tmp_path_factory.mktemp("queried")
    (folder / "mlflow.db").write_bytes(empty_database.read_bytes())
    uri = f"sqlite:///{folder}/mlflow.db"
    store = RunStore(uri)
    store.zoo("a").record([finished_run(member, 90 + number) for number, member in enumerate(members(25))])
    store.zoo("b").create([*members(4, "fashion")], "lanes", 1)
    return Registry(uri), searched(uri)


def literals(kind: str, name: str, runs: tuple[RunRecord, ...]) -> st.SearchStrategy[str]:
    values = {getattr(run, name) for run in runs} - {None}
    if kind == "text":
        return st.sampled_from([*sorted(values), "x", ""]).map(repr)
    numbers = [value for value in values if math.isfinite(value)]
    return st.sampled_from([*sorted(numbers), 0, -1.5, 1e9]).map(repr)


@st.composite
def conditions(draw: st.DrawFn, runs: tuple[RunRecord, ...], depth: int = 2) -> str:
    """Any query, of which many find something."""
    form = draw(st.sampled_from(["compare", "compare", "in", "none", *(["and", "or", "not"] if depth else [])]))
    if form in ("and", "or"):
        return f"({draw(conditions(runs, depth - 1))} {form} {draw(conditions(runs, depth - 1))})"
    if form == "not":
        return f"not ({draw(conditions(runs, depth - 1))})"
    name = draw(st.sampled_from(sorted(FIELDS)))
    literal = literals(FIELDS[name], name, runs)
    if form == "none":
        return f"{name} {draw(st.sampled_from(['is', 'is not']))} None"
    if form == "in":
        return f"{name} in ({', '.join(draw(st.lists(literal, min_size=1, max_size=3)))},)"
    return f"{name} {draw(st.sampled_from(['==', '!=', '<', '<=', '>', '>=']))} {draw(literal)}"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_query_finds_what_a_search_finds(both: tuple[Registry, Registry], data: st.DataObject) -> None:
    mirrored, direct = both
    query = data.draw(conditions(direct.runs))
    assert repr(mirrored.query(query).runs) == repr(direct.query(query).runs)
    assert mirrored.query(query).frame().equals(direct.query(query).frame())
