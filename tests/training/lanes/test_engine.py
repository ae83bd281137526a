"""The engine: a member's bytes depend on its record alone, and threads end when they should."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.training.helpers import TINY, VARIED, image_data, make_cohort
from tests.training.lanes.helpers import avx2_target, bytes_of, has_avx2
from weightzoo.architectures.graph import Architecture, Conv, Flatten, Linear, MaxPool
from weightzoo.datasets.images import ImageData
from weightzoo.errors import EngineError, LayoutError
from weightzoo.members import Cohort
from weightzoo.spec import OneCycle
from weightzoo.training.evaluation import evaluate
from weightzoo.training.initial import starting_state
from weightzoo.training.lanes import LanesEngine
from weightzoo.training.lanes import engine as engine_module
from weightzoo.training.lanes.compile import compile_network, host_target
from weightzoo.training.lanes.groups import Group, Plan, Workspace
from weightzoo.training.lanes.network import Recipe
from weightzoo.training.protocol import PROBE_SIZE, EpochResult
from weightzoo.training.reference import ReferenceEngine

SCHEDULE = OneCycle(kind="one_cycle")


@pytest.fixture(scope="module")
def data() -> ImageData:
    return image_data(train=60, val=25, test=PROBE_SIZE + 9)


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    """More members than lanes, dropout in some, configurations mixed; those without dropout first."""
    rows = [own | {"seed": 100 + number} for number, own in enumerate((*VARIED[:2] * 9, *VARIED[2:]))]
    return make_cohort(rows, epochs=3, schedule=SCHEDULE, activation="gelu")


@pytest.fixture(scope="module")
def results(data: ImageData, cohort: Cohort, cache: Path) -> list[EpochResult]:
    return list(LanesEngine(1, cache=cache).train(TINY, cohort, data))


def test_metrics_are_those_of_the_reference(data: ImageData, cohort: Cohort, results: list[EpochResult]) -> None:
    rows = [0, 1, 19, 20]
    reference = list(ReferenceEngine().train(TINY, cohort.select(rows), data))
    for ours, theirs in zip(results, reference, strict=True):
        assert ours.epoch == theirs.epoch
        for field in dataclasses.fields(theirs.metrics):
            own, other = getattr(ours.metrics, field.name)[rows], getattr(theirs.metrics, field.name)
            assert own.dtype == other.dtype
            assert own.shape == other.shape, field.name
            tolerance = 0.07 if "accuracy" in field.name else 4e-3 if field.name == "probe_logits" else 1e-3
            if "class" in field.name:  # of few images each: one that goes the other way is a lot
                np.testing.assert_array_equal(np.isnan(own), np.isnan(other))
                tolerance = 0.4
            np.testing.assert_allclose(own, other, atol=tolerance, rtol=4e-3)
    first = results[0]
    assert (first.state.weights[rows] == reference[0].state.weights).all()
    np.testing.assert_array_equal(first.metrics.train_accuracy[rows], reference[0].metrics.train_accuracy)


def test_probe_of_a_small_test_split(cache: Path) -> None:
    data = image_data(test=12)
    cohort = make_cohort([{}, {"seed": 5}], epochs=0)
    (ours,) = LanesEngine(1, cache=cache).train(TINY, cohort, data)
    (theirs,) = ReferenceEngine().train(TINY, cohort, data)
    assert ours.metrics.probe_logits.shape == theirs.metrics.probe_logits.shape == (2, 12, 4)
    np.testing.assert_allclose(ours.metrics.probe_logits, theirs.metrics.probe_logits, atol=2e-3)


def test_evaluation_is_that_of_the_weights_handed_out(data: ImageData, results: list[EpochResult]) -> None:
    last = results[-1]
    expected = evaluate(TINY, "gelu", last.state.weights, data.inputs["test"], data.labels["test"], keep_logits=True)
    np.testing.assert_allclose(last.metrics.test_loss, expected.loss, rtol=2e-6)
    np.testing.assert_allclose(last.metrics.test_accuracy, expected.accuracy, atol=1e-7)
    np.testing.assert_allclose(last.metrics.test_class_accuracy, expected.class_accuracy, atol=1e-7)
    assert expected.logits is not None
    np.testing.assert_allclose(last.metrics.probe_logits, expected.logits[:, :PROBE_SIZE], atol=1e-3, rtol=1e-3)


def test_a_member_alone_is_a_member_among_others(
    data: ImageData, cohort: Cohort, results: list[EpochResult], cache: Path
) -> None:
    for row in (0, 7, 18, 20):  # with and without dropout; the group of 16 has none, that of the last 5 has both
        alone = list(LanesEngine(1, cache=cache).train(TINY, cohort.select([row]), data))
        assert bytes_of(alone) == bytes_of(results, [row])


def test_order_and_neighbours_do_not_matter(
    data: ImageData, cohort: Cohort, results: list[EpochResult], cache: Path
) -> None:
    rows = [int(row) for row in np.random.default_rng(5).permutation(len(cohort))][:18]
    mixed = list(LanesEngine(2, cache=cache).train(TINY, cohort.select(rows), data))
    assert bytes_of(mixed) == bytes_of(results, rows)


@pytest.mark.parametrize("width", [4, 8, 16])
def test_threads_and_widths_do_not_matter(
    width: int, data: ImageData, cohort: Cohort, results: list[EpochResult], cache: Path
) -> None:
    other = list(LanesEngine(2, width, cache=cache).train(TINY, cohort, data))
    assert bytes_of(other) == bytes_of(results)


@pytest.mark.skipif(not has_avx2(), reason="the processor has no AVX2")
def test_instruction_sets_do_not_matter(
    data: ImageData, cohort: Cohort, results: list[EpochResult], cache: Path
) -> None:
    other = list(LanesEngine(1, target=avx2_target(), cache=cache).train(TINY, cohort, data))
    assert bytes_of(other) == bytes_of(results)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_interrupted_training_goes_on_as_if_it_had_not_been(
    optimizer: str, data: ImageData, cohort: Cohort, cache: Path
) -> None:
    cohort = make_cohort(
        [{"dropout": rate} for rate in (0, 0.2) * 10], epochs=3, optimizer=optimizer, schedule=SCHEDULE
    )
    engine = LanesEngine(2, cache=cache)
    whole = list(engine.train(TINY, cohort, data))
    rows = np.array([1, 4, 17])
    for epoch in range(3):
        state = whole[epoch].state.select(rows)
        rest = list(engine.train(TINY, cohort.select(list(rows)), data, resume=state))
        assert bytes_of(rest) == bytes_of(whole[epoch + 1 :], rows)
    assert list(engine.train(TINY, cohort, data, resume=whole[-1].state)) == []


def test_a_diverged_member_harms_no_neighbour(data: ImageData, cache: Path) -> None:
    healthy = [{"seed": number} for number in range(5)]
    wild = [*healthy[:2], {"seed": 50, "learning_rate": 1e30}, *healthy[2:]]
    engine = LanesEngine(1, cache=cache)
    kinds = {"optimizer": "sgd", "activation": "relu", "epochs": 3}
    apart = list(engine.train(TINY, make_cohort(healthy, **kinds), data))
    together = list(engine.train(TINY, make_cohort(wild, **kinds), data))
    assert bytes_of(together, [0, 1, 3, 4, 5]) == bytes_of(apart)
    for result in together[2:]:
        metrics = result.metrics
        for name in ("train_loss", "val_loss", "test_loss"):
            assert getattr(metrics, name)[2:3].tobytes() == np.float32(np.nan).tobytes()
        nans = result.state.weights[2][np.isnan(result.state.weights[2])]
        assert len(nans) > 0
        assert set(nans.view(np.uint32).tolist()) == {int(np.float32(np.nan).view(np.uint32))}
    assert together[-1].metrics.test_accuracy[2] == 0  # an image with a NaN logit counts as wrong


def test_results_belong_to_the_receiver(
    data: ImageData, cohort: Cohort, results: list[EpochResult], cache: Path
) -> None:
    spoiled: list[EpochResult] = []
    for result in LanesEngine(2, cache=cache).train(TINY, cohort, data):
        spoiled.append(dataclasses.replace(result, state=result.state.select(np.arange(len(cohort)))))
        result.state.weights[:] = 0
        for slot in result.state.slots.values():
            slot[:] = 0
    expected = [part["weights"] for part in bytes_of(results)]
    assert [part["weights"] for part in bytes_of(spoiled)] == expected


def lanes_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("lanes-")]


def test_closing_early_ends_the_threads(data: ImageData, cohort: Cohort, cache: Path) -> None:
    running = LanesEngine(2, width=4, cache=cache).train(TINY, cohort, data)
    assert isinstance(running, Iterator)
    assert next(running).epoch == 0
    assert lanes_threads()
    running.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert not lanes_threads()


def test_groups_run_ahead_by_a_bounded_number_of_epochs(data: ImageData, cache: Path) -> None:
    cohort = make_cohort([{"seed": number} for number in range(9)], epochs=30)
    started: list[int] = []
    original = Group.train_epoch

    class Watched(Group):
        def train_epoch(self, epoch: int, *rest: object) -> object:  # pyright: ignore[reportIncompatibleMethodOverride]
            started.append(epoch)
            return original(self, epoch, *rest)  # pyright: ignore[reportArgumentType]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "Group", Watched)
        running = LanesEngine(2, width=4, cache=cache).train(TINY, cohort, data)
        for epoch in range(4):
            assert next(running).epoch == epoch
        for thread in lanes_threads():
            thread.join(0.5)  # they wait for the receiver; what they were to do, they have done by then
        running.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert max(started) <= 3 + 1 + engine_module.RUN_AHEAD


def test_an_error_in_a_thread_reaches_the_receiver(data: ImageData, cohort: Cohort, cache: Path) -> None:
    class Failing(Group):
        def evaluate(self, *_: object) -> object:  # pyright: ignore[reportIncompatibleMethodOverride]
            raise MemoryError("no room")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "Group", Failing)
        with pytest.raises(MemoryError, match="no room"):
            next(LanesEngine(2, width=4, cache=cache).train(TINY, cohort, data))
    assert not lanes_threads()


def test_what_it_supports(cohort: Cohort) -> None:
    engine = LanesEngine()
    assert engine.supports(TINY, cohort, "cpu") is None
    assert "runs on the CPU" in str(engine.supports(TINY, cohort, "cuda"))
    unknown = make_cohort([{}], activation="swoosh")
    assert "no activation 'swoosh'" in str(engine.supports(TINY, unknown, "cpu"))
    assert "no optimiser 'lion'" in str(engine.supports(TINY, make_cohort([{}], optimizer="lion"), "cpu"))
    big = Architecture("big", (1, 32, 32), (Flatten(), Linear("fc", 1024, 600)))
    assert "too many" in str(engine.supports(big, cohort, "cpu"))
    empty = Architecture("empty", (3, 4, 4), (MaxPool(4), Flatten()))
    assert "nothing to train" in str(engine.supports(empty, cohort, "cpu"))
    image = Architecture("image", (1, 4, 4), (Conv("conv", 1, 2, 2),))
    assert "no vector of logits" in str(engine.supports(image, cohort, "cpu"))


def test_bad_input_is_refused_in_one_line(data: ImageData, cohort: Cohort, cache: Path) -> None:
    with pytest.raises(EngineError, match="vector width 5"):
        LanesEngine(width=5)
    with pytest.raises(EngineError, match="threads: 0"):
        LanesEngine(0)
    engine = LanesEngine(cache=cache)
    other = Architecture("other", (1, 9, 8), (Flatten(), Linear("fc", 72, 4)))
    with pytest.raises(EngineError, match="takes images"):
        engine.train(other, cohort, data)
    with pytest.raises(EngineError, match="swoosh"):
        engine.train(TINY, make_cohort([{}], activation="swoosh"), data)
    state = next(iter(engine.train(TINY, cohort, data))).state
    with pytest.raises(LayoutError):
        engine.train(TINY, cohort.select([0, 1]), data, resume=state)
    assert host_target().width in (4, 8, 16)


def test_denormals_are_flushed_inside_and_kept_outside(cache: Path) -> None:
    """A weight under 2**-126 counts as zero in the kernels; the mode of the thread that called them is as before."""
    architecture = Architecture("line", (1, 1, 2), (Flatten(), Linear("fc", 2, 2)))
    data = image_data(architecture, train=4, val=4, test=4)
    cohort = make_cohort([{}], epochs=1, batch_size=4, optimizer="sgd", learning_rate=0.0)
    tiny = np.float32(1e-39)
    state = starting_state(architecture, cohort, None)
    state.weights[0] = (tiny, 0, 0, 0, 0, 0)
    compiled = compile_network(Recipe(architecture, "tanh", "sgd", False), host_target(), cache)
    plan = Plan(cohort.protocol, "sgd", data)
    group = Group(plan, compiled, cohort.members, slice(0, 1), host_target().width, state.weights, state.slots)
    workspace = Workspace(compiled, group.width, architecture.layout.size, plan.samples)
    tally = group.evaluate("test", workspace, lambda: False)
    assert (tally.logits[:4] == 0).all()
    assert tiny * np.float32(0.5) > 0
    group.train_epoch(1, workspace, lambda: False)
    assert tiny * np.float32(0.5) > 0
