"""The registry: what is known of all runs of a tracking store, queried, and packed into zoos.

```python
registry = Registry()
good = registry.query("dataset == 'mnist' and optimizer == 'adam' and test_accuracy > 0.9")
good.frame()                          # a DataFrame, a row a run
zoo = good.assemble("zoos/good-mnist")
```
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightzoo.connection import TAG, connect, default_tracking_uri, sqlite_path, tracking_errors
from weightzoo.database import open_database
from weightzoo.datasets.images import ImageData
from weightzoo.errors import MissingError, NotFoundError
from weightzoo.members import TRAINING
from weightzoo.mirror import Mirrored, mirrored_runs
from weightzoo.query import parse
from weightzoo.records import FIELDS, TYPES, RunRecord, record
from weightzoo.redaction import redact

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

    from weightzoo.zoo import Zoo

_PAGE = 10_000
_log = logging.getLogger("weightzoo")


class Registry:
    """The runs of a tracking store, by default of `MLFLOW_TRACKING_URI` or `mlruns/mlflow.db`.

    The store is opened when first needed, and read once: a new `Registry` sees what was logged since.
    """

    def __init__(self, tracking_uri: str | None = None) -> None:
        self.tracking_uri = tracking_uri or default_tracking_uri()

    @cached_property
    def runs(self) -> tuple[RunRecord, ...]:
        """All runs that weightzoo made, in the order of zoo, member and run.

        Raises:
            MissingError: there is no tracking store yet.
            TrackingError: it can't be read.
            FormatError: something of a run that has ended was altered since.
        """
        if self._mirrored is not None:
            return tuple(one.run for one in self._mirrored)
        return self._read(None)

    def query(self, text: str) -> Selection:
        """The runs that fulfil a condition on `FIELDS`; `weightzoo.query` describes the language.

        Raises:
            QueryError: the condition can't be read, names an unknown field or compares a number with a text.
            MissingError: there is no tracking store yet.
            TrackingError: it can't be read.
            FormatError: something of a run that has ended was altered since.
        """
        wanted = parse(text, FIELDS)
        return Selection(self, tuple(run for run in self.runs if wanted.matches(vars(run))))

    def members(self, ids: Iterable[str], zoo: str | None = None) -> Selection:
        """The ended runs of these members, in this order; with `zoo`, only its runs are looked at.

        If a member has several, it is the one that ended last, and a warning is logged.

        Raises:
            NotFoundError: a member has no ended run.
            MissingError: there is no tracking store yet.
            TrackingError: it can't be read.
            FormatError: something of a run that has ended was altered since.
        """
        wanted = tuple(ids)
        runs = self.runs if zoo is None else self._of_zoo(zoo)
        newest = {run.member: run for run in _newest([run for run in runs if run.member in set(wanted)])}
        absent = [member for member in wanted if member not in newest or newest[member].status == TRAINING]
        if absent:
            raise NotFoundError(
                f"{len(absent)} of {len(wanted)} members have no finished run in {redact(self.tracking_uri)}, "
                f"the first is {absent[0]}; run `weightzoo train {zoo or ''}".rstrip()
                + "`"
            )
        return Selection(self, tuple(newest[member] for member in wanted))

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's own client of this store."""
        self._require_database()
        return connect(self.tracking_uri)

    @cached_property
    def _mirrored(self) -> list[Mirrored] | None:
        """All runs by way of the mirror; None if the database is not known, or is behind a server."""
        self._require_database()
        with tracking_errors(self.tracking_uri):
            engine = open_database(self.tracking_uri)
            if engine is None:
                return None
            try:
                return mirrored_runs(engine, self.tracking_uri)
            finally:
                engine.dispose()

    def _require_database(self) -> None:
        database = sqlite_path(self.tracking_uri)
        if database is not None and not database.exists():
            raise MissingError(f"{database}: no runs yet; run `weightzoo train` first, or set MLFLOW_TRACKING_URI")

    def _of_zoo(self, name: str) -> tuple[RunRecord, ...]:
        if self._mirrored is not None:
            return tuple(one.run for one in self._mirrored if one.experiment == name)
        client = self.client
        with tracking_errors(self.tracking_uri):
            experiment = client.get_experiment_by_name(name)
        return () if experiment is None else self._read([experiment.experiment_id])

    def _read(self, experiments: list[str] | None) -> tuple[RunRecord, ...]:
        client = self.client
        with tracking_errors(self.tracking_uri):
            if experiments is None:
                experiments = [each.experiment_id for each in _pages(client.search_experiments, max_results=1000)]
            found: Iterator[MlflowRun] = _pages(client.search_runs, experiment_ids=experiments, max_results=_PAGE)
            runs = [record(run, self.tracking_uri) for run in found if f"{TAG}member" in run.data.tags]
        return tuple(sorted(runs, key=lambda run: (run.zoo, run.member, run.run_id)))


