"""Step 4: the page about a zoo, from the packed zoo alone."""

from __future__ import annotations

from weightzoo.console import progress, say
from weightzoo.report import write_report
from weightzoo.workspace import Workspace
from weightzoo.zoo.whole import open_whole


def report(zoo: str, workspace: Workspace) -> None:
    """Write `reports/<zoo>/`: the page, its figures, the data of its plots, and metrics.

    Raises:
        MissingError: the zoo has not been assembled.
        FormatError: it is truncated or corrupt.
    """
    with progress(f"report {zoo}", unit="steps") as so_far:
        page = write_report(open_whole(workspace.zoo(zoo)), workspace.report(zoo), on_progress=so_far)
    say(f"report    {zoo}: {page}")
