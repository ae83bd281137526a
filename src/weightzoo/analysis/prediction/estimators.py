"""Estimators of one property at the states of a study: all see train, choose on val and speak of val and test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.preprocessing import QuantileTransformer

from weightzoo.analysis.prediction.boosting import RATE, boosted
from weightzoo.analysis.prediction.fitting import Inputs, Said, Truth, fit_network
from weightzoo.analysis.prediction.linear import Standardised, ridge, softmax
from weightzoo.analysis.prediction.study import Splits, Study
from weightzoo.analysis.prediction.targets import Target
from weightzoo.architectures.units import WeightGraph
from weightzoo.errors import NotFoundError
from weightzoo.zoo import METRICS

MOST_EDGES = 5000  # between units of a model, for the network to be affordable on a CPU
_QUICK_RATE = 0.12
_QUANTILES = 500
_LESS = 0.3  # weight in the loss of what was chosen and not measured, which is learned by heart where it can be
_FAR = 3.0  # deviations, beyond which the network's features are cut off


@dataclass(frozen=True)
class Problem:
    """A property at the states where it is known, as `masks` tell: `truth` has values, or int64 codes of `labels`."""

    target: Target
    masks: Splits
    truth: Splits
    labels: tuple[str, ...]

    @classmethod
    def of(cls, study: Study, target: Target) -> Problem:
        """The property of the study's states."""
        known = study.known(target)
        masks = Splits(*(own.is_known for own in known))
        return cls(target, masks, Splits(*(own.values for own in known)).rows(masks), known[0].labels)

    def read(self, prediction: Prediction) -> np.ndarray:
        """What is predicted for test: numbers, or codes."""
        if self.labels:
            return prediction.test.argmax(axis=1)
        return Ranks.of(self.truth.train).back(prediction.test) if prediction.ranks else prediction.test

    def shuffled(self, rng: np.random.Generator) -> Problem:
        """The same values, in train and val dealt out to the states at random: nothing is there to be learned."""
        train, val = (rng.permutation(values) for values in (self.truth.train, self.truth.val))
        return Problem(self.target, self.masks, Splits(train, val, self.truth.test), self.labels)


@dataclass(frozen=True)
class Prediction:
    """Numbers `[N]`, or probabilities `[N, labels]`, for the states of val and test where the property is known.

    If `ranks`, the numbers are ranks among the values of train.
    """

    val: np.ndarray
    test: np.ndarray
    ranks: bool = False


@dataclass(frozen=True)
class Ranks:
    """The scale from 0 to 1 of values' ranks among those of train, `ordered`; equal values share a rank."""

    ordered: np.ndarray

    @classmethod
    def of(cls, train: np.ndarray) -> Ranks:
        """The scale of these values."""
        return cls(np.sort(train))

    def to(self, values: np.ndarray) -> np.ndarray:
        """The ranks of values."""
        ends = (np.searchsorted(self.ordered, values, side) for side in ("left", "right"))
        return sum(ends, np.zeros(len(values))) / (2 * len(self.ordered))

    def back(self, ranks: np.ndarray) -> np.ndarray:
        """The values of train at ranks. A heap of equal values takes all the ranks that it covers."""
        return np.quantile(self.ordered, np.clip(ranks, 0, 1), method="nearest")


class Linear:
    """Ridge regression for numbers and a linear softmax for names, on scaled features, which are kept."""

    def __init__(self, study: Study, features: Sequence[str]) -> None:
        self._features = study.features(features)
        self._scaled = Standardised.of(self._features)

    def __call__(self, problem: Problem) -> Prediction:
        """Predict a property."""
        scaled = self._scaled
        if not all(mask.all() for mask in problem.masks):
            scaled = Standardised.of(self._features.rows(problem.masks))
        if problem.labels:
            return _all_labels(problem, *softmax(scaled, problem.truth.train, problem.truth.val))
        return Prediction(*ridge(scaled, problem.truth.train, problem.truth.val))


class Boosting:
    """Boosted trees; with `ranks`, numbers on a quantile scale are predicted as ranks."""

    def __init__(
        self, study: Study, features: Sequence[str], seed: int, *, ranks: bool = False, quick: bool = False
    ) -> None:
        """`quick` takes larger steps."""
        self._features, self._seed, self._ranks = study.features(features), seed, ranks
        self._rate = _QUICK_RATE if quick else RATE

    def __call__(self, problem: Problem) -> Prediction:
        """Predict a property."""
        features, truth = self._features.rows(problem.masks), problem.truth
        if problem.labels:
            return _all_labels(problem, *boosted(features, truth, self._seed, self._rate))
        if not (self._ranks and problem.target.scale == "quantile"):
            return Prediction(*boosted(features, truth, self._seed, self._rate))
        scale = Ranks.of(truth.train)
        return Prediction(*boosted(features, Splits(*map(scale.to, truth)), self._seed, self._rate), ranks=True)


