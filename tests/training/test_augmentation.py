"""Augmentation against hand-made cases, NumPy's padding and torchvision's rotation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate

from tests.training import oracle
from tests.training.helpers import TINY, VARIED, image_data, make_cohort
from weightzoo import seeds
from weightzoo.spec import Augmentation
from weightzoo.training import choose_engine
from weightzoo.training.augmentation import augment, augmentation_plan
from weightzoo.training.devices import DeviceData, Images
from weightzoo.training.lanes import LanesEngine
from weightzoo.training.protocol import Engine
from weightzoo.training.reference import ReferenceEngine
from weightzoo.training.stacked import StackedEngine

ONE = 2**16
BLACK = torch.zeros(1, 1, 1)
ENGINES: dict[str, Callable[[], Engine]] = {
    "reference": ReferenceEngine,
    "stacked": StackedEngine,
    "alone": lambda: StackedEngine(members_at_once=1),
}


def moved(*plan: int) -> list[list[float]]:
    """The image 1..6 in two rows of three behind a plan of one row."""
    image = torch.arange(1.0, 7).view(1, 1, 2, 3)
    return augment(image, BLACK, torch.tensor([plan], dtype=torch.int32))[0, 0].tolist()


def test_each_step_by_hand() -> None:
    assert moved(0, 0, 0, ONE, 0) == [[1, 2, 3], [4, 5, 6]]
    assert moved(0, 0, 1, ONE, 0) == [[3, 2, 1], [6, 5, 4]]
    assert moved(1, 0, 0, ONE, 0) == [[4, 5, 6], [0, 0, 0]]
    assert moved(0, -1, 0, ONE, 0) == [[0, 1, 2], [0, 4, 5]]
    assert moved(-1, 2, 0, ONE, 0) == [[0, 0, 0], [3, 0, 0]]
    assert moved(0, -1, 1, ONE, 0) == [[2, 1, 0], [5, 4, 0]]  # the crop first, then the flip
    assert moved(0, 0, 0, -ONE, 0) == [[6, 5, 4], [3, 2, 1]]  # by 180 degrees
    assert moved(9, 0, 0, ONE, 0) == [[0, 0, 0], [0, 0, 0]]


def test_what_a_rotation_brings_in_is_black_also_where_the_crop_moves_the_image_there() -> None:
    image = torch.arange(1.0, 10).view(1, 1, 3, 3)
    eighth = round(ONE * 2**-0.5)
    shifted = augment(image, BLACK, torch.tensor([[1, 0, 0, ONE, 0]], dtype=torch.int32))
    turned = augment(shifted, BLACK, torch.tensor([[0, 0, 0, eighth, eighth]], dtype=torch.int32))
    both = augment(image, BLACK, torch.tensor([[1, 0, 0, eighth, eighth]], dtype=torch.int32))
    assert torch.equal(both, turned)


def test_a_quarter_turn_is_counter_clockwise() -> None:
    image = torch.randn(1, 2, 5, 5)
    turned = augment(image, torch.zeros(2, 1, 1), torch.tensor([[0, 0, 0, 0, ONE]], dtype=torch.int32))
    assert torch.equal(turned, image.rot90(1, (2, 3)))


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (17, 10)])
def test_rotation_is_torchvision_s_with_the_nearest_pixel(size: tuple[int, int]) -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(1, 256, (40, 3, *size), np.uint8))
    plan = augmentation_plan(Augmentation(rotation=20), order_seed=5, epoch=1, samples=40)
    angles = np.rad2deg(np.arctan2(plan[:, 4], plan[:, 3]))
    assert angles.min() < -17
    assert angles.max() > 17
    expected = [
        rotate(image, float(angle), InterpolationMode.NEAREST) for image, angle in zip(images, angles, strict=True)
    ]
    found = augment(images, torch.zeros(3, 1, 1, dtype=torch.uint8), torch.from_numpy(plan))
    assert (found != torch.stack(expected)).float().mean() < 1e-3  # where a pixel lies between two


def test_a_plan_is_a_function_of_seed_epoch_and_position_alone() -> None:
    chosen = Augmentation(crop=4, flip=True, rotation=20)
    plan = augmentation_plan(chosen, 3, 7, 50)
    np.testing.assert_array_equal(augmentation_plan(chosen, 3, 7, 31), plan[:31])
    np.testing.assert_array_equal(augmentation_plan(Augmentation(crop=4, flip=True), 3, 7, 50)[:, :3], plan[:, :3])
    for other in (augmentation_plan(chosen, 4, 7, 50), augmentation_plan(chosen, 3, 8, 50)):
        assert (other != plan).any(axis=1).mean() > 0.9


def test_every_crop_is_as_likely_and_half_of_the_images_are_flipped() -> None:
    plan = augmentation_plan(Augmentation(crop=2, flip=True, rotation=90), 1, 1, 20_000)
    down, right, flip, cosine, sine = plan.T
    for shift in (down, right):
        values, counts = np.unique(shift, return_counts=True)
        assert values.tolist() == [-2, -1, 0, 1, 2]
        assert abs(counts / 4000 - 1).max() < 0.1
    assert abs(flip.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(plan[:, :3].T) - np.eye(3)).max() < 0.03
    angle = np.rad2deg(np.arctan2(sine, cosine))
    assert abs(np.quantile(angle, [0, 0.25, 0.5, 0.75, 1]) - [-90, -45, 0, 45, 90]).max() < 2


def test_a_stack_of_members_is_augmented_like_each_alone() -> None:
    images = torch.randn(3, 4, 2, 6, 5)
    plans = torch.from_numpy(np.stack([augmentation_plan(Augmentation(crop=2, flip=True), s, 1, 4) for s in range(3)]))
    black = torch.tensor([-1.0, -2.0]).view(2, 1, 1)
    stacked = augment(images, black, plans)
    for member in range(3):
        assert torch.equal(stacked[member], augment(images[member], black, plans[member]))
    assert {-1.0, -2.0} <= set(stacked.flatten().tolist())


def test_images_normalised_when_they_are_used_are_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataclasses.replace(image_data(), mean=(0.48, 0.1307), std=(0.2, 0.3081))
    monkeypatch.setattr("weightzoo.training.devices.KEPT_BYTES", 0)
    on_device = DeviceData(data, TINY, torch.device("cpu"))
    for split in ("train", "val", "test"):
        images = on_device.inputs[split]
        assert isinstance(images, Images)
        assert images[:].numpy().tobytes() == data.inputs[split].tobytes()
        assert len(images) == data.size(split)
    some = torch.tensor([[3, 1], [0, 3]])
    np.testing.assert_array_equal(on_device.inputs["train"][some].numpy(), data.inputs["train"][some.numpy()])
    expected = (np.float32(0) - np.float32([0.48, 0.1307])) / np.float32([0.2, 0.3081])
    assert on_device.black.flatten().numpy().tobytes() == expected.tobytes()


def by_numpy(data_inputs: np.ndarray, black: np.ndarray, crop: int, seed: int, epoch: int) -> Callable[..., np.ndarray]:
    """Crop and flip of the images at some positions of an epoch, as one would write it with NumPy."""
    samples = len(data_inputs)
    draws = seeds.augmentation_draws(seed, epoch, samples)

    def images_at(positions: np.ndarray, rows: np.ndarray) -> np.ndarray:
        found = []
        for position, row in zip(positions, rows, strict=True):
            image = data_inputs[row]
            channels, height, width = image.shape
            padded = np.broadcast_to(black, (channels, height + 2 * crop, width + 2 * crop)).copy()
            padded[:, crop : crop + height, crop : crop + width] = image
            top, left = (int(draw * (2 * crop + 1)) for draw in draws[position, :2])
            window = padded[:, top : top + height, left : left + width]
            found.append(window[:, :, ::-1] if draws[position, 2] < 0.5 else window)
        return np.stack(found)

    return images_at


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("kept_bytes", [0, 10**9])
def test_engines_train_on_the_augmented_images_and_evaluate_on_the_others(
    name: str, kept_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weightzoo.training.devices.KEPT_BYTES", kept_bytes)
    data = image_data()
    cohort = make_cohort(VARIED[2:4], optimizer="sgd", augmentation=Augmentation(crop=2, flip=True))
    results = list(ENGINES[name]().train(TINY, cohort, data))
    plain = list(ENGINES[name]().train(TINY, make_cohort(VARIED[2:4], optimizer="sgd"), data))
    for kind in ("train_loss", "val_loss", "probe_logits"):  # nothing is augmented before training
        assert getattr(results[0].metrics, kind).tobytes() == getattr(plain[0].metrics, kind).tobytes()
    black = (np.float32(0) - np.float32(data.mean)) / np.float32(data.std)
    for row, member in enumerate(cohort.members):
        rates, momenta = np.full(18, member.hyperparameters.learning_rate), np.full(18, 0.9)
        images = {
            epoch: by_numpy(data.inputs["train"], black[:, None, None], 2, member.seeds.order, epoch)
            for epoch in (1, 2)
        }
        expected = oracle.train(TINY, member, data, rates, momenta, images_at=lambda e, *which: images[e](*which))  # noqa: B023
        for result, epoch in zip(results[1:], expected, strict=True):
            np.testing.assert_allclose(result.state.weights[row], epoch.weights, rtol=0, atol=1e-5)
            np.testing.assert_allclose(result.metrics.train_loss[row], epoch.train_loss, rtol=2e-5)
    found = oracle.evaluate(TINY, cohort.members[0], results[-1].state.weights[0], data, "val")
    np.testing.assert_allclose(results[-1].metrics.val_loss[0], found, rtol=1e-4)


def test_lanes_leaves_augmented_cohorts_to_torch(caplog: pytest.LogCaptureFixture) -> None:
    cohort = make_cohort(VARIED[:1], augmentation=Augmentation(flip=True))
    assert LanesEngine(threads=1).supports(TINY, cohort, "cpu") == (
        "it trains on the images as they are, without augmentation"
    )
    assert isinstance(choose_engine("auto", TINY, cohort), StackedEngine)
    assert "without augmentation" in caplog.text
