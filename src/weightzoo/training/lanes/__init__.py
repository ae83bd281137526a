"""The CPU engine for small CNNs: populations trained with one model in each lane of the vector registers."""

from weightzoo.training.lanes.engine import LanesEngine

__all__ = ["LanesEngine"]
