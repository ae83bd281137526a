"""Step 3: the packed zoo, from the runs of the members that `train` listed."""

from __future__ import annotations

from weightzoo.console import progress, say
from weightzoo.datasets import ImageData
from weightzoo.execution.manifest import read_manifest
from weightzoo.registry import Registry
from weightzoo.workspace import Workspace


def assemble(zoo: str, workspace: Workspace) -> None:
    """Write `zoos/<zoo>/` from the runs of the members in `zoos/<zoo>.members.json`.

    Raises:
        MissingError: training has not run.
        NotFoundError: a member has no finished run in the tracking store.
    """
    trained = read_manifest(workspace.manifest(zoo))
    data = ImageData.load(workspace.data(zoo))
    with progress(f"assemble {zoo}", unit="models") as report:
        packed = (
            Registry()
            .members(trained.members, zoo)
            .assemble(workspace.zoo(zoo), name=zoo, data=data, rehearsal=trained.rehearsal, on_progress=report)
        )
    megabytes = sum(file.stat().st_size for file in workspace.zoo(zoo).iterdir()) / 1e6
    states = len(packed.models) * len(packed.checkpoint_epochs)
    say(f"assemble  {zoo}: {len(packed.models):,} models, {states:,} states, {megabytes:,.0f} MB")
