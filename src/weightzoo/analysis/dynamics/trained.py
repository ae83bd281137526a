"""Models that a method of analysis trains for itself, on the population engine and in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from weightzoo.architectures import Architecture
from weightzoo.datasets.images import ImageData, SplitName
from weightzoo.errors import NotFoundError
from weightzoo.members import Cohort, Hyperparameters, Member, Protocol, Seeds, cohorts
from weightzoo.spec import Constant
from weightzoo.training import choose_engine
from weightzoo.training.initial import initial_weights
from weightzoo.training.protocol import EpochResult, TrainState

MEASURED = (
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "test_loss",
    "test_accuracy",
    "test_class_accuracy",
)
MOST_IMAGES: dict[SplitName, int] = {"train": 2000, "val": 500, "test": 1000}
MOST_PARAMETERS = 100_000


@dataclass(frozen=True)
class Trained:
    """N models behind epochs 0 to E, of which K were kept with their weights."""

    weights: np.ndarray  # float32 [N, K, P]
    metrics: dict[str, np.ndarray]  # each of MEASURED, float32 [N, E + 1], of classes [N, E + 1, classes]


def fewer(data: ImageData) -> ImageData:
    """The first images of each split, enough for hundreds of small models to be trained on them within a minute."""
    return replace(
        data,
        images={split: data.images[split][:most] for split, most in MOST_IMAGES.items()},
        labels={split: data.labels[split][:most] for split, most in MOST_IMAGES.items()},
    )


def refuse_large(built: Architecture) -> None:
    """Refuse to train many models of an architecture that takes hours for it.

    Raises:
        NotFoundError: it has too many parameters.
    """
    if built.layout.size > MOST_PARAMETERS:
        raise NotFoundError(
            f"trains hundreds of models anew, which takes hours for {built.name} with {built.layout.size:,} "
            f"parameters; it is for architectures of up to {MOST_PARAMETERS:,}"
        )


def protocol(epochs: int, kept: Sequence[int] | None = None, batch_size: int = 10) -> Protocol:
    """A constant learning rate for so many epochs; by default the last one's weights are kept."""
    return Protocol(epochs, batch_size, Constant(), 0.9, (epochs,) if kept is None else tuple(kept))


def member(built: Architecture, data: ImageData, chosen: Hyperparameters, seed: int, how: Protocol) -> Member:
    """A model to train on these images."""
    return Member(data.name, data.content_hash, built.name, chosen, Seeds.all(seed), how, "grid")


def train_in_memory(
    built: Architecture,
    members: Sequence[Member],
    data: ImageData,
    *,
    start: np.ndarray | None = None,
    threads: int | None = None,
) -> Trained:
    """Train members of one protocol, from fresh weights or from `start`, float32 `[N, P]`; nothing is recorded."""
    how, count = members[0].protocol, len(members)
    place = {id(one): row for row, one in enumerate(members)}
    weights = np.full((count, len(how.checkpoint_epochs), built.layout.size), np.nan, np.float32)
    metrics: dict[str, np.ndarray] = {}
    for cohort in cohorts(members):
        rows = [place[id(one)] for one in cohort.members]
        state = None if start is None else TrainState.given(start[rows], cohort.optimizer)
        for result in epochs_of(built, cohort, data, state, threads):
            if result.epoch in how.checkpoint_epochs:
                weights[rows, how.checkpoint_epochs.index(result.epoch)] = result.state.weights
            for name in MEASURED:
                values = getattr(result.metrics, name)
                shape = (count, how.epochs + 1, *values.shape[1:])
                metrics.setdefault(name, np.full(shape, np.nan, np.float32))[rows, result.epoch] = values
    return Trained(weights, metrics)


def epochs_of(
    built: Architecture, cohort: Cohort, data: ImageData, resume: TrainState | None, threads: int | None
) -> Iterator[EpochResult]:
    """The epochs of a cohort on the engine that suits it."""
    return choose_engine("auto", built, cohort, threads=threads).train(built, cohort, data, resume=resume)


def taken_over(source: Architecture, weights: np.ndarray, built: Architecture, members: Sequence[Member]) -> np.ndarray:
    """Weights float32 `[N, P]` of the architecture `source` for its variant `built`, which may have other classes.

    Then the last layer starts anew, as each member's initialisation and init seed have it.
    """
    fresh = initial_weights(built, members)
    shapes = dict(source.layout.parameters)
    for name, shape in built.layout.parameters:
        if shapes.get(name) == shape:
            fresh[:, built.layout.span(name)] = weights[:, source.layout.span(name)]
    return fresh
