"""Architecture search run for real, in memory: accuracies predicted from weights say which graphs to try next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from weightzoo import seeds
from weightzoo.analysis.dynamics.architecture_space import Graph, distributions, drawn, statistics_by_role
from weightzoo.analysis.dynamics.prediction import fitted
from weightzoo.analysis.dynamics.trained import epochs_of, member, protocol
from weightzoo.analysis.results import Context
from weightzoo.architectures import Architecture
from weightzoo.architectures.cost import multiply_adds
from weightzoo.errors import NotFoundError, SpecError
from weightzoo.members import Cohort, Hyperparameters
from weightzoo.search import quiet

if TYPE_CHECKING:
    from weightzoo.datasets.images import ImageData
    from weightzoo.training.protocol import EpochResult, TrainState

_KEY = 6901
HYPERPARAMETERS = Hyperparameters("kaiming_uniform", "relu", "adam", 1e-3, 0.0, 0.0)
SEEDS = 8  # models of each graph, trained side by side
EPOCHS, LOOK = 10, 2  # of a training in full, and behind which a graph is judged
FIRST = 12  # graphs drawn at random and trained in full, with which all searches begin
ROUNDS, ASKED, PROMOTED = 5, 6, 2  # in each round so many graphs are looked at, and so many trained in full
BY_WEIGHTS, BY_ACCURACY, RANDOM = "search by weights", "search by early accuracy", "random search"
_PENALTIES = tuple(10.0**power for power in range(-1, 5))  # of the ridge
_TRIES, _MOST_TRIES = 20, 2000  # for each graph that TPE is asked for, and at random in all


@dataclass(frozen=True)
class Look:
    """What `SEEDS` models of an architecture are behind `LOOK` epochs."""

    built: Architecture
    state: TrainState
    features: np.ndarray  # float64 [SEEDS, F], of the weights, and of their change since epoch 0
    val_accuracy: np.ndarray  # float32 [SEEDS]


@dataclass(frozen=True)
class Full:
    """What they are behind `EPOCHS`."""

    val_accuracy: np.ndarray  # float32 [SEEDS]
    test_accuracy: np.ndarray  # float32 [SEEDS]


class Bench:
    """Trains graphs, of each the same seeds, and none twice."""

    def __init__(self, data: ImageData, seed: int, threads: int | None) -> None:
        self._data, self._threads = data, threads
        self.seeds = seeds.spawn(seed, "architecture search", SEEDS)
        self._looks: dict[Graph, Look] = {}
        self._fulls: dict[Graph, Full] = {}

    def look(self, graph: Graph) -> Look:
        """Train it for `LOOK` epochs."""
        if graph not in self._looks:
            built = graph.build(self._data.image_shape, self._data.classes)
            start, *_, last = self._train(built, LOOK)
            now, before = last.state.weights, start.state.weights
            features = np.concatenate([statistics_by_role(built, own) for own in (now, now - before)], axis=1)
            self._looks[graph] = Look(built, last.state, features, last.metrics.val_accuracy)
        return self._looks[graph]

    def finish(self, graph: Graph) -> Full:
        """Train it on, to `EPOCHS` epochs."""
        if graph not in self._fulls:
            look = self.look(graph)
            self._fulls[graph] = self.full(look.built, look.state)
        return self._fulls[graph]

    def full(self, built: Architecture, state: TrainState | None = None) -> Full:
        """Train any architecture for `EPOCHS` epochs, those before `state` included."""
        *_, last = self._train(built, EPOCHS, state)
        return Full(last.metrics.val_accuracy, last.metrics.test_accuracy)

    def _train(self, built: Architecture, epochs: int, state: TrainState | None = None) -> list[EpochResult]:
        members = tuple(member(built, self._data, HYPERPARAMETERS, one, protocol(epochs)) for one in self.seeds)
        return [*epochs_of(built, Cohort(members), self._data, state, self._threads)]


@dataclass
class Search:
    """What one search has looked at and trained in full, in that order, and the epochs that it has spent."""

    name: str
    bench: Bench
    looks: dict[Graph, Look] = field(default_factory=dict[Graph, Look])
    fulls: dict[Graph, Full] = field(default_factory=dict[Graph, Full])
    spent: int = 0
    spent_by: dict[Graph, int] = field(default_factory=dict[Graph, int])  # when it was trained in full

    def look(self, graph: Graph) -> None:
        """Look at a graph."""
        self.looks[graph] = self.bench.look(graph)
        self.spent += LOOK

    def finish(self, graph: Graph) -> None:
        """Train on what was looked at."""
        self.fulls[graph] = self.bench.finish(graph)
        self.spent += EPOCHS - LOOK
        self.spent_by[graph] = self.spent

    @property
    def best(self) -> Graph:
        """Of those trained in full, the one with the best mean validation accuracy."""
        return max(self.fulls, key=lambda graph: self.fulls[graph].val_accuracy.mean())

    @property
    def cost(self) -> int:
        """Multiply-adds of an image's way forward, summed over all epochs of all graphs."""
        return sum(
            multiply_adds(look.built) * (EPOCHS if graph in self.fulls else LOOK) for graph, look in self.looks.items()
        )


