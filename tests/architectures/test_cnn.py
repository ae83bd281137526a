from __future__ import annotations

import pytest

from weightzoo.architectures import architecture
from weightzoo.errors import NotFoundError, SpecError


@pytest.mark.parametrize(
    ("name", "image_shape", "parameters", "by_layer"),
    [
        ("cnn-s", (1, 28, 28), 2464, [208, 1206, 100, 740, 210]),
        ("cnn-s", (3, 28, 28), 2864, [608, 1206, 100, 740, 210]),
        ("cnn-m", (3, 32, 32), 10853, [448, 4640, 4335, 1220, 210]),
    ],
)
def test_parameter_counts_are_the_published_ones(
    name: str, image_shape: tuple[int, int, int], parameters: int, by_layer: list[int]
) -> None:
    built = architecture(name, image_shape, 10)
    assert built.layout.size == parameters
    spans = [built.layout.span(layer) for layer in built.layout.layers]
    assert [span.stop - span.start for span in spans] == by_layer


def test_dropout_acts_on_all_hidden_layers_but_the_third_convolution_of_the_small_one() -> None:
    small, medium = architecture("cnn-s", (1, 28, 28), 10), architecture("cnn-m", (3, 32, 32), 10)
    assert [small.shapes[layer] for layer in small.dropout_offsets] == [(8, 12, 12), (6, 4, 4), (20,)]
    assert list(small.dropout_offsets.values()) == [0, 1152, 1248]
    assert [medium.shapes[layer] for layer in medium.dropout_offsets] == [(16, 15, 15), (32, 6, 6), (15, 2, 2), (20,)]


def test_unknown_names_and_other_image_sizes_are_refused() -> None:
    with pytest.raises(NotFoundError, match="no architecture 'cnn'; there are cnn-s, cnn-m"):
        architecture("cnn", (1, 28, 28), 10)
    with pytest.raises(SpecError, match="cnn-s takes images of 1x28x28, the data set has 1x32x32; change `size`"):
        architecture("cnn-s", (1, 32, 32), 10)
