"""From predictions to a result: scores with their intervals, the published number beside them, tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from weightzoo.analysis.bootstrap import bootstrap
from weightzoo.analysis.prediction.estimators import Prediction, Problem
from weightzoo.analysis.prediction.leaks import find_leaks
from weightzoo.analysis.prediction.published import Column, published
from weightzoo.analysis.prediction.scoring import Estimate, classification_scores, regression_scores
from weightzoo.analysis.prediction.study import Study
from weightzoo.analysis.prediction.targets import ACCURACY, Target
from weightzoo.analysis.results import Context, Figure, Result, Score
from weightzoo.errors import NotFoundError

if TYPE_CHECKING:
    from weightzoo.zoo import Zoo

_HEAD = {"R2", "accuracy"}  # the metric of each kind of property that is drawn, and that papers give
_KEY = 6101
DEALS, DEALS_QUICK = 10, 3  # of shuffled values


@dataclass(frozen=True)
class Row:
    """A way to predict, and the column of the published table that it is to be held against."""

    features: str
    estimator: str
    predict: Callable[[Problem], Prediction]
    column: Column | None = None


class Findings:
    """What was found so far in a study."""

    def __init__(self, zoo: Zoo, study: Study, context: Context) -> None:
        self._zoo, self._study, self._context = zoo, study, context
        self._scores: list[Score] = []
        self._tables: dict[str, pd.DataFrame] = {}
        self._figures: list[Figure] = []

    def score(
        self, rows: Sequence[Row], targets: Sequence[Target], on_progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Predict each property by each row, and score that on test; for names, the majority class too.

        Raises:
            NotFoundError: there are no properties.
        """
        if not targets:
            raise NotFoundError(f"no property of {self._zoo.name} varies in train and in test and is known of both")
        for number, target in enumerate(targets):
            problem = Problem.of(self._study, target)
            if on_progress is not None:
                on_progress(number, len(targets))
            for row in rows:
                column = row.column and published(target.name, row.column, self._zoo.dataset_info.name)
                self._add(problem, problem.read(row.predict(problem)), row.features, row.estimator, column)
            if problem.labels:
                common = np.bincount(problem.truth.train).argmax()
                self._add(problem, np.full(len(problem.truth.test), common), "", "majority class")
        self._tables["scores"] = table = self._table()
        named = table["metric"] == "accuracy"
        for kind, own in (("numbers", table[table["metric"] == "R2"]), ("names", table[named])):
            if len(own):
                self._tables[kind] = pd.DataFrame(own).reset_index(drop=True)
                what = "R2" if kind == "numbers" else "Share that is right"
                self._figures.append(
                    Figure(
                        "bars",
                        kind,
                        f"{what} by property",
                        "On models of test, with the 95% bootstrap interval over models.",
                        x="target",
                        y="value",
                        by="by",
                        low="low",
                        high="high",
                    )
                )

    def control(self, *estimators: Callable[[Problem], Prediction]) -> None:
        """Score accuracy, or the first property, with values dealt out at random; count the kin of tested models.

        Scores are means over several deals, and so are their intervals: a single one of few models is far from nothing
        by chance.
        """
        rng = np.random.default_rng([self._context.seed, _KEY])
        problem = Problem.of(self._study, self._study.targets()[0])
        models = self._study.test.models[problem.masks.test]
        deals = [problem.shuffled(rng) for _ in range(DEALS_QUICK if self._context.quick else DEALS)]
        for name, predict in zip(("linear", "boosting"), estimators, strict=False):
            found = [self._estimates(deal, deal.truth.test, deal.read(predict(deal)), models) for deal in deals]
            for metric in found[0]:
                values = np.array([one[metric].value for one in found])
                low, high = bootstrap(values, np.mean, rng)
                how = "s(W)", f"{name}, values shuffled", len(np.unique(models))
                self._scores.append(Score(problem.target.name, metric, float(values.mean()), low, high, *how))
        study = self._study
        kin = sum(len(find_leaks(part.zoo, study.test.zoo)) for part in (study.train, study.val))
        models = len(np.unique(study.test.models))
        self._scores.append(Score("kin of tested models", "pairs", float(kin), models=models))
        self._scores.append(Score("kin of tested models", "left out", float(study.left_out), models=models))

    @property
    def chance(self) -> str:
        """What shuffled values scored, in words."""
        return ", ".join(
            f"{score.metric} {score.value:+.2f} ({score.estimator.partition(',')[0]})"
            for score in self._scores
            if score.estimator.endswith("shuffled") and score.metric in _HEAD
        )

    def follow(self, row: Row) -> None:
        """Accuracy by epoch, and each prediction of it."""
        problem = Problem.of(self._study, ACCURACY)
        states = self._study.test.states[problem.masks.test]
        table = states.assign(measured=problem.truth.test, predicted=problem.read(row.predict(problem)))
        table["model"] = self._study.test.zoo.rows[table["model"]]
        self._tables["predictions"] = table.reset_index(drop=True)
        per_epoch: list[dict[str, object]] = []
        for epoch, own in table.groupby("epoch"):
            scores = self._estimates(problem, *(own[name].to_numpy() for name in ("measured", "predicted", "model")))
            for metric in ("R2", "tau"):
                one = scores[metric]
                per_epoch.append(
                    {"epoch": epoch, "metric": metric, "value": one.value, "low": one.low, "high": one.high}
                )
        self._tables["by_epoch"] = pd.DataFrame(per_epoch)
        self._figures += [
            Figure(
                "points",
                "predictions",
                "Accuracy predicted and measured",
                f"Models of test at {len(table['epoch'].unique())} epochs, {row.estimator}.",
                x="measured",
                y="predicted",
                by="epoch",
            ),
            Figure(
                "lines",
                "by_epoch",
                "Accuracy predicted at each epoch",
                "Over the models of test at one epoch: early on all models are near chance and hard to tell apart.",
                x="epoch",
                y="value",
                by="metric",
                low="low",
                high="high",
            ),
        ]

    def measured(self) -> None:
        """Score the accuracy on the validation images as if it were a prediction of that on the test images."""
        problem = Problem.of(self._study, ACCURACY)
        other = Problem.of(self._study, Target("accuracy", "val_accuracy"))
        if all(np.array_equal(*masks) for masks in zip(problem.masks, other.masks, strict=True)):
            self._add(problem, other.truth.test, "validation images", "measured")
            self._tables["scores"] = self._table()

    def told(self, target: Target) -> str:
        """The best R2 of a property, and tau beside it, in a sentence; nothing if it was not predicted."""
        own = [score for score in self._scores if score.target == target.name and "shuffled" not in score.estimator]
        fair = [score for score in own if score.metric == "R2" and score.estimator != "measured"]
        if not fair:
            return ""
        best = max(fair, key=lambda score: score.value)
        tau = next(
            score.value
            for score in own
            if score.metric == "tau" and (score.features, score.estimator) == (best.features, best.estimator)
        )
        name = target.name.capitalize()
        return f"{name}: R2 {best.value:.3f}, Kendall tau {tau:.3f} by {best.estimator} on {best.features}. "

    def result(self, method: str, title: str, summary: str, references: tuple[str, ...]) -> Result:
        """All of it."""
        return Result(method, title, summary, tuple(self._scores), self._tables, tuple(self._figures), references)

    def _estimates(
        self, problem: Problem, truth: np.ndarray, said: np.ndarray, models: np.ndarray
    ) -> dict[str, Estimate]:
        measure = classification_scores if problem.labels else regression_scores
        rng = np.random.default_rng([self._context.seed, _KEY + 1])
        return measure(truth, said, models, rng)

    def _add(
        self, problem: Problem, said: np.ndarray, features: str, estimator: str, paper: float | None = None
    ) -> None:
        models = self._study.test.models[problem.masks.test]
        for metric, one in self._estimates(problem, problem.truth.test, said, models).items():
            self._scores.append(
                Score(
                    problem.target.name,
                    metric,
                    one.value,
                    one.low,
                    one.high,
                    features,
                    estimator,
                    len(np.unique(models)),
                    paper if metric in _HEAD else None,
                )
            )

    def _table(self) -> pd.DataFrame:
        rows = [vars(score) for score in self._scores]
        table = pd.DataFrame(rows)
        return table.assign(by=[f"{row['features']} {row['estimator']}".strip() for row in rows])
