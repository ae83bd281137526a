"""Model states: the (model, epoch) pairs of a zoo whose weights can be read, in batches of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from weightzoo.architectures import Architecture
from weightzoo.datasets.images import ImageData
from weightzoo.errors import NotFoundError
from weightzoo.zoo import Zoo

_BATCH_BYTES = 16 << 20  # of weights at a time: what is computed from them takes several times that
_MOST_STATES = 512


@dataclass(frozen=True)
class Batch:
    """Some states of a zoo: `models` (numbers) and `epochs`, int64 `[N]`, and `weights`, float32 `[N, P]`, finite."""

    zoo: Zoo
    models: np.ndarray
    epochs: np.ndarray
    weights: np.ndarray
    images: ImageData | None = None

    def __len__(self) -> int:
        return len(self.models)

    @property
    def architecture(self) -> Architecture:
        """The layer graph of all models."""
        return self.zoo.architecture

    @cached_property
    def tensors(self) -> dict[str, np.ndarray]:
        """The parameters by name, float32 `[N, *shape]`: views."""
        return self.zoo.layout.unflatten(self.weights)

    @cached_property
    def activations(self) -> np.ndarray:
        """The name of each model's nonlinearity, `[N]`. What is computed by it is behaviour, not weights alone."""
        return self.zoo.models["activation"].to_numpy(object)[self.models]

    @cached_property
    def logits(self) -> np.ndarray:
        """What the zoo holds of the models' outputs on the first test images: float32 `[N, images, classes]`.

        Raises:
            NotFoundError: the zoo holds no probe outputs.
        """
        epochs, place = np.unique(self.epochs, return_inverse=True)
        models, row = np.unique(self.models, return_inverse=True)
        return self.zoo.probe(models, epochs)[row, place].astype(np.float32)


def states_of(zoo: Zoo, epochs: Sequence[int] | None = None) -> pd.DataFrame:
    """`model` and `epoch` of every state that the zoo has the weights of, model by model, before any divergence.

    Raises:
        NotFoundError: the zoo does not hold one of the epochs.
    """
    kept = np.asarray(zoo.checkpoint_epochs)
    chosen = kept if epochs is None else np.asarray(epochs, np.int64)
    absent = np.setdiff1d(chosen, kept)
    if len(absent):
        raise NotFoundError(f"the zoo {zoo.name} does not hold epoch {absent[0]}; it has {kept[0]} to {kept[-1]}")
    end = zoo.models["diverged_epoch"].fillna(np.iinfo(np.int32).max).to_numpy(np.int64)
    there = zoo.present[:, np.searchsorted(kept, chosen)] & (chosen[None, :] < end[:, None])
    models, places = np.nonzero(there)
    return pd.DataFrame({"model": models, "epoch": chosen[places]})


def batches(zoo: Zoo, states: pd.DataFrame, images: ImageData | None = None) -> Iterator[Batch]:
    """The states, in their order, in batches of bounded memory; those with weights that are not finite are left out.

    `states` are `model` and `epoch`, sorted by model.
    """
    models, epochs = (states[name].to_numpy(np.int64) for name in ("model", "epoch"))
    step = max(1, min(_MOST_STATES, _BATCH_BYTES // (4 * zoo.layout.size)))
    for start in range(0, len(states), step):
        part = slice(start, start + step)
        rows, row = np.unique(models[part], return_inverse=True)
        columns, column = np.unique(epochs[part], return_inverse=True)
        if len(rows) * len(columns) <= 2 * len(row):
            weights = zoo.weights(rows, columns)[row, column]
        else:  # few of the pairs are wanted: read one by one, not all of them
            pairs = zip(models[part], epochs[part], strict=True)
            weights = np.concatenate([zoo.weights([int(model)], [int(epoch)])[:, 0] for model, epoch in pairs])
        finite = np.isfinite(weights).all(axis=1)
        if finite.any():
            yield Batch(zoo, models[part][finite], epochs[part][finite], weights[finite], images)
