"""Networks with batch normalisation and residual layers are made sparse too, stacked and one at a time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, cross_entropy, linear
from torch.optim.lr_scheduler import OneCycleLR

from tests.training.helpers import SMALL_RESNET, image_data, make_cohort
from tests.training.sparse.test_engine import assert_same_bytes
from weightzoo import seeds
from weightzoo.architectures.module import build_module
from weightzoo.datasets.images import ImageData
from weightzoo.members import Cohort, Member
from weightzoo.spec import Augmentation, Magnitude, OneCycle, Sparsification, Variational
from weightzoo.training.evaluation import evaluate
from weightzoo.training.initial import initial_weights
from weightzoo.training.sparse import SparseEngine

LAYOUT = SMALL_RESNET.layout
NOISY = Variational(kl_weight=1.0, log_variance=-4.0)
ENGINES: dict[str, Callable[[], SparseEngine]] = {
    "stacked": lambda: SparseEngine(members_at_once=3),
    "alone": lambda: SparseEngine(members_at_once=1),
}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> SparseEngine:
    return ENGINES[request.param]()


@pytest.fixture(scope="module")
def data() -> ImageData:
    return image_data(SMALL_RESNET, train=28)


def sparse_cohort(method: Sparsification, **protocol) -> Cohort:
    own = [{"learning_rate": 2e-3 * (1 + number), "seed": number} for number in range(2)]
    shared = {"optimizer": "sgd", "activation": "gelu", "schedule": OneCycle(), "weight_decay": 5e-3}
    cohort = make_cohort(own, **shared)
    changed = dataclasses.replace(cohort.protocol, **protocol)
    return Cohort(tuple(dataclasses.replace(one, sparsification=method, protocol=changed) for one in cohort.members))


class NoisyLayer(nn.Module):
    """A convolution or linear layer whose outputs are drawn, as the paper writes it."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, log_variance: float) -> None:
        super().__init__()
        self.layer, self.noise = layer, torch.empty(0)
        self.log_variance = nn.Parameter(torch.full_like(layer.weight, log_variance))

    def log_alpha(self) -> torch.Tensor:
        bound = 8 if isinstance(self.layer, nn.Conv2d) else 10
        return (self.log_variance - 2 * (self.layer.weight.abs() + 1e-8).log()).clip(-bound, bound)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        variance = self.log_alpha().exp() * self.layer.weight**2
        if isinstance(self.layer, nn.Conv2d):
            spread = conv2d(x**2, variance, stride=self.layer.stride, padding=self.layer.padding)
        else:
            spread = linear(x**2, variance)
        return self.layer(x) + (spread + 1e-8).sqrt() * self.noise


