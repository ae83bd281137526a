"""A model that somebody else trained and published, as far as its record goes, and what it becomes here.

What the source does not say is missing, never invented: hyperparameters and seeds are None, metrics that were not
measured NaN, there are no accuracies by class and no probe outputs, and epochs without weights are listed as missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np

from weightzoo.architectures import Architecture
from weightzoo.checkpoints import METRICS, RecordedMetrics
from weightzoo.members import FACTORS, PARTIAL, ConfigKind, Split, configuration_group, record_hash, split_of
from weightzoo.zoo import ModelRecord, ZooHeader

ENGINE = "imported"
SEEDS = ("init", "order", "dropout")
_LONGEST_TAG = 8000  # characters


@dataclass(frozen=True)
class Identity:
    """Who a published model is, before any of its weights are read.

    `layout` and `source` (the model's name there) and all that the source says of how it was made, `stated`, give its
    member id. `digest` changes when the source's files do, as far as their names and sizes show it.
    """

    layout: str
    source: str
    stated: Mapping[str, Any]
    dataset: str
    configuration: ConfigKind
    hyperparameters: Mapping[str, str | float | None]  # by FACTORS
    seeds: Mapping[str, int | None]  # by SEEDS
    protocol: Mapping[str, Any]  # epochs, batch_size, schedule, momentum; None where the source does not say
    digest: str
    recorded: Mapping[str, str] = field(default_factory=dict[str, str])  # group, split, status if an export says so

    @cached_property
    def member(self) -> str:
        """The member id."""
        return record_hash({"layout": self.layout, "source": self.source, "stated": self.stated})

    @cached_property
    def config(self) -> str | None:
        """All that the source states, as JSON; None if that is more than a tag of MLflow takes without being cut."""
        text = json.dumps(self.stated, sort_keys=True, separators=(",", ":"))
        return text if len(text) <= _LONGEST_TAG else None

    @cached_property
    def group(self) -> str:
        """The configuration group: as in a zoo that was trained here, so that equal configurations share a split."""
        if "group" in self.recorded:
            return self.recorded["group"]
        if self.configuration != "seed":
            return configuration_group(self.hyperparameters)
        known = any(seed is not None for seed in self.seeds.values())
        return configuration_group(self.hyperparameters, self.seeds if known else {"member": self.member})

    @property
    def split(self) -> Split:
        """The split by models."""
        return self.recorded.get("split") or split_of(self.group)  # pyright: ignore[reportReturnType]

    def definition(self, architecture: Architecture, kept: tuple[int, ...]) -> dict[str, Any]:
        """What a run records of how the model came about. It is no recipe: the model can't be trained again from it."""
        return {
            "imported": {"layout": self.layout, "source": self.source},
            "dataset": self.dataset,
            "architecture": architecture.name,
            "input_shape": list(architecture.input_shape),
            "hyperparameters": dict(self.hyperparameters),
            "seeds": dict(self.seeds),
            "protocol": {**self.protocol, "checkpoint_epochs": list(kept)},
        }


@dataclass(frozen=True)
class PublishedModel:
    """A published model: K epochs whose weights are there, E epochs from 0 to its last.

    `problems` is what is missing or damaged, `notes` what contradicts itself but could be settled.
    """

    identity: Identity
    architecture: Architecture
    kept: tuple[int, ...]
    weights: np.ndarray  # float32 [K, P]
    metrics: Mapping[str, np.ndarray]  # each of METRICS, float32 [E]; NaN where not measured
    measured: Mapping[str, np.ndarray]  # each of METRICS, bool [E]
    times: np.ndarray  # int64 [E]: milliseconds since 1970, 0 where not known
    seconds: float | None = None
    started: datetime | None = None
    ended: datetime | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def last_epoch(self) -> int:
        """The last epoch that the record has anything of."""
        return len(self.times) - 1

    @cached_property
    def diverged_epoch(self) -> int | None:
        """The first epoch behind which a weight or the training loss is not finite."""
        loss = self.metrics["train_loss"]
        broken = np.flatnonzero(self.measured["train_loss"] & ~np.isfinite(loss)).tolist()
        broken += [epoch for epoch, row in zip(self.kept, self.weights, strict=True) if not np.isfinite(row).all()]
        return min(broken, default=None)

    @property
    def status(self) -> str:
        """How the training ended: finished, diverged, or partial if the record ends before it should."""
        if self.diverged_epoch is not None:
            return "diverged"
        if "status" in self.identity.recorded:
            return self.identity.recorded["status"]
        return PARTIAL if self.last_epoch < (self.identity.protocol["epochs"] or 0) else "finished"

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the highest validation accuracy, the earliest of equals; None if it was never measured."""
        accuracy = self.metrics["val_accuracy"]
        return None if np.isnan(accuracy).all() else int(np.nanargmax(accuracy))

    @property
    def digest(self) -> str:
        """The identity's digest; with that of the content if there is something to say, which is then said every time.

        Besides, files of equal size may mend a problem.
        """
        if not self.problems and not self.notes:
            return self.identity.digest
        content = hashlib.blake2b(repr((self.kept, self.problems)).encode(), digest_size=8)
        for array in (*self.weights, *(self.metrics[name] for name in METRICS)):
            content.update(np.ascontiguousarray(array).data)
        return f"{self.identity.digest}-{content.hexdigest()}"

    def recorded_metrics(self) -> RecordedMetrics:
        """The content of the run's `metrics.safetensors`."""
        unknown = np.full((self.last_epoch + 1, self.architecture.classes), np.nan, np.float32)
        return RecordedMetrics(
            member=self.identity.member,
            epochs=np.arange(self.last_epoch + 1, dtype=np.int32),
            values=dict(self.metrics),
            val_class_accuracy=unknown,
            test_class_accuracy=unknown,
            checkpoint_epochs=np.asarray(self.kept, np.int32),
            probe_logits=np.empty((len(self.kept), 0, self.architecture.classes), np.float16),
        )

    def zoo_record(self, header: ZooHeader) -> ModelRecord:
        """The model's place in a packed zoo."""
        identity, recorded = self.identity, self.recorded_metrics()
        reached = [epoch for epoch in header.checkpoint_epochs if epoch <= self.last_epoch]
        return ModelRecord(
            row={
                "member": identity.member,
                "group": identity.group,
                "split": identity.split,
                "status": self.status,
                "last_epoch": self.last_epoch,
                "diverged_epoch": self.diverged_epoch,
                **{name: identity.hyperparameters[name] for name in FACTORS},
                **{f"seed_{name}": identity.seeds[name] for name in SEEDS},
                "engine": ENGINE,
                "source": identity.source,
                "source_config": identity.config,
                "missing_epochs": [epoch for epoch in reached if epoch not in self.kept] or None,
            },
            weights=self.weights,
            metrics=self.metrics,
            val_class_accuracy=recorded.val_class_accuracy,
            test_class_accuracy=recorded.test_class_accuracy,
            provenance={"seconds": self.seconds, "started": self.started, "ended": self.ended},
        )


def derived(metrics: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All of `METRICS`, float32, from the losses and accuracies: the gap is train minus test accuracy."""
    given = {name: np.asarray(metrics[name], np.float32) for name in METRICS if name != "generalization_gap"}
    return {**given, "generalization_gap": given["train_accuracy"] - given["test_accuracy"]}
