"""Curves, summaries and the best model against NumPy and against numbers worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from weightzoo import analysis
from weightzoo.analysis.performance import METRICS, QUANTILES


@given(
    arrays(
        np.float64, st.tuples(st.integers(1, 12), st.integers(1, 5)), elements=st.floats(-1e6, 1e6) | st.just(np.nan)
    )
)
def test_quantiles_are_numpys_over_what_is_there(values: np.ndarray):
    table = analysis.quantiles(values)
    for column, row in zip(values.T, table.to_dict("records"), strict=True):
        present = column[np.isfinite(column)]
        assert row["models"] == len(present)
        expected = {name: np.quantile(present, share) if len(present) else np.nan for name, share in QUANTILES.items()}
        expected["mean"] = present.mean() if len(present) else np.nan
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True)


def test_quantiles_of_no_models_are_missing():
    table = analysis.quantiles(np.empty((0, 2)))
    assert table["models"].tolist() == [0, 0]
    assert table["median"].isna().all()


def three_models() -> SimpleNamespace:
    """One finished, one diverged in epoch 1 that went on being measured, one pruned behind epoch 1."""
    epochs = pd.DataFrame(
        {
            "model": [0, 0, 0, 1, 1, 1, 2, 2],
            "epoch": [0, 1, 2, 0, 1, 2, 0, 1],
            "test_accuracy": np.float32([0.1, 0.5, 0.75, 0.2, 0.1, 0.1, 0.3, 0.4]),
        }
    )
    models = pd.DataFrame(
        {
            "status": ["finished", "diverged", "pruned"],
            "diverged_epoch": pd.array([None, 1, None], dtype="Int32"),
            "best_val_accuracy": np.float32([0.6, 0.9, 0.6]),
            **{metric: np.float32([0.75, 0.1, 0.4]) for metric in METRICS},
        }
    )
    return SimpleNamespace(models=models, epochs=epochs)


def test_a_diverged_model_counts_up_to_its_divergence_and_a_pruned_one_to_its_end():
    matrix = analysis.metric_matrix(three_models(), "test_accuracy")
    expected = np.float32([[0.1, 0.5, 0.75], [0.2, np.nan, np.nan], [0.3, 0.4, np.nan]])
    np.testing.assert_array_equal(matrix.to_numpy(), expected)
    assert matrix.columns.tolist() == [0, 1, 2]
    assert analysis.epoch_quantiles(three_models(), "test_accuracy")["models"].tolist() == [3, 2, 1]


def test_histogram_is_a_share_of_the_models_that_are_measured():
    table = analysis.epoch_histogram(three_models(), "test_accuracy", bins=10)
    np.testing.assert_allclose(table.sum(axis=1), 1)
    assert table.loc[1].to_numpy()[[4, 5]].tolist() == [0.5, 0.5]  # 0.4 and 0.5
    assert table.columns[0] == pytest.approx(0.05)


def test_the_final_summary_is_of_finished_models_alone():
    summary = analysis.final_summary(three_models().models).loc["test_accuracy"]
    assert summary["models"] == 1
    assert summary["mean"] == summary["median"] == summary["max"] == 0.75
    assert np.isnan(summary["std"])


def test_the_best_model_never_diverged_and_is_the_first_of_equals():
    models = three_models().models
    assert analysis.best_model(models) == 0
    assert analysis.best_model(models.iloc[[1]].reset_index(drop=True)) is None


def test_statuses_are_counted_also_when_there_are_none():
    models = three_models().models
    assert analysis.status_counts(models) == {"finished": 1, "diverged": 1, "pruned": 1}
    assert analysis.status_counts(models.iloc[:1]) == {"finished": 1, "diverged": 0, "pruned": 0}
