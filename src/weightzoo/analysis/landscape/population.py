"""Many weight vectors evaluated as one population, and which models and images a look at the landscape takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from weightzoo.analysis.performance import finished
from weightzoo.analysis.weights import evenly
from weightzoo.architectures import Architecture
from weightzoo.errors import NotFoundError
from weightzoo.members import Cohort, Hyperparameters, Member, Protocol, Seeds
from weightzoo.spec import Constant
from weightzoo.training import choose_engine
from weightzoo.training.protocol import TrainState

if TYPE_CHECKING:
    from weightzoo.datasets.images import ImageData, SplitName
    from weightzoo.zoo import Zoo

_CHUNK_BYTES = 32 << 20  # of weights that are evaluated at a time
LARGE = 100_000  # weights, from which on a network is looked at on fewer images and in fewer places


@dataclass(frozen=True)
class Losses:
    """What networks make of the training and the test images, float64 of any one shape; loss NaN where not finite."""

    train_loss: np.ndarray
    train_accuracy: np.ndarray
    test_loss: np.ndarray
    test_accuracy: np.ndarray

    def reshape(self, *shape: int) -> Losses:
        """The same numbers in another shape."""
        return Losses(*(values.reshape(*shape) for values in vars(self).values()))


def measure(
    architecture: Architecture,
    activations: Sequence[str],
    weights: np.ndarray,
    images: ImageData,
    threads: int = 1,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Losses:
    """Loss and accuracy of N networks `weights [N, P]`, each with its own activation, on the population engine.

    `on_progress` is told how many are done.
    """
    found = np.full((4, len(weights)), np.nan)
    kinds = np.asarray(activations)
    step = max(1, _CHUNK_BYTES // (4 * architecture.layout.size))
    done = 0
    for kind in dict.fromkeys(activations):
        rows = np.flatnonzero(kinds == kind)
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            cohort = Cohort((_anyone(architecture, kind),) * len(some))
            engine = choose_engine("auto", architecture, cohort, threads=threads)
            state = TrainState.given(np.ascontiguousarray(weights[some], np.float32), cohort.optimizer)
            metrics = next(iter(engine.train(architecture, cohort, images, resume=state))).metrics
            for place, name in enumerate(Losses.__dataclass_fields__):
                found[place, some] = getattr(metrics, name)
            done += len(some)
            on_progress(done)
    return Losses(*found)


def _anyone(architecture: Architecture, activation: str) -> Member:
    """A member that is only measured: of its record nothing but the activation matters."""
    protocol = Protocol(0, 1, Constant(), 0.0, (0,))
    chosen = Hyperparameters("uniform", activation, "sgd", 0.0, 0.0, 0.0)
    return Member("", "", architecture.name, chosen, Seeds.all(0), protocol, "seed")


def fewer_images(images: ImageData, train: int, test: int) -> ImageData:
    """The data set with at most so many training and test images, evenly taken, and one to validate on."""
    most: dict[SplitName, int] = {"train": train, "val": 1, "test": test}
    rows = {split: evenly(images.size(split), count) for split, count in most.items()}
    return replace(
        images,
        images={split: images.images[split][chosen] for split, chosen in rows.items()},
        labels={split: images.labels[split][chosen] for split, chosen in rows.items()},
    )


def learned(zoo: Zoo) -> np.ndarray:
    """Bool `[models]`: which models finished with finite weights, more than half way from chance to the zoo's best.

    Half way in validation accuracy. Between models that learned nothing there is nothing to be seen.

    Raises:
        NotFoundError: there are not two.
    """
    models = zoo.models
    accuracy = models["val_accuracy"].to_numpy(np.float64, na_value=np.nan)
    good = finished(models) & np.isfinite(accuracy) & zoo.present[:, -1]
    if good.any():
        chance = 1 / zoo.architecture.classes
        good &= accuracy > (chance + accuracy[good].max()) / 2
    rows = np.flatnonzero(good)
    step = max(1, _CHUNK_BYTES // (4 * zoo.layout.size))
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        good[some] = np.isfinite(zoo.weights(some, [zoo.checkpoint_epochs[-1]])).all(axis=(1, 2))
    if good.sum() < 2:
        raise NotFoundError(f"needs two models that learned something, the zoo has {good.sum()}")
    return good


def fewer(architecture: Architecture, count: int) -> int:
    """How many of `count` pairs or models are looked at: of a large network a fraction, at least two."""
    return max(2, math.ceil(count * min(1.0, LARGE / architecture.layout.size)))
