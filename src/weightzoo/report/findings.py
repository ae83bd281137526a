"""All that a report says about a zoo, worked out once: the page, the figures and the plot data only tell it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from weightzoo import analysis
from weightzoo.analysis import WeightSpace

if TYPE_CHECKING:
    from weightzoo.zoo import Zoo

CURVES = ("train_accuracy", "val_accuracy", "test_accuracy", "train_loss", "test_loss", "generalization_gap")
HISTOGRAMS = ("test_accuracy", "train_accuracy", "generalization_gap")
ALL_LAYERS = "all layers"
MOST_MAPPED = 1500  # models in the map and the explorer


@dataclass(frozen=True)
class Findings:
    """The analyses of one zoo, each computed when it is first asked for."""

    zoo: Zoo

    @property
    def models(self) -> pd.DataFrame:
        """A row a model."""
        return self.zoo.models

    @cached_property
    def factors(self) -> tuple[str, ...]:
        """The factors that vary."""
        return analysis.varied_factors(self.models)

    @cached_property
    def statuses(self) -> dict[str, int]:
        """Models by status."""
        return analysis.status_counts(self.models)

    @cached_property
    def states(self) -> int:
        """Model states: pairs of a model and a kept epoch that it reached."""
        return int(self.zoo.present.sum())

    @cached_property
    def matrices(self) -> dict[str, pd.DataFrame]:
        """Of each metric the value of every model at every epoch."""
        return {metric: analysis.metric_matrix(self.zoo, metric) for metric in analysis.METRICS}

    @cached_property
    def curves(self) -> dict[str, pd.DataFrame]:
        """Of each metric the quantiles over the models at every epoch."""
        return {metric: self.quantiles(matrix) for metric, matrix in self.matrices.items()}

    @cached_property
    def histograms(self) -> dict[str, pd.DataFrame]:
        """Of some metrics the histogram over the models at every epoch."""
        return {metric: analysis.epoch_histogram(self.zoo, metric) for metric in HISTOGRAMS}

    @cached_property
    def summary(self) -> pd.DataFrame:
        """The metrics of the finished models at the last epoch; a row a metric."""
        return analysis.final_summary(self.models)

    @cached_property
    def effects(self) -> pd.DataFrame:
        """Final test accuracy by value of each factor."""
        return analysis.factor_effects(self.models)

    @cached_property
    def shares(self) -> pd.DataFrame:
        """Shares of the variance of the final test accuracy."""
        return analysis.variance_shares(self.models)

    @cached_property
    def best(self) -> int | None:
        """Row of the best model, if there is one."""
        return analysis.best_model(self.models)

    @cached_property
    def space(self) -> WeightSpace:
        """Norms and coordinates in weight space."""
        return analysis.weight_space(self.zoo, MOST_MAPPED)

    @cached_property
    def norm_matrices(self) -> dict[str, pd.DataFrame]:
        """The norm of the whole weight vector and of each layer: of every model at every kept epoch."""
        columns = pd.Index(self.space.epochs, name="epoch")
        layers = {layer: self.space.norms[:, :, index] for index, layer in enumerate(self.space.layers)}
        return {
            name: pd.DataFrame(norms, columns=columns)
            for name, norms in {ALL_LAYERS: self.space.total_norms, **layers}.items()
        }

    @cached_property
    def norms(self) -> dict[str, pd.DataFrame]:
        """Quantiles of those norms over the models at every kept epoch."""
        return {name: self.quantiles(matrix) for name, matrix in self.norm_matrices.items()}

    @cached_property
    def main_shares(self) -> dict[str, float]:
        """Share of the variance of the final test accuracy by factor; empty if there is nothing to divide."""
        main = self.shares[np.asarray(self.shares["kind"] == "main")]
        return dict(zip(main["source"].tolist(), main["share"].tolist(), strict=True))

    @cached_property
    def seeds(self) -> dict[str, np.ndarray]:
        """Label -> seed of every model: one column if each model's three seeds are equal, as is usual, else three.

        Of seeds that are known; an imported model may have one, or none.
        """
        columns = {f"Seed of {name}": np.asarray(self.models[f"seed_{name}"]) for name in ("init", "order", "dropout")}
        known = {label: seeds for label, seeds in columns.items() if not pd.isna(seeds).all()}
        equal = len({tuple(None if pd.isna(seed) else seed for seed in seeds) for seeds in known.values()}) == 1
        return {"Seed": next(iter(known.values()))} if equal else known

    def model(self, number: int) -> dict[str, Any]:
        """The row of one model."""
        return self.models.iloc[number].to_dict()

    def final(self, metric: str) -> dict[str, float]:
        """The summary of one metric at the last epoch."""
        return self.summary.loc[metric].to_dict()

    @property
    def has_map(self) -> bool:
        """Whether enough models finished, and differ, for a map of weight space."""
        return int(self.space.mapped.sum()) >= 3 and bool(np.isfinite(self.space.explained[:2]).all())

    @staticmethod
    def quantiles(matrix: pd.DataFrame) -> pd.DataFrame:
        """The quantiles of each column, with its epoch."""
        table = analysis.quantiles(matrix.to_numpy())
        table.insert(0, "epoch", matrix.columns.to_numpy())
        return table
