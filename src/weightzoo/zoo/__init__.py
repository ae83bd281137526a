"""The packed zoo: every model's weights at every kept epoch in a few indexed files."""

from weightzoo.zoo.format import CLASS_METRICS, METRICS
from weightzoo.zoo.header import DatasetInfo, Sparse, ZooHeader
from weightzoo.zoo.permute import Permute, Symmetries
from weightzoo.zoo.read import Zoo
from weightzoo.zoo.write import ModelRecord, write_zoo

__all__ = [
    "CLASS_METRICS",
    "METRICS",
    "DatasetInfo",
    "ModelRecord",
    "Permute",
    "Sparse",
    "Symmetries",
    "Zoo",
    "ZooHeader",
    "write_zoo",
]
