"""Writing many runs at a time: what is in the database is what MLflow's public calls would have put there."""

from __future__ import annotations

import itertools
import logging
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.benchmarks.population import finished_run, finished_runs, members
from tests.conftest import forget
from tests.servers import PostgreSQL
from weightzoo import bulk, database
from weightzoo.bulk import BulkWriter, Change, NewRun
from weightzoo.errors import TrackingError
from weightzoo.members import Member
from weightzoo.tracking import RunStore
from weightzoo.zoo_runs import Addition, FinishedRun, Point, ZooRuns

ROOT = Path(__file__).parent.parent
numbers = itertools.count()


def a_store(uri: str, folder: Path, *, public: bool = False) -> RunStore:
    store = RunStore(uri, artifact_root=str(folder))
    if public:
        store.__dict__["bulk"] = None  # where it is kept once it is known
    else:
        assert isinstance(store.bulk, BulkWriter)
    return store


def rows(uri: str) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables, by table: runs by their names, other ids by what they stand for; without what is drawn."""
    engine = sqlalchemy.create_engine(uri)
    tables = sqlalchemy.MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        found = {name: [*connection.execute(table.select()).mappings()] for name, table in tables.tables.items()}
    engine.dispose()
    names = {row["run_uuid"]: row["name"] for row in found["runs"]}
    assert len(set(names.values())) == len(names) == len(found["runs"])
    datasets = {row["dataset_uuid"]: (row["name"], row["digest"]) for row in found["datasets"]}
    inputs = {row["input_uuid"]: (datasets[row["source_id"]], names[row["destination_id"]]) for row in found["inputs"]}
    ids = names | datasets | inputs
    assert len(inputs) == len(found["inputs"])
    drawn = ("creation_time", "last_update_time")

    def shown(name: str, value: Any) -> Any:
        if name == "artifact_uri":
            *_, zoo, run, last = value.split("/")
            return zoo, names[run], last
        return repr(value) if isinstance(value, float) else ids.get(value, value)

    return {
        table: sorted(
            (tuple((name, shown(name, value)) for name, value in row.items() if name not in drawn) for row in content),
            key=repr,
        )
        for table, content in found.items()
    }


def assert_same(uri: str, other: str) -> None:
    mine, theirs = rows(uri), rows(other)
    assert mine.keys() == theirs.keys()
    for table in mine:
        assert mine[table] == theirs[table], table


ODD = [Point("a", value, 3, 7) for value in (math.nan, math.inf, -math.inf, 0.1, -0.0, 5e-324)]
CURVE = [Point(name, epoch / 7, epoch, 1000 + epoch) for epoch in range(200) for name in ("train_loss", "b.c-d_e", "x")]


def a_life(runs: ZooRuns) -> None:
    """All that is ever written of runs, with some of it twice."""
    first, second, third = runs.create(list(members(3)), "lanes", 1_700_000_000_000)
    described = list(members(3))
    runs.log([Addition(first, CURVE[:300], describe=described[0]), Addition(second, ODD, {"note": "ü ' \" %s ?"})])
    runs.log([Addition(first, CURVE[:450], {"last_epoch": "9"}, described[0]), Addition(third)])
    runs.log([Addition(first, CURVE, {"last_epoch": "10", "status": "finished"}, ended_ms=1_700_000_009_000)])
    runs.log([Addition(second, [*ODD[::-1], Point("a", 9.0, 2, 9)], {"empty": ""}, described[1], ended_ms=5)])
    runs.log([])
    whole = [replace(run, name=f"{run.name} again") for run in finished_runs(3)]
    runs.record(whole)
    files = [("metrics.safetensors", b"123"), ("checkpoints/e.safetensors", b"4567")]
    runs.record([replace(finished_run(next(members(1, "other")), 99), name="with files", files=files)])
    runs.record([FinishedRun("bare", {"member": "0" * 16}, {}, (), (), 5, 6)])


def test_the_rows_are_those_of_the_public_calls(new_uri: Callable[[], str], tmp_path: Path) -> None:
    uris = new_uri(), new_uri()
    for uri, public in zip(uris, (False, True), strict=True):
        store = a_store(uri, tmp_path, public=public)
        a_life(store.zoo("one"))
        store.zoo("two").record([replace(run, name=f"{run.name} two") for run in finished_runs(2, "two")])
    assert_same(*uris)
    metrics = rows(uris[0])["metrics"]
    assert len(metrics) > 3 * 357
    stored = sorted(
        str(file.relative_to(file.parents[-1])).split("artifacts/")[1] for file in tmp_path.glob("one/**/*.safe*")
    )
    assert stored == 2 * ["checkpoints/e.safetensors"] + 2 * ["metrics.safetensors"]


def test_mlflow_reads_what_was_written(new_uri: Callable[[], str], tmp_path: Path) -> None:
    runs = a_store(new_uri(), tmp_path).zoo("z")
    run = finished_run(next(members(1)), 0)
    (run_id,) = runs.record([run])
    found = runs.store.client.get_run(run_id)
    assert (found.info.status, found.info.start_time, found.info.end_time) == ("FINISHED", run.started_ms, run.ended_ms)
    assert found.data.params == run.params
    assert {f"weightzoo.{name}": value for name, value in run.tags.items()}.items() <= found.data.tags.items()
    (dataset,) = found.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == run.dataset
    history = runs.store.client.get_metric_history(run_id, "val_loss")
    assert [(point.step, point.value) for point in history] == [
        (point.epoch, point.value) for point in run.points if point.name == "val_loss"
    ]
    assert found.data.metrics["val_loss"] == history[-1].value


small = st.integers(0, 2)
values = st.sampled_from([0.0, 1.0, -1.0, math.nan, math.inf])
points = st.lists(st.builds(Point, st.sampled_from(["a", "b"]), values, small, small), max_size=8)
tags = st.dictionaries(st.sampled_from(["x", "status"]), st.text("aé'%?\\", max_size=3), max_size=2)
writes = st.lists(
    st.lists(st.tuples(small, points, tags, st.booleans()), max_size=3, unique_by=lambda w: w[0]), max_size=3
)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> list[ZooRuns]:
    """A zoo each in a store that is written directly, and in one that is not."""
    zoos: list[ZooRuns] = []
    for public in (False, True):
        folder = tmp_path_factory.mktemp("both")
        (folder / "mlflow.db").write_bytes(empty_database.read_bytes())
        zoos.append(a_store(f"sqlite:///{folder}/mlflow.db", folder, public=public).zoo("z"))
    return zoos


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(writes)
def test_any_writes_in_any_order(both: list[ZooRuns], written: list[list[tuple[int, list[Point], Any, bool]]]) -> None:
    described: list[Member] = list(members(3))
    named = [f"run {next(numbers)}" for _ in range(3)]
    new = [FinishedRun(name, {}, {}, (), (), 1, 2) for name in named]
    for runs in both:
        ids = runs.record(new)
        for together in written:
            runs.log(
                [
                    Addition(ids[which], some, own, described[which] if ended else None, 3 if ended else None)
                    for which, some, own, ended in together
                ]
            )
    found = [[dump(runs, name) for name in named] for runs in both]
    assert found[0] == found[1]


def dump(runs: ZooRuns, name: str) -> dict[str, Any]:
    """A run as MLflow gives it back, with all its points."""
    (run,) = runs.store.client.search_runs([runs.experiment_id], f"attributes.run_name = '{name}'")
    curves = {
        metric: sorted(
            repr((point.step, point.timestamp, point.value))
            for point in runs.store.client.get_metric_history(run.info.run_id, metric)
        )
        for metric in "ab"
    }
    latest = {metric: repr(value) for metric, value in run.data.metrics.items()}
    sources = [(one.dataset.name, one.dataset.digest, one.dataset.source) for one in run.inputs.dataset_inputs]
    return {"curves": curves, "latest": latest, "tags": run.data.tags, "params": run.data.params, "inputs": sources} | {
        "info": (run.info.status, run.info.start_time, run.info.end_time)
    }


def test_what_mlflow_would_shorten_is_left_to_mlflow(new_uri: Callable[[], str], tmp_path: Path) -> None:
    runs = a_store(new_uri(), tmp_path).zoo("z")
    (run_id,) = runs.record([FinishedRun("long", {}, {"p": "y" * 7000}, (), (), 1, 2)])
    runs.log([Addition(run_id, tags={"note": "x" * 9000})])
    found = runs.store.client.get_run(run_id)
    assert len(found.data.tags["weightzoo.note"]) == 8000
    assert len(found.data.params["p"]) == 6000
    with pytest.raises(TrackingError, match="Invalid value"):
        runs.record([FinishedRun("odd", {}, {"a?b": "1"}, (), (), 1, 2)])


def test_what_can_not_be_written_changes_nothing(new_uri: Callable[[], str], tmp_path: Path) -> None:
    runs = a_store(uri := new_uri(), tmp_path).zoo("z")
    first, second = runs.create(list(members(2)), "lanes", 1)
    one, other = members(2)
    runs.log([Addition(first, describe=one)])
    client = runs.store.client
    before = rows(uri)
    more = [Point("a", 1.0, 1, 1)]
    with pytest.raises(TrackingError, match=r"its param .* can't become"):
        runs.log([Addition(second, more), Addition(first, describe=other)])
    with pytest.raises(TrackingError, match=f"run {'0' * 32} is not there"):
        runs.log([Addition(second, more), Addition("0" * 32, more)])
    assert rows(uri) == before
    client.delete_run(first)
    with pytest.raises(TrackingError, match=f"run {first} was deleted"):
        runs.log([Addition(second, more), Addition(first, more)])
    client.delete_experiment(runs.experiment_id)
    with pytest.raises(TrackingError, match=r"experiment .* was deleted"):
        runs.record(list(finished_runs(1)))
    assert not rows(uri)["metrics"]


def test_an_error_at_the_last_row_takes_back_all(
    new_uri: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = a_store(uri := new_uri(), tmp_path).zoo("z")
    before = rows(uri)
    with monkeypatch.context() as patched:
        patched.setattr(bulk._Transaction, "end_runs", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            runs.record(list(finished_runs(3)))
    assert rows(uri) == before
    runs.record(list(finished_runs(3)))
    assert len(rows(uri)["runs"]) == 3


def test_an_answer_that_gets_lost_is_asked_for_again(
    postgresql: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are there, but the connection broke before the database could say so."""
    uri = postgresql.create(f"bulk-{next(numbers)}", "mlflow")
    runs = a_store(uri, tmp_path).zoo("z")
    whole, broken = bulk._Transaction.end_runs, [True]

    def interrupted(self: Any, changes: Any) -> None:
        whole(self, changes)
        if broken.pop() if broken else False:
            self._connection.commit()
            raise sqlalchemy.exc.OperationalError("COMMIT", None, Exception("server closed the connection"))

    monkeypatch.setattr(bulk._Transaction, "end_runs", interrupted)
    runs.record(list(finished_runs(3)))
    assert not broken
    assert {len(rows(uri)[table]) for table in ("runs", "inputs", "input_tags")} == {3}
    forget(uri)