def plain_loop(member: Member, data: ImageData) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Weights, log variances and objective of every epoch with PyTorch's own modules and optimiser, in float64."""
    protocol, chosen = member.protocol, member.hyperparameters
    network = build_module(SMALL_RESNET, chosen.activation).double().train()
    start = LAYOUT.unflatten(initial_weights(SMALL_RESNET, [member])[0])
    network.load_state_dict({name: torch.tensor(array) for name, array in start.items()})
    state, layers = network.state_dict(keep_vars=True), {}
    for name in [name.removesuffix(".weight") for name in SMALL_RESNET.prunable]:
        parent, _, own = name.rpartition(".")
        layers[name] = NoisyLayer(network.get_submodule(name), NOISY.log_variance)
        setattr(network.get_submodule(parent), own, layers[name])
    variances = [layer.log_variance for layer in layers.values()]
    groups = [
        {"params": [p for p in state.values() if p.requires_grad], "weight_decay": chosen.weight_decay},
        {"params": variances, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, chosen.learning_rate, protocol.momentum)
    inputs = torch.tensor(data.inputs["train"], dtype=torch.float64)
    labels = torch.tensor(data.labels["train"], dtype=torch.long)
    steps = protocol.epochs * math.ceil(len(labels) / protocol.batch_size)
    scheduler = OneCycleLR(optimizer, chosen.learning_rate, total_steps=steps)
    shapes = dict(zip(layers, output_shapes(), strict=True))
    key, found = seeds.noise_key(member.seeds.dropout), []
    for epoch in range(1, protocol.epochs + 1):
        order, total = torch.from_numpy(seeds.sample_order(member.seeds.order, epoch, len(labels))), 0.0
        for number, batch in enumerate(order.split(protocol.batch_size)):
            visits, counter = (epoch - 1) * len(labels) + number * protocol.batch_size + np.arange(len(batch)), 0
            for name, layer in layers.items():
                size = math.prod(shapes[name])
                layer.noise = torch.tensor(seeds.noise(key, visits, counter, size)).view(len(batch), *shapes[name])
                counter += size + size % 2
            a = torch.cat([layer.log_alpha().flatten() for layer in layers.values()])
            divergence = 0.63576 - 0.63576 * torch.sigmoid(1.8732 + 1.48695 * a) + 0.5 * torch.log1p(torch.exp(-a))
            optimizer.zero_grad()
            loss = cross_entropy(network(inputs[batch]), labels[batch])
            objective = loss + NOISY.kl_weight * epoch / protocol.epochs * divergence.sum()
            objective.backward()
            optimizer.step()
            scheduler.step()
            total += objective.item() * len(batch)
        weights = np.concatenate([tensor.detach().numpy().ravel() for tensor in state.values()])
        log_variances = np.concatenate([variance.detach().numpy().ravel() for variance in variances])
        found.append((weights, log_variances, total / len(labels)))
    return found


def output_shapes() -> list[tuple[int, ...]]:
    """Behind each convolution and linear layer, in the order of the layout, told from the sizes of the architecture."""
    network, shapes = build_module(SMALL_RESNET, "relu").eval(), {}
    for name in SMALL_RESNET.prunable:
        layer = network.get_submodule(name.removesuffix(".weight"))
        layer.register_forward_hook(lambda _, inputs, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
    network(torch.zeros(1, *SMALL_RESNET.input_shape))
    return [shapes[name] for name in SMALL_RESNET.prunable]


def test_variational_dropout_is_a_plain_loop_running_statistics_included(engine, data):
    cohort = sparse_cohort(NOISY)
    fresh, *results = engine.train(SMALL_RESNET, cohort, data)
    prunable = np.concatenate([np.r_[LAYOUT.span(name)] for name in SMALL_RESNET.prunable])
    for row, member in enumerate(cohort.members):
        for result, (weights, log_variances, objective) in zip(results, plain_loop(member, data), strict=True):
            for part in (~LAYOUT.is_trained, LAYOUT.is_trained):
                error = np.abs(result.state.weights[row] - weights)[part]
                assert error.max() < 1e-3 * np.abs(weights - fresh.state.weights[row])[part].max()
            found = result.state.slots["log_variance"][row, prunable]
            moved = np.abs(log_variances - NOISY.log_variance).max()
            assert np.abs(found - log_variances).max() < 1e-3 * moved + 1e-6
            np.testing.assert_allclose(result.sparse.train_objective[row], objective, rtol=1e-4)
    assert moved > 5e-3
    mask, last = results[-1].state.slots["mask"], results[-1]
    assert 0 < (mask == 0).sum() == (mask[:, prunable] == 0).sum()
    sparse = np.where(mask, last.state.weights, 0).astype(np.float32)
    expected = evaluate(SMALL_RESNET, "gelu", sparse, data.inputs["test"], data.labels["test"])
    np.testing.assert_array_equal(last.metrics.test_loss, expected.loss)


@pytest.mark.parametrize("method", [NOISY, Magnitude(sparsities=(0.5, 0.75), scope="layer")], ids=lambda one: one.kind)
def test_resumed_training_is_the_uninterrupted_one_bit_for_bit(engine, data, method):
    cohort = sparse_cohort(method, augmentation=Augmentation(flip=True))
    whole = list(engine.train(SMALL_RESNET, cohort, data))
    (again,) = engine.train(SMALL_RESNET, cohort, data, resume=whole[1].state)
    assert_same_bytes(again, whole[2])
    dropped = whole[2].state.slots["mask"] == 0
    assert not dropped[:, ~LAYOUT.is_trained].any()
    if method is not NOISY:
        assert not whole[2].state.weights[dropped].any()
        np.testing.assert_allclose(whole[2].sparse.layer_sparsity, 0.75, atol=0.02)


def test_in_bfloat16_it_comes_out_nearly_alike(data):
    one, other = (
        list(SparseEngine().train(SMALL_RESNET, sparse_cohort(NOISY, precision=precision), data))[-1]
        for precision in ("float32", "bfloat16")
    )
    moved = np.abs(one.state.weights - initial_weights(SMALL_RESNET, sparse_cohort(NOISY).members)).max()
    difference = np.abs(one.state.weights - other.state.weights)
    assert 0 < difference.max() < 0.3 * moved
    np.testing.assert_allclose(one.metrics.train_loss, other.metrics.train_loss, rtol=0.05)
