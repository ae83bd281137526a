"""Where cohorts are trained: in this process, interruptible at any moment, every member recorded as an MLflow run."""

from weightzoo.execution.force import Deletion, planned_deletion
from weightzoo.execution.manifest import Manifest, read_manifest, write_manifest
from weightzoo.execution.retrain import recorded_member, retrain
from weightzoo.execution.train import Progress, TrainSummary, train_zoo

__all__ = [
    "Deletion",
    "Manifest",
    "Progress",
    "TrainSummary",
    "planned_deletion",
    "read_manifest",
    "recorded_member",
    "retrain",
    "train_zoo",
    "write_manifest",
]
