"""What holds for every engine that runs on PyTorch; each test runs on both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.training import oracle
from tests.training.helpers import TINY, VARIED, image_data, make_cohort
from weightzoo.datasets.images import ImageData
from weightzoo.errors import EngineError, LayoutError
from weightzoo.members import Cohort, Seeds
from weightzoo.spec import Constant, Cosine, OneCycle, Schedule, StepDecay
from weightzoo.training.evaluation import evaluate
from weightzoo.training.initial import initial_weights
from weightzoo.training.protocol import SLOTS, Engine, EpochResult, TrainState
from weightzoo.training.reference import ReferenceEngine
from weightzoo.training.schedule import step_factors
from weightzoo.training.stacked import StackedEngine

ENGINES: dict[str, Callable[[], Engine]] = {"reference": ReferenceEngine, "torch": StackedEngine}
IN_PIECES = {**ENGINES, "torch in pieces": lambda: StackedEngine(members_at_once=2)}
KAIMING = ("kaiming_uniform", "kaiming_normal")
STEPS = 9  # an epoch: 60 images in minibatches of 7, the last of 4


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    return IN_PIECES[request.param]()


@pytest.fixture(scope="module")
def data() -> ImageData:
    return image_data()


def arrays_of(result: EpochResult) -> dict[str, np.ndarray]:
    metrics = {f.name: getattr(result.metrics, f.name) for f in dataclasses.fields(result.metrics)}
    return {"weights": result.state.weights, **result.state.slots, **metrics}


def assert_same_bytes(one: EpochResult, other: EpochResult) -> None:
    assert one.epoch == other.epoch
    ours, theirs = arrays_of(one), arrays_of(other)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert array.tobytes() == theirs[name].tobytes(), name


@pytest.mark.parametrize(
    ("optimizer", "activation", "schedule"),
    [
        ("adam", "tanh", Constant()),
        ("adamw", "gelu", Cosine(kind="cosine", end=0.1)),
        ("sgd", "relu", Constant()),
        ("adam", "sigmoid", OneCycle(kind="one_cycle")),
        ("adamw", "silu", OneCycle(kind="one_cycle", warmup=0.5)),
        ("sgd", "leaky_relu", OneCycle(kind="one_cycle")),
        ("sgd", "tanh", StepDecay(kind="step", every=1, factor=0.3)),
    ],
)
def test_trajectory_is_that_of_the_formulas_in_float64(
    engine: Engine, data: ImageData, optimizer: str, activation: str, schedule: Schedule
) -> None:
    # Kaiming throughout: the other two saturate units, whose gradients are close to zero altogether (see below).
    members = [own | {"init": KAIMING[row % 2]} for row, own in enumerate(VARIED)]
    cohort = make_cohort(members, optimizer=optimizer, activation=activation, schedule=schedule)
    results = list(engine.train(TINY, cohort, data))
    assert [result.epoch for result in results] == [0, 1, 2]
    factors, momenta = step_factors(cohort.protocol, STEPS, optimizer)
    for row, member in enumerate(cohort.members):
        expected = oracle.train(TINY, member, data, factors * member.hyperparameters.learning_rate, momenta)
        for result, epoch in zip(results[1:], expected, strict=True):
            moved = np.abs(epoch.weights - results[0].state.weights[row]).max()
            error = np.abs(result.state.weights[row] - epoch.weights) / moved
            # Adam divides by the gradient's size, so where that is close to zero rounding is all that remains of it.
            assert np.quantile(error, 0.95) < 1e-4
            assert error.max() < (1e-4 if optimizer == "sgd" else 1e-2)
            np.testing.assert_allclose(result.metrics.train_loss[row], epoch.train_loss, rtol=2e-5)
            assert result.metrics.train_accuracy[row] == np.float32(epoch.train_accuracy)


@pytest.mark.parametrize("optimizer", SLOTS)
def test_epoch_zero_is_the_fresh_weights(engine: Engine, data: ImageData, optimizer: str) -> None:
    cohort = make_cohort(VARIED, optimizer=optimizer)
    first = next(iter(engine.train(TINY, cohort, data)))
    assert first.epoch == 0
    assert first.state.weights.tobytes() == initial_weights(TINY, cohort.members).tobytes()
    assert set(first.state.slots) == set(SLOTS[optimizer])
    assert all(not slot.any() for slot in first.state.slots.values())
    train = evaluate(TINY, "tanh", first.state.weights, data.inputs["train"], data.labels["train"])
    np.testing.assert_array_equal(first.metrics.train_loss, train.loss)
    np.testing.assert_array_equal(first.metrics.train_accuracy, train.accuracy)


def test_metrics_behind_an_epoch_are_evaluations_without_dropout(engine: Engine, data: ImageData) -> None:
    *_, last = engine.train(TINY, make_cohort(VARIED, epochs=1), data)
    for split in ("val", "test"):
        expected = evaluate(TINY, "tanh", last.state.weights, data.inputs[split], data.labels[split], keep_logits=True)
        for name in ("loss", "accuracy", "class_accuracy"):
            np.testing.assert_array_equal(getattr(last.metrics, f"{split}_{name}"), getattr(expected, name))
    assert last.metrics.probe_logits.dtype == np.float16
    np.testing.assert_array_equal(last.metrics.probe_logits, expected.logits.astype(np.float16))
    assert np.isnan(last.metrics.test_class_accuracy[:, -1]).all()  # that class has no test images
    for name, array in arrays_of(last).items():
        assert array.dtype == (np.float16 if name == "probe_logits" else np.float32), name
    assert last.seconds > 0


@pytest.mark.parametrize("optimizer", SLOTS)
@pytest.mark.parametrize("engine", IN_PIECES, indirect=True)
def test_resumed_training_is_the_uninterrupted_one_bit_for_bit(engine: Engine, data: ImageData, optimizer: str) -> None:
    cohort = make_cohort(VARIED, optimizer=optimizer, schedule=OneCycle(kind="one_cycle"))
    whole = list(engine.train(TINY, cohort, data))
    for kept in (0, 1):
        again = list(engine.train(TINY, cohort, data, resume=whole[kept].state))
        assert [result.epoch for result in again] == list(range(kept + 1, 3))
        for resumed, uninterrupted in zip(again, whole[kept + 1 :], strict=True):
            assert_same_bytes(resumed, uninterrupted)
    assert list(engine.train(TINY, cohort, data, resume=whole[2].state)) == []


@pytest.mark.parametrize("optimizer", SLOTS)
def test_a_diverged_member_is_recorded_and_harms_no_neighbour(engine: Engine, data: ImageData, optimizer: str) -> None:
    def train(broken_rate: float) -> list[EpochResult]:
        broken = {"learning_rate": broken_rate, "dropout": 0.3, "seed": 11}
        members = (VARIED[0], broken, VARIED[2])
        return list(engine.train(TINY, make_cohort(members, optimizer=optimizer, activation="relu"), data))

    for result, sound in zip(train(1e30), train(1e-3), strict=True):
        assert np.isnan(result.metrics.train_loss[1]) == (result.epoch > 0)
        assert np.isnan(result.metrics.val_loss[1]) == (result.epoch > 0)
        assert np.isfinite(result.state.weights[1]).all() == (result.epoch == 0)
        for name, array in arrays_of(result).items():
            assert array[[0, 2]].tobytes() == arrays_of(sound)[name][[0, 2]].tobytes(), name


def test_every_nan_has_the_one_bit_pattern(engine: Engine, data: ImageData) -> None:
    cohort = make_cohort([{"learning_rate": 1e30}, {"learning_rate": 1e20}], activation="relu", optimizer="sgd")
    *_, last = engine.train(TINY, cohort, data)
    seen = 0
    for array in arrays_of(last).values():
        words = array.view(np.uint16 if array.itemsize == 2 else np.uint32)
        found = set(words[np.isnan(array)].tolist())
        seen += len(found)
        assert found <= {int(np.array(np.nan, array.dtype).view(words.dtype))}
    assert seen > 3


@pytest.mark.parametrize("engine", IN_PIECES, indirect=True)
def test_a_member_does_not_depend_on_its_neighbours_or_their_order(engine: Engine, data: ImageData) -> None:
    cohort = make_cohort(VARIED, activation="gelu", optimizer="sgd", epochs=1)
    *_, together = engine.train(TINY, cohort, data)
    *_, reversed_ = engine.train(TINY, cohort.select([4, 3, 2, 1, 0]), data)
    for row in range(len(cohort)):
        *_, alone = engine.train(TINY, cohort.select([row]), data)
        for name, array in arrays_of(together).items():
            tolerance = 0 if engine.name == "reference" else 1e-2 if name == "probe_logits" else 2e-4
            for other in (arrays_of(alone)[name][0], arrays_of(reversed_)[name][len(cohort) - 1 - row]):
                np.testing.assert_allclose(array[row], other, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("changed", ["init", "order", "dropout"])
def test_each_seed_changes_its_own_randomness_only(engine: Engine, data: ImageData, changed: str) -> None:
    base = Seeds.all(3)
    members = [{"seed": base}, {"seed": dataclasses.replace(base, **{changed: 4})}]
    fresh, *_, without = engine.train(TINY, make_cohort(members, epochs=1), data)
    *_, with_dropout = engine.train(TINY, make_cohort(members, epochs=1, dropout=0.5), data)
    assert np.array_equal(fresh.state.weights[0], fresh.state.weights[1]) == (changed != "init")
    same = np.allclose(without.state.weights[0], without.state.weights[1], atol=1e-5)
    assert same == (changed == "dropout")  # without dropout its seed has no effect
    assert not np.allclose(with_dropout.state.weights[0], with_dropout.state.weights[1], atol=1e-3)


def test_results_belong_to_the_receiver(engine: Engine, data: ImageData) -> None:
    kept, copies = [], []
    for result in engine.train(TINY, make_cohort(VARIED), data):
        kept.append(result)
        copies.append({name: array.copy() for name, array in arrays_of(result).items()})
        result.state.weights.setflags(write=True)  # raises if the engine handed out memory that isn't its own
    for result, copy in zip(kept, copies, strict=True):
        for name, array in arrays_of(result).items():
            np.testing.assert_array_equal(array, copy[name], err_msg=name)


def test_what_the_receiver_writes_does_not_reach_the_training(engine: Engine, data: ImageData) -> None:
    cohort = make_cohort(VARIED)
    undisturbed = list(engine.train(TINY, cohort, data))
    for result, expected in zip(engine.train(TINY, cohort, data), undisturbed, strict=True):
        assert_same_bytes(result, expected)
        for array in arrays_of(result).values():
            array[:] = 77


@pytest.mark.filterwarnings("error")
def test_read_only_states_are_resumed_and_left_alone(engine: Engine, data: ImageData) -> None:
    cohort = make_cohort(VARIED[:2])
    *_, expected = whole = list(engine.train(TINY, cohort, data))
    state = whole[1].state
    for array in (state.weights, *state.slots.values()):
        array.setflags(write=False)
    (last,) = engine.train(TINY, cohort, data, resume=state)
    assert_same_bytes(last, expected)


def test_threads_of_pytorch_are_left_as_they_were(data: ImageData) -> None:
    before = torch.get_num_threads()
    for make in (ReferenceEngine, lambda: StackedEngine(threads=before + 1)):
        training = make().train(TINY, make_cohort(VARIED), data)
        next(training)
        assert torch.get_num_threads() == before
        training.close()
        assert torch.get_num_threads() == before


def test_sgd_without_momentum(engine: Engine, data: ImageData) -> None:
    cohort = make_cohort(VARIED, optimizer="sgd", momentum=0.0)
    whole = list(engine.train(TINY, cohort, data))
    for row, member in enumerate(cohort.members):
        rates = np.full(2 * STEPS, member.hyperparameters.learning_rate)
        expected = oracle.train(TINY, member, data, rates, np.zeros(2 * STEPS))
        np.testing.assert_allclose(whole[-1].state.weights[row], expected[-1].weights, rtol=0, atol=1e-5)
    again = list(engine.train(TINY, cohort, data, resume=whole[1].state))
    assert_same_bytes(again[-1], whole[-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: TrainState(1, s.weights[:, 1:], s.slots), r"weights: got shape \[2, \d+\], expected \[2, \d+\]"),
        (lambda s: s.select(np.array([0])), r"weights: got shape \[1, "),
        (lambda s: TrainState(1, s.weights, {"momentum_buffer": s.weights}), r"slots \['momentum_buffer'\], adam has"),
        (lambda s: TrainState(1, s.weights, {}), r"slots \[\], adam has"),
    ],
)
def test_a_foreign_state_is_refused(engine: Engine, data: ImageData, change: Any, message: str) -> None:
    cohort: Cohort = make_cohort(VARIED[:2])
    state = next(iter(engine.train(TINY, cohort, data))).state
    with pytest.raises(LayoutError, match=message):
        next(iter(engine.train(TINY, cohort, data, resume=change(state))))


def test_data_of_another_shape_are_refused(engine: Engine) -> None:
    other = dataclasses.replace(TINY, input_shape=(2, 8, 8), layers=TINY.layers[:6])
    with pytest.raises(EngineError, match=r"images \[2, 8, 8\] of \d+ classes, expected \[2, 9, 8\] and 4"):
        next(iter(engine.train(TINY, make_cohort(VARIED), image_data(other))))
