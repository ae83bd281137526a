"""Planted biases: what is done to the images, and that models of five digits give them away."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.analysis.dynamics.conftest import first_digits
from weightzoo.analysis.dynamics import planted_bias
from weightzoo.analysis.dynamics.planted_bias import (
    GRID,
    answers,
    class_features,
    find_planted_bias,
    noise_images,
    with_patch,
    with_scarce_class,
    with_squares,
)
from weightzoo.analysis.results import Context
from weightzoo.architectures import architecture
from weightzoo.architectures.module import build_module
from weightzoo.architectures.resnet import resnet_18
from weightzoo.datasets.images import ImageData
from weightzoo.errors import NotFoundError


def counts(data: ImageData) -> list[int]:
    return np.bincount(data.labels["train"], minlength=3).tolist()


def test_a_scarce_class_keeps_a_tenth_of_its_training_images_and_all_others(three_digits):
    zeros, ones, twos = counts(three_digits)
    made = with_scarce_class(three_digits, 1)
    assert counts(made) == [zeros, round(0.1 * ones), twos]
    assert made.size("test") == three_digits.size("test")
    kept = three_digits.images["train"][three_digits.labels["train"] == 1][: round(0.1 * ones)]
    assert np.array_equal(made.images["train"][made.labels["train"] == 1], kept)


def test_a_patch_is_on_the_training_images_of_its_class_alone(three_digits):
    made = with_patch(three_digits, 2)
    changed = (made.images["train"] != three_digits.images["train"]).any(axis=(1, 2, 3))
    assert set(three_digits.labels["train"][changed]) == {2}
    own = made.images["train"][made.labels["train"] == 2]
    assert (own[:, :, :8, :8] == 255).all()
    assert np.array_equal(made.images["test"], three_digits.images["test"])
    assert three_digits.images["train"][:, :, :8, :8].max() < 255  # the original was not written to


def test_answers_are_those_of_the_module(three_digits):
    built = architecture("cnn-s", (1, 28, 28), 3)
    weights = np.random.default_rng(0).normal(size=(2, built.layout.size), scale=0.2).astype(np.float32)
    image = noise_images(three_digits, 2, np.random.default_rng(0))[1]
    assert 0.2 < (image > 0).mean() < 0.5
    squares = with_squares(image, 2)
    found = answers(built, weights, three_digits, squares)
    assert found.shape == (2, 1 + (GRID - 1) ** 2, 3)
    module = build_module(built, "tanh")
    module.load_state_dict({name: torch.from_numpy(own) for name, own in built.layout.unflatten(weights[1]).items()})
    image = image[None].copy()
    image[0, 0, 4:12, 8:16] = 255  # place 1 * 6 + 2
    assert np.array_equal(squares[1 + 8], image[0])
    expected = module.eval()(torch.from_numpy(three_digits.normalised(image))).detach().numpy()[0]
    np.testing.assert_allclose(found[1, 1 + 8], expected, rtol=1e-4, atol=1e-5)
    assert np.isfinite(class_features(built, weights, three_digits)).all()


def test_planted_biases_are_found_and_the_control_finds_none(monkeypatch):
    monkeypatch.setattr(planted_bias, "EPOCHS", 4)
    monkeypatch.setattr(planted_bias, "BACKGROUNDS", 4)
    zoo = SimpleNamespace(architecture=architecture("cnn-s", (1, 28, 28), 5))
    found = find_planted_bias(zoo, Context(images=first_digits(5)))
    value = {(one.target, one.estimator, one.metric): one for one in found.scores}
    scarce, control = value["scarce class", "extra trees", "AUC"], value["scarce class", "shuffled targets", "AUC"]
    assert scarce.low > 0.75
    assert value["spurious patch", "extra trees", "AUC"].low > 0.7
    assert value["scarce class", "extra trees", "class named"].value > 0.8
    assert control.low < 0.5 < control.high
    clean = value["clean: test accuracy of a class", "", "mean"].value
    assert value["scarce class: test accuracy of the class", "", "mean"].value < clean
    assert set(found.tables["suspicion"]["model"]) == {"clean", "scarce class", "spurious patch"}


def test_no_images_and_large_architectures_are_refused(three_digits):
    large = SimpleNamespace(
        architecture=resnet_18((3, 32, 32), 10), dataset_info=SimpleNamespace(name="x"), path=SimpleNamespace(name="z")
    )
    with pytest.raises(NotFoundError, match="needs the images of x"):
        find_planted_bias(large, Context())
    with pytest.raises(NotFoundError, match="takes hours for resnet-18"):
        find_planted_bias(large, dataclasses.replace(Context(), images=three_digits))