@dataclass(frozen=True)
class Selection:
    """Some runs of a registry, in a fixed order."""

    registry: Registry
    runs: tuple[RunRecord, ...]

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[RunRecord]:
        return iter(self.runs)

    def frame(self) -> pd.DataFrame:
        """A row a run, a column a field; missing values are NaN, `<NA>` in columns of integers."""
        import pandas as pd

        types = {"str": "str", "int": "Int64", "float": "float64", "datetime": "datetime64[ms, UTC]"}
        shown = [name for name in TYPES if name not in ("source_config", "definition", "artifact_uri")]
        columns = {name: [getattr(run, name) for run in self.runs] for name in shown}
        return pd.DataFrame({name: pd.Series(values, dtype=types[TYPES[name]]) for name, values in columns.items()})

    def assemble(
        self,
        path: Path | str,
        epochs: Iterable[int] | None = None,
        name: str | None = None,
        *,
        data: ImageData | None = None,
        rehearsal: Mapping[str, Any] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Zoo:
        """Pack these runs into a zoo at `path`, in this order; the same runs give the same bytes.

        `epochs` are the epochs whose weights go into it, by default all that every run kept. `name` is by default that
        of the folder. `data` is the image data set, for its class names and normalisation; without it the classes are
        numbered and the normalisation is left open. `rehearsal` says of what zoo this one is a rehearsal. A member that
        was trained twice enters once, with the run that ended last. Models that diverged or were pruned are part of the
        zoo, as models that did not reach every epoch.

        Raises:
            NotFoundError: there are no runs, or a run did not keep one of the epochs.
            QueryError: the runs are of several architectures or data sets.
            MissingError: a run has not ended, or artifacts are missing.
            FormatError: artifacts are damaged, or `path` is something other than a zoo, or `data` another data set.
            TrackingError: artifacts can't be fetched.
        """
        from weightzoo.assembly import assemble

        uri = self.registry.tracking_uri
        return assemble(
            self.once().runs,
            Path(path),
            epochs,
            name,
            data=data,
            rehearsal=rehearsal,
            tracking_uri=uri,
            on_progress=on_progress,
        )

    def once(self) -> Selection:
        """Every member once: of several runs the one that ended last."""
        newest = {run.run_id for run in _newest(self.runs)}
        return Selection(self.registry, tuple(run for run in self.runs if run.run_id in newest))


def _newest(runs: Iterable[RunRecord]) -> list[RunRecord]:
    """Of each member the run that ended last; one that is training only if there is no other."""
    by_member: dict[str, list[RunRecord]] = defaultdict(list)
    for run in runs:
        by_member[run.member].append(run)
    chosen: list[RunRecord] = []
    for member, own in by_member.items():
        ended = [run for run in own if run.status != TRAINING]
        chosen.append(max(ended or own, key=lambda run: (run.ended or _NEVER, run.run_id)))
        if len(ended) > 1:
            _log.warning(
                "member %s has %d finished runs; %s, the newest, is used", member, len(ended), chosen[-1].run_id
            )
    return chosen


_NEVER = datetime.fromtimestamp(0, UTC)


def _pages(search: Callable[..., Any], **arguments: Any) -> Iterator[Any]:
    token: str | None = None
    while True:
        page = search(page_token=token, **arguments)
        yield from page
        token = page.token
        if not token:
            return


__all__ = ["FIELDS", "Registry", "RunRecord", "Selection"]
