"""Where cohorts are trained: in this process, interruptible at any moment, every member recorded as an MLflow run."""

from weightzoo.execution.manifest import Manifest, read_manifest, write_manifest
from weightzoo.execution.train import Progress, TrainSummary, train_zoo

__all__ = ["Manifest", "Progress", "TrainSummary", "read_manifest", "train_zoo", "write_manifest"]
