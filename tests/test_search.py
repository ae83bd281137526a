"""Searches: distinct and reproducible draws, TPE that learns and replays, pruners that judge by earlier batches."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import optuna
import pytest

from weightzoo.members import Hyperparameters, Member
from weightzoo.population import Result, population
from weightzoo.search import Search, pruning_epochs
from weightzoo.spec import Pruner, ZooSpec, parse_params

RANGES = {
    "init": ["uniform", "normal"],
    "activation": ["tanh", "relu"],
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "dropout": {"low": 0, "high": 0.5},
}
LISTS = {"init": ["uniform", "normal"], "dropout": [0, 0.5]}
EPOCHS = 20


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    """Optuna's experimental warnings are no concern of a user's."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def zoo(factors: dict[str, Any] = RANGES, seed: int = 0, **configuration: Any) -> ZooSpec:
    section = {
        "dataset": "digits",
        "architecture": "cnn-s",
        "configuration": {"kind": "search", "models": 24, "batch": 8} | configuration,
        "factors": factors,
        "training": {"epochs": EPOCHS},
        "seed": seed,
    }
    return parse_params({"build": [], "datasets": {"digits": {}}, "zoos": {"a": section}}).zoo("a")


def accuracy(member: Member) -> float:
    """A made-up objective: best at a learning rate of 0.003."""
    return 1 - abs(math.log10(member.hyperparameters.learning_rate) + 2.5) / 3


def constant(value: float) -> Result:
    return Result("finished", [value] * (EPOCHS + 1))


def batches(spec: ZooSpec, result: Callable[[Member], Result]) -> list[tuple[Member, ...]]:
    source, asked = population(spec, "hash"), []
    while batch := source.ask():
        asked.append(batch)
        source.tell({member.id: result(member) for member in reversed(batch)})
    return asked


def drawn(spec: ZooSpec) -> list[Member]:
    return [member for batch in batches(spec, lambda member: constant(accuracy(member))) for member in batch]


# ---- what is drawn


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe"])
@pytest.mark.parametrize("factors", [RANGES, LISTS])
def test_all_models_are_drawn_within_bounds_and_differ(sampler: str, factors: dict[str, Any]) -> None:
    members = drawn(zoo(factors, sampler=sampler, models=40))
    assert len(members) == len({member.id for member in members}) == 40
    for member in members:
        for name, values in factors.items():
            value = getattr(member.hyperparameters, name)
            assert values["low"] <= value <= values["high"] if isinstance(values, dict) else value in values


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe"])
def test_draws_depend_on_the_zoos_seed_alone(sampler: str) -> None:
    def ids(seed: int) -> list[str]:
        return [member.id for member in drawn(zoo(seed=seed, sampler=sampler))]

    assert ids(0) == ids(0)
    assert not set(ids(0)) & set(ids(1))


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_samplers_that_do_not_learn_ask_for_all_models_at_once(sampler: str) -> None:
    assert [len(batch) for batch in batches(zoo(sampler=sampler, models=20), lambda _: constant(0.5))] == [20]


def test_tpe_and_pruned_searches_ask_in_batches() -> None:
    for configuration in ({"sampler": "tpe"}, {"sampler": "random", "pruner": "median"}):
        sizes = [len(batch) for batch in batches(zoo(models=20, **configuration), lambda _: constant(0.5))]
        assert sizes == [8, 8, 4]


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe"])
def test_a_point_drawn_again_gets_the_next_of_its_random_seeds(sampler: str) -> None:
    """The same seeds as a grid with random seeds gives the point, so the two share their models."""
    members = drawn(zoo(LISTS, sampler=sampler, models=40))
    by_point: dict[Hyperparameters, list[int]] = {}
    for member in members:
        by_point.setdefault(member.hyperparameters, []).append(member.seeds.init)
    most = max(map(len, by_point.values()))
    section = {"dataset": "digits", "architecture": "cnn-s", "factors": LISTS, "training": {"epochs": EPOCHS}}
    section["configuration"] = {"kind": "grid", "seeds": {"random": most}}
    grid = parse_params({"build": [], "datasets": {"digits": {}}, "zoos": {"a": section}}).zoo("a")
    of_grid: dict[Hyperparameters, list[int]] = {}
    for member in population(grid, "hash").ask():
        of_grid.setdefault(member.hyperparameters, []).append(member.seeds.init)
    assert len(by_point) == 4
    assert all(seeds == of_grid[point][: len(seeds)] for point, seeds in by_point.items())