class Network:
    """Equivariant networks, fitted to all properties at once: the mean of what some say, that differ by their seeds.

    Numbers on a quantile scale are learned as values and as ranks; ranks are what is given back. What the models of
    train get right of each class is learned as well, since accuracy is the mean of that.
    """

    def __init__(
        self,
        study: Study,
        targets: Sequence[Target],
        features: Sequence[str],
        seeds: Sequence[int],
        rounds: int,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Fit.

        Raises:
            NotFoundError: the models have more than `MOST_EDGES` edges.
        """
        zoo = study.train.zoo
        graph = WeightGraph.of(zoo.architecture)
        edges = sum(each.shape[0] * each.shape[2] for each in graph.edges)
        if edges > MOST_EDGES:
            raise NotFoundError(
                f"the equivariant network takes models of up to {MOST_EDGES:,} pairs of joined units, those of "
                f"{zoo.name} have {edges:,}"
            )
        self._problems = {target.name: Problem.of(study, target) for target in targets}
        inputs = _inputs(study, features)
        self._columns, truth = self._truth(study)
        self._said: list[tuple[Said, Said]] = []
        for number, seed in enumerate(seeds):

            def progress(done: int, total: int, number: int = number) -> None:
                on_progress(number * total + done, len(seeds) * total)

            say = fit_network(graph, inputs[0], truth, rounds=rounds, seed=seed, on_progress=progress)
            self._said.append((say(inputs[1]), say(inputs[2])))

    def __call__(self, problem: Problem) -> Prediction:
        """What was said of a property that it was fitted to."""
        target = problem.target
        column, shift, scale = self._columns[target.name]
        found: list[np.ndarray] = []
        for part, mask in ((0, problem.masks.val), (1, problem.masks.test)):
            if problem.labels:
                found.append(np.mean([said[part].kinds[column] for said in self._said], axis=0)[mask])
                continue
            numbers = np.mean([said[part].numbers[:, column] for said in self._said], axis=0)
            found.append(numbers[mask] * scale + shift)
        return Prediction(found[0], found[1], target.scale == "quantile")

    def _truth(self, study: Study) -> tuple[dict[str, tuple[int, float, float]], Truth]:
        """Where each property is found, with mean and deviation; and what the network is to say of train."""
        count = len(study.train)
        columns: dict[str, tuple[int, float, float]] = {}
        numbers: list[np.ndarray] = []
        kinds: list[np.ndarray] = []
        sizes: list[int] = []
        emphasis: list[float] = []
        for name, problem in self._problems.items():
            values, mask = problem.truth.train, problem.masks.train
            if problem.labels:
                columns[name] = len(kinds), 0.0, 1.0
                kinds.append(_spread(values, mask, count, -1).astype(np.int64))
                sizes.append(len(problem.labels))
                continue
            shown = [values, Ranks.of(values).to(values)] if problem.target.scale == "quantile" else [values]
            for each in shown:
                shift, scale = float(each.mean()), float(each.std())
                columns[name] = len(numbers), shift, scale
                numbers.append(_spread((each - shift) / scale, mask, count, np.nan))
                emphasis.append(1.0 if problem.target.column in METRICS else _LESS)
        return columns, Truth(
            np.stack(numbers, 1) if numbers else np.empty((count, 0)),
            np.stack(kinds, 1) if kinds else np.empty((count, 0), np.int64),
            tuple(sizes),
            study.train.class_accuracies,
            np.asarray(emphasis),
        )


def _inputs(study: Study, features: Sequence[str]) -> tuple[Inputs, Inputs, Inputs]:
    """Weights, and features brought to a normal distribution by their quantiles in train."""
    own = Splits(*(np.where(np.isfinite(values), values, np.nan) for values in study.features(features)))
    count = min(_QUANTILES, len(own.train))
    normal = QuantileTransformer(n_quantiles=count, output_distribution="normal").fit(own.train)
    train, val, test = (
        Inputs(part.weights, np.nan_to_num(np.clip(normal.transform(values), -_FAR, _FAR)))
        for part, values in zip(study.parts, own, strict=True)
    )
    return train, val, test


def together(problem: Problem, first: Prediction, second: Prediction) -> Prediction:
    """Two predictions as one: a share of the second and the rest of the first, the share being what does best on val.

    Ranks are averaged half and half.
    """
    if first.ranks and second.ranks:
        return Prediction((first.val + second.val) / 2, (first.test + second.test) / 2, ranks=True)
    truth = problem.truth.val

    def loss(share: float) -> float:
        mixed = (1 - share) * first.val + share * second.val
        if problem.labels:
            return -float(np.log(np.maximum(mixed[np.arange(len(truth)), truth], 1e-6)).mean())
        return float(((mixed - truth) ** 2).mean())

    share = min(np.linspace(0, 1, 11), key=loss)
    return Prediction((1 - share) * first.val + share * second.val, (1 - share) * first.test + share * second.test)


def _all_labels(problem: Problem, *found: np.ndarray) -> Prediction:
    """Probabilities of those labels that train has, as probabilities of all."""
    whole = [np.zeros((len(each), len(problem.labels))) for each in found]
    for full, each in zip(whole, found, strict=True):
        full[:, np.unique(problem.truth.train)] = each
    return Prediction(whole[0], whole[1])


def _spread(values: np.ndarray, mask: np.ndarray, count: int, missing: float) -> np.ndarray:
    spread = np.full(count, missing, np.float64)
    spread[mask] = values
    return spread
