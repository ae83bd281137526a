"""Sparse twins of the models of a zoo."""

from __future__ import annotations

from weightzoo.lineage import architecture_on, sparse_members
from weightzoo.spec import load_params
from weightzoo.stages.descend import build_zoo, same_images
from weightzoo.workspace import Workspace
from weightzoo.zoo.whole import open_whole


def sparsify(
    zoo: str, workspace: Workspace, *, engine: str | None = None, device: str | None = None, threads: int | None = None
) -> None:
    """Write `data/<twins>/`, a run for each twin that has none yet, and `zoos/<twins>/`.

    `zoo` is a section below `sparsify`, which names the twins, or a packed zoo, whose twins are `<zoo>-sparse`.

    Raises:
        MissingError: the zoo to start from is not there.
        SpecError: `params.yaml` does not have its data set.
        FormatError: the data set is not the one that its models were trained on, or they are of several protocols.
        NotFoundError: no model of it is chosen, or it does not hold the epoch.
    """
    params = load_params(workspace.params)
    twins, spec = params.sparsified(zoo)
    source = open_whole(workspace.zoo(spec.start.zoo))
    members = sparse_members(spec, source)
    data = same_images(twins, source, params, workspace)
    build_zoo(
        "sparsify",
        twins,
        members,
        source,
        architecture_on(source, data),
        data,
        workspace,
        compile=spec.compile,
        engine=engine or spec.engine,
        device=device or spec.device,
        threads=threads,
        execution=spec.execution or params.execution,
    )
