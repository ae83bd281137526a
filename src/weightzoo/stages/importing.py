"""A published zoo into runs and a packed zoo, in place of prepare, train and assemble."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from weightzoo.checkpoints import write_atomically
from weightzoo.console import progress, say
from weightzoo.published import NothingImportedError, Remark, Source, open_source, pack
from weightzoo.workspace import Workspace


def import_zoo(
    folder: Path,
    zoo: str,
    workspace: Workspace,
    *,
    layout: str | None = None,
    dataset: str | None = None,
    workers: int = 1,
    runs: bool = True,
) -> tuple[Remark, ...]:
    """Record the models of a published zoo as runs and pack them into `zoos/<zoo>/`; what there is to be said of them.

    Without `runs` they are packed straight away. What is said goes to `zoos/<zoo>.import.json` too.

    Raises:
        MissingError: there is no published zoo in `folder`.
        SpecError: its layout or data set is not known, or `zoo` has models that were trained here.
        NothingImportedError: no model of it could be read; all are listed all the same.
        TrackingError: the tracking store can't be used.
    """
    with progress(f"list {zoo}", unit="models"):
        source = open_source(folder, layout, dataset)
    try:
        if runs:
            remarks, count, new = _record(source, zoo, workspace, workers)
        else:
            with progress(f"import {zoo}", unit="models") as report:
                remarks = pack(source, workspace.zoo(zoo), name=zoo, workers=workers, on_progress=report)
            refused = sum(remark.kind == "refused" for remark in remarks) - len(source.refused)
            count = new = len(source.models) - refused
    except NothingImportedError as error:
        _list(folder, 0, error.remarks, workspace.import_report(zoo))
        raise
    _list(folder, count, remarks, workspace.import_report(zoo))
    kinds = Counter(remark.kind for remark in remarks)
    known = f"{new:,} of them new, {kinds['partial']:,} partial"
    say(f"import    {zoo}: {count:,} models, {known}; {kinds['refused']:,} refused")
    return remarks


def _list(folder: Path, models: int, remarks: tuple[Remark, ...], path: Path) -> None:
    listed = {"source": str(folder), "models": models, "remarks": [asdict(remark) for remark in remarks]}
    write_atomically(path, (json.dumps(listed, indent=1) + "\n").encode())


def _record(source: Source, zoo: str, workspace: Workspace, workers: int) -> tuple[tuple[Remark, ...], int, int]:
    from weightzoo.execution.guard import exit_on_terminate
    from weightzoo.importing import import_runs
    from weightzoo.registry import Registry
    from weightzoo.tracking import RunStore

    with exit_on_terminate(), progress(f"import {zoo}", unit="models") as report:
        done = import_runs(source, zoo, RunStore(), workers=workers, on_progress=report)
    with progress(f"assemble {zoo}", unit="models") as report:
        Registry().members(done.members, zoo).assemble(workspace.zoo(zoo), name=zoo, on_progress=report)
    return done.remarks, len(done.members), done.new
