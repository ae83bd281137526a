"""Seeds and grids: the counts of the published zoos, canonical order, seeds that stay when the grid grows."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightzoo.members import FACTORS, Hyperparameters, Member, Seeds
from weightzoo.points import unique
from weightzoo.population import FixedPopulation, Result, grid, population
from weightzoo.spec import ZooSpec, load_params, parse_params

ALL_INITS = ["uniform", "normal", "kaiming_uniform", "kaiming_normal"]
ALL_ACTIVATIONS = ["tanh", "sigmoid", "relu", "gelu"]
BOTH = ["adam", "sgd"]


def zoo(configuration: dict[str, Any], seed: int = 0, **factors: Any) -> ZooSpec:
    section = {"dataset": "digits", "architecture": "cnn-s", "configuration": configuration, "factors": factors}
    params = {"build": [], "datasets": {"digits": {}}, "zoos": {"a": section | {"seed": seed}}}
    return parse_params(params).zoo("a")


def members(spec: ZooSpec) -> tuple[Member, ...]:
    source = population(spec, "hash")
    asked = source.ask()
    assert source.ask() == ()
    return asked


def paper_row(
    learning_rate: list[float], weight_decay: list[float], dropout: list[float], **changes: Any
) -> dict[str, Any]:
    row = {"init": ALL_INITS, "activation": ALL_ACTIVATIONS, "optimizer": BOTH, "learning_rate": learning_rate}
    return row | {"weight_decay": weight_decay, "dropout": dropout} | changes


MNIST = paper_row([1e-3, 1e-4], [1e-3, 1e-4], [0, 0.5])
USPS = paper_row([1e-3, 1e-4], [1e-2, 1e-3], [0, 0.5])
SVHN = paper_row([1e-3, 1e-4], [1e-3, 1e-4, 0], [0, 0.3, 0.5])
SVHN_RELEASED = paper_row([1e-2, 1e-3, 1e-4], [0, 1e-3, 1e-1], [0, 0.3, 0.5], optimizer=["sgd"])
CIFAR10 = paper_row([1e-3], [1e-2, 1e-3], [0, 0.5])


@pytest.mark.parametrize(
    ("factors", "points"), [(MNIST, 256), (USPS, 256), (SVHN, 576), (SVHN_RELEASED, 432), (CIFAR10, 128)]
)
@pytest.mark.parametrize("seeds", [{"first": 1, "count": 10}, {"random": 10}, list(range(1, 11))])
def test_the_grids_of_the_published_zoos(factors: dict[str, Any], points: int, seeds: Any) -> None:
    """Schürholt et al. 2022, table 1, and for SVHN the released configuration as well."""
    spec = zoo({"kind": "grid", "seeds": seeds}, **factors)
    drawn = members(spec)
    assert spec.factors.points == points
    assert len(drawn) == len({member.id for member in drawn}) == 10 * points
    assert len({member.hyperparameters for member in drawn}) == points
    assert len({member.group for member in drawn}) == points


def test_the_number_of_models_of_the_published_cnn_zoos() -> None:
    def family(factors: dict[str, Any]) -> int:
        one = zoo({"kind": "seed", "seeds": {"count": 1000}}, init=["uniform"])
        fixed = zoo({"kind": "grid", "seeds": {"count": 10}}, **factors)
        own = zoo({"kind": "grid", "seeds": {"random": 10}}, **factors)
        return len(members(one)) + fixed.factors.points * 10 + own.factors.points * 10

    mnist, svhn, cifar10, stl10 = family(MNIST), family(SVHN_RELEASED), family(CIFAR10), family(USPS)
    assert (mnist, svhn, cifar10) == (6120, 9640, 3560)
    assert 3 * mnist + svhn + 2 * cifar10 + 2 * stl10 == 47_360  # MNIST, F-MNIST, USPS; SVHN; CIFAR10 and STL10 twice


def test_the_zoos_of_this_repository() -> None:
    params = load_params(Path(__file__).parent.parent / "params.yaml")
    seed, hyp = members(params.zoo("digits-seed")), members(params.zoo("digits-hyp"))
    assert params.build == ("digits-seed", "digits-hyp")
    assert [member.seeds for member in seed] == [Seeds.all(number) for number in range(1, 65)]
    assert {member.hyperparameters for member in seed} == {Hyperparameters("uniform", "tanh", "adam", 3e-4, 0.0, 0.0)}
    assert len(hyp) == 512
    assert set(grid(params.zoo("digits-hyp"))) == set(grid(zoo({"kind": "grid", "seeds": [1, 2]}, **MNIST)))
    assert {(member.protocol.epochs, member.protocol.batch_size) for member in seed + hyp} == {(50, 10)}
    search = params.zoo("digits-search")
    assert len(population(search, "hash").ask()) == search.configuration.batch == 16  # type: ignore[union-attr]


def test_the_grid_has_the_points_of_optunas_grid_sampler() -> None:
    spec = zoo({"kind": "grid", "seeds": [1]}, init=ALL_INITS, optimizer=BOTH, dropout=[0, 0.3, 0.5])
    space = {name: list(getattr(spec.factors, name)) for name in FACTORS}
    drawn: list[Hyperparameters] = []

    def draw(trial: optuna.Trial) -> float:
        drawn.append(Hyperparameters(**{name: trial.suggest_categorical(name, space[name]) for name in FACTORS}))
        return 0.0

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.create_study(sampler=optuna.samplers.GridSampler(space, seed=0)).optimize(draw)
    assert len(drawn) == 24
    assert sorted(drawn, key=repr) == sorted(grid(spec), key=repr)


def test_the_order_is_that_of_the_file_last_factor_fastest_seeds_side_by_side() -> None:
    spec = zoo({"kind": "grid", "seeds": [7, 3]}, init=["normal", "uniform"], dropout=[0.5, 0])
    drawn = members(spec)
    expected = [(i, d, s) for i, d, s in itertools.product(["normal", "uniform"], [0.5, 0.0], [7, 3])]
    assert [(m.hyperparameters.init, m.hyperparameters.dropout, m.seeds.init) for m in drawn] == expected


def test_random_seeds_belong_to_a_point() -> None:
    """A wider grid, another order of values, or more seeds a point leave the members that there are as they are."""
    small = members(zoo({"kind": "grid", "seeds": {"random": 3}}, init=["uniform"], dropout=[0, 0.5]))
    wide = members(zoo({"kind": "grid", "seeds": {"random": 3}}, init=["normal", "uniform"], dropout=[0.3, 0.5, 0]))
    more = members(zoo({"kind": "grid", "seeds": {"random": 4}}, init=["uniform"], dropout=[0, 0.5]))
    assert {member.id for member in small} < {member.id for member in wide}
    assert {member.id for member in small} < {member.id for member in more}
    assert len({member.seeds.init for member in wide}) == len(wide) == 18


def test_random_seeds_depend_on_the_zoos_seed_and_are_otherwise_fixed() -> None:
    def drawn(seed: int) -> list[int]:
        return [m.seeds.init for m in members(zoo({"kind": "grid", "seeds": {"random": 2}}, seed, dropout=[0, 0.5]))]

    assert drawn(0) == drawn(0)
    assert not set(drawn(0)) & set(drawn(1))
    assert all(0 <= seed < 2**31 for seed in drawn(0))
    assert drawn(0) == [115986202, 586211821, 2093284056, 979838897]  # must never change: runs are found by them


@pytest.mark.parametrize("source", ["init", "order", "dropout"])
@pytest.mark.parametrize("seeds", [{"count": 3, "first": 5}, {"values": [5, 6, 9]}, {"random": 3}])
def test_one_source_of_randomness_alone_can_vary(source: str, seeds: dict[str, Any]) -> None:
    drawn = members(zoo({"kind": "seed", "seeds": seeds | {"vary": [source]}}, dropout=[0.5]))
    everything = members(zoo({"kind": "seed", "seeds": seeds}, dropout=[0.5]))
    for name in ("init", "order", "dropout"):
        numbers = [getattr(member.seeds, name) for member in drawn]
        all_numbers = [getattr(member.seeds, name) for member in everything]
        assert numbers == (all_numbers if name == source else all_numbers[:1] * 3)
        assert len(set(all_numbers)) == 3
    assert drawn[0] == everything[0]


def test_a_seed_zoo_is_split_by_seed_and_a_grid_by_point() -> None:
    seed = members(zoo({"kind": "seed", "seeds": {"count": 50}}))
    both = members(zoo({"kind": "grid", "seeds": {"count": 50}}, dropout=[0, 0.5]))
    assert len({member.group for member in seed}) == 50
    assert len({member.group for member in both}) == 2


@pytest.mark.parametrize("seeds", [{"count": 10}, {"random": 10}])
def test_some_members_of_a_grid_are_those_of_the_whole_grid_in_its_order(seeds: dict[str, Any]) -> None:
    whole = [member.id for member in members(zoo({"kind": "grid", "seeds": seeds}, **MNIST))]
    some = members(zoo({"kind": "grid", "seeds": seeds, "members": 16}, **MNIST))
    assert len(some) == 16
    assert [member.id for member in some] == sorted((member.id for member in some), key=whole.index)
    for name in FACTORS:
        assert {getattr(member.hyperparameters, name) for member in some} == set(MNIST[name])


def test_the_same_model_twice_is_refused() -> None:
    first, second = members(zoo({"kind": "seed", "seeds": [1, 2]}))
    assert unique([first, second]) == (first, second)
    with pytest.raises(ValueError, match="same model twice"):
        unique([first, second, first])


def test_a_fixed_population_is_asked_once_and_prunes_nothing() -> None:
    spec = zoo({"kind": "seed", "seeds": [1, 2]})
    source = population(spec, "hash")
    assert isinstance(source, FixedPopulation)
    first, second = source.ask()
    assert source.prune(3, {first.id: 0.0, second.id: 1.0}) == set()
    with pytest.raises(ValueError, match=f"no result for 1 of 2 members, the first is {second.id}"):
        source.tell({first.id: Result("finished", [0.1])})
    source.tell({first.id: Result("finished", [0.1]), second.id: Result("diverged", [])})
    assert source.ask() == ()


@settings(max_examples=40, deadline=None)
@given(
    init=st.lists(st.sampled_from(ALL_INITS), min_size=1, unique=True),
    rates=st.lists(st.floats(1e-9, 10), min_size=1, max_size=3, unique=True),
    decays=st.lists(st.floats(0, 10), min_size=1, max_size=3, unique=True),
    seeds=st.one_of(
        st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=3, unique=True),
        st.fixed_dictionaries({"random": st.integers(1, 3)}),
    ),
)
def test_ids_are_unique_and_repeat(init: list[str], rates: list[float], decays: list[float], seeds: Any) -> None:
    spec = zoo({"kind": "grid", "seeds": seeds}, init=init, learning_rate=rates, weight_decay=decays)
    drawn = members(spec)
    count = seeds["random"] if isinstance(seeds, dict) else len(seeds)
    assert len({member.id for member in drawn}) == len(init) * len(rates) * len(decays) * count
    assert [member.id for member in drawn] == [member.id for member in members(spec)]
