"""Training that makes members sparse: variational dropout and magnitude pruning."""

from weightzoo.training.sparse.engine import SparseEngine

__all__ = ["SparseEngine"]
