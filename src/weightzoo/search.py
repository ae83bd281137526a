"""Searches: members drawn from lists and ranges by Optuna's samplers, batch by batch, and stopped early by its pruners.

The runs are the record, not Optuna's study: it lives in memory and is filled again from results. Asked and told the
same, a search gives the same members (on one version of Optuna), so a killed build draws again what it had drawn.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Literal, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner, PercentilePruner
from optuna.samplers import BaseSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from weightzoo import seeds
from weightzoo.members import FACTORS, Hyperparameters, Member, Seeds
from weightzoo.points import Result, check_complete, member, point_seeds, unique
from weightzoo.spec import Pruner, Range, SearchConfiguration, ZooSpec


class Search:
    """The population of a search zoo.

    TPE, and any sampler with a pruner, asks in batches of `configuration.batch`; random and quasi-Monte-Carlo without a
    pruner depend on no result and ask for all members at once.

    A point drawn again, which happens where factors are lists, is trained again with its next random seed: no two
    members are equal, and a point that TPE prefers gets more models.
    """

    def __init__(self, spec: ZooSpec, dataset_hash: str) -> None:
        assert isinstance(spec.configuration, SearchConfiguration)
        self._spec, self._dataset_hash, self._configuration = spec, dataset_hash, spec.configuration
        self._space = search_space(spec)
        with quiet():
            self._study = optuna.create_study(direction=_direction(self._configuration), sampler=_sampler(spec))
        self._judge = _Judge(self._configuration, spec.training.epochs) if self._configuration.pruner else None
        self._drawn: Counter[Hyperparameters] = Counter()
        self._pending: dict[str, tuple[Member, Trial]] = {}

    def ask(self) -> tuple[Member, ...]:
        """The next batch, empty after `configuration.models` members.

        Raises:
            ValueError: results of the batch before are needed, and have not been told.
        """
        left = self._configuration.models - self._drawn.total()
        if left == 0:
            return ()
        if self._pending:
            raise ValueError("tell the results of the last batch before asking for the next")
        in_batches = self._configuration.sampler == "tpe" or self._judge is not None
        trials = [
            self._study.ask(self._space) for _ in range(min(left, self._configuration.batch) if in_batches else left)
        ]
        members = unique(self._member(trial) for trial in trials)
        self._pending = {one.id: (one, trial) for one, trial in zip(members, trials, strict=True)}
        return members

    def tell(self, results: Mapping[str, Result]) -> None:
        """The results of the batch; told to the sampler in the order in which the members were asked for.

        A finished member counts by the objective of its last epoch. One that was pruned comes behind all finished ones,
        one that diverged behind all others.

        Raises:
            ValueError: a member has no result.
        """
        check_complete(tuple(one for one, _ in self._pending.values()), results)
        for identity, (_, trial) in self._pending.items():
            result = results[identity]
            final = result.objective[-1] if result.objective else math.nan
            if result.status == "finished" and math.isfinite(final):
                self._study.tell(trial, final)
            else:  # TPE ranks pruned trials by the epoch they reached, then by value, NaN last
                diverged = result.status != "pruned"
                trial.report(math.nan if diverged else final, step=0 if diverged else len(result.objective) - 1)
                self._study.tell(trial, state=TrialState.PRUNED)
            if self._judge is not None:
                self._judge.remember(result)
        self._pending = {}

    def prune(self, epoch: int, values: Mapping[str, float]) -> set[str]:
        """The members to stop behind `epoch`; a function of the batches told and of each member's own value alone.

        So it does not matter in which order or how many at a time the members of a batch are trained.
        """
        if self._judge is None:
            return set()
        return {identity for identity, value in values.items() if self._judge.stops(epoch, value)}

    def _member(self, trial: Trial) -> Member:
        point = Hyperparameters(**{name: trial.params[name] for name in FACTORS})
        self._drawn[point] += 1
        seed = point_seeds(self._spec.seed, point, self._drawn[point])[-1]
        return member(self._spec, self._dataset_hash, point, Seeds.all(seed))


def search_space(spec: ZooSpec) -> dict[str, BaseDistribution]:
    """The factors as Optuna's distributions: lists are categories, ranges are continuous."""
    space: dict[str, BaseDistribution] = {}
    for name in FACTORS:
        values = getattr(spec.factors, name)
        if isinstance(values, Range):
            space[name] = FloatDistribution(values.low, values.high, log=values.log)
        else:
            space[name] = CategoricalDistribution(values)
    return space


class _Sobol(QMCSampler):
    """Optuna's sampler, its first point from the sequence too: the search space is known, not to be found out."""

    def __init__(self, space: dict[str, BaseDistribution], seed: int) -> None:
        super().__init__(qmc_type="sobol", scramble=True, seed=seed)
        self._space = {name: distribution for name, distribution in space.items() if not distribution.single()}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._space


class _Judge:
    """Which members to stop, by what the batches told so far reached at the same epoch.

    A study of its own, as halving compares with all members that reached an epoch, stopped ones included, and Optuna's
    percentile looks at complete trials only.
    """

    def __init__(self, configuration: SearchConfiguration, epochs: int) -> None:
        assert configuration.pruner is not None
        self._kind = configuration.pruner.kind
        self._epochs = pruning_epochs(configuration.pruner, epochs)
        self._pruner: BasePruner = (
            MedianPruner(n_startup_trials=1)
            if self._kind == "median"
            else PercentilePruner(100 / configuration.pruner.reduction, n_startup_trials=1)
        )
        with quiet():
            self._study = optuna.create_study(direction=_direction(configuration), sampler=RandomSampler(seed=0))

    def remember(self, result: Result) -> None:
        """Compare with this member from now on."""
        if self._kind == "median" and result.status != "finished":
            return
        reached = {epoch: value for epoch, value in enumerate(result.objective) if epoch in self._epochs}
        self._study.add_trial(create_trial(state=TrialState.COMPLETE, value=0.0, intermediate_values=reached))

    def stops(self, epoch: int, value: float) -> bool:
        """Whether to stop a member with this objective behind this epoch; NaN is no reason, divergence is a status."""
        if epoch not in self._epochs or math.isnan(value):
            return False
        candidate = create_trial(state=TrialState.RUNNING, intermediate_values={epoch: value})
        return self._pruner.prune(self._study, candidate)


def pruning_epochs(pruner: Pruner, epochs: int) -> frozenset[int]:
    """The epochs behind which a pruner stops members; never the last, where there is nothing left to save."""
    if pruner.kind == "median":
        return frozenset(range(pruner.warmup_epochs, epochs))
    rungs: list[int] = []
    rung = pruner.warmup_epochs
    while rung < epochs:
        rungs.append(rung)
        rung *= pruner.reduction
    return frozenset(rungs)


def _sampler(spec: ZooSpec) -> BaseSampler:
    seed = seeds.spawn(spec.seed, "search", 1)[0]
    sampler = cast("SearchConfiguration", spec.configuration).sampler
    if sampler == "random":
        return RandomSampler(seed=seed)
    if sampler == "qmc":
        return _Sobol(search_space(spec), seed)
    return TPESampler(seed=seed, multivariate=True, constant_liar=True)


def _direction(configuration: SearchConfiguration) -> Literal["maximize", "minimize"]:
    return "maximize" if configuration.objective == "val_accuracy" else "minimize"


@contextmanager
def quiet() -> Generator[None]:
    """Without Optuna's notes: that a study was made, that what is used is experimental (its version is bounded)."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
