"""How fast runs of 51 epochs x 7 metrics are recorded: by several writers at once through MLflow's public API."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import tempfile
from collections.abc import Generator
from multiprocessing.synchronize import Barrier

from tests.benchmarks.population import finished_runs
from tests.benchmarks.scale import Figure, timed
from tests.servers import PostgreSQL
from weightzoo import database
from weightzoo.tracking import RunStore

WRITERS = 3


@contextlib.contextmanager
def stores() -> Generator[dict[str, str]]:
    """An empty store of each kind, by what it is called."""
    with tempfile.TemporaryDirectory(prefix="scale-") as folder, PostgreSQL() as server:
        uris = {"SQLite": f"sqlite:///{folder}/mlflow.db", "PostgreSQL": server.uri}
        for uri in uris.values():
            RunStore(uri, artifact_root=folder).zoo("empty")  # making the tables takes seconds
        yield uris


def measure(quick: bool) -> list[Figure]:
    """All kinds of stores."""
    each = 10 if quick else 100
    with stores() as uris:
        return [
            Figure.at_least(
                f"runs recorded through the public API, {WRITERS} processes, {name}",
                15,
                several_writers(uri, each),
                "runs/s",
            )
            for name, uri in uris.items()
        ]


def several_writers(uri: str, each: int, *, public: bool = True) -> float:
    """Runs a second of several processes that begin at once: by MLflow's public API, or as is fastest."""
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(WRITERS + 1, timeout=600)
    processes = [
        context.Process(target=_write, args=(uri, number, each, public, together)) for number in range(WRITERS)
    ]
    for process in processes:
        process.start()
    together.wait()
    with timed() as seconds:
        together.wait()
    for process in processes:
        process.join()
    return WRITERS * each / seconds()


def _write(uri: str, number: int, each: int, public: bool, together: Barrier) -> None:
    with tempfile.TemporaryDirectory(prefix="artifacts-") as artifacts:
        try:
            if public:
                database.KNOWN.clear()  # as if MLflow's tables were not known, which leaves its public calls
            runs = RunStore(uri, artifact_root=artifacts).zoo(f"writer-{number}")
            work = iter(list(finished_runs(each)))
            together.wait()
            while some := list(itertools.islice(work, runs.store.batch)):
                runs.record(some)
            together.wait()
        except BaseException:
            together.abort()
            raise
