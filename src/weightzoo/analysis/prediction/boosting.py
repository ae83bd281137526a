"""Gradient-boosted trees (Ke et al. 2017, "LightGBM"), stopped where they do best on val."""

from __future__ import annotations

import warnings
from typing import Any

import lightgbm
import numpy as np

from weightzoo.analysis.prediction.study import Splits

RATE = 0.04  # of learning; a larger one takes fewer trees and is a little worse
_TREES = 1500
_PATIENCE = 60  # trees without a gain on val
_COLUMNS = 60  # that a tree looks at, at least a share of them
_SHARE = 0.15


def boosted(features: Splits, truth: Splits, seed: int, rate: float = RATE) -> tuple[np.ndarray, np.ndarray]:
    """Predictions on val and test; features that are NaN are missing values.

    Integer truths are classes, and probabilities `[N, classes]` come back, in the order of those in train.
    """
    settings: dict[str, Any] = {
        "n_estimators": _TREES,
        "learning_rate": rate,
        "num_leaves": 15,
        "min_child_samples": 20,
        "subsample": 0.7,
        "subsample_freq": 1,
        "colsample_bytree": min(1.0, max(_SHARE, _COLUMNS / features.train.shape[1])),
        "n_jobs": 1,
        "verbose": -1,
        "random_state": seed,
        "deterministic": True,
        "force_col_wise": True,
    }
    named = np.issubdtype(truth.train.dtype, np.integer)
    model: Any = lightgbm.LGBMClassifier(**settings) if named else lightgbm.LGBMRegressor(**settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an argument that older versions know by another name alone
        stop = lightgbm.early_stopping(_PATIENCE, verbose=False)
        seen = np.isin(truth.val, truth.train) if named else np.ones(len(truth.val), bool)
        model.fit(features.train, truth.train, eval_set=[(features.val[seen], truth.val[seen])], callbacks=[stop])
        say = model.predict_proba if named else model.predict
        return np.asarray(say(features.val)), np.asarray(say(features.test))
