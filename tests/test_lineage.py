"""Members that start from the models of another zoo: which, from what weights, and that their lineage is recorded."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest

from tests.execution.support import artifact_bytes, store
from tests.execution.test_real_engines import Interrupted
from tests.zoo import synthetic_zoo
from weightzoo.architectures import architecture
from weightzoo.datasets import prepare
from weightzoo.datasets.images import ImageData
from weightzoo.errors import LayoutError, MissingError, NotFoundError, QueryError, SpecError
from weightzoo.execution import recorded_member, train_descendants, train_zoo
from weightzoo.execution.parents import parent_state
from weightzoo.execution.retraining import retrain
from weightzoo.lineage import architecture_on, finetuned_members, inherited, origins, parent_runs, start_weights
from weightzoo.members import Cohort
from weightzoo.registry import Registry
from weightzoo.spec import DatasetSpec, FinetuneSpec, Start, parse_params
from weightzoo.training import choose_engine
from weightzoo.training.evaluation import evaluate
from weightzoo.training.initial import initial_weights
from weightzoo.training.protocol import TrainState
from weightzoo.zoo import Zoo, write_zoo


def finetune_spec(**settings) -> FinetuneSpec:
    section = {"start": {"zoo": "dense"}, "dataset": "digits", "training": {"epochs": 3, "batch_size": 10}} | settings
    content = {"build": [], "datasets": {"digits": {}}, "zoos": {}, "finetune": {"tuned": section}}
    return parse_params(content).finetuned("tuned")


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return prepare("digits", DatasetSpec(train=60, val=40))


def fewer_classes(data: ImageData, classes: int) -> ImageData:
    """The images of the first classes only."""
    chosen = {split: labels < classes for split, labels in data.labels.items()}
    return dataclasses.replace(
        data,
        name="some digits",
        images={split: images[chosen[split]] for split, images in data.images.items()},
        labels={split: labels[chosen[split]] for split, labels in data.labels.items()},
        class_names=data.class_names[:classes],
    )


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory) -> Zoo:
    """Model 1 diverged at epoch 2 of 4, model 2 was pruned behind epoch 3."""
    head = synthetic_zoo.header(6)
    return Zoo.open(write_zoo(tmp_path_factory.mktemp("zoos") / "synthetic", head, synthetic_zoo.records(head)))


def test_the_last_epoch_is_each_models_own_and_models_without_weights_are_left_out(synthetic, caplog, tmp_path):
    with caplog.at_level(logging.WARNING, "weightzoo"):
        found = origins(synthetic, Start(zoo="synthetic"))
    ids = synthetic.models["member"]
    assert [(one.parent.member, one.parent.epoch) for one in found] == [
        (ids[number], 3 if number == 2 else 4) for number in (0, 2, 3, 4, 5)
    ]
    assert "1 of 6 models have no finite weights at epoch last" in caplog.text
    for one, number in zip(found, (0, 2, 3, 4, 5), strict=True):
        member = synthetic_zoo.member(number)
        assert (one.hyperparameters, one.seeds) == (member.hyperparameters, member.seeds)
        assert one.parent.group == member.group
    at_one = origins(synthetic, Start(zoo="synthetic", epoch=1))
    assert [one.parent.epoch for one in at_one] == [1] * 6
    best = origins(synthetic, Start(zoo="synthetic", epoch="best"))
    by_member = dict(zip(ids, synthetic.models["best_epoch"], strict=True))
    assert all(one.parent.epoch == by_member[one.parent.member] for one in best)
    assert len({one.parent.epoch for one in best}) > 1
    some = synthetic_zoo.header(6, kept=(1, 3))  # the best of those that the zoo holds
    partial = Zoo.open(write_zoo(tmp_path / "partial", some, synthetic_zoo.records(some)))
    for one in origins(partial, Start(zoo="partial", epoch="best")):
        number = ids.tolist().index(one.parent.member)
        own = partial.epochs[partial.epochs["model"] == number].set_index("epoch")["val_accuracy"]
        assert one.parent.epoch == (1 if own[1] >= own[3] else 3)


def test_a_condition_chooses_models(synthetic):
    where = "optimizer == 'sgd' and seed_init > 2 and diverged_epoch is None and parent is None"
    found = origins(synthetic, Start(zoo="synthetic", where=where))
    assert [one.seeds.init for one in found] == [3]
    with pytest.raises(NotFoundError, match="no model that fulfils 'seed_init > 99'"):
        origins(synthetic, Start(zoo="synthetic", where="seed_init > 99"))
    with pytest.raises(NotFoundError, match="does not hold epoch 9; it holds 0-4"):
        origins(synthetic, Start(zoo="synthetic", epoch=9))
    with pytest.raises(QueryError, match="did you mean seed_init"):
        origins(synthetic, Start(zoo="synthetic", where="seed_int > 99"))


def test_members_are_each_parent_by_each_point_and_seed(synthetic, digits):
    own = finetuned_members(finetune_spec(), synthetic, digits)
    assert [member.hyperparameters for member in own] == [
        synthetic_zoo.member(number).hyperparameters for number in (0, 2, 3, 4, 5)
    ]
    assert {member.protocol.epochs for member in own} == {3}
    spec = finetune_spec(factors={"learning_rate": [0.1, 0.2], "optimizer": "sgd"}, seeds={"random": 3})
    members = finetuned_members(spec, synthetic, digits)
    assert len(members) == 5 * 2 * 3
    assert {member.hyperparameters.optimizer for member in members} == {"sgd"}
    assert len({member.seeds for member in members}) == 5 * 3
    assert [member.hyperparameters.activation for member in members[::6]] == ["tanh", "gelu", "tanh", "relu", "gelu"]
    assert members == finetuned_members(spec, synthetic, digits)


def test_the_head_alone_is_drawn_anew_for_other_classes(synthetic, digits):
    for classes in (10, 7):
        data = digits if classes == 10 else fewer_classes(digits, classes)
        members = finetuned_members(finetune_spec(), synthetic, data)[:3]
        built = architecture_on(synthetic, data)
        weights, fresh = start_weights(synthetic, built, members), initial_weights(built, members)
        head = built.layout.span("fc2")
        for row, number in enumerate((0, 2, 3)):
            parent = synthetic.weights([number], [3 if number == 2 else 4])[0, 0]
            np.testing.assert_array_equal(weights[row, : head.start], parent[: head.start])
            expected = parent[head] if classes == 10 else fresh[row, head]
            np.testing.assert_array_equal(weights[row, head], expected)


def test_images_of_another_shape_are_refused_in_one_line(synthetic, digits):
    member = finetuned_members(finetune_spec(), synthetic, digits)[0]
    state = synthetic.state_dict(0, 4)
    with pytest.raises(
        LayoutError, match=r"conv1.weight: .* has \[8, 1, 5, 5\], .* has \[8, 3, 5, 5\]; choose"
    ) as caught:
        inherited(architecture("cnn-s", (3, 28, 28), 10), member, state)
    assert "\n" not in str(caught.value)
    del state["conv2.bias"]
    with pytest.raises(LayoutError, match=r"conv2.bias: the model started from has nothing"):
        inherited(synthetic.architecture, member, state)
    small = dataclasses.replace(digits, images={s: images[..., :20, :20] for s, images in digits.images.items()})
    with pytest.raises(SpecError, match="takes images of 1x28x28"):
        architecture_on(synthetic, small)


@pytest.mark.parametrize("name", ["reference", "torch", "lanes"])
def test_given_weights_are_trained_as_if_they_were_fresh(name, digits):
    built = architecture("cnn-s", (1, 28, 28), 10)
    cohort = Cohort(tuple(synthetic_zoo.member(number, last=2) for number in (0, 12)))
    engine = choose_engine(name, built, cohort, "cpu", threads=1)
    given = TrainState.given(initial_weights(built, cohort.members), cohort.optimizer)
    fresh, started = (list(engine.train(built, cohort, digits, resume=state)) for state in (None, given))
    assert [result.epoch for result in started] == [result.epoch for result in fresh] == [0, 1, 2]
    for one, other in zip(started, fresh, strict=True):
        assert one.state.weights.tobytes() == other.state.weights.tobytes()
        assert one.metrics.train_loss.tobytes() == other.metrics.train_loss.tobytes()
    other = TrainState.given(given.weights[::-1].copy(), cohort.optimizer)
    first = next(iter(engine.train(built, cohort, digits, resume=other)))
    train = evaluate(built, cohort.activation, other.weights, digits.inputs["train"], digits.labels["train"])
    np.testing.assert_allclose(first.metrics.train_loss, train.loss, rtol=1e-5)


DENSE = {
    "dataset": "digits",
    "architecture": "cnn-s",
    "configuration": {"kind": "seed", "seeds": {"count": 6}},
    "factors": {"init": "kaiming_uniform", "activation": "tanh"},
    "training": {"epochs": 2, "batch_size": 10},
}


@pytest.fixture
def dense(new_store, digits) -> tuple[Path, Zoo]:
    """A store with a trained zoo, and the zoo packed."""
    folder = new_store("store")
    spec = parse_params({"build": [], "datasets": {"digits": {}}, "zoos": {"dense": DENSE}}).zoo("dense")
    members = train_zoo("dense", spec, digits, store(folder), threads=1).members
    registry = Registry(f"sqlite:///{folder}/mlflow.db")
    return folder, registry.members(members, "dense").assemble(folder / "zoos" / "dense", data=digits)


def test_lineage_is_recorded_in_runs_registry_and_zoo_and_training_can_be_interrupted(dense, digits, new_store):
    folder, source = dense
    data = fewer_classes(digits, 7)
    built = architecture_on(source, data)
    members = finetuned_members(finetune_spec(), source, data)

    def train(place: Path, engine="lanes"):
        return train_descendants(
            "z",
            members,
            lambda some: start_weights(source, built, some),
            built,
            data,
            store(place),
            engine=engine,
            threads=1,
            parent_runs=parent_runs(source),
        )

    engine = choose_engine("lanes", built, Cohort(members[:1]), "cpu", threads=1)
    for at in (0, 2):
        with pytest.raises(KeyboardInterrupt):
            train(folder, Interrupted(engine, at))
    assert train(folder).statuses == {"finished": 6}
    assert train(folder).trained == 0
    elsewhere = new_store("elsewhere")  # where the parents have no runs
    train(elsewhere)
    assert artifact_bytes(folder) == artifact_bytes(elsewhere)

    registry = Registry(f"sqlite:///{folder}/mlflow.db")
    runs = registry.query("zoo == 'z' and parent is not None and parent_epoch == 2")
    tuned = runs.assemble(folder / "zoos" / "tuned", data=data)
    by_member = source.models.set_index("member")
    assert len(tuned) == 6
    for number, row in enumerate(tuned.models.itertuples()):
        assert row.split == by_member["split"][row.parent]
        assert (row.group, row.parent_epoch) == (by_member["group"][row.parent], 2)
        tags = store(folder).find(row.member).data.tags
        assert tags["mlflow.parentRunId"] == source.provenance.set_index("member")["run_id"][row.parent]
        assert (tags["weightzoo.parent"], tags["weightzoo.configuration"]) == (row.parent, "finetune")
        assert "mlflow.parentRunId" not in store(elsewhere).find(row.member).data.tags
        first = tuned.weights([number], [0], "conv2")[0, 0]
        np.testing.assert_array_equal(first, source.weights(row.parent, [2], "conv2")[0, 0])
    assert not np.array_equal(tuned.weights(epochs=3), tuned.weights(epochs=0))

    again = recorded_member(store(folder), members[3].id)
    assert again == members[3]
    state = parent_state(store(folder), again)
    *_, last = retrain(again, data, engine, state)
    assert last.state.weights[0].tobytes() == tuned.weights(again.id, [3])[0, 0].tobytes()
    with pytest.raises(
        MissingError, match=f"starts from member {again.parent.member} behind epoch 2, whose checkpoint"
    ):
        parent_state(store(elsewhere), again)
    with pytest.raises(MissingError, match="give the weights of that"):
        retrain(again, data, engine)


def test_members_without_a_parent_have_no_such_tags(dense):
    folder, source = dense
    tags = store(folder).find(source.models["member"][0]).data.tags
    assert not {"weightzoo.parent", "weightzoo.parent_epoch", "mlflow.parentRunId"} & set(tags)
    assert parent_state(store(folder), recorded_member(store(folder), source.models["member"][0])) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"start": {"zoo": "dense", "epoch": "first"}},
            r"finetune.tuned.start.epoch: got 'first', expected last, best",
        ),
        ({"start": {"zoo": "dense", "epoch": -1}}, r"finetune.tuned.start.epoch: got -1, expected last"),
        ({"start": {}}, r"finetune.tuned.start.zoo: missing; add `zoo`, the name of a packed zoo"),
        ({"start": {"zoo": "dense", "were": "x"}}, r"finetune.tuned.start.were: unknown key; did you mean 'where'"),
        ({"dataset": "digts"}, r"finetune.tuned.dataset: no data set 'digts' .* did you mean 'digits'"),
        (
            {"factors": {"activation": ["relu"]}},
            r"finetune.tuned.factors.activation: unknown key; the keys here are init",
        ),
        (
            {"factors": {"learning_rate": [0]}},
            r"finetune.tuned.factors.learning_rate\[0\]: got 0, expected a number above",
        ),
        ({"seeds": 3}, r"finetune.tuned.seeds: got 3, expected \{count: N\}"),
    ],
)
def test_mistakes_in_a_section_are_named(change, message):
    with pytest.raises(SpecError, match=message) as caught:
        finetune_spec(**change)
    assert "\n" not in str(caught.value)


def test_names_are_given_once():
    section = {"start": {"zoo": "dense"}, "dataset": "digits"}
    content = {"build": [], "datasets": {"digits": {}}, "zoos": {"dense": DENSE}, "finetune": {"dense": section}}
    with pytest.raises(SpecError, match=r"finetune.dense: there is a zoo of that name below `zoos`"):
        parse_params(content)
    with pytest.raises(SpecError, match=r"no zoo 'dense2' below `finetune` in params.yaml; did you mean 'dense'"):
        parse_params(content | {"zoos": {}}).finetuned("dense2")
