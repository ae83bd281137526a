"""What the steps share that go on from a packed zoo: images, runs of the descendants, and their packed zoo."""

from __future__ import annotations

from typing import Unpack

from weightzoo.architectures import Architecture
from weightzoo.console import progress, say
from weightzoo.datasets import ImageData
from weightzoo.datasets import prepare as prepare_images
from weightzoo.errors import FormatError, SpecError
from weightzoo.execution.train import Settings, train_descendants
from weightzoo.lineage import parent_runs, start_weights
from weightzoo.members import Member
from weightzoo.mistakes import nearest
from weightzoo.registry import Registry
from weightzoo.spec import Params
from weightzoo.tracking import RunStore
from weightzoo.workspace import Workspace
from weightzoo.zoo import DatasetInfo, Zoo


def prepared(
    zoo: str, dataset: str, params: Params, workspace: Workspace, trained_on: DatasetInfo | None = None
) -> ImageData:
    """The images of a section below `datasets`, written to `data/<zoo>/`.

    Raises:
        SpecError: there is no such section.
        FormatError: they are not the images that were `trained_on`, if these are given.
    """
    if dataset not in params.datasets:
        raise SpecError(f"no data set {dataset!r} below `datasets` in params.yaml; {nearest(dataset, params.datasets)}")
    data = prepare_images(dataset, params.datasets[dataset])
    if trained_on is not None and data.content_hash != trained_on.hash:
        raise FormatError(
            f"data set {dataset} has hash {data.content_hash}, the models were trained on {trained_on.hash}; "
            "describe it in params.yaml as it was then"
        )
    data.save(workspace.data(zoo))
    return data


def build_zoo(
    step: str,
    zoo: str,
    members: tuple[Member, ...],
    source: Zoo,
    built: Architecture,
    data: ImageData,
    workspace: Workspace,
    **settings: Unpack[Settings],
) -> None:
    """Train the members from their parents in `source`, and pack them into `zoos/<zoo>/`.

    Raises:
        LayoutError: the weights to start from do not fit.
        EngineError: the engine that was asked for can't train the members.
        TrackingError: the tracking store can't be used, or another process trains this zoo.
    """
    start_weights(source, built, members[:1])  # whether weights and images fit shows before a run is made
    with progress(f"{step} {zoo}", unit="epochs") as report:
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
