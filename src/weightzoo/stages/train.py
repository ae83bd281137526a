"""Step 2: every member of a zoo trained, each as an MLflow run of its own."""

from __future__ import annotations

from weightzoo.console import progress, say
from weightzoo.datasets import ImageData
from weightzoo.execution.executor import executor_of
from weightzoo.execution.force import Deletion, planned_deletion
from weightzoo.execution.manifest import write_manifest
from weightzoo.execution.train import train_zoo
from weightzoo.population import grid_members
from weightzoo.rehearsal import origin, sections
from weightzoo.spec import EvolutionConfiguration, Execution, SearchConfiguration, load_params
from weightzoo.tracking import RunStore
from weightzoo.workspace import Workspace


def train(
    zoo: str,
    workspace: Workspace,
    *,
    engine: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    execution: Execution | None = None,
) -> None:
    """Train what has no finished run yet, and write `zoos/<zoo>.members.json`.

    `engine`, `device` and `execution` override the zoo's section; `threads` is the number of CPU threads, by default
    one a core, and on a cluster one a task.

    Raises:
        SpecError: `params.yaml` describes something impossible.
        MissingError: the data set has not been prepared.
        EngineError: the engine that was asked for can't train this zoo.
        ClusterError: the cluster that should train can't be used.
        TrackingError: the tracking store can't be used, or another process trains this zoo.
    """
    params = load_params(workspace.params)
    spec, _ = sections(zoo, params)
    data = ImageData.load(workspace.data(zoo))
    where = execution or spec.execution or params.execution
    with progress(f"train {zoo}", unit="epochs") as report, executor_of(where) as executor:
        summary = train_zoo(
            zoo,
            spec,
            data,
            RunStore(),
            engine=engine,
            device=device,
            threads=threads,
            executor=executor,
            on_progress=lambda so_far: report(so_far.done, so_far.total, so_far.what),
        )
    write_manifest(workspace.manifest(zoo), zoo, summary.members, summary.digest, origin(zoo, params))
    say(f"train     {zoo}: {summary}")


def deletion(zoo: str, workspace: Workspace) -> Deletion:
    """What training all members of a zoo anew would delete: their runs, artifacts and snapshots.

    Raises:
        SpecError: `params.yaml` describes something impossible.
        MissingError: the data set has not been prepared.
        TrackingError: the tracking store can't be used.
    """
    spec, _ = sections(zoo, load_params(workspace.params))
    if isinstance(
        spec.configuration, SearchConfiguration | EvolutionConfiguration
    ):  # whose members follow from the results of others
        return planned_deletion(RunStore(), zoo)
    members = grid_members(spec, ImageData.load(workspace.data(zoo)).content_hash)
    return planned_deletion(RunStore(), zoo, {member.id for member in members})
