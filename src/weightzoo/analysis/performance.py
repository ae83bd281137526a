"""How well the models of a zoo do: states, curves over the epochs, summaries of the final epoch, the best model.

A diverged model counts up to the epoch before its divergence; from there on its metrics mean nothing and are left out.
"Final" figures are of finished models alone, since a pruned or diverged model never reached the last epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from weightzoo.checkpoints import METRICS
from weightzoo.members import STATUSES

if TYPE_CHECKING:
    from weightzoo.zoo import Zoo

QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}


def finished(models: pd.DataFrame) -> np.ndarray:
    """Which models were trained to the end, bool `[N]`."""
    return (models["status"] == "finished").to_numpy(bool)


def status_counts(models: pd.DataFrame) -> dict[str, int]:
    """The number of models of each status; the three standard ones are always there."""
    statuses: list[str] = models["status"].tolist()
    return {name: statuses.count(name) for name in dict.fromkeys([*STATUSES, *sorted(set(statuses))])}


def metric_matrix(zoo: Zoo, metric: str) -> pd.DataFrame:
    """One metric of every model (rows, as in `zoo.models`) at every epoch (columns, ascending), float64 `[N, E]`.

    NaN where a model did not get to, or from its divergence on.
    """
    table = zoo.epochs
    epochs, columns = np.unique(table["epoch"].to_numpy(), return_inverse=True)
    values = np.full((len(zoo.models), len(epochs)), np.nan)
    values[table["model"].to_numpy(), columns] = table[metric].to_numpy(np.float64)
    diverged_epoch = zoo.models["diverged_epoch"].to_numpy(np.float64, na_value=np.nan)
    values[epochs[None, :] >= diverged_epoch[:, None]] = np.nan  # a comparison with NaN is false: nothing is cut
    values[~np.isfinite(values)] = np.nan
    return pd.DataFrame(values, columns=pd.Index(epochs, name="epoch"))


def quantiles(values: np.ndarray) -> pd.DataFrame:
    """Quantiles of each column of `values [N, E]` over its finite entries, linearly interpolated.

    Columns: `models` (how many entries are finite), `mean`, and the names in `QUANTILES`; NaN where there are none.
    """
    ordered = np.sort(np.asarray(values, np.float64), axis=0)  # NaN sorts last
    counts = np.isfinite(ordered).sum(axis=0)
    has_any = counts > 0
    total = np.where(np.isfinite(ordered), ordered, 0.0).sum(axis=0)
    table: dict[str, np.ndarray] = {"models": counts, "mean": _where(has_any, total / np.maximum(counts, 1))}
    columns = np.arange(ordered.shape[1])
    for name, share in QUANTILES.items():
        position = share * np.maximum(counts - 1, 0)
        low = np.floor(position).astype(int)
        high = np.minimum(low + 1, np.maximum(counts - 1, 0))
        if len(ordered):
            below, above = ordered[low, columns], ordered[high, columns]
            table[name] = _where(has_any, below + (above - below) * (position - low))
        else:
            table[name] = np.full(len(columns), np.nan)
    return pd.DataFrame(table)


def epoch_quantiles(zoo: Zoo, metric: str) -> pd.DataFrame:
    """The distribution of a metric over the models at each epoch: `epoch` and the columns of `quantiles`."""
    matrix = metric_matrix(zoo, metric)
    table = quantiles(matrix.to_numpy())
    table.insert(0, "epoch", matrix.columns.to_numpy())
    return table


def epoch_histogram(zoo: Zoo, metric: str, bins: int = 60) -> pd.DataFrame:
    """Share of the models, among those measured, in each bin of a metric's range, at each epoch.

    Rows are epochs, columns the bins' centres; equal bins from the smallest to the largest value of all epochs, for
    accuracies from 0 to 1.
    """
    matrix = metric_matrix(zoo, metric)
    values = matrix.to_numpy()
    if metric.endswith("accuracy"):
        low, high = 0.0, 1.0
    else:
        present = values[np.isfinite(values)]
        low, high = (present.min(), present.max()) if len(present) else (0.0, 1.0)
        if low == high:
            low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    counts = np.stack([np.histogram(column[np.isfinite(column)], edges)[0] for column in values.T])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    centres = pd.Index((edges[:-1] + edges[1:]) / 2, name=metric)
    return pd.DataFrame(shares, index=matrix.columns, columns=centres)


def final_summary(models: pd.DataFrame) -> pd.DataFrame:
    """Of each metric at the last epoch, over finished models: models, mean, std, min, quantiles, max; a row a metric.

    `std` is the sample standard deviation (n - 1). All are NaN if no model finished.
    """
    done = models.loc[finished(models), list(METRICS)].to_numpy(np.float64)
    done = np.where(np.isfinite(done), done, np.nan)
    table = quantiles(done)
    table.insert(0, "metric", METRICS)
    columns = [column[np.isfinite(column)] for column in done.T]
    table.insert(3, "std", [column.std(ddof=1) if len(column) > 1 else np.nan for column in columns])
    table.insert(4, "min", [column.min() if len(column) else np.nan for column in columns])
    table["max"] = [column.max() if len(column) else np.nan for column in columns]
    return table.set_index("metric")


def best_model(models: pd.DataFrame) -> int | None:
    """Row of the model with the highest validation accuracy at its best epoch, the first of equals.

    Chosen on the validation images, so that its test accuracy is an honest estimate. Diverged models are no candidates;
    None if there is no other.
    """
    accuracy = models["best_val_accuracy"].to_numpy(np.float64, na_value=np.nan).copy()
    accuracy[(models["status"] == "diverged").to_numpy(bool)] = np.nan
    return int(np.nanargmax(accuracy)) if np.isfinite(accuracy).any() else None


def _where(condition: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.where(condition, values, np.nan)
