"""Training again from nothing: what would be deleted for it, and deleting that."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from weightzoo.execution.guard import only_trainer
from weightzoo.tracking import RunStore
from weightzoo.zoo_runs import KnownRun


@dataclass(frozen=True)
class Deletion:
    """What training a zoo from nothing deletes first; printed, it says so."""

    store: RunStore
    zoo: str
    runs: tuple[KnownRun, ...]
    folders: tuple[Path, ...]  # of artifacts in the file system, and of snapshots
    bytes: int  # what the folders hold, and the objects on S3
    remote: int  # runs whose artifacts are behind MLflow's server and stay there

    def __str__(self) -> str:
        ended = sum(run.ended for run in self.runs)
        text = (
            f"{len(self.runs):,} runs of {self.zoo} ({ended:,} trained to their end) and {len(self.folders):,} folders "
            f"of {self.bytes / 1e6:,.1f} MB"
        )
        left = f"; the artifacts of {self.remote:,} runs stay where they are until `mlflow gc`" if self.remote else ""
        return text + left

    def carry_out(self) -> None:
        """Delete it. In MLflow the runs stay in its trash until `mlflow gc`.

        Raises:
            TrackingError: the store can't be used, or the zoo is in training.
        """
        below = self.store.resume_folder
        with only_trainer(below, self.zoo):
            for folder in self.folders:
                if folder.parent == below / self.zoo:
                    shutil.rmtree(folder, ignore_errors=True)
            runs = self.store.zoo(self.zoo)
            for run in self.runs:
                runs.delete(run)


def planned_deletion(store: RunStore, zoo: str, members: Collection[str] | None = None) -> Deletion:
    """The runs, artifact folders and snapshots of the zoo's current members; of all its runs if `members` is None.

    Raises:
        TrackingError: the store can't be used.
    """
    wanted = None if members is None else set(members)
    known = store.zoo(zoo).known()
    runs = [run for member, own in known.items() if wanted is None or member in wanted for run in own]
    artifacts = [run.artifacts.parent for run in runs if run.artifacts is not None]
    below = store.resume_folder / zoo
    snapshots = sorted(below.iterdir()) if below.is_dir() else []
    folders = [folder for folder in (*artifacts, *snapshots) if folder.is_dir()]
    size = sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())
    size += sum(run.object_bytes or 0 for run in runs)
    remote = sum(run.artifacts is None and run.object_bytes is None for run in runs)
    return Deletion(store, zoo, tuple(runs), tuple(folders), size, remote)
