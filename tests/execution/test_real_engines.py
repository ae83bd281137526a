"""The engines behind the same doors: interrupted and retrained, they give the same weights."""

from __future__ import annotations

import json

import pytest

from tests.execution.support import artifact_bytes, image_data, store, train, zoo_spec
from weightzoo.architectures import architecture
from weightzoo.errors import FormatError, SpecError
from weightzoo.execution import recorded_member, retrain
from weightzoo.members import Cohort, Member
from weightzoo.population import population
from weightzoo.training import choose_engine

CNN = architecture("cnn-s", (1, 28, 28), 3)


class Interrupted:
    """An engine that Ctrl-C reaches behind an epoch."""

    def __init__(self, engine, at):
        self.engine, self.name, self.at = engine, engine.name, at

    def supports(self, *arguments):
        return self.engine.supports(*arguments)

    def train(self, *arguments, **named):
        for result in self.engine.train(*arguments, **named):
            if result.epoch == self.at:
                raise KeyboardInterrupt
            yield result


def real_engine(name: str, member: Member):
    return choose_engine(name, CNN, Cohort((member,)), "cpu", threads=1)


@pytest.mark.parametrize("name", ["reference", "torch", "lanes"])
def test_interrupted_and_retrained(new_store, name):
    spec = zoo_spec(epochs=3)
    member = population(spec, image_data().content_hash).ask()[0]
    whole, parts = new_store("whole"), new_store("parts")
    train(whole, spec, real_engine(name, member))
    with pytest.raises(KeyboardInterrupt):
        train(parts, spec, Interrupted(real_engine(name, member), 2))
    train(parts, spec, real_engine(name, member))
    assert artifact_bytes(parts) == artifact_bytes(whole)
    tracking = store(whole)
    found = recorded_member(tracking, member.id)
    assert found.id == member.id
    for result in retrain(found, image_data(), real_engine(name, member)):
        state = tracking.checkpoint(member.id, result.epoch)
        assert CNN.layout.flatten(state).tobytes() == result.state.weights[0].tobytes()
    run = tracking.find(member.id)
    assert run.data.tags["weightzoo.engine"] == name


def test_a_definition_round_trip_through_json():
    for kind in ("grid", "seed", "search"):
        for member in population(zoo_spec(kind), image_data().content_hash).ask():
            back = Member.from_definition(json.loads(json.dumps(member.definition())), member.config_kind)
            assert back == member
            assert (back.id, back.group, back.split) == (member.id, member.group, member.split)


@pytest.mark.parametrize("broken", [{}, {"protocol": {}}, {"protocol": None}])
def test_something_else_is_no_definition(broken):
    with pytest.raises(FormatError, match="not the definition of a member"):
        Member.from_definition(broken, "grid")


def test_a_changed_definition_is_noticed(folder):
    train(folder, zoo_spec(epochs=1))
    tracking = store(folder)
    ((run,), *_) = tracking.zoo("z").known().values()
    definition = json.loads(tracking.find(run.run_id).data.tags["weightzoo.definition"])
    definition["hyperparameters"]["learning_rate"] *= 2
    tracking.client.set_tag(run.run_id, "weightzoo.definition", json.dumps(definition))
    with pytest.raises(FormatError, match="is not that of member"):
        recorded_member(tracking, run.run_id)


def test_other_data_are_refused():
    import dataclasses

    member = population(zoo_spec(), image_data().content_hash).ask()[0]
    other = dataclasses.replace(image_data(), mean=(0.25,))
    with pytest.raises(SpecError, match="was trained on noise"):
        retrain(member, other, real_engine("reference", member))
