"""What metrics and factors are called in figures and on the page, and how numbers are written there."""

from __future__ import annotations

import math
from typing import Any

from weightzoo.analysis.factors import UNKNOWN, number

LABELS = {
    "train_loss": "Training loss",
    "train_accuracy": "Training accuracy",
    "val_loss": "Validation loss",
    "val_accuracy": "Validation accuracy",
    "test_loss": "Test loss",
    "test_accuracy": "Test accuracy",
    "generalization_gap": "Generalisation gap",
    "init": "Initialisation",
    "activation": "Activation",
    "optimizer": "Optimiser",
    "learning_rate": "Learning rate",
    "weight_decay": "Weight decay",
    "dropout": "Dropout",
}


def percent(share: float) -> str:
    """`0.9747` as `97.5 %`."""
    return f"{share * 100:.1f}\u00a0%" if math.isfinite(share) else "–"


def points(share: float) -> str:
    """A difference of shares as signed percentage points."""
    return f"{share * 100:+.1f}".replace("-", "−") if math.isfinite(share) else "–"


def fixed(value: float) -> str:
    """Three decimals."""
    return f"{value:.3f}" if math.isfinite(value) else "–"


def factor_value(value: Any) -> str:
    """A factor's value as people write it."""
    if value is None or value != value:
        return UNKNOWN
    return value if isinstance(value, str) else number(float(value))
