"""Reading a store of 50,360 runs, as the published zoos have together, which the bulk writer makes first."""

from __future__ import annotations

import itertools
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.population import finished_runs
from tests.benchmarks.scale import Figure, timed
from tests.benchmarks.scale_writing import stores
from weightzoo.registry import Registry
from weightzoo.tracking import RunStore
from weightzoo.zoo_runs import ZooRuns

RUNS, QUICK = 50_360, 2_000
LATER = 100  # runs that are new when the mirror is read again
TOGETHER = 250
QUERY = "test_accuracy > 0.5 and activation in ('tanh', 'gelu') and not (status == 'diverged' or learning_rate < 1e-4)"
ORDERS = (["metrics.`test_accuracy` DESC"], ["params.`learning_rate` ASC"], ["attributes.start_time DESC"])


def measure(quick: bool) -> list[Figure]:
    """Both kinds of databases."""
    count = QUICK if quick else RUNS
    with stores() as uris:
        return [figure for name, uri in uris.items() for figure in _measured(f"of {count:,} runs, {name}", uri, count)]


def _measured(of: str, uri: str, count: int) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        store = RunStore(uri, artifact_root=folder)
        runs = store.zoo("zoo")
        rate = write(runs, count)
        yield Figure.at_least(f"runs recorded in bulk, one process, {of}", 150, rate, "runs/s")
        with timed() as seconds:
            store.update_statistics()
        yield Figure.under(f"counting rows and values {of}", 30, seconds(), "s")
        here = Path.cwd()
        os.chdir(folder)  # where the mirror of a server's database is
        try:
            yield from _mirrored(of, uri, runs, count)
        finally:
            os.chdir(here)
        yield from _sorted(of, runs)


def write(runs: ZooRuns, count: int) -> float:
    """Runs a second of one process; making up what they are to hold is not counted."""
    source, spent = finished_runs(count), 0.0
    while some := list(itertools.islice(source, TOGETHER)):
        with timed() as seconds:
            runs.record(some)
        spent += seconds()
    return count / spent


def _mirrored(of: str, uri: str, runs: ZooRuns, count: int) -> Iterator[Figure]:
    with timed() as seconds:
        assert len(Registry(uri).runs) == count
    yield Figure.under(f"first sync {of}", 90, seconds(), "s")
    with timed() as seconds:
        found = Registry(uri).query(QUERY)
        assert 0 < len(found) < count
    yield Figure.under(f"query {of}", 2, seconds(), "s")
    with timed() as seconds:
        everything = Registry(uri).query("epochs > 0").frame()
        assert len(everything) == count
    yield Figure.under(f"a table of all, {of}", 4, seconds(), "s")
    runs.store.zoo("later").record(list(finished_runs(LATER, "fashion")))
    with _Taken() as taken, timed() as seconds:
        assert len(Registry(uri).runs) == count + LATER
    yield Figure(f"later sync {of}", f"the {LATER} new runs", f"{taken.runs} runs", taken.runs == LATER)
    yield Figure.under(f"later sync {of}, seconds", 15, seconds(), "s")


class _Taken(logging.Handler):
    """How many runs the mirror took, which it says to the log, while the block runs."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.runs = 0
        self._log = logging.getLogger("weightzoo")
        self._level = self._log.level

    def emit(self, record: logging.LogRecord) -> None:
        if "runs taken" in record.msg and isinstance(record.args, tuple):
            self.runs += int(str(record.args[1]))

    def __enter__(self) -> _Taken:
        self._log.setLevel(logging.DEBUG)
        self._log.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._log.removeHandler(self)
        self._log.setLevel(self._level)


def _sorted(of: str, runs: ZooRuns) -> Iterator[Figure]:
    """What MLflow's page asks for when somebody clicks on the head of a column."""
    for order in ORDERS:
        with timed() as seconds:
            page = runs.store.client.search_runs([runs.experiment_id], order_by=order, max_results=100)
        assert len(page) == 100
        yield Figure.under(f"a page sorted by {order[0].split()[0]} {of}", 1.5, seconds(), "s")
