"""Where things lie below a project folder: one place for the paths that stages, command line and tests share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from weightzoo.errors import MissingError


@dataclass(frozen=True)
class Workspace:
    """A project folder: the one that holds `params.yaml`."""

    root: Path = Path()

    @property
    def params(self) -> Path:
        """The description of all zoos."""
        return self.root / "params.yaml"

    @property
    def runs(self) -> Path:
        """MLflow's database and artifacts, and the snapshots of training that is under way."""
        return self.root / "mlruns"

    @property
    def downloads(self) -> Path:
        """The published files of image data sets, a folder a source, for all zoos."""
        return self.root / ".downloads"

    @property
    def shared_data(self) -> Path:
        """Prepared image data, a folder a data set, that the folders of zoos link to."""
        return self.root / "data" / ".shared"

    def data(self, zoo: str) -> Path:
        """The prepared image data of a zoo."""
        return self.root / "data" / zoo

    def manifest(self, zoo: str) -> Path:
        """The ids of a zoo's trained members, in order: what `train` hands to `assemble`."""
        return self.root / "zoos" / f"{zoo}.members.json"

    def zoo(self, zoo: str) -> Path:
        """The packed zoo."""
        return self.root / "zoos" / zoo

    def packed_zoo(self, zoo: str) -> Path:
        """The folder of a packed zoo that was given by name or by path.

        Raises:
            MissingError: there is neither.
        """
        for folder in (self.zoo(zoo), Path(zoo)):
            if (folder / "zoo.json").is_file():
                return folder
        raise MissingError(f"no packed zoo {zoo!r}: neither {self.zoo(zoo)} nor {zoo} has a zoo.json")

    def import_report(self, zoo: str) -> Path:
        """What an import had to say of each model of the source."""
        return self.root / "zoos" / f"{zoo}.import.json"

    def report(self, zoo: str) -> Path:
        """The report of a zoo."""
        return self.root / "reports" / zoo
