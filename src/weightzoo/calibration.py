"""How fast this machine trains: a few steps of each kind of cohort, on noise in the shape of the data set."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from weightzoo import seeds
from weightzoo.architectures import Architecture
from weightzoo.datasets.description import Description
from weightzoo.datasets.images import SPLITS, ImageData
from weightzoo.members import Cohort
from weightzoo.training import choose_engine

MIN_IMAGES = 120  # training images of a calibration, as a rule
ENOUGH = 0.25  # seconds of training behind which a cohort is measured well enough
LARGE = 1_000_000  # weights; of larger networks one model is measured, on two minibatches of
FEW = 16  # images, which keep a processor busy all the same
TOGETHER = 32  # members a CPU thread that are measured together; fewer would leave vector lanes empty


@dataclass(frozen=True)
class Speed:
    """What one kind of cohort costs on this machine, in seconds of wall time."""

    engine: str
    startup: float  # until the first epoch: compiling, allocating
    image: float  # for one training image and one model, with the validation and test that go with it
    members: int  # models that were trained together in the measurement

    def seconds(self, members: int, images: int, epochs: int) -> float:
        """The time to train a cohort; one that is smaller than the measured one takes as long as that."""
        return self.startup + max(members, self.members) * images * epochs * self.image


def calibrate(
    architecture: Architecture,
    kinds: Iterable[Cohort],
    data: Description,
    *,
    engine: str = "auto",
    device: str = "cpu",
    threads: int | None = None,
    budget: float = 3.0,
) -> list[Speed]:
    """The speed of each kind of cohort, in order, until `budget` seconds are spent; at least of the first.

    Networks above `LARGE` weights are measured one at a time and in small minibatches.

    Raises:
        EngineError: the engine that was asked for can't train one of them.
    """
    large = architecture.layout.size > LARGE
    kinds = tuple(map(_in_small_batches, kinds) if large else kinds)
    images = noise(data, kinds, 0 if large else MIN_IMAGES)
    most = 1 if large else TOGETHER * (threads or os.cpu_count() or 1)
    start = time.perf_counter()
    speeds: list[Speed] = []
    for cohort in kinds:
        if speeds and time.perf_counter() - start + speeds[-1].startup > budget:
            break
        sample = _sample(cohort, most)
        speeds.append(_measure(architecture, sample, images, engine, device, threads))
    return speeds


def noise(data: Description, kinds: tuple[Cohort, ...], least: int = MIN_IMAGES) -> ImageData:
    """Random images in the shape of a data set, fewer but split in proportion: whole minibatches, at least two."""
    batch = max(cohort.protocol.batch_size for cohort in kinds)
    wanted = batch * max(2, math.ceil(least / batch))
    train = min(wanted, data.counts["train"])
    counts = {split: max(1, round(data.counts[split] * train / data.counts["train"])) for split in SPLITS}
    channels, height, width = data.image_shape
    size = channels * height * width
    drawn = {split: seeds.uniforms(0, f"noise {split}", size=count * size) for split, count in counts.items()}
    return ImageData(
        name="noise",
        images={split: (256 * drawn[split]).astype(np.uint8).reshape(-1, *data.image_shape) for split in SPLITS},
        labels={split: np.arange(count, dtype=np.int32) % data.classes for split, count in counts.items()},
        mean=(0.5,) * channels,
        std=(0.3,) * channels,
        class_names=tuple(map(str, range(data.classes))),
        source="noise",
    )


def _in_small_batches(cohort: Cohort) -> Cohort:
    batch = min(FEW, cohort.protocol.batch_size)
    protocol = dataclasses.replace(cohort.protocol, batch_size=batch)
    return Cohort(tuple(dataclasses.replace(member, protocol=protocol) for member in cohort.members))


def _sample(cohort: Cohort, most: int) -> Cohort:
    """At most `most` members, evenly from the whole cohort, so that as many as usual have dropout."""
    if len(cohort) <= most:
        return cohort
    return cohort.select([position * len(cohort) // most for position in range(most)])


def _measure(
    architecture: Architecture, cohort: Cohort, images: ImageData, choice: str, device: str, threads: int | None
) -> Speed:
    chosen = choose_engine(choice, architecture, cohort, device, threads=threads)
    start = time.perf_counter()
    with closing(chosen.train(architecture, cohort, images)) as epochs:  # pyright: ignore[reportArgumentType]
        next(epochs)
        trained = time.perf_counter()
        count = 0
        for count, _ in enumerate(epochs, start=1):  # noqa: B007
            if time.perf_counter() - trained > ENOUGH:
                break
        seconds = time.perf_counter() - trained
    return Speed(chosen.name, trained - start, seconds / (count * images.size("train") * len(cohort)), len(cohort))
