"""A calibration measures what it says, within its time, on data of the right shape."""

from __future__ import annotations

import time

import pytest

from weightzoo.architectures import architecture
from weightzoo.architectures.resnet import resnet_18
from weightzoo.calibration import Speed, calibrate, noise
from weightzoo.datasets.description import Description
from weightzoo.members import Cohort, cohorts
from weightzoo.population import population
from weightzoo.spec import parse_params


def kinds(batch_size: int = 10) -> tuple[Cohort, ...]:
    """Eight cohorts of six members."""
    factors = {"activation": ["tanh", "relu", "gelu", "silu"], "optimizer": ["adam", "sgd"], "dropout": [0, 0.1, 0.5]}
    zoo = {"dataset": "digits", "architecture": "cnn-s", "configuration": {"kind": "grid", "seeds": [1, 2]}}
    zoo |= {"factors": factors, "training": {"batch_size": batch_size}}
    params = parse_params({"build": [], "datasets": {"digits": {}}, "zoos": {"a": zoo}})
    return cohorts(population(params.zoo("a"), "").ask())


@pytest.mark.parametrize("engine", ["reference", "torch"])
def test_a_calibration_measures_each_kind(engine: str) -> None:
    chosen = [cohort.select(range(4)) for cohort in kinds()[:2]]
    built = architecture("cnn-s", (1, 28, 28), 10)
    data = Description((1, 28, 28), 10, {"train": 40, "val": 10, "test": 10})
    start = time.perf_counter()
    speeds = calibrate(built, chosen, data, engine=engine, threads=1, budget=60)
    elapsed = time.perf_counter() - start
    assert [(speed.engine, speed.members) for speed in speeds] == [(engine, 4)] * 2
    for speed in speeds:
        assert speed.startup > 0
        assert 0 < speed.image * 4 * 40 < elapsed


def test_a_calibration_stops_when_its_time_is_up() -> None:
    chosen = [cohort.select(range(2)) for cohort in kinds()]
    built = architecture("cnn-s", (1, 28, 28), 10)
    data = Description((1, 28, 28), 10, {"train": 20, "val": 10, "test": 10})
    assert len(calibrate(built, chosen, data, engine="torch", threads=1, budget=0)) == 1


def test_the_time_grows_with_models_images_and_epochs() -> None:
    speed = Speed("lanes", startup=2.0, image=1e-3, members=10)
    assert speed.seconds(members=20, images=100, epochs=5) == pytest.approx(2 + 20 * 100 * 5 * 1e-3)
    assert speed.seconds(members=3, images=100, epochs=5) == speed.seconds(members=10, images=100, epochs=5)


@pytest.mark.parametrize(
    ("train", "batch", "expected"), [(1257, 10, 120), (1257, 100, 200), (1257, 7, 126), (50, 10, 50)]
)
def test_noise_has_the_shape_of_the_data(train: int, batch: int, expected: int) -> None:
    data = Description((3, 32, 32), 7, {"train": train, "val": train // 5, "test": 1})
    images = noise(data, kinds(batch))
    assert images.image_shape == (3, 32, 32)
    assert images.classes == 7
    assert images.size("train") == expected
    assert images.size("val") == pytest.approx(expected / 5, abs=1)
    assert images.size("test") == 1
    assert images.inputs["train"].std() == pytest.approx(1, abs=0.1)


def test_of_a_large_network_one_model_is_measured_on_few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weightzoo.calibration.LARGE", 10_000)
    small_resnet = resnet_18((3, 8, 8), 10, width=4)
    data = Description((3, 8, 8), 10, {"train": 40_000, "val": 10_000, "test": 10_000})
    (speed,) = calibrate(small_resnet, kinds(batch_size=256)[:1], data, engine="torch", threads=1)
    assert speed.members == 1
    assert noise(data, kinds(16)[:1], 0).size("train") == 32
    assert speed.seconds(10, 40_000, 50) == speed.startup + 10 * 40_000 * 50 * speed.image
