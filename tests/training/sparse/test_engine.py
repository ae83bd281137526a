"""The engine that makes members sparse, against a loop in float64 for one member at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from tests.training import oracle as dense_oracle
from tests.training.helpers import SMALL_RESNET, TINY, VARIED, image_data, make_cohort
from tests.training.sparse import oracle
from weightzoo.datasets.images import ImageData
from weightzoo.errors import EngineError, LayoutError
from weightzoo.members import Cohort
from weightzoo.spec import Magnitude, Sparsification, Variational
from weightzoo.training import choose_engine
from weightzoo.training.evaluation import evaluate
from weightzoo.training.initial import initial_weights
from weightzoo.training.protocol import EpochResult, TrainState
from weightzoo.training.sparse import SparseEngine
from weightzoo.training.sparse.magnitude import pruned, target

# Noise that matters from the start, and a divergence that drops weights within two epochs.
NOISY = Variational(kl_weight=0.05, log_variance=-4.0)
PRUNING = Magnitude(sparsities=(0.3, 0.6))
ENGINES: dict[str, Callable[[], SparseEngine]] = {
    "together": SparseEngine,
    "in pieces": lambda: SparseEngine(members_at_once=2),
}


def sparse_cohort(method: Sparsification, **settings) -> Cohort:
    members = [own | {"init": ("kaiming_uniform", "kaiming_normal")[row % 2]} for row, own in enumerate(VARIED)]
    cohort = make_cohort(members, **settings)
    return Cohort(tuple(dataclasses.replace(member, sparsification=method) for member in cohort.members))


@pytest.fixture(scope="module")
def data() -> ImageData:
    return image_data()


def arrays_of(result: EpochResult) -> dict[str, np.ndarray]:
    assert result.sparse is not None
    measured = {f.name: getattr(result.metrics, f.name) for f in dataclasses.fields(result.metrics)}
    sparse = {f.name: getattr(result.sparse, f.name) for f in dataclasses.fields(result.sparse)}
    return {"weights": result.state.weights, **result.state.slots, **measured, **sparse}


def assert_same_bytes(one: EpochResult, other: EpochResult) -> None:
    assert one.epoch == other.epoch
    for name, array in arrays_of(one).items():
        assert array.tobytes() == arrays_of(other)[name].tobytes(), name


def close(found: np.ndarray, expected: np.ndarray, start: np.ndarray, sgd: bool) -> None:
    """Adam divides by the gradient's size: where that is close to zero, rounding is all that remains of it."""
    error = np.abs(found - expected) / np.abs(expected - start).max()
    assert np.quantile(error, 0.95) < 5e-4
    assert error.max() < (1e-3 if sgd else 2e-2)


@pytest.mark.parametrize(("optimizer", "activation"), [("adam", "tanh"), ("sgd", "relu"), ("adamw", "gelu")])
def test_variational_dropout_is_the_loop_for_one_member(data, optimizer, activation):
    cohort = sparse_cohort(NOISY, optimizer=optimizer, activation=activation)
    first, *results = SparseEngine().train(TINY, cohort, data)
    prunable = [TINY.layout.span(name) for name in TINY.prunable]
    dropped = 0
    for row, member in enumerate(cohort.members):
        start = initial_weights(TINY, (member,))[0]
        for result, epoch in zip(results, oracle.variational(TINY, member, data, start), strict=True):
            close(result.state.weights[row], epoch.weights, start, optimizer == "sgd")
            log_variance = result.state.slots["log_variance"][row]
            close(log_variance, epoch.log_variance, first.state.slots["log_variance"][row], optimizer == "sgd")
            mask = result.state.slots["mask"][row].astype(bool)
            assert (mask != epoch.mask).mean() < 0.01  # those whose log alpha is the threshold but for rounding
            dropped += (~mask).sum()
            np.testing.assert_allclose(result.metrics.train_loss[row], epoch.train_loss, rtol=1e-4)
            np.testing.assert_allclose(result.sparse.train_objective[row], epoch.train_objective, rtol=1e-4)
            outside = np.delete(mask, np.concatenate([np.arange(s.start, s.stop) for s in prunable]))
            assert outside.all()
    assert dropped > 0


