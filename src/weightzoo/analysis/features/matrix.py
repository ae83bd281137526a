"""The kinds of features, and the matrix of some of them over the states of a zoo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

import numpy as np
import pandas as pd

from weightzoo.analysis.features.states import Batch, batches, states_of
from weightzoo.datasets.images import ImageData
from weightzoo.errors import NotFoundError
from weightzoo.mistakes import nearest
from weightzoo.zoo import Zoo

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Feature:
    """A function from a batch of states to named columns `[N]`, and from what it is computed.

    Of `weights` alone, of the `outputs` that a zoo holds for test images, or of `activations` on training images.
    """

    name: str
    title: str
    function: str  # module:name, imported when it is used
    source: Literal["weights", "outputs", "activations"]

    def load(self) -> Callable[[Batch], Columns]:
        """The function itself."""
        module, _, name = self.function.partition(":")
        return getattr(import_module(f"weightzoo.analysis.features.{module}"), name)


FEATURES = {
    feature.name: feature
    for feature in (
        Feature("raw", "W", "raw:raw", "weights"),
        Feature("statistics", "s(W)", "statistics:statistics", "weights"),
        Feature("more", "more statistics", "statistics:more_statistics", "weights"),
        Feature("spectral", "spectra", "spectral:spectral", "weights"),
        Feature("invariant", "invariants", "invariant:invariant", "weights"),
        Feature("probe", "test outputs", "margins:probe_margins", "outputs"),
        Feature("margins", "margins", "margins:hidden_margins", "activations"),
        Feature("homology", "homology", "homology:homology", "activations"),
    )
}


def feature_matrix(
    zoo: Zoo,
    names: Sequence[str] = ("statistics",),
    *,
    epochs: Sequence[int] | None = None,
    states: pd.DataFrame | None = None,
    images: ImageData | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Some kinds of features, float32, a row a state, indexed by `model` and `epoch`, columns `kind:column`.

    `states` (columns `model` and `epoch`, sorted by model) says which; by default all at `epochs`, which are all kept
    ones by default. States with weights that are not finite, or from a divergence on, are left out. The matrix is as
    large as asked for; what is computed on the way stays within some hundred megabytes.

    Raises:
        NotFoundError: there are no such features, the zoo lacks an epoch or its probe, or images are needed.
    """
    for name in names:
        if name not in FEATURES:
            raise NotFoundError(f"no features {name!r}; {nearest(name, FEATURES)}")
    functions = {name: FEATURES[name].load() for name in names}
    wanted = states_of(zoo, epochs) if states is None else states
    columns: list[str] = []
    parts: list[np.ndarray] = []
    index: list[np.ndarray] = []
    done = 0
    for batch in batches(zoo, wanted, images):
        found = {f"{name}:{column}": v for name, of in functions.items() for column, v in of(batch).items()}
        columns = list(found)
        parts.append(np.stack([*found.values()], axis=1, dtype=np.float32, casting="same_kind"))
        index.append(np.stack([batch.models, batch.epochs], axis=1))
        done += len(batch)
        on_progress(done, len(wanted))
    if not parts:
        raise NotFoundError(f"the zoo {zoo.name} has no state with finite weights among the {len(wanted)} asked for")
    at = pd.MultiIndex.from_arrays(np.concatenate(index).T, names=["model", "epoch"])
    return pd.DataFrame(np.concatenate(parts), at, pd.Index(columns))
