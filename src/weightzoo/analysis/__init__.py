"""A packed zoo to tables: what the report draws, for use in notebooks as well. Nothing here needs a tracking store."""

from weightzoo.analysis.factors import factor_effects, levels, variance_shares, varied_factors
from weightzoo.analysis.performance import (
    METRICS,
    best_model,
    epoch_histogram,
    epoch_quantiles,
    final_summary,
    finished,
    metric_matrix,
    quantiles,
    status_counts,
)
from weightzoo.analysis.weights import WeightSpace, evenly, weight_space

__all__ = [
    "METRICS",
    "WeightSpace",
    "best_model",
    "epoch_histogram",
    "epoch_quantiles",
    "evenly",
    "factor_effects",
    "final_summary",
    "finished",
    "levels",
    "metric_matrix",
    "quantiles",
    "status_counts",
    "variance_shares",
    "varied_factors",
    "weight_space",
]
