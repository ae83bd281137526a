"""All steps at once, for a zoo in small."""

from __future__ import annotations

from pathlib import Path

from weightzoo.rehearsal import SUFFIX, sections
from weightzoo.spec import Execution, load_params
from weightzoo.stages.assemble import assemble
from weightzoo.stages.prepare import prepare
from weightzoo.stages.report import report
from weightzoo.stages.train import train
from weightzoo.workspace import Workspace


def rehearse(
    zoo: str,
    workspace: Workspace,
    *,
    given: Path | None = None,
    engine: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    execution: Execution | None = None,
) -> None:
    """Build `<zoo>-rehearsal` from its images to its report, with the steps that build `zoo` itself.

    The options are those of the steps `prepare` and `train`.

    Raises:
        WeightzooError: one of the steps can't be done; what the steps before it made stays.
    """
    name = zoo + SUFFIX
    sections(name, load_params(workspace.params))
    prepare(name, workspace, given=given)
    train(name, workspace, engine=engine, device=device, threads=threads, execution=execution)
    assemble(name, workspace)
    report(name, workspace)
