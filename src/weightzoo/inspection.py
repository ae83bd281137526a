"""Facts about what has been made, for people: a packed zoo, a run, the whole project."""

from __future__ import annotations

import datetime
import io
import os
from collections import Counter
from pathlib import Path
from typing import Any

from weightzoo.checkpoints import ranges, write_atomically
from weightzoo.connection import TAG, default_tracking_uri, local_artifacts, sqlite_path
from weightzoo.errors import MissingError, NotFoundError, SpecError
from weightzoo.s3 import Location
from weightzoo.spec import load_params
from weightzoo.workspace import Workspace

STATE_SUFFIXES = (".safetensors", ".pt")


def describe(target: str, workspace: Workspace) -> dict[str, Any]:
    """What a packed zoo (by name, folder or place on S3) or a run (by run or member id) is made of, as JSON values.

    Raises:
        NotFoundError: it is neither.
    """
    from weightzoo.zoo.place import named_place

    try:
        place = named_place(target, workspace)
    except MissingError:
        return _describe_run(target)
    return _describe_zoo(place)


def export_checkpoint(run: str, epoch: int, to: Path | None) -> Path:
    """Write the weights of one epoch of a run as a plain state dict, by default to `RUN-epoch-0007.safetensors`.

    Raises:
        SpecError: the file's suffix is neither `.safetensors` nor `.pt`.
        NotFoundError: there is no such run, or the epoch was not kept.
    """
    from weightzoo.tracking import RunStore

    path = to or Path(f"{run}-epoch-{epoch:04d}.safetensors")
    if path.suffix not in STATE_SUFFIXES:
        raise SpecError(f"{path}: a checkpoint is written as {' or '.join(STATE_SUFFIXES)}, not as {path.suffix!r}")
    state = RunStore().checkpoint(run, epoch)
    if path.suffix == ".safetensors":
        from safetensors.numpy import save

        write_atomically(path, save(state))
    else:
        import torch

        buffer = io.BytesIO()
        torch.save({name: torch.from_numpy(array.copy()) for name, array in state.items()}, buffer)
        write_atomically(path, buffer.getvalue())
    return path


def summarise(workspace: Workspace) -> list[str]:
    """What has been built of the zoos under `build`, and the three next things to do."""
    built = list(load_params(workspace.params).build)
    lines = ["", "What was made:"]
    for name in built:
        try:
            facts = _describe_zoo(workspace.packed_zoo(name))
        except MissingError:
            lines.append(f"  {name}: not built; run `make zoo`")
            continue
        ends = ", ".join(f"{count:,} {status}" for status, count in facts["status"].items())
        lines.append(f"  zoos/{name}: {facts['models']:,} models ({ends}), {facts['states']:,} states, {facts['size']}")
    reports = [page for name in built if (page := workspace.report(name) / "index.html").is_file()]
    example = "weightzoo query \"test_accuracy > 0.9 and activation == 'tanh'\""
    return [
        *lines,
        "",
        "What to do next:",
        f"  1. open the report:     {reports[-1] if reports else 'none yet'}",
        "  2. open the MLflow UI:  make ui",
        f"  3. query the runs:      source .venv/bin/activate; {example}",
    ]


def _describe_zoo(place: Path | Location) -> dict[str, Any]:
    from weightzoo.members import FACTORS
    from weightzoo.zoo import Zoo

    zoo = Zoo.open(place)
    models = zoo.models
    factors = {name: sorted(models[name].dropna().unique().tolist()) for name in FACTORS}
    rehearsal = (zoo.header.spec or {}).get("rehearsal")
    return {
        "zoo": zoo.name,
        **({"rehearsal of": rehearsal["of"]} if rehearsal else {}),
        "folder": str(place),
        "models": len(models),
        "states": int(zoo.present.sum()),
        "status": dict(Counter(models["status"].tolist()).most_common()),
        "split": dict(Counter(models["split"].tolist()).most_common()),
        "architecture": zoo.architecture.name,
        "parameters": zoo.layout.trained,
        "layers": list(zoo.layout.layers),
        "epochs": ranges(zoo.checkpoint_epochs),
        **factors,
        "test accuracy": "{min:.4f} to {max:.4f}, median {50%:.4f}".format(**models["test_accuracy"].describe()),
        "size": _megabytes(zoo.place.total()),
    }


def _describe_run(target: str) -> dict[str, Any]:
    from weightzoo.tracking import RunStore

    uri = default_tracking_uri()
    database = sqlite_path(uri)
    if database is not None and not database.exists():
        raise NotFoundError(f"no packed zoo or run {target!r}: there is no tracking database {database} yet")
    run = RunStore(uri).find(target)
    started, ended = run.info.start_time, run.info.end_time
    artifacts = local_artifacts(run.info.artifact_uri or "", uri)
    tags = {name.removeprefix(TAG): value for name, value in run.data.tags.items() if name.startswith(TAG)}
    tags.pop("definition", None)
    return {
        "run": run.info.run_id,
        "name": run.info.run_name,
        **tags,
        **run.data.params,
        **{name: float(value) for name, value in sorted(run.data.metrics.items())},
        "started": _moment(started),
        "ended": _moment(ended),
        "artifacts": str(os.path.relpath(artifacts)) if artifacts else run.info.artifact_uri,
    }


def _moment(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC).isoformat(timespec="seconds")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
