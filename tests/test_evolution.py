"""Population-based training: the decisions by hand, the members as a population, and runs with their lineage."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from tests.execution.support import artifact_bytes, image_data, store, train
from tests.execution.test_real_engines import CNN, real_engine
from weightzoo.errors import SpecError
from weightzoo.evolution import Evolution, explored, first_generation, succession
from weightzoo.execution.parents import parent_state
from weightzoo.execution.retraining import recorded_member, retrain
from weightzoo.members import Hyperparameters, Member
from weightzoo.plan import make_plan
from weightzoo.points import Result
from weightzoo.population import population
from weightzoo.registry import Registry
from weightzoo.rehearsal import rehearsed
from weightzoo.spec import EvolutionConfiguration, Factors, Range, Scale, ZooSpec, parse_params
from weightzoo.verify import verify_zoo
from weightzoo.zoo import Zoo

FACTORS = Factors(
    init=("normal",),
    activation=("tanh",),
    learning_rate=Range(low=1e-3, high=1e-1, log=True),
    weight_decay=(0.0, 1e-4, 1e-3),
    dropout=Range(low=0.0, high=0.5),
)
RULE = EvolutionConfiguration(kind="evolution", models=5, generations=3, exploit=0.4)
CHOSEN = [Hyperparameters("normal", "tanh", "adam", 10.0**-k, 1e-4, 0.2) for k in (1.2, 1.5, 2.0, 2.5, 2.9)]


def test_the_worst_and_who_diverged_go_on_from_the_best_and_the_others_as_they_are():
    following = succession([0.5, 0.9, 0.1, 0.7, math.nan], CHOSEN, FACTORS, RULE, seed=0, generation=1)
    assert [following[place].parent for place in (1, 3)] == [1, 3]
    assert [following[place].hyperparameters for place in (1, 3)] == [CHOSEN[1], CHOSEN[3]]
    for place in (0, 2, 4):  # the two worst of those alive, and the diverged one
        assert following[place].parent in (1, 3)
        assert following[place].hyperparameters not in CHOSEN
    again = succession([0.5, 0.9, 0.1, 0.7, math.nan], CHOSEN, FACTORS, RULE, seed=0, generation=1)
    assert again == following
    assert succession([0.5, 0.9, 0.1, 0.7, math.nan], CHOSEN, FACTORS, RULE, seed=0, generation=2) != following


def test_without_exploitation_only_who_diverged_is_replaced():
    alone = RULE.model_copy(update={"exploit": 0.0})
    following = succession([0.5, 0.9, math.nan, 0.7, 0.1], CHOSEN, FACTORS, alone, seed=0, generation=1)
    assert [one.parent for one in following] == [0, 1, 1, 3, 4]
    with pytest.raises(ValueError, match="all members diverged"):
        succession([math.nan] * 5, CHOSEN, FACTORS, alone, seed=0, generation=1)


def test_exploration_by_hand():
    still = RULE.model_copy(update={"resample": 0.0})
    up, down = (explored(CHOSEN[2], FACTORS, still, [0.5, way] * 3) for way in (0.2, 0.8))
    assert (up.learning_rate, up.weight_decay) == (pytest.approx(0.012), 1e-3)  # times 1.2; the next in the list
    assert (down.learning_rate, down.weight_decay) == (pytest.approx(0.01 / 1.2), 0.0)
    assert (up.dropout, down.dropout) == (pytest.approx(0.24), pytest.approx(0.2 / 1.2))
    edge = dataclasses.replace(CHOSEN[0], learning_rate=0.09, weight_decay=1e-3)
    moved = explored(edge, FACTORS, still, [0.5, 0.2] * 3)
    assert (moved.learning_rate, moved.weight_decay) == (0.1, 1e-3)  # neither leaves its range or list
    anew = explored(CHOSEN[0], FACTORS, RULE.model_copy(update={"resample": 1.0}), [0.5, 0.5] * 3)
    assert (anew.learning_rate, anew.weight_decay, anew.dropout) == (pytest.approx(0.01), 1e-4, 0.25)
    assert (anew.init, anew.activation, anew.optimizer) == ("normal", "tanh", "adam")


def test_the_first_generation_is_drawn_over_all_of_the_factors():
    drawn = first_generation(FACTORS, 2000, seed=3)
    rates = np.log10([one.learning_rate for one in drawn])
    assert rates.min() >= -3
    assert rates.max() <= -1
    assert abs(rates.mean() + 2) < 0.05
    assert {one.weight_decay for one in drawn} == {0.0, 1e-4, 1e-3}
    assert drawn[:7] == first_generation(FACTORS, 7, seed=3)


def zoo_spec(epochs: int = 2, generations: int = 3, training: dict | None = None, **configuration) -> ZooSpec:
    zoo = {
        "dataset": "noise",
        "architecture": "cnn-s",
        "configuration": {"kind": "evolution", "models": 4, "generations": generations, "exploit": 0.5, **configuration},
        "factors": {"init": "kaiming_uniform", "activation": "tanh", "learning_rate": {"low": 1e-3, "high": 0.1, "log": True}},
        "training": {"epochs": epochs, "batch_size": 4, **(training or {})},
    }  # fmt: skip
    return parse_params({"build": ["z"], "datasets": {"noise": {}}, "zoos": {"z": zoo}}).zoo("z")


def finished(*values: float) -> list[Result]:
    return [Result("finished", [0.0, value]) for value in values]


def test_generations_follow_from_results_alone_and_go_with_their_ancestors():
    asked: list[tuple[Member, ...]] = []
    for _ in range(2):  # a killed build asks and tells again what it had asked and told
        evolution = population(zoo_spec(), "hash")
        assert isinstance(evolution, Evolution)
        first = evolution.ask()
        with pytest.raises(ValueError, match="tell the results"):
            evolution.ask()
        with pytest.raises(ValueError, match="no result"):
            evolution.tell({})
        evolution.tell(dict(zip([one.id for one in first], finished(0.1, 0.9, 0.5, 0.2), strict=True)))
        second = evolution.ask()
        evolution.tell({one.id: Result("diverged", [math.nan]) for one in second})
        assert evolution.ask() == ()  # none is left to go on from
        asked += [first, second]
    assert asked[0] == asked[2]
    assert asked[1] == asked[3]
    first, second = asked[:2]
    assert all(one.parent is None for one in first)
    for place, child in enumerate(second):
        parent = next(one for one in first if one.id == child.parent.member)
        assert child.parent.epoch == 2
        assert (child.group, child.split) == (parent.group, parent.split)
        assert parent == first[place] if place in (1, 2) else parent in (first[1], first[2])
    assert len({one.seeds for one in first + second}) == 8


def test_losses_are_better_the_smaller_they_are():
    evolution = population(zoo_spec(objective="val_loss", exploit=0.25), "hash")
    first = evolution.ask()
    evolution.tell(dict(zip([one.id for one in first], finished(0.4, 0.1, 0.9, 0.5), strict=True)))
    assert evolution.ask()[2].parent.member == first[1].id


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, empty_database):
    """A store with an evolution of three generations, trained by the lanes engine."""
    import shutil

    folder = tmp_path_factory.mktemp("evolved")
    shutil.copy(empty_database, folder / "mlflow.db")
    spec = zoo_spec()
    member = population(spec, image_data().content_hash).ask()[0]
    return folder, spec, real_engine("lanes", member), train(folder, spec, real_engine("lanes", member))


def test_every_member_is_a_run_whose_weights_start_as_its_parent_ended(recorded):
    folder, _, engine, summary = recorded
    tracking = store(folder)
    assert len(summary.members) == summary.trained == 12
    for identity in summary.members[4:]:
        member = recorded_member(tracking, identity)
        assert member.parent.member in summary.members
        assert (
            tracking.find(identity).data.tags["mlflow.parentRunId"] == tracking.find(member.parent.member).info.run_id
        )
        ended, started = tracking.checkpoint(member.parent.member, 2), tracking.checkpoint(identity, 0)
        for name, values in ended.items():
            assert np.array_equal(values, started[name])
    last = recorded_member(tracking, summary.members[-1])
    for result in retrain(last, image_data(), engine, parent_state(tracking, last)):
        weights = CNN.layout.flatten(tracking.checkpoint(last.id, result.epoch))
        assert np.array_equal(weights, result.state.weights[0])


class BreaksOff:
    """An engine that Ctrl-C reaches behind a number of epochs, over all generations."""

    def __init__(self, engine, epochs: int) -> None:
        self.engine, self.name, self.left = engine, engine.name, epochs

    def supports(self, *arguments):
        return self.engine.supports(*arguments)

    def train(self, *arguments, **named):
        for result in self.engine.train(*arguments, **named):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            yield result


@pytest.mark.parametrize("epochs", [2, 3, 5, 7])
def test_killed_anywhere_it_ends_in_the_same_bytes(recorded, new_store, epochs: int):
    folder, spec, engine, summary = recorded
    parts = new_store("parts")
    with pytest.raises(KeyboardInterrupt):
        train(parts, spec, BreaksOff(engine, epochs))
    again = train(parts, spec, engine)
    assert again.digest == summary.digest
    assert artifact_bytes(parts) == artifact_bytes(folder)
    assert train(parts, spec, engine).trained == 0


def test_the_zoo_knows_its_lineage_and_passes_its_checks(recorded, tmp_path):
    folder, _, _, summary = recorded
    runs = Registry(f"sqlite:///{folder}/mlflow.db").members(summary.members, "z")
    zoo: Zoo = runs.assemble(tmp_path / "zoo", data=image_data())
    assert zoo.models["parent"].isna().sum() == 4
    assert zoo.models["parent_epoch"].dropna().tolist() == [2] * 8
    for group, own in zoo.models.groupby("group"):
        assert own["split"].nunique() == 1, group
    assert not [one for one in verify_zoo(zoo.path, data=image_data()) if one.severity == "error"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"training": {"checkpoints": [0, 1]}}, "training.checkpoints: epoch 2 is missing, which the next generation"),
        ({"training": {"schedule": "cosine"}}, "training.schedule: got cosine, which would start anew"),
        ({"exploit": 0.6}, "configuration.exploit"),
        ({"models": 1}, "configuration.models"),
    ],
)
def test_what_can_not_go_on_is_refused(given: dict, message: str):
    with pytest.raises(SpecError, match=message):
        zoo_spec(**given)


def test_a_plan_and_a_rehearsal_know_generations():
    spec = zoo_spec(generations=30)
    assert spec.models == 120
    small = rehearsed(spec, Scale(members=8, epochs=1))
    assert (small.configuration.models, small.configuration.generations, small.training.epochs) == (4, 2, 1)
    params = parse_params(
        {"build": [], "datasets": {"digits": {}}, "zoos": {"z": spec.model_dump() | {"dataset": "digits"}}}
    )
    plan = make_plan("z", params, calibrate=False)
    assert (plan.models, plan.depends_on_results) == (120, True)
    assert (
        plan.protocol["evolution"] == "30 generations of 4 models, for val accuracy; the worst 50% go on from the best"
    )
