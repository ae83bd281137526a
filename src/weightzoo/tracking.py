"""The tracking store: MLflow's experiments and runs, wherever they are kept (see `zoo_runs` for those of one zoo)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from weightzoo import checkpoints
from weightzoo.artifacts import ArtifactStore, RunArtifacts
from weightzoo.bulk import BulkWriter
from weightzoo.connection import (
    ARTIFACTS_FOLDER,
    TAG,
    connect,
    default_tracking_uri,
    sqlite_path,
    tracking_errors,
)
from weightzoo.database import open_database
from weightzoo.errors import NotFoundError, SpecError, TrackingError
from weightzoo.members import ID_LENGTH
from weightzoo.patience import Patience
from weightzoo.redaction import redact
from weightzoo.s3.settings import runs_root
from weightzoo.zoo_runs import ZooRuns

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

__all__ = ["RunStore", "default_tracking_uri"]

WRITERS = 8  # at once, where a network lies between
BATCH = 64  # runs that are written together
_TRAINING_VIEW = {"mlflow.experimentKind": "custom_model_development"}  # not a chat application, which its UI assumes
_NAME = re.compile(r"\w[\w.-]*")


class RunStore:
    """A tracking store. Opened when first used; the default is `MLFLOW_TRACKING_URI` or `mlruns/mlflow.db`.

    `artifact_root` is where the artifacts of a *new* zoo go, a folder or `s3://bucket/prefix`. The default is
    `MLFLOW_DEFAULT_ARTIFACT_ROOT`, as for MLflow's own server, or the DVC remote `runs` (`weightzoo remote setup`);
    without them they go beside an SQLite database or into `mlruns/artifacts`, and with a tracking server where that
    decides.
    """

    def __init__(
        self,
        tracking_uri: str | None = None,
        *,
        artifact_root: str | None = None,
        resume_folder: Path | str | None = None,
    ):
        self.uri = tracking_uri or default_tracking_uri()
        self.artifact_root = artifact_root or os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT")
        self._resume_folder = resume_folder
        self.patience = Patience()
        self.artifact_store = ArtifactStore(self.uri, lambda: self.client, self.patience)

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's own client of this store.

        Raises:
            TrackingError: the store can't be opened.
        """
        return connect(self.uri, self.patience)

    @cached_property
    def bulk(self) -> BulkWriter | None:
        """What writes many runs at a time; None if that goes through MLflow's public calls alone.

        Raises:
            TrackingError: the store can't be opened.
        """
        _ = self.client  # makes the database if it is not there
        with tracking_errors(self.uri):
            database = open_database(self.uri)
        if database is None:
            return None
        if sqlite_path(self.uri) is not None:
            return BulkWriter(database)
        return BulkWriter(database, lambda work: self.patience.insist(self.uri, lambda _: work()))

    @property
    def batch(self) -> int:
        """How many runs are best written together."""
        return 1 if self.bulk is None else BATCH

    @property
    def writers(self) -> int:
        """How many runs are written at once: an SQLite database takes one after the other, a server several."""
        return 1 if sqlite_path(self.uri) is not None else WRITERS

    @property
    def resume_folder(self) -> Path:
        """Where interrupted training is kept: `.resume` beside an SQLite database, else `mlruns/.resume`."""
        if self._resume_folder is not None:
            return Path(self._resume_folder)
        database = sqlite_path(self.uri)
        return (database.parent if database else Path("mlruns")) / ".resume"

    def zoo(self, name: str, parent_runs: Mapping[str, str] | None = None) -> ZooRuns:
        """The runs of one zoo: its experiment, made if it is not there.

        `parent_runs` says which run a parent's weights were taken from, by member id, as far as that is known.

        Raises:
            SpecError: the name can't be that of a folder.
            TrackingError: the store can't be used, or the experiment was deleted.
        """
        if not _NAME.fullmatch(name):
            raise SpecError(f"zoo {name!r}: it names folders, so use letters, digits, '.', '_' and '-' only")
        return ZooRuns(self, name, self.experiment(name), parent_runs or {})

    def experiment(self, zoo: str) -> Experiment:
        """MLflow's experiment of a zoo, made if it is not there.

        Raises:
            TrackingError: the store can't be used, or the experiment was deleted.
        """
        with tracking_errors(self.uri):
            experiment = self.client.get_experiment_by_name(zoo)
            if experiment is None:
                experiment = self._create_experiment(zoo)
            if experiment.lifecycle_stage != "active":
                raise TrackingError(
                    f"{redact(self.uri)}: the experiment {zoo!r} was deleted; restore it in MLflow or rename the zoo"
                )
            return experiment

    def update_statistics(self) -> None:
        """Tell the database how its tables have grown: sorting runs by a metric takes minutes without at 50,000 runs.

        PostgreSQL does so by itself, some minutes later. A database that is not known is left alone.

        Raises:
            TrackingError: the store can't be used.
        """
        if self.bulk is not None:
            with tracking_errors(self.uri):
                self.bulk.analyse()

    def find(self, run: str) -> Run:
        """The MLflow run of a run id, or the ended one of a member id.

        Raises:
            NotFoundError: there is none.
            TrackingError: the store can't be used.
        """
        with tracking_errors(self.uri):
            if run.isalnum() and len(run) == ID_LENGTH:
                zoos = [experiment.experiment_id for experiment in self.client.search_experiments()]
                found = self.client.search_runs(
                    zoos, f"tags.`{TAG}member` = '{run}' and attributes.status = 'FINISHED'"
                )
                if found:
                    return found[0]
            elif run.isalnum():
                from mlflow.exceptions import MlflowException

                try:
                    return self.client.get_run(run)
                except MlflowException as error:
                    if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                        raise
        raise NotFoundError(f"no run or member {run!r} in {redact(self.uri)}; `weightzoo query` lists what there is")

    def checkpoint(self, run: str, epoch: int, *, raw: bool = False) -> dict[str, np.ndarray]:
        """The weights of a run (or member) id behind an epoch, as a plain state dict of float32 arrays.

        Those of a sparse network that are dropped are zero, unless the `raw` ones are asked for.

        Raises:
            NotFoundError: there is no such run, or the epoch was not kept.
            MissingError: the run has no checkpoints (yet).
            FormatError: its files are damaged.
            TrackingError: the store can't be used.
        """
        read = checkpoints.read_state if raw else checkpoints.read_network
        with self.artifacts(self.find(run)).folder(lambda names: checkpoints.files_of_epoch(names, epoch)) as folder:
            return read(folder, epoch)

    def artifacts(self, run: Run) -> RunArtifacts:
        """The artifacts of a run."""
        return self.artifact_store.of(run.info.run_id, run.info.artifact_uri)

    def _create_experiment(self, name: str) -> Experiment:
        from mlflow.exceptions import MlflowException

        try:
            experiment_id = self.client.create_experiment(name, self._artifact_location(name), _TRAINING_VIEW)
        except MlflowException:
            made_meanwhile = self.client.get_experiment_by_name(name)
            if made_meanwhile is None:
                raise
            return made_meanwhile
        return self.client.get_experiment(experiment_id)

    def _artifact_location(self, zoo: str) -> str | None:
        root = self.artifact_root or runs_root()
        if root is not None and "://" in root:
            return f"{root.rstrip('/')}/{zoo}"
        if root is None and self.uri.startswith(("http://", "https://")):
            return None
        database = sqlite_path(self.uri)
        beside = (database.parent if database else Path("mlruns")) / ARTIFACTS_FOLDER
        return (Path(root or beside).absolute() / zoo).as_uri()
