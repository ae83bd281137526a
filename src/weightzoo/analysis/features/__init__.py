"""Features of model states: one matrix with named columns, computed batch by batch over a zoo."""

from weightzoo.analysis.features.matrix import FEATURES, Feature, feature_matrix
from weightzoo.analysis.features.states import Batch, batches, states_of

__all__ = ["FEATURES", "Batch", "Feature", "batches", "feature_matrix", "states_of"]