def test_a_quasi_monte_carlo_sample_is_even() -> None:
    """32 points of a Sobol sequence have one in each 32nd of every axis, up to scrambling; random ones do not."""

    def filled(sampler: str) -> int:
        members = drawn(zoo(sampler=sampler, models=32))
        cells = [int(32 * (math.log10(member.hyperparameters.learning_rate) + 4) / 3) for member in members]
        return len(set(cells))

    assert filled("qmc") == 32
    assert filled("random") < 28
    kinds = Counter(member.hyperparameters.init for member in drawn(zoo(sampler="qmc", models=32)))
    assert kinds["uniform"] == kinds["normal"] == 16


# ---- TPE


def late(members: list[tuple[Member, ...]]) -> float:
    """The mean distance of the last batch's learning rates from the best one, in decades."""
    return float(np.mean([abs(math.log10(member.hyperparameters.learning_rate) + 2.5) for member in members[-1]]))


def test_tpe_learns_to_maximise_accuracy_and_to_minimise_loss() -> None:
    spec = zoo(sampler="tpe", models=64, batch=16)
    learnt = batches(spec, lambda member: constant(accuracy(member)))
    lossy = batches(zoo(sampler="tpe", models=64, batch=16, objective="val_loss"), lambda m: constant(1 - accuracy(m)))
    opposite = batches(spec, lambda member: constant(1 - accuracy(member)))
    assert late(learnt) < 0.35
    assert late(lossy) < 0.35
    assert late(opposite) > 0.7


def test_tpe_avoids_where_members_diverge_or_are_pruned() -> None:
    def result(status: str) -> Callable[[Member], Result]:
        def outcome(member: Member) -> Result:
            bad = member.hyperparameters.learning_rate > 3e-3
            return Result(status, [0.9] * 4 + [math.nan] * (status == "diverged")) if bad else constant(0.5)

        return outcome

    for status in ("diverged", "pruned"):
        last = batches(zoo(sampler="tpe", models=80, batch=16), result(status))[-1]
        assert sum(member.hyperparameters.learning_rate > 3e-3 for member in last) <= 4


def test_a_killed_search_replays_itself_from_what_was_told() -> None:
    spec = zoo(sampler="tpe", models=40)
    whole = batches(spec, lambda member: constant(accuracy(member)))
    known = {member.id: constant(accuracy(member)) for batch in whole[:3] for member in batch}
    again = population(spec, "hash")
    for batch in whole[:3]:
        assert again.ask() == batch
        again.tell({member.id: known[member.id] for member in batch})
    assert again.ask() == whole[3]


def test_other_results_lead_elsewhere() -> None:
    spec = zoo(sampler="tpe", models=40)
    good = batches(spec, lambda member: constant(accuracy(member)))
    other = batches(spec, lambda member: constant(1 - accuracy(member)))
    assert good[0] == other[0]
    assert good[-1] != other[-1]


def test_a_batch_is_told_before_the_next_is_asked_for() -> None:
    search = Search(zoo(sampler="tpe"), "hash")
    batch = search.ask()
    with pytest.raises(ValueError, match="tell the results of the last batch"):
        search.ask()
    with pytest.raises(ValueError, match=f"no result for 7 of 8 members, the first is {batch[1].id}"):
        search.tell({batch[0].id: constant(0.5)})
    search.tell({member.id: constant(0.5) for member in batch})
    assert len(search.ask()) == 8


def test_a_member_without_a_finite_objective_counts_as_diverged() -> None:
    search = Search(zoo(sampler="tpe"), "hash")
    batch = search.ask()
    search.tell({member.id: Result("finished", [math.nan]) for member in batch[:4]}
                | {member.id: Result("diverged", []) for member in batch[4:]})  # fmt: skip
    assert len(search.ask()) == 8


# ---- pruners


def told(kind: str, results: list[Result], objective: str = "val_accuracy", **pruner: Any) -> Search:
    """A search whose first batch had these results."""
    count = len(results)
    pruner = {"kind": kind} | pruner
    search = Search(zoo(models=2 * count, batch=count, objective=objective, pruner=pruner), "hash")
    search.tell({member.id: result for member, result in zip(search.ask(), results, strict=True)})
    return search


