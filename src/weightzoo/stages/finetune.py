"""Models of one zoo trained further, on the same images or on others: a zoo of fine-tuned models."""

from __future__ import annotations

from weightzoo.lineage import architecture_on, finetuned_members
from weightzoo.spec import load_params
from weightzoo.stages.descend import build_zoo
from weightzoo.stages.prepare import prepare_images
from weightzoo.workspace import Workspace
from weightzoo.zoo.whole import open_whole


def finetune(
    zoo: str, workspace: Workspace, *, engine: str | None = None, device: str | None = None, threads: int | None = None
) -> None:
    """Write `data/<zoo>/`, a run for each member that has none yet, and `zoos/<zoo>/`.

    Raises:
        SpecError: `params.yaml` has no such section, or the architecture does not take the images.
        MissingError: the zoo to start from is not there.
        NotFoundError: no model of it is chosen, or it does not hold the epoch.
        LayoutError: the weights do not fit the images.
    """
    params = load_params(workspace.params)
    spec = params.finetuned(zoo)
    source = open_whole(workspace.zoo(spec.start.zoo))
    data = prepare_images(zoo, spec.dataset, params.datasets[spec.dataset], workspace)
    members = finetuned_members(spec, source, data)
    built = architecture_on(source, data)
    build_zoo(
        "finetune",
        zoo,
        members,
        source,
        built,
        data,
        workspace,
        compile=spec.compile,
        engine=engine or spec.engine,
        device=device or spec.device,
        threads=threads,
        execution=spec.execution or params.execution,
    )
