"""Step 4: what the weights of a packed zoo tell, by the methods of analysis."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from weightzoo.analysis.methods import chosen_methods
from weightzoo.analysis.output import write_analysis
from weightzoo.analysis.results import Analysed, Context
from weightzoo.analysis.run import run_methods
from weightzoo.console import progress, readable_time, say
from weightzoo.datasets import ImageData
from weightzoo.errors import MissingError, NotFoundError
from weightzoo.spec import AnalysisSpec, load_params
from weightzoo.workspace import Workspace
from weightzoo.zoo import Zoo
from weightzoo.zoo.whole import open_whole


def analyse(
    zoo: str,
    workspace: Workspace,
    *,
    methods: Sequence[str] = (),
    quick: bool | None = None,
    seed: int | None = None,
    threads: int | None = None,
    to: Path | None = None,
    on: str | None = None,
) -> Analysed:
    """Run methods on `zoos/<zoo>/`, or any folder with a packed zoo, and write what they find to `reports/<zoo>/`.

    `methods` names them; by default all run that can, and the others are left out with the reason. What is not given
    is as the section `analysis` of `params.yaml` says; `threads` is one a core by default. `to` names another folder,
    `on` a second zoo, for methods that need one.

    Raises:
        MissingError: there is no such zoo.
        NotFoundError: there is no method of a name, or the zoo lacks what a named method needs.
        FormatError: the zoo is truncated or corrupt.
        SpecError: `params.yaml` describes something impossible.
    """
    section = load_params(workspace.params).analysis if workspace.params.is_file() else AnalysisSpec()
    quick = section.quick if quick is None else quick
    chosen = chosen_methods(methods, quick=quick)
    opened = open_whole(workspace.packed_zoo(zoo))
    context = Context(
        seed=section.seed if seed is None else seed,
        quick=quick,
        threads=threads or len(os.sched_getaffinity(0)),
        images=_images(opened, workspace),
        other=_other(opened, on, workspace),
    )
    started = time.monotonic()
    with progress(f"analyse {opened.name}", unit="methods") as report:
        analysed = run_methods(opened, chosen, context, on_progress=report)
    if methods and analysed.left_out:
        refused = analysed.left_out[0]
        raise NotFoundError(f"{refused.method} of {opened.name}: {refused.reason}")
    folder = to or workspace.report(opened.path.name)
    write_analysis(folder, opened, context, analysed)
    for one in analysed.left_out:
        say(f"analyse   {opened.name}: {one.method} left out: {one.reason}")
    scores = sum(len(result.scores) for result in analysed.results)
    took = readable_time(time.monotonic() - started)
    say(f"analyse   {opened.name}: {len(analysed.results)} methods, {scores} scores in {took}: {folder}")
    return analysed


def _other(zoo: Zoo, on: str | None, workspace: Workspace) -> Zoo | None:
    """The second zoo, if it is one."""
    other = None if on is None else Zoo.open(workspace.packed_zoo(on))
    return None if other is None or other.path == zoo.path else other


def _images(zoo: Zoo, workspace: Workspace) -> ImageData | None:
    """The zoo's images, if they are there and those that the models were trained on."""
    try:
        data = ImageData.load(workspace.data(zoo.path.name))
    except MissingError:
        return None
    return data if data.content_hash == zoo.dataset_info.hash else None