def test_the_median_pruner_stops_what_is_below_the_median_behind_the_warm_up() -> None:
    search = told("median", [constant(value) for value in (0.1, 0.2, 0.6, 0.7, 0.8)])
    values = {"low": 0.3, "median": 0.6, "high": 0.9}
    for epoch in range(EPOCHS + 1):
        assert search.prune(epoch, values) == ({"low"} if 5 <= epoch < EPOCHS else set())


def test_the_median_is_that_of_finished_members_at_the_same_epoch() -> None:
    rising = [Result("finished", [level + epoch for epoch in range(EPOCHS + 1)]) for level in (0.0, 1.0, 2.0)]
    stopped = [Result("pruned", [-100.0] * 7), Result("diverged", [-100.0, math.nan])]
    search = told("median", rising + stopped)
    assert search.prune(6, {"below": 6.9, "above": 7.0}) == {"below"}
    assert search.prune(12, {"below": 12.9, "above": 13.0}) == {"below"}


def test_losses_are_pruned_above_the_median() -> None:
    search = told("median", [constant(value) for value in (1.0, 2.0, 3.0)], objective="val_loss")
    assert search.prune(10, {"low": 1.5, "high": 2.5}) == {"high"}


def test_halving_keeps_the_best_third_at_its_rungs_among_all_that_got_there() -> None:
    finished = [constant(value) for value in (0.7, 0.8, 0.9)]
    pruned = [Result("pruned", [value] * 3) for value in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)]  # stopped behind epoch 2
    search = told("halving", finished + pruned, warmup_epochs=2, reduction=3)
    values = {str(value): value for value in (0.05, 0.45, 0.65, 0.75, 0.95)}
    expected = {2: {"0.05", "0.45"}, 6: {"0.05", "0.45", "0.65", "0.75"}, 18: {"0.05", "0.45", "0.65", "0.75"}}
    # the upper third begins at the 66.7th percentile: of 0.1..0.9 at 0.633, of 0.7, 0.8, 0.9 at 0.833
    for epoch in range(EPOCHS + 1):
        assert search.prune(epoch, values) == expected.get(epoch, set())


def test_rungs() -> None:
    assert pruning_epochs(Pruner(kind="halving", warmup_epochs=5, reduction=3), 50) == {5, 15, 45}
    assert pruning_epochs(Pruner(kind="halving", warmup_epochs=5, reduction=2), 40) == {5, 10, 20}
    assert pruning_epochs(Pruner(kind="median", warmup_epochs=5), 8) == {5, 6, 7}


def test_pruning_does_not_depend_on_company_or_history() -> None:
    """So cohorts can be trained one by one or together, and a resumed training prunes the same members."""
    search = told("median", [constant(value) for value in np.linspace(0.1, 0.9, 9)])
    values = {str(number): number / 20 for number in range(20)}
    together = search.prune(7, values)
    assert together == {name for name, value in values.items() if value < 0.5}
    search.prune(8, dict.fromkeys(values, 0.0))
    one_by_one = {name for name, value in values.items() if search.prune(7, {name: value})}
    assert one_by_one == together
    assert search.prune(7, dict(reversed(values.items()))) == together


def test_the_first_batch_is_never_pruned_nor_is_divergence_a_reason() -> None:
    search = Search(zoo(pruner="median"), "hash")
    assert search.prune(10, {member.id: 0.0 for member in search.ask()}) == set()
    search = told("median", [constant(0.5)] * 3)
    assert search.prune(10, {"diverged": math.nan, "low": 0.1}) == {"low"}


def test_without_a_pruner_nobody_is_stopped() -> None:
    search = Search(zoo(sampler="tpe"), "hash")
    search.tell({member.id: constant(0.9) for member in search.ask()})
    assert search.prune(10, {"a": 0.0}) == set()


# ---- manners


def test_a_search_is_quiet_and_leaves_optunas_settings_alone(capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    try:
        for sampler in ("random", "qmc", "tpe"):
            drawn(zoo(sampler=sampler, pruner="median"))
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        optuna.logging.set_verbosity(before)
    assert capfd.readouterr() == ("", "")


def test_a_grid_needs_no_optuna() -> None:
    code = (
        "import sys; from weightzoo.spec import parse_params; from weightzoo.population import population;"
        "zoo = {'dataset': 'd', 'architecture': 'cnn-s', 'configuration': {'kind': 'seed', 'seeds': [1]}};"
        "population(parse_params({'build': [], 'datasets': {'d': {}}, 'zoos': {'a': zoo}}).zoo('a'), '').ask();"
        "print({'optuna', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
