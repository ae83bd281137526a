"""Homology by hand, margins by autograd and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.zoo import synthetic_zoo as probed
from weightzoo.analysis.features import feature_matrix
from weightzoo.analysis.features.homology import correlation_distances, persistence
from weightzoo.datasets.images import ImageData
from weightzoo.zoo import Zoo, write_zoo


def test_four_points_on_a_square():
    """Sides .2, diagonals .6: three components die at .2, one loop lives from .2 to .6."""
    distances = np.array([[0, 0.2, 0.6, 0.2], [0.2, 0, 0.2, 0.6], [0.6, 0.2, 0, 0.2], [0.2, 0.6, 0.2, 0]])
    found = persistence(distances)
    expected = {"h0.count": 3, "h0.life": 0.2, "h0.longest": 0.2, "h0.midlife": 0.1, "h0.entropy": math.log(3)}
    expected |= {"h1.count": 1, "h1.life": 0.4, "h1.longest": 0.4, "h1.midlife": 0.4, "h1.entropy": 0}
    assert found == pytest.approx(expected)


def test_a_line_has_no_loop():
    places = np.array([0.0, 0.1, 0.3, 0.6])
    found = persistence(np.abs(places[:, None] - places))
    assert (found["h1.count"], found["h1.life"]) == (0, 0)
    assert found["h0.life"] == pytest.approx(0.2)  # the gaps .1, .2, .3


def test_distances_are_those_of_corrcoef():
    activations = np.random.default_rng(0).normal(size=(2, 30, 4))
    activations[1, :, 2] = 7.0  # never changes
    found = correlation_distances(activations)
    np.testing.assert_allclose(found[0], 1 - np.abs(np.corrcoef(activations[0].T)), atol=1e-12)
    assert found[1, 2].tolist() == [1, 1, 0, 1]


def test_homology_of_a_zoo_is_that_of_each_module(small_zoo: Zoo, images: ImageData):
    found = feature_matrix(small_zoo, ["homology"], epochs=[4], images=images).loc[(6, 4)]
    module = small_zoo.module(6, 4)
    hidden = torch.from_numpy(images.inputs["train"])
    units: list[torch.Tensor] = []
    for layer in module:
        hidden = layer(hidden)
        if type(layer) in (torch.nn.GELU,):
            units.append(hidden.flatten(2).mean(2) if hidden.ndim == 4 else hidden)
    activations = torch.cat([*units, hidden], 1).detach().double().numpy()
    expected = persistence(correlation_distances(activations[None])[0])
    for name, value in expected.items():
        assert found[f"homology:{name}"] == pytest.approx(value, rel=1e-3, abs=1e-4)


def test_hidden_margins_are_those_of_autograd(small_zoo: Zoo, images: ImageData):
    found = feature_matrix(small_zoo, ["margins"], epochs=[4], images=images).loc[(0, 4)]
    module, labels = small_zoo.module(0, 4), torch.from_numpy(images.labels["train"]).long()
    inputs = torch.from_numpy(images.inputs["train"])
    layers = list(module)
    after_first = 3  # conv, pool, activation
    with torch.no_grad():
        hidden = inputs
        for layer in layers[:after_first]:
            hidden = layer(hidden)
    variation = hidden.flatten(1).var(0, correction=0).sum().sqrt()
    margins: list[float] = []
    for image, label in zip(hidden, labels, strict=True):
        leaf = image[None].clone().requires_grad_(True)
        logits = leaf
        for layer in layers[after_first:]:
            logits = layer(logits)
        others = logits[0].detach().clone()
        others[label] = -torch.inf
        difference = logits[0, label] - logits[0, others.argmax()]
        (slope,) = torch.autograd.grad(difference, leaf)
        margins.append(float((difference / slope.norm() / variation).detach()))
    expected = np.arcsinh(margins)
    assert found["margins:layer1.mean"] == pytest.approx(expected.mean(), rel=1e-3)
    assert found["margins:layer1.q25"] == pytest.approx(np.quantile(expected, 0.25), rel=1e-3, abs=1e-5)


def test_probe_margins_by_hand(tmp_path, images: ImageData):
    head = probed.header(3)
    zoo = Zoo.open(write_zoo(tmp_path / "probed", head, probed.records(head)))
    found = feature_matrix(zoo, ["probe"], epochs=[zoo.checkpoint_epochs[0]], images=images)
    logits = zoo.probe([0], [zoo.checkpoint_epochs[0]])[0, 0].astype(np.float64)
    labels = images.labels["test"][: len(logits)] % logits.shape[1]
    ordered = np.sort(logits, axis=1)
    row = found.iloc[0]
    assert row["probe:top.mean"] == pytest.approx((ordered[:, -1] - ordered[:, -2]).mean(), rel=1e-4)
    if (labels == images.labels["test"][: len(logits)]).all():
        assert row["probe:accuracy"] == pytest.approx((logits.argmax(1) == labels).mean())
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert row["probe:entropy"] == pytest.approx(-(probability * np.log(probability)).sum(axis=1).mean(), rel=1e-4)
