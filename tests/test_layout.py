from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import architectures
from weightzoo.architectures.graph import Architecture
from weightzoo.errors import LayoutError, NotFoundError
from weightzoo.layout import Layout

LAYOUT = Layout((("conv1.weight", (2, 1, 2, 2)), ("conv1.bias", (2,)), ("fc1.weight", (3, 2)), ("fc1.bias", (3,))))


def tensors(*lead: int) -> dict[str, np.ndarray]:
    return LAYOUT.unflatten(np.arange(np.prod([*lead, LAYOUT.size]), dtype=np.float32).reshape(*lead, LAYOUT.size))


@given(architectures(), st.sampled_from([(), (1,), (3,), (2, 3), (0, 2)]))
def test_round_trip(architecture: Architecture, lead: tuple[int, ...]) -> None:
    layout = architecture.layout
    vectors = np.random.default_rng(0).standard_normal((*lead, layout.size)).astype(np.float32)
    parts = layout.unflatten(vectors)
    assert {name: part.shape for name, part in parts.items()} == {n: (*lead, *s) for n, s in layout.parameters}
    np.testing.assert_array_equal(layout.flatten(parts), vectors)


def test_order_is_layer_by_layer_the_weight_in_c_order_then_the_bias() -> None:
    assert tensors()["conv1.weight"].tolist() == [[[[0, 1], [2, 3]]], [[[4, 5], [6, 7]]]]
    assert tensors()["conv1.bias"].tolist() == [8, 9]
    assert tensors()["fc1.weight"].tolist() == [[10, 11], [12, 13], [14, 15]]
    assert tensors()["fc1.bias"].tolist() == [16, 17, 18]
    assert LAYOUT.layers == ("conv1", "fc1")
    assert LAYOUT.span("conv1") == slice(0, 10)
    assert LAYOUT.span("fc1") == slice(10, 19)
    assert LAYOUT.span("fc1.bias") == slice(16, 19)


def test_unflatten_gives_views() -> None:
    vector = np.zeros(LAYOUT.size, np.float32)
    LAYOUT.unflatten(vector)["fc1.weight"][1, 1] = 5
    assert vector[13] == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("fc1.bias"), r"missing \['fc1.bias'\], unknown none"),
        (lambda t: t.update(conv2=np.zeros(1)), r"missing none, unknown \['conv2'\]"),
        (lambda t: t.update(conv1=np.zeros(1)), r"missing none, unknown \['conv1'\]"),  # a layer is no tensor
        (lambda t: t.update({"fc1.bias": np.zeros((4, 2))}), r"fc1.bias: got shape \[4, 2\], expected \[4, 3\]"),
        (lambda t: t.update({"fc1.bias": np.zeros((5, 3))}), r"fc1.bias: got shape \[5, 3\], expected \[4, 3\]"),
        (lambda t: t.update({"fc1.bias": np.zeros(3)}), r"fc1.bias: got shape \[3\], expected \[4, 3\]"),
        (lambda t: t.update({"conv1.weight": np.zeros(8)}), r"conv1.weight: got shape \[8\], expected \[2, 1, 2, 2\]"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change: object, message: str) -> None:
    given_tensors = tensors(4)
    change(given_tensors)
    with pytest.raises(LayoutError, match=message):
        LAYOUT.flatten(given_tensors)


def test_vectors_of_another_length_are_refused() -> None:
    with pytest.raises(LayoutError, match="weight vector has 18 entries, the architecture has 19"):
        LAYOUT.unflatten(np.zeros((2, 18), np.float32))


def test_unknown_names_are_refused_with_those_there_are() -> None:
    with pytest.raises(NotFoundError, match="no layer or parameter 'fc2'; the layers are conv1, fc1"):
        LAYOUT.span("fc2")
