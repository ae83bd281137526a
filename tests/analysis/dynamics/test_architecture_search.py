"""Architecture search in memory: its space, what a graph's training is, and that all searches cost the same."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from weightzoo.analysis.dynamics import architecture_findings, architecture_search
from weightzoo.analysis.dynamics.architecture_findings import search_architectures
from weightzoo.analysis.dynamics.architecture_search import (
    BY_ACCURACY,
    BY_WEIGHTS,
    HYPERPARAMETERS,
    RANDOM,
    Bench,
    Space,
)
from weightzoo.analysis.dynamics.architecture_space import Graph, distributions, statistics_by_role
from weightzoo.analysis.dynamics.trained import member, protocol, train_in_memory
from weightzoo.analysis.results import Context
from weightzoo.architectures import architecture
from weightzoo.errors import NotFoundError, SpecError
from weightzoo.training.initial import initial_weights

SMALL = Graph((3, 4), (5, 3), 8)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EPOCHS", "LOOK", "FIRST"):
        monkeypatch.setattr(architecture_findings, name, {"EPOCHS": 2, "LOOK": 1, "FIRST": 2}[name])
    for name, value in {"SEEDS": 2, "EPOCHS": 2, "LOOK": 1, "FIRST": 2, "ROUNDS": 1, "ASKED": 2}.items():
        monkeypatch.setattr(architecture_search, name, value)


def test_a_graph_is_the_network_that_its_name_says():
    built = SMALL.build((1, 28, 28), 10)
    assert SMALL.name == "conv 3k5, conv 4k3, linear 8"
    assert [shape for _, shape in built.layout.parameters] == [
        (3, 1, 5, 5),
        (3,),
        (4, 3, 3, 3),
        (4,),
        (8, 4 * 5 * 5),  # 28 - 4 = 24, 12, 12 - 2 = 10, 5
        (8,),
        (10, 8),
        (10,),
    ]
    with pytest.raises(SpecError, match="images of 8x8 are too small"):
        SMALL.build((1, 8, 8), 10)


@pytest.mark.parametrize("known", [{}, {SMALL: 0.5, Graph((4,), (5,), 8): 0.25}])
def test_what_is_asked_for_is_new_and_in_the_space_and_a_function_of_the_seed(three_digits, known):
    space = Space(three_digits, 2000)
    asked = space.ask(0, known, 12)
    assert asked == space.ask(0, known, 12)
    assert asked != space.ask(1, known, 12)
    assert len({*asked, *known}) == 12 + len(known)
    for graph in asked:
        assert space.holds(graph)
        assert graph.build((1, 28, 28), 3).layout.size <= 2000
        assert set(graph.parameters) == set(distributions(graph.parameters))
    assert len({len(graph.channels) for graph in asked}) > 1


def test_a_space_without_graphs_is_refused(three_digits):
    with pytest.raises(NotFoundError, match="found 0 of 1 new architectures with up to 50"):
        Space(three_digits, 50).ask(0, {}, 1)


def test_tpe_asks_for_what_is_like_the_best(three_digits):
    """Of twenty graphs, the more units the better: it asks for more of them than chance does."""
    space = Space(three_digits, 10_000)
    known = {graph: float(graph.units) for graph in space.ask(0, {}, 20)}
    asked, by_chance = (np.mean([graph.units for graph in space.ask(5, own, 10)]) for own in (known, {}))
    assert asked > 1.3 * by_chance


def test_statistics_of_a_layer_are_at_one_place_in_all_graphs():
    rng = np.random.default_rng(0)
    tables: list[np.ndarray] = []
    for graph in (SMALL, Graph((3,), (5,), 8)):
        built = graph.build((1, 28, 28), 10)
        weights = rng.normal(size=(2, built.layout.size)).astype(np.float32)
        own = statistics_by_role(built, weights).reshape(2, 5, 2, 7)  # conv1 to conv3, fc1, fc2; weights and biases
        tables.append(own)
        last = weights[:, built.layout.span("fc2.weight")].astype(np.float64)
        expected = [last.mean(1), last.var(1), *np.quantile(last, (0.01, 0.25, 0.5, 0.75, 0.99), axis=1)]
        assert own[:, 4, 0] == pytest.approx(np.stack(expected, axis=1))
    assert (tables[0][:, 2] == 0).all()
    assert (tables[0][:, 1] != 0).all()
    assert (tables[1][:, 1:3] == 0).all()


def test_looking_and_training_on_is_training_in_full_bit_for_bit(three_digits, small):
    bench = Bench(three_digits, seed=3, threads=1)
    look, full = bench.look(SMALL), bench.finish(SMALL)
    members = [member(look.built, three_digits, HYPERPARAMETERS, seed, protocol(2, (1, 2))) for seed in bench.seeds]
    plain = train_in_memory(look.built, members, three_digits, threads=1)
    assert np.array_equal(look.state.weights, plain.weights[:, 0])
    assert np.array_equal(look.val_accuracy, plain.metrics["val_accuracy"][:, 1])
    assert np.array_equal(full.val_accuracy, plain.metrics["val_accuracy"][:, 2])
    assert np.array_equal(full.test_accuracy, plain.metrics["test_accuracy"][:, 2])
    change = plain.weights[:, 0] - initial_weights(look.built, members)
    assert np.array_equal(
        look.features, np.hstack([statistics_by_role(look.built, w) for w in (look.state.weights, change)])
    )


def test_all_searches_begin_alike_and_cost_the_same(three_digits, small):
    zoo = SimpleNamespace(architecture=architecture("cnn-s", (1, 28, 28), 3))
    found = search_architectures(zoo, Context(quick=True, images=three_digits))
    table = found.tables["architectures"]
    assert table.groupby("search")["epochs"].sum().to_dict() == {BY_WEIGHTS: 8, BY_ACCURACY: 8, RANDOM: 8}
    first = table[table["order"] < 2].groupby("order")["architecture"].nunique()
    assert first.tolist() == [1, 1]
    assert (table["parameters"] <= zoo.architecture.layout.size / 2).all()
    assert table.loc[table["epochs"] == 2, "val_accuracy"].notna().all()
    best = table.loc[table[table["search"] == BY_WEIGHTS]["val_accuracy"].idxmax(), "test_accuracy"]
    assert found.scores[0].value == pytest.approx(best)
    assert found.scores[4].value == pytest.approx(found.scores[0].value - found.scores[2].value)
    ends = found.tables["progress"].groupby("search")["epochs"].max()
    assert (ends == 8).all()
