"""Convolutions by Winograd's method: padded or not, behind other layers or on the image, in training and evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training.helpers import image_data, make_cohort
from tests.training.lanes.helpers import avx2_target, first_gradients, has_avx2, random_weights
from tests.training.lanes.test_gradients import assert_gradients
from weightzoo.architectures.cnn import cnn_m
from weightzoo.architectures.graph import Activation, Architecture, Conv, Dropout, Flatten, Layer, Linear, MaxPool
from weightzoo.training.lanes import LanesEngine, winograd, winograd_rows
from weightzoo.training.lanes.geometry import Geometry
from weightzoo.training.lanes.stages import lower
from weightzoo.training.reference import ReferenceEngine


def graph(input_shape: tuple[int, int, int], *layers: Layer) -> Architecture:
    front = Architecture("front", input_shape, layers)
    features = int(np.prod(front.shapes[-1]))
    return Architecture("tiles", input_shape, (*layers, Flatten(), Linear("out", features, 3)))


GRAPHS = {
    "odd sizes, a row of windows left over": graph(
        (2, 17, 15), Conv("a", 2, 9, kernel=3), Activation(), Conv("b", 9, 11, kernel=3), MaxPool(2), Activation()
    ),
    "padding": graph(
        (1, 9, 12), Conv("a", 1, 10, 3), MaxPool(2), Dropout(), Conv("b", 10, 8, 3, padding=1), MaxPool(2), Dropout()
    ),
    "padding wider than needed, no activation before": graph(
        (1, 8, 7), Conv("a", 1, 8, kernel=2), Conv("b", 8, 9, kernel=3, padding=2), MaxPool(2), Activation()
    ),
    "two in a row": graph(
        (1, 17, 17), Conv("a", 1, 12, 2), Activation(), Conv("b", 12, 12, 3), MaxPool(2), Activation(),
        Conv("c", 12, 9, 3), MaxPool(2), Activation(),
    ),
    "two windows a tile, a row of conv outputs left over": graph(
        (2, 17, 20), Conv("a", 2, 9, kernel=3), Activation(), Conv("b", 9, 11, kernel=3), MaxPool(2), Activation()
    ),
    "two windows a tile, padding": graph(
        (1, 10, 16), Conv("a", 1, 9, kernel=1), Activation(), Conv("b", 9, 10, 3, padding=1), MaxPool(2), Dropout()
    ),
    "rows, odd sizes, columns in parts": graph((2, 10, 60), Conv("a", 2, 5, 3), MaxPool(2), Activation(), Dropout()),
    "rows, padding": graph((3, 9, 12), Conv("a", 3, 4, 3, padding=1), MaxPool(2), Activation()),
    "rows, behind another layer": graph(
        (1, 13, 21), Conv("a", 1, 6, 3), Activation(), Conv("b", 6, 7, 3, padding=1), MaxPool(2), Activation()
    ),
    "on the image": graph((9, 10, 12), Conv("a", 9, 10, kernel=3, padding=1), MaxPool(2), Activation()),
}  # fmt: skip


def methods(architecture: Architecture) -> list[int | str]:
    """Of each convolution that is done by one of the methods the windows in a row of a tile, or that it is that for rows."""
    operations = [stage.operation for stage in lower(architecture) if isinstance(stage.operation, Geometry)]
    return [
        winograd.Tile.of(each).wide if winograd.fits(each) else "rows"
        for each in operations
        if winograd.fits(each) or winograd_rows.fits(each)
    ]


def test_where_it_is_used() -> None:
    found = {name: methods(architecture) for name, architecture in GRAPHS.items()}
    assert list(found.values()) == [[1], [1], [2], [1, 1], [2], [2], ["rows"], ["rows"], ["rows"], [2]]
    assert methods(cnn_m(3, 10)) == ["rows", 2, 1]


def test_where_gradients_have_larger_tiles() -> None:
    inner = {name: lower(architecture)[1].operation for name, architecture in GRAPHS.items() if "two windows" in name}
    high = [winograd.Tile.of(each, gradient=True).high for each in inner.values() if isinstance(each, Geometry)]
    assert high == [2, 1]


@pytest.mark.parametrize("architecture", GRAPHS.values(), ids=GRAPHS.keys())
def test_gradients(architecture: Architecture, cache: Path) -> None:
    assert_gradients(architecture, "gelu", cache, rates=(0.0, 0.4))


@pytest.mark.parametrize("name", ["on the image", "padding", "rows, padding", "rows, odd sizes, columns in parts"])
def test_evaluation_is_that_of_the_reference(name: str, cache: Path) -> None:
    data = image_data(GRAPHS[name], train=8, val=20, test=60)
    cohort = make_cohort([{}, {"dropout": 0.3}], epochs=1, batch_size=4)
    for ours, theirs in zip(
        LanesEngine(1, cache=cache).train(GRAPHS[name], cohort, data),
        ReferenceEngine().train(GRAPHS[name], cohort, data),
        strict=True,
    ):
        np.testing.assert_allclose(ours.metrics.val_loss, theirs.metrics.val_loss, rtol=1e-5)
        np.testing.assert_allclose(ours.metrics.probe_logits, theirs.metrics.probe_logits, rtol=2e-3, atol=2e-3)


@pytest.mark.skipif(not has_avx2(), reason="the processor has no AVX2")
@pytest.mark.parametrize("architecture", GRAPHS.values(), ids=GRAPHS.keys())
def test_other_instructions_give_the_same_bits(architecture: Architecture, cache: Path) -> None:
    data = image_data(architecture, train=4, val=3, test=3)
    cohort = make_cohort([{"dropout": 0.0}, {"dropout": 0.5}], batch_size=4, epochs=1)
    weights = random_weights(architecture, cohort)
    native, _ = first_gradients(architecture, cohort, weights, data, cache)
    other, _ = first_gradients(architecture, cohort, weights, data, cache, avx2_target())
    assert native.tobytes() == other.tobytes()