@pytest.mark.parametrize("scope", ["network", "layer"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_magnitude_pruning_is_the_loop_for_one_member(data, optimizer, scope):
    method = Magnitude(sparsities=(0.3, 0.6), scope=scope)
    cohort = sparse_cohort(method, optimizer=optimizer)
    _, *results = SparseEngine().train(TINY, cohort, data)
    spans = [TINY.layout.span(name) for name in TINY.prunable]
    groups = [np.arange(s.start, s.stop) for s in spans]
    groups = groups if scope == "layer" else [np.concatenate(groups)]
    for row, member in enumerate(cohort.members):

        def mask_of_epoch(epoch: int, w: np.ndarray) -> np.ndarray:
            mask = np.ones(len(w), bool)
            for group in groups:
                count = round((0.3, 0.6)[epoch - 1] * len(group))
                mask[group[np.argsort(np.abs(w[group]), kind="stable")[:count]]] = False
            return mask

        start = initial_weights(TINY, (member,))[0]
        expected = oracle.masked(TINY, member, data, start, mask_of_epoch, dense_oracle.gradient)
        for result, weights in zip(results, expected, strict=True):
            found, mask = result.state.weights[row], result.state.slots["mask"][row]
            close(found, weights, start, optimizer == "sgd")
            np.testing.assert_array_equal(mask == 0, weights == 0)
            assert not found[mask == 0].any()
    for result, sparsity in zip(results, (0.3, 0.6), strict=True):
        np.testing.assert_allclose(result.sparse.sparsity, sparsity, atol=0.01)
        np.testing.assert_array_equal(result.sparse.train_objective, result.metrics.train_loss)
        if scope == "layer":
            np.testing.assert_allclose(result.sparse.layer_sparsity, sparsity, atol=0.05)


@pytest.mark.parametrize("method", [NOISY, PRUNING], ids=["variational", "magnitude"])
def test_what_is_measured_is_the_masked_network(data, method):
    *_, last = SparseEngine().train(TINY, sparse_cohort(method), data)
    mask = last.state.slots["mask"]
    masked = np.where(mask, last.state.weights, 0).astype(np.float32)
    assert not np.array_equal(mask, np.ones_like(mask))
    for split in ("val", "test"):
        expected = evaluate(TINY, "tanh", masked, data.inputs[split], data.labels[split], keep_logits=True)
        for name in ("loss", "accuracy", "class_accuracy"):
            np.testing.assert_array_equal(getattr(last.metrics, f"{split}_{name}"), getattr(expected, name))
    np.testing.assert_array_equal(last.metrics.probe_logits, expected.logits.astype(np.float16))
    spans = [TINY.layout.span(name) for name in TINY.prunable]
    by_layer = np.stack([(mask[:, span] == 0).mean(1) for span in spans], 1)
    np.testing.assert_allclose(last.sparse.layer_sparsity, by_layer, rtol=1e-6)
    sizes = [span.stop - span.start for span in spans]
    np.testing.assert_allclose(last.sparse.sparsity, by_layer @ sizes / sum(sizes), rtol=1e-6)


@pytest.mark.parametrize("method", [NOISY, PRUNING], ids=["variational", "magnitude"])
def test_epoch_zero_is_the_dense_network_that_was_given(data, method):
    cohort = sparse_cohort(method)
    weights = initial_weights(TINY, cohort.members)[::-1].copy()
    first = next(iter(SparseEngine().train(TINY, cohort, data, resume=TrainState.given(weights, "adam"))))
    assert first.epoch == 0
    assert first.state.weights.tobytes() == weights.tobytes()
    assert first.state.slots["mask"].all()
    assert not first.sparse.sparsity.any()
    train = evaluate(TINY, "tanh", weights, data.inputs["train"], data.labels["train"])
    np.testing.assert_array_equal(first.metrics.train_loss, train.loss)
    np.testing.assert_array_equal(first.sparse.train_objective, train.loss)
    if isinstance(method, Variational):
        log_variance = first.state.slots["log_variance"]
        assert (log_variance[:, TINY.layout.span("conv1.weight")] == method.log_variance).all()
        assert not log_variance[:, TINY.layout.span("conv1.bias")].any()


@pytest.mark.parametrize("make", ENGINES.values(), ids=ENGINES)
@pytest.mark.parametrize("method", [NOISY, PRUNING], ids=["variational", "magnitude"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_resumed_training_is_the_uninterrupted_one_bit_for_bit(data, make, method, optimizer):
    cohort = sparse_cohort(method, optimizer=optimizer)
    whole = list(make().train(TINY, cohort, data))
    for kept in (0, 1):
        again = list(make().train(TINY, cohort, data, resume=whole[kept].state))
        assert [result.epoch for result in again] == list(range(kept + 1, 3))
        for resumed, uninterrupted in zip(again, whole[kept + 1 :], strict=True):
            assert_same_bytes(resumed, uninterrupted)


@pytest.mark.parametrize("method", [NOISY, PRUNING], ids=["variational", "magnitude"])
def test_a_member_does_not_depend_on_its_neighbours_or_their_order(data, method):
    cohort = sparse_cohort(method, optimizer="sgd", epochs=1)
    *_, together = SparseEngine().train(TINY, cohort, data)
    *_, reversed_ = SparseEngine(members_at_once=2).train(TINY, cohort.select([4, 3, 2, 1, 0]), data)
    for row in range(len(cohort)):
        *_, alone = SparseEngine().train(TINY, cohort.select([row]), data)
        for name, array in arrays_of(together).items():
            # the gradient of log alpha goes with 1 / w: where that is close to zero, rounding matters
            tolerance = 1e-2 if name == "probe_logits" else 2e-3 if method is NOISY else 2e-4
            for other in (arrays_of(alone)[name][0], arrays_of(reversed_)[name][len(cohort) - 1 - row]):
                np.testing.assert_allclose(array[row], other, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("method", [NOISY, PRUNING], ids=["variational", "magnitude"])
def test_a_diverged_member_is_recorded_and_harms_no_neighbour(data, method):
    def train(broken_rate: float) -> list[EpochResult]:
        cohort = sparse_cohort(method, activation="relu")
        broken = dataclasses.replace(cohort.members[1].hyperparameters, learning_rate=broken_rate)
        members = list(cohort.members)
        members[1] = dataclasses.replace(members[1], hyperparameters=broken)
        return list(SparseEngine().train(TINY, Cohort(tuple(members)), data))

    for result, sound in zip(train(1e30), train(1e-3), strict=True):
        assert np.isnan(result.metrics.train_loss[1]) == (result.epoch > 0)
        assert np.isnan(result.metrics.val_loss[1]) == (result.epoch > 0)
        assert np.isfinite(result.state.weights[1]).all() == (result.epoch == 0)
        others = [0, 2, 3, 4]
        for name, array in arrays_of(result).items():
            assert array[others].tobytes() == arrays_of(sound)[name][others].tobytes(), name


def test_a_foreign_state_is_refused(data):
    cohort = sparse_cohort(NOISY)
    state = next(iter(SparseEngine().train(TINY, cohort, data))).state
    without = {name: slot for name, slot in state.slots.items() if name != "mask"}
    with pytest.raises(LayoutError, match=r"slots \['exp_avg', .*\], the cohort has \['exp_avg', .* 'mask'\]"):
        next(iter(SparseEngine().train(TINY, cohort, data, resume=dataclasses.replace(state, slots=without))))
    short = {**state.slots, "log_variance": state.slots["log_variance"][:3]}
    with pytest.raises(LayoutError, match=r"log_variance: got shape \[3, "):
        next(iter(SparseEngine().train(TINY, cohort, data, resume=dataclasses.replace(state, slots=short))))


def test_the_engine_is_chosen_for_members_that_are_made_sparse():
    sparse, dense = sparse_cohort(PRUNING), make_cohort(VARIED)
    assert choose_engine("auto", TINY, sparse).name == "lanes"
    assert choose_engine("auto", SMALL_RESNET, sparse_cohort(NOISY)).name == "torch"
    assert isinstance(choose_engine("torch", TINY, sparse), SparseEngine)
    assert not isinstance(choose_engine("torch", TINY, dense), SparseEngine)
    assert SparseEngine().supports(TINY, dense, "cpu") is not None
    with pytest.raises(EngineError, match=r"engine reference can't train .* it makes no members sparse"):
        choose_engine("reference", TINY, sparse)


HAND = np.array([[5, -1, 3, -2, 9, 0.5, -0.5, 4, 7, -8]], np.float32)


@pytest.mark.parametrize(
    ("sparsity", "scope", "kept"),
    [
        # prunable are the first four and the last four; between them stands a bias of 9 and a small one
        (0.25, "network", [1, 0, 1, 1, 1, 1, 0, 1, 1, 1]),
        (0.5, "network", [1, 0, 0, 0, 1, 1, 0, 1, 1, 1]),
        (0.5, "layer", [1, 0, 1, 0, 1, 1, 0, 0, 1, 1]),
        (0.75, "layer", [1, 0, 0, 0, 1, 1, 0, 0, 0, 1]),
    ],
)
def test_masks_by_hand(sparsity, scope, kept):
    masks = pruned(HAND, np.ones((1, 10), np.uint8), [slice(0, 4), slice(6, 10)], sparsity, scope)
    assert masks.tolist() == [kept]
    assert masks.dtype == np.uint8


def test_dropped_weights_stay_dropped_and_ties_go_in_order():
    before = np.array([[0, 1, 1, 1]], np.uint8)
    assert pruned(np.array([[0, 0, 0, 1]], np.float32), before, [slice(0, 4)], 0.5, "network").tolist() == [
        [0, 0, 1, 1]
    ]
    nan = np.array([[np.nan, 3, np.nan, 1]], np.float32)
    assert pruned(nan, np.ones((1, 4), np.uint8), [slice(0, 4)], 0.5, "layer").tolist() == [[1, 0, 1, 0]]


def test_pruning_steps_lie_at_equal_distances():
    method = Magnitude(sparsities=(0.5, 0.7, 0.8, 0.9))
    steps = {epoch: sparsity for epoch in range(26) if (sparsity := target(method, epoch, 25)) is not None}
    assert steps == {1: 0.5, 7: 0.7, 13: 0.8, 19: 0.9}
    assert [target(method, epoch, 4) for epoch in range(5)] == [None, 0.5, 0.7, 0.8, 0.9]
