"""Permuting hidden units: the function stays, checked by running the networks."""

import numpy as np
import pytest
import torch

from tests.training.helpers import SMALL_RESNET
from tests.zoo import synthetic_zoo
from weightzoo.architectures.module import build_module
from weightzoo.errors import LayoutError
from weightzoo.zoo import Permute, Symmetries


def outputs(built, vector, images):
    module = build_module(built, "tanh").double()
    state = {name: torch.tensor(array).double() for name, array in built.layout.unflatten(vector).items()}
    module.load_state_dict(state)
    return module.eval()(images).detach().numpy()


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_a_permuted_model_computes_the_same(shape):
    from weightzoo.architectures import architecture

    built = architecture("cnn-s" if shape[0] == 1 else "cnn-m", shape, 10)
    drawn = np.random.default_rng(0)
    vector = 0.3 * drawn.normal(size=built.layout.size)
    images = torch.tensor(drawn.normal(size=(4, *shape)))
    permute = Permute(Symmetries.of(built), seed=3)
    for _ in range(3):
        moved = permute(vector)
        assert (moved != vector).mean() > 0.8
        np.testing.assert_array_equal(np.sort(moved), np.sort(vector))
        np.testing.assert_allclose(outputs(built, moved, images), outputs(built, vector, images), rtol=1e-10)


def test_a_permuted_resnet_computes_the_same_with_its_running_statistics():
    drawn = np.random.default_rng(0)
    vector = 0.3 * drawn.normal(size=SMALL_RESNET.layout.size)
    for name in SMALL_RESNET.layout.buffers:
        vector[SMALL_RESNET.layout.span(name)] = drawn.uniform(
            0.1, 2, size=SMALL_RESNET.layout.unflatten(vector)[name].shape
        )
    images = torch.tensor(drawn.normal(size=(4, *SMALL_RESNET.input_shape)))
    moved = Permute(Symmetries.of(SMALL_RESNET), seed=3)(vector)
    assert (moved != vector).mean() > 0.8
    np.testing.assert_allclose(outputs(SMALL_RESNET, moved, images), outputs(SMALL_RESNET, vector, images), rtol=1e-9)


def test_a_named_permutation_moves_those_units_alone(zoo):
    index = zoo.symmetries.index({"conv1": np.array([1, 0, 2, 3, 4, 5, 6, 7])})
    before, after = zoo.layout.unflatten(zoo.weights([0], [0])[0, 0]), None
    after = zoo.layout.unflatten(zoo.weights([0], [0])[0, 0][index])
    np.testing.assert_array_equal(after["conv1.bias"], before["conv1.bias"][[1, 0, 2, 3, 4, 5, 6, 7]])
    np.testing.assert_array_equal(after["conv2.weight"], before["conv2.weight"][:, [1, 0, 2, 3, 4, 5, 6, 7]])
    for name in ("conv2.bias", "conv3.weight", "fc1.weight", "fc2.weight", "fc2.bias"):
        np.testing.assert_array_equal(after[name], before[name])
    assert [(group.name, group.size) for group in zoo.symmetries] == [
        ("conv1", 8),
        ("conv2", 6),
        ("conv3", 4),
        ("fc1", 20),
    ]


def test_draws_are_repeatable_and_differ_from_call_to_call(zoo):
    vectors = torch.from_numpy(zoo.weights([0, 3], [0, 1]))
    first, second = Permute(zoo.symmetries, seed=1), Permute(zoo.symmetries, seed=1)
    calls = [first(vectors) for _ in range(3)]
    assert all(torch.equal(call, second(vectors)) for call in calls)
    assert not torch.equal(calls[0], calls[1])
    assert not torch.equal(calls[0], Permute(zoo.symmetries, seed=2)(vectors))
    np.testing.assert_array_equal(Permute(zoo.symmetries, seed=1)(vectors.numpy()), calls[0].numpy())


def test_all_orders_come_up(zoo):
    drawn = {tuple(zoo.symmetries.random_index(0, call)[zoo.layout.span("conv3.bias")]) for call in range(400)}
    assert len(drawn) == 24


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 0, 1, 2], [1, 2, 3, 4]])
def test_what_is_no_permutation_is_refused(zoo, order):
    with pytest.raises(LayoutError, match=r"conv3: expected a permutation of 0\.\.3"):
        zoo.symmetries.index({"conv3": np.array(order)})


def test_records_of_another_architecture_have_their_own_symmetries():
    built = synthetic_zoo.wide("cnn-m")
    assert [group.size for group in Symmetries.of(built)] == [16, 32, 15, 20]
