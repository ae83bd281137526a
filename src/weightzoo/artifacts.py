"""Where the artifacts of runs lie: in the file system, on S3, or behind MLflow's server. One interface for all three.

On S3 objects are written and read by several threads at once, each held against its length and hash. MLflow itself
takes one request after the other.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from weightzoo.checkpoints import write_atomically
from weightzoo.connection import local_artifacts, tracking_errors
from weightzoo.patience import Patience
from weightzoo.s3 import Connection, Folder, Location, is_s3, settings_for

if TYPE_CHECKING:
    from mlflow import MlflowClient

MANY = 8  # runs of which the objects are listed by one look at their experiment
_ARTIFACTS = "artifacts"  # MLflow's name of the folder in that of a run
Choice = Callable[[list[str]], Iterable[str]]  # from the names of all artifacts of a run, those that are wanted


class RunArtifacts(ABC):
    """The artifacts of one run, by their path within it.

    All methods raise TrackingError if MLflow's store can't be used, StorageError if S3 can't, MissingError if an
    artifact is not there, and FormatError if one is not what was stored.
    """

    @property
    def path(self) -> Path | None:
        """Their folder, if they are in the file system."""
        return None

    @abstractmethod
    def put(self, files: Mapping[str, bytes]) -> None:
        """Store artifacts; each is there whole or not at all."""

    @abstractmethod
    def fetch(self, to: Path, choose: Choice | None = None) -> None:
        """Copy the artifacts, or those that are chosen, into a folder."""

    @abstractmethod
    def size(self) -> int | None:
        """What is stored, in bytes; None if that can't be told."""

    @contextmanager
    def folder(self, choose: Choice | None = None) -> Generator[Path]:
        """A folder that holds the artifacts, or at least those that are chosen, while the block runs."""
        if self.path is not None:
            yield self.path
            return
        with tempfile.TemporaryDirectory(prefix="weightzoo-") as folder:
            self.fetch(Path(folder), choose)
            yield Path(folder)


class FileArtifacts(RunArtifacts):
    """In a folder."""

    def __init__(self, path: Path, tracking_uri: str) -> None:
        self._path, self._uri = path, tracking_uri

    @property
    def path(self) -> Path:
        return self._path

    def put(self, files: Mapping[str, bytes]) -> None:
        with tracking_errors(self._uri):
            for name, content in files.items():
                write_atomically(self.path / name, content)

    def fetch(self, to: Path, choose: Choice | None = None) -> None:
        names = [str(file.relative_to(self.path)) for file in sorted(self.path.rglob("*")) if file.is_file()]
        for name in names if choose is None else choose(names):
            write_atomically(to / name, (self.path / name).read_bytes())

    def size(self) -> int:
        return folder_bytes(self.path)


class S3Artifacts(RunArtifacts):
    """On S3, whatever keeps the runs. What was trained is stored with patience, if the server is away for a while."""

    def __init__(self, objects: Folder, patience: Patience, names: list[str] | None = None) -> None:
        """`names` are those of the objects, if they were listed before."""
        self._objects, self._patience, self._names = objects, patience, names

    def put(self, files: Mapping[str, bytes]) -> None:
        self._patience.insist(str(self._objects), lambda _: self._objects.write_all(files))

    def fetch(self, to: Path, choose: Choice | None = None) -> None:
        names = list(self._objects.list()) if self._names is None else self._names
        self._objects.fetch(names if choose is None else choose(names), to)

    def size(self) -> int:
        found = self._patience.insist(str(self._objects), lambda _: self._objects.list())
        return sum(stored.bytes for stored in found.values())


class MlflowArtifacts(RunArtifacts):
    """Wherever MLflow takes them: through its server, or in a store that only MLflow knows."""

    def __init__(self, client: MlflowClient, run_id: str, tracking_uri: str) -> None:
        self._client, self._run_id, self._uri = client, run_id, tracking_uri

    def put(self, files: Mapping[str, bytes]) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            for name, content in files.items():
                write_atomically(Path(temporary, name), content)
            with tracking_errors(self._uri):
                self._client.log_artifacts(self._run_id, temporary)

    def fetch(self, to: Path, choose: Choice | None = None) -> None:
        with tracking_errors(self._uri):
            if choose is None:
                self._client.download_artifacts(self._run_id, "", str(to))
                return
            for name in choose(list(self._names())):
                place = to / name  # some of MLflow's stores would leave the folder out
                place.parent.mkdir(parents=True, exist_ok=True)
                Path(self._client.download_artifacts(self._run_id, name, str(to))).replace(place)

    def size(self) -> None:
        return None

    def _names(self, below: str | None = None) -> Generator[str]:
        for found in self._client.list_artifacts(self._run_id, below):
            if found.is_dir:
                yield from self._names(found.path)
            else:
                yield found.path