class Surrogate:
    """Says the final accuracy from the weights behind `LOOK` epochs: the mean of trees and of ridge regression.

    Trees rank better, a line goes on where few graphs are known.
    """

    def __init__(self, looks: Sequence[Look], truth: Sequence[np.ndarray], context: Context) -> None:
        """Fit to graphs whose models' final accuracies, float `[SEEDS]` each, are known."""
        features, values = np.concatenate([look.features for look in looks]), np.concatenate(truth).astype(np.float64)
        line = make_pipeline(StandardScaler(), RidgeCV(_PENALTIES)).fit(features, values)
        self._parts = (fitted(features, values, context, key=_KEY), line)

    def says(self, looks: Sequence[Look]) -> np.ndarray:
        """The mean over the models of each graph, float64 `[N]`."""
        features = np.concatenate([look.features for look in looks])
        said = np.mean([np.clip(part.predict(features), 0, 1) for part in self._parts], axis=0)
        return said.reshape(len(looks), -1).mean(axis=1)


Judge = Callable[[Search], dict[Graph, float]]


class Space:
    """The graphs that fit the images and have no more parameters than allowed."""

    def __init__(self, data: ImageData, most: int) -> None:
        self._shape, self._classes, self._most = data.image_shape, data.classes, most

    def holds(self, graph: Graph) -> bool:
        """Whether it is one of them."""
        try:
            return graph.build(self._shape, self._classes).layout.size <= self._most
        except SpecError:
            return False

    def ask(self, seed: int, known: Mapping[Graph, float], count: int) -> list[Graph]:
        """`count` graphs that are not `known`: drawn at random, or by TPE if it is told how good each known one is.

        Where TPE, on a small space, asks for the same again and again, the rest is drawn at random.

        Raises:
            NotFoundError: there are too few.
        """
        found: list[Graph] = []
        with quiet():
            if known:
                sampler = TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
                found = self._asked(sampler, known, count, _TRIES * count)
            others = dict.fromkeys([*known, *found], 0.0)
            found += self._asked(RandomSampler(seed), others, count - len(found), _MOST_TRIES)
        if len(found) < count:
            raise NotFoundError(f"found {len(found)} of {count} new architectures with up to {self._most:,} parameters")
        return found

    def _asked(self, sampler: BaseSampler, known: Mapping[Graph, float], count: int, tries: int) -> list[Graph]:
        """Up to `count` graphs. Those that are not in the space are told to the sampler as worse than all others."""
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for graph, value in known.items():
            own = graph.parameters
            study.add_trial(create_trial(params=dict(own), distributions=distributions(own), value=value))
        found: list[Graph] = []
        while len(found) < count and tries:
            trial, tries = study.ask(), tries - 1
            graph = drawn(trial)
            if graph in known or graph in found or not self.holds(graph):
                study.tell(trial, state=TrialState.PRUNED)
            else:
                found.append(graph)
        return found


def searches(bench: Bench, space: Space, seed: int, context: Context) -> Iterator[Search]:
    """Search by weights, by early accuracy and at random, with the same first graphs and the same number of epochs."""
    budget = FIRST * EPOCHS + ROUNDS * (ASKED * LOOK + PROMOTED * (EPOCHS - LOOK))
    at_random = space.ask(seed, {}, budget // EPOCHS)

    def by_weights(search: Search) -> dict[Graph, float]:
        measured = {graph: float(full.val_accuracy.mean()) for graph, full in search.fulls.items()}
        said = surrogate(search, [*search.fulls], context).says([*search.looks.values()])
        return dict(zip(search.looks, said.tolist(), strict=True)) | measured

    def by_accuracy(search: Search) -> dict[Graph, float]:
        return {graph: float(look.val_accuracy.mean()) for graph, look in search.looks.items()}

    for name, judge in ((BY_WEIGHTS, by_weights), (BY_ACCURACY, by_accuracy)):
        search = _begun(name, bench, at_random[:FIRST])
        for number in range(ROUNDS):
            own = seeds.spawn(seed, f"round {number}", 1)[0]
            for graph in space.ask(own, judge(search), ASKED):
                search.look(graph)
            values = judge(search)
            waiting = [graph for graph in search.looks if graph not in search.fulls]
            for graph in sorted(waiting, key=lambda graph: -values[graph])[:PROMOTED]:
                search.finish(graph)
        yield search
    yield _begun(RANDOM, bench, at_random)


def _begun(name: str, bench: Bench, graphs: Sequence[Graph]) -> Search:
    """A search that has trained these in full."""
    search = Search(name, bench)
    for graph in graphs:
        search.look(graph)
        search.finish(graph)
    return search


def surrogate(search: Search, graphs: Sequence[Graph], context: Context) -> Surrogate:
    """One that is fitted to these graphs, which the search has trained in full."""
    truth = [search.fulls[graph].val_accuracy for graph in graphs]
    return Surrogate([search.looks[graph] for graph in graphs], truth, context)