def test_several_writers_at_once(new_uri: Callable[[], str], tmp_path: Path) -> None:
    """All with the same data set, which the first one enters."""
    uri = new_uri()
    a_store(uri, tmp_path).zoo("z")
    whole = list(finished_runs(60))

    def write(number: int) -> None:
        runs = a_store(uri, tmp_path).zoo("z")
        for start in range(number, 60, 12):
            runs.record(whole[start : start + 3])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(0, 12, 3)))
    found = rows(uri)
    assert [len(found[table]) for table in ("runs", "datasets", "inputs", "input_tags")] == [60, 1, 60, 60]
    assert len(found["metrics"]) == sum(len(run.points) for run in whole)


KILLED = """
import sys
from tests.benchmarks.population import finished_runs
from weightzoo.tracking import RunStore
runs = RunStore(sys.argv[1], artifact_root=sys.argv[2]).zoo("z")
whole = list(finished_runs(40))
for start in range(0, 40, 5):
    runs.record(whole[start : start + 5])
    print(start, flush=True)
"""


def test_a_kill_leaves_no_half_run(new_uri: Callable[[], str], tmp_path: Path) -> None:
    uri = new_uri()
    points = {run.name: len(run.points) for run in finished_runs(40)}
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, uri, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while process.stdout.readline() != "10\n":
        assert process.poll() is None
    time.sleep(0.015)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    process.stdout.close()
    found = rows(uri)
    assert len(found["runs"]) in range(15, 41, 5)
    for row in map(dict, found["runs"]):
        assert row["status"] == "FINISHED"
        own = [point for point in found["metrics"] if dict(point)["run_uuid"] == row["name"]]
        assert len(own) == points[row["name"]]


