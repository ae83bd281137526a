"""Where models are in weight space: layer norms over the epochs, and a map by principal components."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from weightzoo.analysis.performance import finished
from weightzoo.layout import Layout

if TYPE_CHECKING:
    from weightzoo.zoo import Zoo

COMPONENTS = 3
_READ_BYTES = 4 << 30  # weights read for one report, at most
_CHUNK_BYTES = 64 << 20
_DECIMALS = 7  # of coordinates, at most 2 in size: the order in which so many threads add makes no difference then


@dataclass(frozen=True)
class WeightSpace:
    """M models at the zoo's E kept epochs: norms of L layers, and coordinates on principal components.

    A model's entries are NaN at epochs that it did not reach, and from its divergence on. Coordinates are NaN as well
    for models that are not on the map.
    """

    rows: np.ndarray  # int64 [M], rows of zoo.models, ascending
    epochs: np.ndarray  # int64 [E]
    layers: tuple[str, ...]  # L names
    norms: np.ndarray  # float64 [M, E, L], Euclidean norm of a layer's weights and biases
    coordinates: np.ndarray  # float64 [M, E, COMPONENTS], of weight vectors scaled to length 1
    explained: np.ndarray  # float64 [COMPONENTS], share of the variance of the final ones
    mapped: np.ndarray  # bool [M], which models the map was fitted on

    @property
    def total_norms(self) -> np.ndarray:
        """Euclidean norm of the whole weight vector, float64 `[M, E]`."""
        return np.sqrt((self.norms**2).sum(axis=2))


def evenly(count: int, limit: int) -> np.ndarray:
    """`min(count, limit)` of the numbers 0 .. count - 1, ascending and evenly spread, the first and the last included.

    >>> evenly(10, 4).tolist()
    [0, 3, 6, 9]
    """
    if limit >= count:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, limit).round().astype(np.int64))


def weight_space(zoo: Zoo, most_models: int = 2000) -> WeightSpace:
    """Norms and map of the zoo's models; of an even sample of them, if they are more than `most_models` or 4 GiB.

    The map is a principal component analysis of the last kept epoch's weight vectors of the finished models (Pearson
    1901; Jolliffe 2002, section 3.5), each scaled to length 1, then centred. Without the scaling a handful of models
    whose weights ran off, to norms a thousand times the others', would be all that the components see (Locantore et al.
    1999, "Robust principal component analysis for functional data"). It is computed from the `[M, M]` matrix of inner
    products, so that the cost hardly grows with P. Earlier epochs are scaled and projected onto the same components. A
    component's sign is chosen so that its largest coordinate in size is positive.
    """
    size, epochs = zoo.layout.size, np.asarray(zoo.checkpoint_epochs, np.int64)
    affordable = max(1, _READ_BYTES // (4 * size * len(epochs)))
    rows = evenly(len(zoo.models), min(most_models, affordable))
    models = zoo.models.iloc[rows]
    lengths = _final_lengths(zoo, rows)
    mapped = finished(models) & np.isfinite(lengths) & (lengths > 0)
    components, centre, explained = _principal_components(zoo, rows[mapped], lengths[mapped])

    layers = zoo.layout.layers
    norms = np.full((len(rows), len(epochs), len(layers)), np.nan)
    coordinates = np.full((len(rows), len(epochs), COMPONENTS), np.nan)
    diverged_epoch = models["diverged_epoch"].to_numpy(np.float64, na_value=np.nan)
    for part in _chunks(len(rows), 4 * size * len(epochs)):
        for some in _chunks(len(epochs), 4 * size * len(rows[part])):  # a single model may be too large as well
            weights = zoo.weights(models=rows[part].tolist(), epochs=epochs[some]).astype(np.float64)  # [m, e, P]
            weights = _without_buffers(weights, zoo.layout)
            weights[epochs[None, some] >= diverged_epoch[part][:, None]] = np.nan
            for index, layer in enumerate(layers):
                own = weights[:, :, zoo.layout.span(layer)]
                norms[part, some, index] = np.sqrt(np.einsum("mep,mep->me", own, own))
            chosen = np.flatnonzero(mapped[part])
            length = np.sqrt((norms[part.start + chosen, some] ** 2).sum(axis=2, keepdims=True))
            with np.errstate(invalid="ignore"):  # a vector of zeros has no direction
                coordinates[part.start + chosen, some] = weights[chosen] @ components / length - centre @ components
    norms[~np.isfinite(norms)] = np.nan
    return WeightSpace(rows, epochs, layers, norms, coordinates.round(_DECIMALS), explained.round(_DECIMALS), mapped)


def _final_lengths(zoo: Zoo, rows: np.ndarray) -> np.ndarray:
    """Euclidean norm of the last kept epoch's weights, float64 `[M]`; not finite if one of them is not."""
    lengths = np.empty(len(rows))
    for part in _chunks(len(rows), 4 * zoo.layout.size):
        weights = zoo.weights(models=rows[part].tolist(), epochs=[zoo.checkpoint_epochs[-1]])[:, 0]
        lengths[part] = np.linalg.norm(_without_buffers(weights, zoo.layout).astype(np.float64), axis=1)
    return lengths


def _principal_components(zoo: Zoo, rows: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Components `[P, COMPONENTS]`, centre `[P]` and explained shares of the last kept epoch's scaled weights.

    Components beyond the rank are zero. Layer by layer, so that memory holds one layer of all models at a time.
    """

    def centred(layer: str) -> tuple[np.ndarray, np.ndarray]:
        weights = zoo.weights(models=rows.tolist(), epochs=[zoo.checkpoint_epochs[-1]], layer=layer)[:, 0]
        scaled = _without_buffers(weights, zoo.layout, zoo.layout.span(layer)) / lengths[:, None]
        return scaled - scaled.mean(axis=0), scaled.mean(axis=0)

    components, centre = np.zeros((zoo.layout.size, COMPONENTS)), np.zeros(zoo.layout.size)
    explained = np.full(COMPONENTS, np.nan)
    if len(rows) == 0:
        return components, centre, explained
    inner = np.zeros((len(rows), len(rows)))
    for layer in zoo.layout.layers:
        own, centre[zoo.layout.span(layer)] = centred(layer)
        inner += own @ own.T
    eigenvalues, vectors = np.linalg.eigh(inner)
    order = np.argsort(-eigenvalues, kind="stable")[:COMPONENTS]
    total = np.trace(inner)
    if total <= 1e-12 * len(rows):  # equal but for rounding
        return components, centre, explained
    top, left = eigenvalues[order], vectors[:, order]
    left = left * np.where(left[np.abs(left).argmax(axis=0), np.arange(left.shape[1])] < 0, -1.0, 1.0)
    left = np.where(top > 1e-12 * top[0], left / np.sqrt(np.maximum(top, 1e-300)), 0.0)
    for layer in zoo.layout.layers:
        components[zoo.layout.span(layer), : left.shape[1]] = centred(layer)[0].T @ left
    explained[: len(top)] = np.maximum(top, 0) / total
    return components, centre, explained


def _without_buffers(weights: np.ndarray, layout: Layout, span: slice = slice(None)) -> np.ndarray:
    """The weights `[..., P]`, or the part `span` of them, with zeros for running means and variances."""
    if layout.buffers:
        weights[..., ~layout.is_trained[span]] = 0
    return weights


def _chunks(count: int, bytes_each: int) -> Iterator[slice]:
    step = max(1, _CHUNK_BYTES // bytes_each)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