class ArtifactStore:
    """The artifacts of the runs of one tracking store; with `patience` they are written, if that is ever done."""

    def __init__(self, tracking_uri: str, client: Callable[[], MlflowClient], patience: Patience | None = None) -> None:
        self._uri, self._client, self._patience = tracking_uri, client, patience or Patience(0)
        self._connections: dict[Location, Connection] = {}  # by experiment

    def of(self, run_id: str, artifact_uri: str | None) -> RunArtifacts:
        """Those of a run, by what MLflow says of where they are."""
        uri = artifact_uri or ""
        path = local_artifacts(uri, self._uri)
        if path is not None:
            return FileArtifacts(path, self._uri)
        if is_s3(uri):
            place = Location.parse(uri)
            return S3Artifacts(Folder(place, self._connection(_experiment(run_id, uri) or place)), self._patience)
        return MlflowArtifacts(self._client(), run_id, self._uri)

    def of_many(self, runs: Sequence[tuple[str, str | None]]) -> list[RunArtifacts]:
        """Those of many runs that are to be read, by run ids and what MLflow says of where they are."""
        if len(runs) < MANY:
            return [self.of(*run) for run in runs]
        listed = {run_id: (folder, list(names)) for run_id, folder, names in self._listed(runs)}
        return [
            S3Artifacts(listed[run[0]][0], self._patience, listed[run[0]][1]) if run[0] in listed else self.of(*run)
            for run in runs
        ]

    def sizes(self, runs: Iterable[tuple[str, str | None]]) -> dict[str, int]:
        """What is stored of each run on S3, in bytes, by run id."""
        return {run_id: sum(names.values()) for run_id, _, names in self._listed(runs)}

    def _listed(self, runs: Iterable[tuple[str, str | None]]) -> Iterator[tuple[str, Folder, dict[str, int]]]:
        """Of each run on S3 its folder, names and sizes of its objects: one look at an experiment, not at each run."""
        roots: dict[Location, dict[str, dict[str, int]]] = {}
        for run_id, uri in runs:
            root = _experiment(run_id, uri)
            if root is not None:
                roots.setdefault(root, {})[run_id] = {}
        for root, own in roots.items():
            whole = Folder(root, self._connection(root))
            for name, stored in whole.list().items():
                run_id, _, below = name.partition("/")
                if run_id in own:
                    own[run_id][below.removeprefix(f"{_ARTIFACTS}/")] = stored.bytes
            for run_id, names in own.items():
                yield run_id, whole / f"{run_id}/{_ARTIFACTS}", names

    def delete(self, run_id: str, artifact_uri: str | None) -> None:
        """Delete the artifacts of a run that are on S3; others stay."""
        root = _experiment(run_id, artifact_uri)
        if root is not None:
            objects = Folder(root / run_id, self._connection(root))
            objects.delete(objects.list())

    def _connection(self, root: Location) -> Connection:
        if root not in self._connections:
            self._connections[root] = Connection(settings_for(root))
        return self._connections[root]


def folder_bytes(folder: Path) -> int:
    """The size of the artifacts below a folder."""
    files: Iterable[Path] = folder.rglob("*.safetensors") if folder.is_dir() else ()
    return sum(file.stat().st_size for file in files if not file.name.startswith("."))


def _experiment(run_id: str, artifact_uri: str | None) -> Location | None:
    """The place of an experiment on S3, in which MLflow gives each run a folder of its id."""
    end = f"/{run_id}/{_ARTIFACTS}"
    uri = artifact_uri or ""
    return Location.parse(uri.removesuffix(end)) if is_s3(uri) and uri.endswith(end) else None


__all__ = ["ArtifactStore", "RunArtifacts", "folder_bytes"]
