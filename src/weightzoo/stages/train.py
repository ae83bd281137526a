"""Step 2: every member of a zoo trained, each as an MLflow run of its own."""

from __future__ import annotations

from weightzoo.console import progress, say
from weightzoo.datasets import ImageData
from weightzoo.execution import train_zoo
from weightzoo.execution.manifest import write_manifest
from weightzoo.spec import load_params
from weightzoo.tracking import RunStore
from weightzoo.workspace import Workspace


def train(
    zoo: str, workspace: Workspace, *, engine: str | None = None, device: str | None = None, threads: int | None = None
) -> None:
    """Train what has no finished run yet, and write `zoos/<zoo>.members.json`.

    `engine` and `device` override the zoo's section; `threads` is the number of CPU threads, one a core by default.

    Raises:
        SpecError: `params.yaml` describes something impossible.
        MissingError: the data set has not been prepared.
        EngineError: the engine that was asked for can't train this zoo.
        TrackingError: the tracking store can't be used, or another process trains this zoo.
    """
    spec = load_params(workspace.params).zoo(zoo)
    data = ImageData.load(workspace.data(zoo))
    with progress(f"train {zoo}", unit="epochs") as report:
        summary = train_zoo(
            zoo,
            spec,
            data,
            RunStore(),
            engine=engine,
            device=device,
            threads=threads,
            on_progress=lambda p: report(p.done, p.total, p.what),
        )
    write_manifest(workspace.manifest(zoo), zoo, summary.members)
    say(f"train     {zoo}: {summary}")