def test_unknown_tables_are_left_to_mlflow(
    new_uri: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    uri = new_uri()
    caplog.set_level(logging.INFO, "weightzoo")
    for known, why in (({"3.17": "0123"}, "its tables are of revision dc11"), ({"2.0": "0123"}, "MLflow 3.17")):
        monkeypatch.setattr(database, "KNOWN", known)
        store = RunStore(uri, artifact_root=str(tmp_path))
        assert (store.bulk, store.batch) == (None, 1)
        assert f"one by one through MLflow, since {why}" in caplog.text
        assert "password" not in caplog.text
        assert len(store.zoo("z").record(list(finished_runs(1)))) == 1


def test_what_is_behind_a_server_is_left_to_it() -> None:
    assert database.open_database("http://127.0.0.1:5000") is None


def test_other_databases_are_left_to_mlflow(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "weightzoo")
    assert database.open_database("mysql://u:secret@127.0.0.1/d") is None
    assert "mysql is neither SQLite nor PostgreSQL" in caplog.text
    assert "secret" not in caplog.text


def test_more_runs_than_a_transaction_takes(new_store: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = new_store("many")
    runs = a_store(f"sqlite:///{folder}/mlflow.db", folder).zoo("z")
    monkeypatch.setattr(bulk, "LARGEST", 4)
    assert runs.store.bulk is not None
    new = [Change(None, NewRun(runs.experiment_id, runs.artifact_location, str(n), 1)) for n in range(10)]
    ids = runs.store.bulk.write(new)
    assert [runs.store.client.get_run(run_id).info.run_name for run_id in ids] == [str(n) for n in range(10)]


def test_the_database_knows_how_many_rows_it_has(new_uri: Callable[[], str], tmp_path: Path) -> None:
    store = a_store(uri := new_uri(), tmp_path)
    runs = list(finished_runs(2))
    store.zoo("z").record(runs)
    store.update_statistics()
    asked = {
        "sqlite": "SELECT stat FROM sqlite_stat1 WHERE tbl = 'metrics' LIMIT 1",
        "postgresql": "SELECT reltuples FROM pg_class WHERE relname = 'metrics'",
    }
    engine = sqlalchemy.create_engine(uri)
    with engine.connect() as connection:
        (told,) = connection.exec_driver_sql(asked[engine.dialect.name]).one()
    engine.dispose()
    assert int(str(told).split()[0].removesuffix(".0")) == sum(len(run.points) for run in runs)
