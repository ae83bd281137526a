"""Transfer: the tasks made of the same images, what is taken over of a source, and the prediction as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from tests.report.synthetic import HYP, synthetic_zoo
from weightzoo.analysis.dynamics.trained import fewer, member, protocol, taken_over, train_in_memory
from weightzoo.analysis.dynamics.transfer import predict_transfer, tasks_of
from weightzoo.analysis.results import Context
from weightzoo.architectures import architecture
from weightzoo.datasets import prepare
from weightzoo.members import Hyperparameters
from weightzoo.spec import DatasetSpec
from weightzoo.training.initial import initial_weights

CHOSEN = Hyperparameters("kaiming_uniform", "tanh", "adam", 1e-3, 0.0, 0.0)


def test_tasks_are_made_of_the_same_images(three_digits):
    rotated, parity = (task.data for task in tasks_of(three_digits))
    image, turned = three_digits.images["test"][5, 0], rotated.images["test"][5, 0]
    assert turned[0, 3] == image[3, 27]  # a quarter turn against the clock: the right edge becomes the upper
    assert np.array_equal(np.rot90(turned, -1), image)
    assert np.array_equal(rotated.labels["test"], three_digits.labels["test"])
    assert parity.class_names == ("0, 2", "1")
    assert np.array_equal(parity.labels["val"], three_digits.labels["val"] % 2)
    assert parity.images is three_digits.images


def test_only_a_last_layer_of_other_classes_starts_anew(three_digits):
    source, other = architecture("cnn-s", (1, 28, 28), 3), architecture("cnn-s", (1, 28, 28), 2)
    weights = np.random.default_rng(0).normal(size=(2, source.layout.size)).astype(np.float32)
    members = [member(other, three_digits, CHOSEN, seed, protocol(1)) for seed in (1, 2)]
    start, fresh = taken_over(source, weights, other, members), initial_weights(other, members)
    for name, _ in other.layout.parameters:
        expected = fresh[:, other.layout.span(name)] if name.startswith("fc2") else weights[:, source.layout.span(name)]
        assert np.array_equal(start[:, other.layout.span(name)], expected), name
    same = taken_over(source, weights, source, [member(source, three_digits, CHOSEN, 1, protocol(1))] * 2)
    assert np.array_equal(same, weights)


def test_training_in_memory_starts_from_what_is_given_and_keeps_the_order_of_members(three_digits):
    built = architecture("cnn-s", (1, 28, 28), 3)
    start = np.random.default_rng(1).normal(size=(3, built.layout.size), scale=0.1).astype(np.float32)
    chosen = [CHOSEN, Hyperparameters("normal", "tanh", "sgd", 1e-2, 0.0, 0.0), CHOSEN]
    members = [member(built, three_digits, own, seed, protocol(1, kept=(0, 1))) for seed, own in enumerate(chosen)]
    trained = train_in_memory(built, members, three_digits, start=start, threads=1)
    assert np.array_equal(trained.weights[:, 0], start)
    alone = train_in_memory(built, members[1:2], three_digits, start=start[1:2], threads=1)
    assert np.array_equal(trained.weights[1], alone.weights[0])
    assert trained.metrics["test_class_accuracy"].shape == (3, 2, 3)


def test_transfer_is_predicted_for_every_task(tmp_path):
    data = prepare("digits", DatasetSpec(train=60, val=20))
    factors = HYP | {"activation": ["tanh"], "weight_decay": [1e-3]}
    zoo = synthetic_zoo(tmp_path / "source", factors, seeds=2, epochs=3)
    found = predict_transfer(zoo, Context(quick=True, images=data))
    reached = found.tables["reached"]
    assert set(reached["task"]) == {"rotated", "parity"}
    assert set(reached["epoch"]) == {1, 3}
    assert reached["reached"].between(0, 1).all()
    assert reached.loc[reached["split"] == "test", "predicted"].notna().all()
    assert reached.loc[reached["split"] == "train", "predicted"].isna().all()
    splits = zoo.models["split"]
    assert set(splits[reached.loc[reached["split"] == "train", "model"]]) == {"train"}
    assert {one.features for one in found.scores} == {"source val accuracy", "s(W)"}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_fewer_images_are_the_first_ones(three_digits, split: str):
    assert np.array_equal(fewer(three_digits).images[split], three_digits.images[split][:2000])
