"""Barriers, curves, regions and planes against autograd, hand computation, and what must hold for any network."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from tests.analysis.test_alignment import drawn, planted
from tests.report.synthetic import HYP, synthetic_zoo
from tests.training.helpers import SMALL_RESNET, TINY, image_data
from weightzoo.analysis.alignment import repaired
from weightzoo.analysis.landscape import barriers, curves, directions, pairs, planes, population
from weightzoo.analysis.parents import parent_states
from weightzoo.analysis.results import Context
from weightzoo.architectures import Architecture, architecture
from weightzoo.architectures.module import build_module
from weightzoo.datasets.images import ImageData
from weightzoo.errors import NotFoundError
from weightzoo.training.evaluation import evaluate
from weightzoo.zoo import Zoo
from weightzoo.zoo.permute import Symmetries

CNN_S, CNN_M = architecture("cnn-s", (1, 28, 28), 10), architecture("cnn-m", (3, 32, 32), 10)
FACTORS = {**{name: values[:1] for name, values in HYP.items()}, "activation": ["tanh", "relu"], "dropout": [0.0, 0.5]}
METHODS = [barriers.barriers, curves.connectivity, directions.regions, planes.planes]


@pytest.fixture(scope="module")
def images() -> ImageData:
    return image_data(CNN_S, train=60, val=10, test=40)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """16 models of random weights, which all count as having learned something."""
    return synthetic_zoo(tmp_path_factory.mktemp("zoos") / "small", FACTORS, seeds=4, epochs=2)


@pytest.fixture(autouse=True)
def _all_learned(monkeypatch: pytest.MonkeyPatch):
    for module in (pairs, directions, planes):
        monkeypatch.setattr(module, "learned", lambda zoo: np.ones(len(zoo), bool))
    monkeypatch.setattr(curves, "_STEPS", (3, 3))


# A population


def test_a_population_is_measured_like_each_network_alone(images: ImageData):
    weights = drawn(CNN_S, 5)
    kinds = ["tanh", "relu", "tanh", "gelu", "relu"]
    found = population.measure(CNN_S, kinds, weights, images)
    for row, kind in enumerate(kinds):
        for split in ("train", "test"):
            alone = evaluate(CNN_S, kind, weights[row : row + 1], images.inputs[split], images.labels[split])
            assert getattr(found, f"{split}_loss")[row] == pytest.approx(alone.loss[0], rel=1e-4)
            assert getattr(found, f"{split}_accuracy")[row] == pytest.approx(alone.accuracy[0], abs=1e-6)


def test_fewer_images_are_some_of_the_images(images: ImageData):
    few = population.fewer_images(images, 7, 5)
    assert [few.size(split) for split in ("train", "val", "test")] == [7, 1, 5]
    every = {image.tobytes() for image in images.images["train"]}
    assert all(image.tobytes() in every for image in few.images["train"])
    assert population.fewer_images(images, 1000, 1000).images["train"].shape == images.images["train"].shape


def test_learned_is_more_than_half_way_to_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    zoo = synthetic_zoo(tmp_path / "zoo", FACTORS, seeds=2, epochs=3, diverged=[1])
    zoo.models["val_accuracy"] = [0.9, 0.9, 0.49, 0.51, 0.1, 0.8, np.nan, 0.3]
    assert population.learned(zoo).tolist() == [True, False, False, True, False, True, False, False]
    zoo.models["val_accuracy"] = 0.1
    with pytest.raises(NotFoundError, match="two models that learned"):
        population.learned(zoo)


# Pairs


def test_pairs_share_what_their_kind_says(zoo: Zoo):
    drawn_pairs = pairs.draw_pairs(zoo, np.random.default_rng(0), 6, copies=2)
    models = zoo.models
    counts = pd.Series(drawn_pairs.kinds).value_counts()
    assert dict(counts) == {pairs.CONFIGURATION: 6, pairs.INITIALISATION: 6, pairs.OTHER: 6, pairs.COPY: 2}
    for kind, one, other in zip(drawn_pairs.kinds, drawn_pairs.first, drawn_pairs.second, strict=True):
        first, second = models.iloc[one], models.iloc[other]
        assert first["activation"] == second["activation"]
        same_configuration = first["dropout"] == second["dropout"]
        same_seed = first["seed_init"] == second["seed_init"]
        expected = {
            pairs.CONFIGURATION: (True, False),
            pairs.INITIALISATION: (False, True),
            pairs.OTHER: (False, False),
            pairs.COPY: (True, True),
        }[kind]
        assert (same_configuration, same_seed) == expected
    chosen = list(zip(drawn_pairs.kinds, drawn_pairs.first, drawn_pairs.second, strict=True))
    assert len(set(chosen)) == len(chosen)
    again = pairs.draw_pairs(zoo, np.random.default_rng(0), 6, copies=2)
    assert again.second_weights.tobytes() == drawn_pairs.second_weights.tobytes()


def test_parents_are_found_in_the_zoo_beside(tmp_path: Path):
    parents = synthetic_zoo(tmp_path / "parents", FACTORS, seeds=2, epochs=2)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "zoo.json").write_text("{}")
    zoo = synthetic_zoo(tmp_path / "twins", FACTORS, seeds=2, epochs=1)
    assert parent_states(zoo) is None
    zoo.models["parent"] = parents.models["member"].to_numpy()[::-1]
    zoo.models["parent_epoch"] = 2
    found = parent_states(zoo)
    assert found is not None
    assert found[0].path == parents.path
    assert found[1].tolist() == list(range(8))[::-1]
    drawn_pairs = pairs.draw_pairs(zoo, np.random.default_rng(0), 3)
    own = drawn_pairs.select(np.flatnonzero(drawn_pairs.kinds == pairs.PARENT))
    assert len(own) == 3
    assert (own.first == 7 - own.second).all()
    assert own.first_weights.tobytes() == parents.weights(own.first, [2])[:, 0].tobytes()
    zoo.models["parent"] = "nobody"
    assert parent_states(zoo) is None


# Barriers


def test_a_barrier_is_what_rises_above_the_line_between_the_ends():
    shares = np.array([0, 0.25, 0.5, 1.0])
    values = np.array([[0.0, 3, 1, 4], [1, 0, 0, 1], [2, 2, 2, 2], [0, np.nan, 0, 0]])
    found = barriers.barrier(values, shares)
    assert found[:3].tolist() == [2, 0, 0]
    assert np.isnan(found[3])


def test_ends_are_the_models_and_a_permuted_copy_has_no_barrier_after_alignment(zoo: Zoo, images: ImageData):
    result = barriers.barriers(zoo, Context(images=images, quick=True))
    table = result.tables["pairs"]
    copies = table[table["pairs"] == pairs.COPY].set_index("order")
    assert (copies.loc[barriers.AS_THEY_ARE, "distance"] > 0.1).all()
    assert (copies.loc[barriers.BY_WEIGHTS, "distance"] == 0).all()
    assert copies.loc[barriers.BY_WEIGHTS, "train_loss_barrier"].max() < 1e-5
    assert copies.loc[barriers.BY_WEIGHTS, "accuracy_barrier"].max() < 1e-9
    ends = table.groupby(["pairs", "first", "second"])["accuracy_of_ends"]
    assert (ends.max() - ends.min()).max() < 1e-6  # alignment changes no function
    row = table.iloc[0]
    weights = zoo.weights([row["first"], row["second"]], [2])[:, 0]
    data = images.inputs["test"], images.labels["test"]
    expected = evaluate(zoo.architecture, row["activation"], weights, *data).accuracy.mean()
    assert row["accuracy_of_ends"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("built", [CNN_S, CNN_M, SMALL_RESNET], ids=lambda built: built.name)
def test_the_barrier_to_a_permuted_copy_is_gone_after_alignment(built: Architecture):
    data = image_data(built, train=40, val=10, test=40)
    first = drawn(built, 3)
    copies, _ = planted(built, first)
    numbers = np.arange(3)
    kinds = np.repeat("relu", 3)
    both = pairs.Pairs(np.repeat(pairs.COPY, 3), numbers, numbers, kinds, first, copies)
    zoo = SimpleNamespace(architecture=built, symmetries=Symmetries.of(built))
    shares = np.linspace(0, 1, 5)
    losses = {
        name: barriers.along(built, kinds, barriers.straight(first, second, shares), data, Context()).test_loss
        for name, second in barriers.aligned_pairs(zoo, both, data).items()
    }
    inside = slice(1, -1) if built is SMALL_RESNET else slice(None)  # where batch statistics are those of few images
    change = {
        name: np.abs(found[:, inside] / found[:, inside][:, :1] - 1).max(axis=1) for name, found in losses.items()
    }
    assert (change[barriers.AS_THEY_ARE] > 1e-2).all()
    assert change[barriers.BY_WEIGHTS].max() < 1e-6
    assert (
        change[barriers.BY_ACTIVATIONS] < change[barriers.AS_THEY_ARE]
    ).all()  # units that do nothing are not told apart


def test_networks_between_get_statistics_of_their_own():
    data = image_data(SMALL_RESNET)
    weights = drawn(SMALL_RESNET, 2)
    shares = np.array([0, 0.5, 1])
    points = barriers.straight(weights[:1], weights[1:], shares)
    found = barriers.along(SMALL_RESNET, np.array(["relu"]), points.copy(), data, Context())
    inside = repaired(SMALL_RESNET, "relu", points[0, 1:2], data.inputs["train"])
    expected = evaluate(
        SMALL_RESNET,
        "relu",
        np.concatenate([weights[:1], inside, weights[1:]]),
        data.inputs["test"],
        data.labels["test"],
    )
    np.testing.assert_allclose(found.test_loss[0], expected.loss, rtol=1e-4)


# Curves


def test_a_curve_goes_through_its_ends():
    first, middle, second = np.random.default_rng(0).normal(size=(3, 2, 5)).astype(np.float32)
    points = curves.bezier(first, middle, second, np.array([0.0, 0.3, 1.0]))
    assert points[:, 0].tobytes() == first.tobytes()
    assert points[:, 2].tobytes() == second.tobytes()
    np.testing.assert_allclose(points[:, 1], 0.49 * first + 0.42 * middle + 0.09 * second, rtol=1e-5)


def test_curves_are_trained_like_one_by_one_with_autograd():
    data = image_data(TINY)
    weights = drawn(TINY, 4)
    first, second = weights[:2], weights[2:]
    found = curves.train_curves(TINY, "tanh", first, second, data, np.random.default_rng(3), steps=5, batch_size=8)
    for row in range(2):
        rng = np.random.default_rng(3)
        network = build_module(TINY, "tanh").double()
        start, end = (torch.from_numpy(own[row]).double() for own in (first, second))
        middle = ((start + end) / 2).requires_grad_()
        optimizer = torch.optim.Adam([middle], lr=1e-2)
        inputs, labels = torch.from_numpy(data.inputs["train"]).double(), torch.from_numpy(data.labels["train"]).long()
        for step in range(5):
            optimizer.param_groups[0]["lr"] = 1e-2 * (1 + np.cos(np.pi * step / 5)) / 2
            batch = rng.integers(0, len(labels), 8)
            t = float(rng.random((2, 1))[row, 0])
            point = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
            named, at = {}, 0
            for name, shape in TINY.layout.parameters:
                named[name] = point[at : at + int(np.prod(shape))].reshape(shape)
                at += int(np.prod(shape))
            logits = torch.func.functional_call(network, named, (inputs[batch],))
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits, labels[batch]).backward()
            optimizer.step()
        np.testing.assert_allclose(found[row], middle.detach().numpy(), atol=1e-4)


def test_training_lowers_the_loss_on_the_curve():
    data = image_data(SMALL_RESNET, train=40)
    weights = drawn(SMALL_RESNET, 2)
    shares = np.linspace(0, 1, 5)
    middle = curves.train_curves(
        SMALL_RESNET, "relu", weights[:1], weights[1:], data, np.random.default_rng(0), steps=30, batch_size=16
    )
    losses = [
        barriers.along(SMALL_RESNET, np.array(["relu"]), points, data, Context()).train_loss[0, 1:-1].mean()
        for points in (
            barriers.straight(weights[:1], weights[1:], shares),
            curves.bezier(weights[:1], middle, weights[1:], shares),
        )
    ]
    assert losses[1] < losses[0]


# Regions


@pytest.mark.parametrize("built", [CNN_S, SMALL_RESNET], ids=lambda built: built.name)
def test_directions_are_as_long_as_each_filter(built):
    weights = drawn(built, 2)
    direction = directions.filter_normalised(built, weights, np.random.default_rng(0))
    own, parts = built.layout.unflatten(weights), built.layout.unflatten(direction)
    for name, shape in built.layout.parameters:
        if name not in built.prunable:
            assert not parts[name].any()
            continue
        for unit in range(shape[0]):
            assert np.linalg.norm(parts[name][1, unit]) == pytest.approx(np.linalg.norm(own[name][1, unit]), rel=1e-5)


@pytest.mark.parametrize("built", [TINY, SMALL_RESNET], ids=lambda built: built.name)
def test_the_steepest_direction_is_the_gradient(built):
    data = image_data(built)
    weights = drawn(built, 2)
    found = directions.steepest(built, "tanh", weights, data)
    assert np.linalg.norm(found, axis=1) == pytest.approx([1, 1], rel=1e-5)
    network = build_module(built, "tanh").eval()
    tensors = {name: torch.from_numpy(value) for name, value in built.layout.unflatten(weights[1].copy()).items()}
    network.load_state_dict(tensors)
    network.double()
    inputs, labels = torch.from_numpy(data.inputs["train"]).double(), torch.from_numpy(data.labels["train"]).long()
    torch.nn.functional.cross_entropy(network(inputs), labels).backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in network.parameters()]).numpy()
    np.testing.assert_allclose(found[1][built.layout.is_trained], gradient / np.linalg.norm(gradient), atol=1e-5)


def test_rank_correlations_of_draws_are_those_of_scipy():
    from scipy.stats import spearmanr

    values = np.random.default_rng(0).integers(0, 6, (3, 20, 2)).astype(float)
    found = directions._rank_correlations(values, axis=1)
    assert found == pytest.approx([spearmanr(own[:, 0], own[:, 1]).statistic for own in values])


# Planes


def test_a_plane_goes_through_its_three_models():
    first, second, third = drawn(CNN_S, 3)
    axes, corners = planes.plane(first, second, third)
    np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(first + corners @ axes, np.stack([first, second, third]), atol=1e-6)
    assert corners[0].tolist() == [0, 0]
    assert corners[1, 1] == 0
    with pytest.raises(NotFoundError, match="on one line"):
        planes.plane(first, second, 2 * second - first)


def test_a_plane_is_measured_at_its_corners(zoo: Zoo, images: ImageData, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(planes, "_MARGIN", 0.0)
    table = planes.planes(zoo, Context(images=images, quick=True)).tables["planes"]
    own = table[(table["plane"] == 0) & (table["order"] == barriers.AS_THEY_ARE)]
    numbers = [int(name) for name in own["models"].iloc[0].split("-")]
    weights = zoo.weights(numbers, [2])[:, 0]
    _, corners = planes.plane(*weights)
    losses = evaluate(
        zoo.architecture, own["activation"].iloc[0], weights, images.inputs["train"], images.labels["train"]
    )
    for number, corner in enumerate(corners):
        at = own[(np.abs(own["x"] - corner[0]) < 1e-6) & (np.abs(own["y"] - corner[1]) < 1e-6)]
        if len(at):  # the third lies on an edge of the grid, but between its points
            assert at["train_loss"].iloc[0] == pytest.approx(losses.loss[number], rel=1e-4)
    assert own["inside"].any()
    assert not own["inside"].all()


# All methods


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_a_method_says_the_same_twice_and_another_seed_something_else(method, zoo: Zoo, images: ImageData):
    context = Context(images=images, quick=True)
    one = method(zoo, context)
    assert one.scores
    assert method(zoo, dataclasses.replace(context, threads=2)).scores == one.scores
    assert method(zoo, dataclasses.replace(context, seed=1)).scores != one.scores


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_a_method_says_that_it_needs_images(method, zoo: Zoo):
    with pytest.raises(NotFoundError, match="needs the images of"):
        method(zoo, Context())
