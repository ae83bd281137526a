"""Where cohorts are trained: in this process, interruptible at any moment, every member recorded as an MLflow run.

The names are loaded when they are first used: who only reads a manifest need not import all of training.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weightzoo.execution.force import Deletion, planned_deletion
    from weightzoo.execution.manifest import Manifest, read_manifest, write_manifest
    from weightzoo.execution.retraining import recorded_member, retrain
    from weightzoo.execution.train import Progress, TrainSummary, train_descendants, train_zoo

__all__ = [
    "Deletion",
    "Manifest",
    "Progress",
    "TrainSummary",
    "planned_deletion",
    "read_manifest",
    "recorded_member",
    "retrain",
    "train_descendants",
    "train_zoo",
    "write_manifest",
]

_HOMES = {
    "force": ("Deletion", "planned_deletion"),
    "manifest": ("Manifest", "read_manifest", "write_manifest"),
    "retraining": ("recorded_member", "retrain"),
    "train": ("Progress", "TrainSummary", "train_descendants", "train_zoo"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"weightzoo.execution.{module}"), name)
    raise AttributeError(f"module 'weightzoo.execution' has no attribute {name!r}")
