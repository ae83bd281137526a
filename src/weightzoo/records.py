"""One run as the tracking store has it: a frozen record with typed fields."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from weightzoo.connection import TAG
from weightzoo.errors import FormatError
from weightzoo.members import ENDED, TRAINING
from weightzoo.redaction import redact

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

    from weightzoo.query import Kind

_STORED = 5000  # characters that MLflow stores of a text in any case; it may cut what is longer
_log = logging.getLogger("weightzoo")


@dataclass(frozen=True)
class RunRecord:
    """One run as the tracking store has it. None where it has nothing: a run that is training has no best epoch.

    `status` is `training` as long as the run is not completely logged. Metrics are those of the last logged epoch.
    """

    run_id: str
    zoo: str
    member: str
    group: str | None
    split: str | None
    status: str
    dataset: str | None
    dataset_hash: str | None
    architecture: str | None
    configuration: str | None
    engine: str | None
    version: str | None
    machine: str | None
    parent: str | None
    parent_epoch: int | None
    sparsification: str | None
    source: str | None  # of an imported model: the name that it has where it was published
    init: str | None
    activation: str | None
    optimizer: str | None
    learning_rate: float | None
    weight_decay: float | None
    dropout: float | None
    seed_init: int | None
    seed_order: int | None
    seed_dropout: int | None
    epochs: int | None
    batch_size: int | None
    schedule: str | None
    momentum: float | None
    last_epoch: int | None
    diverged_epoch: int | None
    train_loss: float | None
    train_accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None
    generalization_gap: float | None
    train_objective: float | None
    sparsity: float | None
    best_epoch: int | None
    best_val_accuracy: float | None
    best_test_accuracy: float | None
    seconds: float | None  # compute time
    started: datetime | None
    ended: datetime | None
    source_config: str | None  # of an imported model: JSON of all that was said of it where it was published
    definition: str | None  # JSON of `Member.definition()`
    artifact_uri: str | None


TYPES = {field.name: str(field.type).removesuffix(" | None") for field in fields(RunRecord)}
_NOT_QUERIED = ("started", "ended", "source_config", "definition", "artifact_uri")
_KINDS: dict[str, Kind] = {"str": "text", "int": "number", "float": "number"}
FIELDS: Mapping[str, Kind] = {name: _KINDS[kind] for name, kind in TYPES.items() if name not in _NOT_QUERIED}


def seal(tags: Mapping[str, str], params: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """A digest of all that a query may tell of a run that has ended, of its tags (without our prefix) and the rest.

    It is kept as a tag of its own, so that an altered record is noticed: a database has no checksums.
    """
    texts = [{name: part[name][:_STORED] for name in sorted(TYPES.keys() & part.keys())} for part in (tags, params)]
    numbers = {name: repr(as_stored(metrics[name])) for name in sorted(TYPES.keys() & metrics.keys())}
    return hashlib.blake2b(json.dumps([*texts, numbers]).encode(), digest_size=8).hexdigest()


def as_stored(value: float) -> float:
    """What a tracking store gives back: the largest number in place of infinity, zero without its sign."""
    return max(-sys.float_info.max, min(sys.float_info.max, value)) + 0.0 if value == value else math.nan


def record(run: MlflowRun, tracking_uri: str) -> RunRecord:
    """What the tracking store has of a run that weightzoo made.

    Raises:
        FormatError: the run has ended, and something of it was altered since.
    """
    info, data = run.info, run.data
    return record_of(
        tracking_uri,
        run_id=info.run_id,
        status=info.status,
        started_ms=info.start_time,
        ended_ms=info.end_time,
        artifact_uri=info.artifact_uri,
        tags=data.tags,
        params=data.params,
        metrics=data.metrics,
    )


def record_of(
    tracking_uri: str,
    *,
    run_id: str,
    status: str,
    started_ms: int | None,
    ended_ms: int | None,
    artifact_uri: str | None,
    tags: Mapping[str, str],
    params: Mapping[str, str],
    metrics: Mapping[str, float],
) -> RunRecord:
    """The same, of its parts: MLflow's status, times in milliseconds since 1970, and what was logged.

    Raises:
        FormatError: the run has ended, and something of it was altered since.
    """
    own = {name.removeprefix(TAG): value for name, value in tags.items() if name.startswith(TAG)}
    known: dict[str, Any] = {**metrics, **params, **own}
    if status != "FINISHED" or own.get("status") not in ENDED:
        known["status"] = TRAINING
    elif own.get("seal") not in (None, seal(own, params, metrics)):
        raise FormatError(
            f"{redact(tracking_uri)}: tags, params or metrics of run {run_id} of member {own.get('member')} are not "
            f"what was recorded; run `weightzoo repair {own.get('zoo')}`, or delete the run"
        )
    known |= {
        "run_id": run_id,
        "artifact_uri": artifact_uri,
        "started": _time(started_ms),
        "ended": _time(ended_ms),
    }
    return RunRecord(**{name: _typed(run_id, name, known.get(name), kind) for name, kind in TYPES.items()})


def _typed(run_id: str, name: str, value: Any, kind: str) -> Any:
    """A value as its field's type. Params and tags are text in MLflow; one that is no number counts as missing."""
    if value is None or kind == "datetime":
        return value
    try:
        return {"str": str, "float": float, "int": _integer}[kind](value)
    except ValueError:
        _log.warning("run %s: %s is %r, which is no number; it is left out", run_id, name, value)
        return None


def _integer(value: Any) -> int:
    return int(value) if isinstance(value, str) else int(float(value))


def _time(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
