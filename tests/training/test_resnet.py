"""Networks with batch normalisation and residual layers on the engines that run on PyTorch."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import OneCycleLR

from tests.training.helpers import SMALL_RESNET, TINY, VARIED, image_data, make_cohort
from tests.training.test_engines import arrays_of, assert_same_bytes
from weightzoo import seeds
from weightzoo.architectures import architecture
from weightzoo.architectures.cnn import cnn_m, cnn_s
from weightzoo.architectures.graph import (
    Activation,
    Architecture,
    BatchNorm,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    Residual,
)
from weightzoo.architectures.module import build_module
from weightzoo.architectures.resnet import resnet_18
from weightzoo.datasets.images import ImageData
from weightzoo.errors import EngineError
from weightzoo.members import Cohort, Member
from weightzoo.spec import Augmentation, OneCycle
from weightzoo.training import choose_engine
from weightzoo.training.evaluation import evaluate
from weightzoo.training.initial import initial_weights
from weightzoo.training.lanes import LanesEngine
from weightzoo.training.protocol import Engine
from weightzoo.training.reference import ReferenceEngine
from weightzoo.training.stacked import StackedEngine, members_at_once

ENGINES: dict[str, Callable[[], Engine]] = {
    "reference": ReferenceEngine,
    "stacked": lambda: StackedEngine(members_at_once=3),
    "alone": lambda: StackedEngine(members_at_once=1),
}
LAYOUT = SMALL_RESNET.layout
BUFFERS = ~LAYOUT.is_trained


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    return ENGINES[request.param]()


@pytest.fixture(scope="module")
def data() -> ImageData:
    return image_data(SMALL_RESNET, train=28)


def cohort_of(members: int = 3, *, optimizer: str = "sgd", **protocol: object) -> Cohort:
    own = [{"learning_rate": 2e-3 * (1 + number), "seed": number} for number in range(members)]
    # Not ReLU, at whose kink rounding decides between two gradients.
    shared: dict[str, object] = {"activation": "gelu", "schedule": OneCycle(), "weight_decay": 5e-3}
    return make_cohort(own, optimizer=optimizer, **shared | protocol)  # type: ignore[arg-type]


def plain_loop(member: Member, data: ImageData) -> list[tuple[np.ndarray, float]]:
    """Weight vector and training loss of every epoch by PyTorch's own module, optimiser and scheduler, in float64."""
    protocol, chosen = member.protocol, member.hyperparameters
    network = build_module(SMALL_RESNET, chosen.activation).double().train()
    start = LAYOUT.unflatten(initial_weights(SMALL_RESNET, [member])[0])
    network.load_state_dict({name: torch.tensor(array) for name, array in start.items()})
    optimizer = torch.optim.SGD(
        network.parameters(), chosen.learning_rate, protocol.momentum, weight_decay=chosen.weight_decay
    )
    inputs = torch.tensor(data.inputs["train"], dtype=torch.float64)
    labels = torch.tensor(data.labels["train"], dtype=torch.long)
    steps = protocol.epochs * math.ceil(len(labels) / protocol.batch_size)
    scheduler = OneCycleLR(optimizer, chosen.learning_rate, total_steps=steps)
    epochs: list[tuple[np.ndarray, float]] = []
    for epoch in range(1, protocol.epochs + 1):
        order = torch.from_numpy(seeds.sample_order(member.seeds.order, epoch, len(labels)))
        total = 0.0
        for batch in order.split(protocol.batch_size):
            optimizer.zero_grad()
            loss = cross_entropy(network(inputs[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            scheduler.step()
            total += loss.item() * len(batch)
        vector = np.concatenate([tensor.numpy().ravel() for tensor in network.state_dict().values()])
        epochs.append((vector, total / len(labels)))
    return epochs


def test_trajectory_is_that_of_a_plain_loop_running_statistics_included(engine: Engine, data: ImageData) -> None:
    cohort = cohort_of()
    results = list(engine.train(SMALL_RESNET, cohort, data))
    fresh = results[0].state.weights
    for row, member in enumerate(cohort.members):
        for result, (vector, loss) in zip(results[1:], plain_loop(member, data), strict=True):
            for part in (BUFFERS, ~BUFFERS):
                error = np.abs(result.state.weights[row] - vector)[part].max()
                assert error < 2e-4 * np.abs(vector - fresh[row])[part].max()
            np.testing.assert_allclose(result.metrics.train_loss[row], loss, rtol=1e-4)
    last = results[-1].state
    assert not last.slots["momentum_buffer"][:, BUFFERS].any()
    moved = np.abs(last.weights - fresh).max(axis=0)
    assert (moved[BUFFERS] > 0).all()
    assert np.abs(last.weights[0] - last.weights[1])[BUFFERS].max() > 1e-3  # each member has its own


def test_fresh_normalisation_is_the_identity_whatever_the_initialisation(data: ImageData) -> None:
    members = make_cohort([{"init": "normal", "seed": 1}, {"init": "kaiming_normal", "seed": 1}]).members
    for vector in initial_weights(SMALL_RESNET, members):
        for name, tensor in LAYOUT.unflatten(vector).items():
            if ".bn" in name or name.startswith("bn") or "downsample.1" in name:
                assert (tensor == (1 if name.endswith(("weight", "running_var")) else 0)).all(), name
            elif name == "fc.bias":
                assert (tensor == np.float32(0.01)).all()
            else:
                assert tensor.std() > 0


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_resumed_training_is_the_uninterrupted_one_bit_for_bit(engine: Engine, data: ImageData, optimizer: str) -> None:
    cohort = cohort_of(optimizer=optimizer, augmentation=Augmentation(crop=1, flip=True, rotation=15))
    whole = list(engine.train(SMALL_RESNET, cohort, data))
    again = list(engine.train(SMALL_RESNET, cohort, data, resume=whole[1].state))
    assert [result.epoch for result in again] == [2]
    assert_same_bytes(again[0], whole[2])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_member_does_not_depend_on_its_neighbours(data: ImageData, optimizer: str) -> None:
    cohort = cohort_of(optimizer=optimizer, epochs=1, augmentation=Augmentation(flip=True), schedule=OneCycle())
    together = {name: list(make().train(SMALL_RESNET, cohort, data))[-1] for name, make in ENGINES.items()}
    for name, make in ENGINES.items():
        *_, alone = make().train(SMALL_RESNET, cohort.select([1]), data)
        for key, array in arrays_of(alone).items():
            if name == "stacked":
                np.testing.assert_allclose(array[0], arrays_of(together[name])[key][1], rtol=1e-2, atol=2e-3)
            else:
                assert array[0].tobytes() == arrays_of(together[name])[key][1].tobytes(), key
        if optimizer == "sgd":
            difference = np.abs(together[name].state.weights - together["reference"].state.weights).max()
            assert difference < 1e-4


def test_a_diverged_member_is_recorded_and_harms_no_neighbour(engine: Engine, data: ImageData) -> None:
    sound = list(engine.train(SMALL_RESNET, cohort_of(), data))
    members = [{"learning_rate": rate, "seed": number} for number, rate in enumerate((2e-3, 1e30, 6e-3))]
    broken = make_cohort(members, optimizer="sgd", activation="gelu", schedule=OneCycle(), weight_decay=5e-3)
    for result, expected in zip(engine.train(SMALL_RESNET, broken, data), sound, strict=True):
        assert np.isfinite(result.state.weights[1]).all() == (result.epoch == 0)
        assert np.isnan(result.metrics.val_loss[1]) == (result.epoch > 0)
        for name, array in arrays_of(result).items():
            assert array[[0, 2]].tobytes() == arrays_of(expected)[name][[0, 2]].tobytes(), name


def test_metrics_are_evaluations_with_the_running_statistics(engine: Engine, data: ImageData) -> None:
    *_, last = engine.train(SMALL_RESNET, cohort_of(epochs=1), data)
    network = build_module(SMALL_RESNET, "gelu").eval()
    for row, vector in enumerate(last.state.weights):
        network.load_state_dict({name: torch.tensor(array) for name, array in LAYOUT.unflatten(vector).items()})
        with torch.no_grad():
            logits = network(torch.from_numpy(data.inputs["val"]))
        loss = cross_entropy(logits, torch.from_numpy(data.labels["val"]).long())
        np.testing.assert_allclose(last.metrics.val_loss[row], loss.item(), rtol=1e-5)


def test_an_evaluation_in_small_batches_is_the_same(data: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = initial_weights(SMALL_RESNET, cohort_of().members)
    inputs, labels = data.inputs["val"], data.labels["val"]
    whole = evaluate(SMALL_RESNET, "relu", weights, inputs, labels, keep_logits=True)
    monkeypatch.setattr("weightzoo.training.evaluation.LAYER_BYTES", 4 * 4 * 9 * 8 * 3)  # three images
    parts = evaluate(SMALL_RESNET, "relu", weights, inputs, labels, keep_logits=True)
    np.testing.assert_allclose(parts.logits, whole.logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(parts.accuracy, whole.accuracy)


def test_large_networks_are_trained_one_at_a_time() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    resnet = architecture("resnet-18", (3, 32, 32), 10)
    assert members_at_once(resnet, 256, cpu) == members_at_once(resnet, 128, cpu) == 1
    assert members_at_once(resnet, 128, cuda) == 1
    assert members_at_once(cnn_s(1, 10), 10, cpu) > 8
    assert members_at_once(cnn_m(3, 10), 10, cpu) == 1
    assert members_at_once(resnet_18((3, 16, 16), 10, width=4), 32, cpu) > 1
    assert members_at_once(cnn_s(1, 10), 128, cpu) == 1
    assert members_at_once(cnn_s(1, 10), 128, cuda) > 32


@pytest.mark.parametrize("make", [ReferenceEngine, StackedEngine])
def test_bfloat16_is_less_precise_but_keeps_the_weights_in_float32(make: Callable[[], Engine], data: ImageData) -> None:
    *_, exact = make().train(SMALL_RESNET, cohort_of(epochs=1), data)
    *_, rough = make().train(SMALL_RESNET, cohort_of(epochs=1, precision="bfloat16"), data)
    assert rough.state.weights.dtype == np.float32
    np.testing.assert_allclose(rough.metrics.train_loss, exact.metrics.train_loss, rtol=3e-2)
    difference = np.abs(rough.state.weights - exact.state.weights)
    assert 1e-5 < difference.max() < 0.2
    step = np.abs(rough.state.slots["momentum_buffer"])
    assert np.unique(step[step > 0].view(np.uint32) & 0xFFFF).size > 1000  # not rounded to 16 bits


def test_a_card_without_bfloat16_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: False)
    cohort = cohort_of(precision="bfloat16")
    for one in (ReferenceEngine(), StackedEngine()):
        assert one.supports(SMALL_RESNET, cohort, "cpu") is None
        one.device = torch.device("cuda")
        assert one.supports(SMALL_RESNET, cohort, "cuda") == "its graphics card has no bfloat16"


@pytest.mark.parametrize("at_once", [1, 3])
def test_compiled_training_is_the_same(data: ImageData, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    calls: list[object] = []

    def without_code(function: Callable[..., object], **options: object) -> Callable[..., object]:
        calls.append(function)  # traced as always, but run by PyTorch: machine code takes a minute
        return real(function, backend="aot_eager", **options)  # type: ignore[call-overload]

    real = torch.compile
    monkeypatch.setattr("torch.compile", without_code)
    block = Residual("block", (Conv("block.conv", 3, 3, 3, padding=1), BatchNorm("block.bn", 3)))
    layers = (
        Conv("conv", 2, 3, 3, bias=False),
        block,
        Activation(),
        GlobalAveragePool(),
        Flatten(),
        Linear("fc", 3, 4),
    )
    net = Architecture("net", SMALL_RESNET.input_shape, layers)
    cohort = cohort_of(epochs=1, batch_size=14)
    compiled = list(StackedEngine(members_at_once=at_once, compile=True).train(net, cohort, data))
    plain = list(StackedEngine(members_at_once=at_once).train(net, cohort, data))
    assert len(calls) == 1
    np.testing.assert_allclose(compiled[-1].state.weights, plain[-1].state.weights, rtol=0, atol=1e-4)


def test_what_can_not_be_compiled_is_trained_without_and_the_log_says_why(
    data: ImageData, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_compiler(function: Callable[..., object], **_: object) -> Callable[..., object]:
        return functools.partial(_raise, RuntimeError("no C++ compiler here\nand more"))

    def _raise(error: Exception, *_: object) -> None:
        raise error

    monkeypatch.setattr("torch.compile", no_compiler)
    cohort = make_cohort(VARIED, epochs=1)
    with caplog.at_level(logging.WARNING, "weightzoo"):
        compiled = list(StackedEngine(compile=True).train(TINY, cohort, image_data()))
    assert [record.getMessage() for record in caplog.records] == [
        "torch.compile failed, training goes on without: no C++ compiler here"
    ]
    for result, plain in zip(compiled, StackedEngine().train(TINY, cohort, image_data()), strict=True):
        assert_same_bytes(result, plain)


def test_lanes_refuses_with_a_reason_and_auto_takes_torch(caplog: pytest.LogCaptureFixture) -> None:
    lanes = LanesEngine(threads=1)
    cohort = cohort_of()
    resnet = architecture("resnet-18", (3, 32, 32), 10)
    assert lanes.supports(resnet, cohort, "cpu") is not None
    layers = (Conv("conv1", 1, 2, 3, bias=False), Activation(), Flatten(), Linear("fc1", 2 * 36, 3))
    assert lanes.supports(Architecture("net", (1, 8, 8), layers), cohort, "cpu") == (
        "it has no kernel for a convolution without bias"
    )
    assert lanes.supports(TINY, cohort_of(precision="bfloat16"), "cpu") == "it computes in float32, not in bfloat16"
    chosen = choose_engine("auto", resnet, cohort, compile=True)
    assert isinstance(chosen, StackedEngine)
    assert chosen.compile
    assert "no kernel for" in caplog.text
    with pytest.raises(EngineError, match=r"engine lanes can't train .* no kernel for .*; use engine: auto"):
        choose_engine("lanes", resnet, cohort)
