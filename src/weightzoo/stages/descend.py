"""What the steps share that go on from a packed zoo: images, runs of the descendants, and their packed zoo."""

from __future__ import annotations

import shutil
from typing import Unpack

from weightzoo.architectures import Architecture
from weightzoo.console import progress, say
from weightzoo.datasets import ImageData
from weightzoo.errors import FormatError, SpecError
from weightzoo.execution.executor import executor_of
from weightzoo.execution.train import Settings, train_descendants
from weightzoo.lineage import parent_runs, start_weights
from weightzoo.members import Member
from weightzoo.mistakes import nearest
from weightzoo.registry import Registry
from weightzoo.rehearsal import SUFFIX, sections
from weightzoo.spec import Execution, Params
from weightzoo.stages.prepare import prepare_images
from weightzoo.tracking import RunStore
from weightzoo.workspace import Workspace
from weightzoo.zoo import Zoo


def same_images(zoo: str, source: Zoo, params: Params, workspace: Workspace) -> ImageData:
    """The images that the models of `source` were trained on, written to `data/<zoo>/` from their section.

    Raises:
        SpecError: `params.yaml` does not describe them.
        FormatError: what it describes are others.
    """
    name = source.dataset_info.name
    if name in params.datasets:
        section = params.datasets[name]
    elif source.name.endswith(SUFFIX):
        _, section = sections(source.name, params)
    else:
        raise SpecError(f"no data set {name!r} below `datasets` in params.yaml; {nearest(name, params.datasets)}")
    data = prepare_images(zoo, name, section, workspace)
    if data.content_hash != source.dataset_info.hash:
        shutil.rmtree(workspace.data(zoo))
        raise FormatError(
            f"data set {name} has hash {data.content_hash}, the models were trained on {source.dataset_info.hash}; "
            "describe it in params.yaml as it was then"
        )
    return data


def build_zoo(
    step: str,
    zoo: str,
    members: tuple[Member, ...],
    source: Zoo,
    built: Architecture,
    data: ImageData,
    workspace: Workspace,
    *,
    execution: Execution,
    **settings: Unpack[Settings],
) -> None:
    """Train the members from their parents in `source`, and pack them into `zoos/<zoo>/`.

    Raises:
        LayoutError: the weights to start from do not fit.
        EngineError: the engine that was asked for can't train the members.
        ClusterError: the cluster that should train can't be used.
        TrackingError: the tracking store can't be used, or another process trains this zoo.
    """
    start_weights(source, built, members[:1])  # whether weights and images fit shows before a run is made
    with progress(f"{step} {zoo}", unit="epochs") as report, executor_of(execution) as settings["executor"]:
        settings["on_progress"] = lambda so_far: report(so_far.done, so_far.total, so_far.what)
        summary = train_descendants(
            zoo,
            members,
            lambda some: start_weights(source, built, some),
            built,
            data,
            RunStore(),
            parent_runs=parent_runs(source),
            **settings,
        )
    say(f"{step:<9} {zoo}: from {source.name}, {summary}")
    with progress(f"assemble {zoo}", unit="models") as report:
        runs = Registry().members(summary.members, zoo)
        packed = runs.assemble(workspace.zoo(zoo), name=zoo, data=data, on_progress=report)
    say(f"assemble  {zoo}: {len(packed):,} models, {packed.counts['states']:,} states")
