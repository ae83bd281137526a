"""Models that a checkpoint may be from, and the one among them that is most like it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from weightzoo.analysis.alignment import match_weights
from weightzoo.analysis.features import Batch
from weightzoo.analysis.features.invariant import invariant
from weightzoo.layout import Layout

if TYPE_CHECKING:
    from weightzoo.zoo import Zoo

WEIGHTS, SORTED, INVARIANT = "weights", "sorted weights", "invariant features"
ALIGNED, OUTPUTS = "aligned weights", "outputs"
SHORTLIST = 10  # models that are aligned, those most alike by what no order of units changes


class Gallery:
    """M models, to be told apart by their weights, or by what they make of some images."""

    def __init__(self, zoo: Zoo, weights: np.ndarray, logits: np.ndarray | None = None) -> None:
        """`weights` float32 `[M, P]`, finite; `logits [M, images, classes]` if what a network gives is to be compared.

        `zoo` is one of their architecture.
        """
        self._zoo = zoo
        self._weights = weights
        self._logits = None if logits is None else _behaviour(logits)
        self._sorted = _sorted(zoo.layout, weights)
        raw = self._invariants(weights)
        self._centre = np.median(raw, axis=0)
        spread = np.median(np.abs(raw - self._centre), axis=0)
        self._spread = np.where(spread > 1e-9, spread, np.inf)  # what nearly all models share tells nothing
        self._features = self._scaled(raw)

    @property
    def methods(self) -> tuple[str, ...]:
        """How the nearest model can be found."""
        return (WEIGHTS, SORTED, INVARIANT, ALIGNED, *((OUTPUTS,) if self._logits is not None else ()))

    def nearest(self, weights: np.ndarray, logits: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The model that each of `weights [Q, P]` is nearest to, int64 `[Q]`, by each method.

        - weights: the least distance of the weights as they are, of each parameter relative to its size (see
          `relative_distances`), so that neither a layer of large weights decides alone nor what pruning does to norms.
        - sorted weights: the least such distance of the values of each parameter in ascending order, which pruning
          changes little, and reordering units not at all.
        - invariant features: the least distance of features that no order of units changes, each scaled by its spread
          among the models, outliers pulled in.
        - aligned weights: the least distance of the weights after matching, of the `SHORTLIST` nearest by either of
          these two.
        - outputs: the largest cosine of the `logits [Q, images, classes]`, centred for each image.
        """
        found = {WEIGHTS: relative_distances(self._zoo.layout, weights, self._weights).argmin(axis=1)}
        by_values = relative_distances(self._zoo.layout, _sorted(self._zoo.layout, weights), self._sorted)
        by_features = _squared_distances(self._scaled(self._invariants(weights)), self._features)
        found[SORTED], found[INVARIANT] = by_values.argmin(axis=1), by_features.argmin(axis=1)
        ranks = np.minimum(*(rankdata(apart, method="ordinal", axis=1) for apart in (by_values, by_features)))
        short = np.argsort(ranks, axis=1, kind="stable")[:, :SHORTLIST]
        found[ALIGNED] = self._aligned(weights, short)
        if self._logits is not None and logits is not None:
            found[OUTPUTS] = (_behaviour(logits) @ self._logits.T).argmax(axis=1)
        return found

    def _aligned(self, weights: np.ndarray, short: np.ndarray) -> np.ndarray:
        """The nearest of the models `short [Q, K]` after the query's units are put in the order of each."""
        step = max(1, (64 << 20) // (4 * weights.shape[1] * short.shape[1]))
        nearest: list[np.ndarray] = []
        for start in range(0, len(weights), step):
            part = short[start : start + step]
            queries = np.repeat(weights[start : start + step], part.shape[1], axis=0)
            candidates = self._weights[part.ravel()]
            moved = match_weights(self._zoo.symmetries, candidates, queries).apply(queries)
            best = _paired_distances(self._zoo.layout, moved, candidates).reshape(part.shape).argmin(axis=1)
            nearest.append(np.take_along_axis(part, best[:, None], axis=1)[:, 0])
        return np.concatenate(nearest) if nearest else np.empty(0, np.int64)

    def _invariants(self, weights: np.ndarray) -> np.ndarray:
        """The features `[N, D]` of weight vectors."""
        step = max(1, (16 << 20) // (4 * weights.shape[1]))
        parts: list[np.ndarray] = []
        for start in range(0, len(weights), step):
            some = weights[start : start + step]
            nothing = np.zeros(len(some), np.int64)
            parts.append(np.stack([*invariant(Batch(self._zoo, nothing, nothing, some)).values()], axis=1))
        return np.concatenate(parts)

    def _scaled(self, raw: np.ndarray) -> np.ndarray:
        return np.arcsinh((raw - self._centre) / self._spread)


def relative_distances(layout: Layout, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Distances float64 `[N, M]` of weight vectors `[N, P]` and `[M, P]`.

    The sum over the trained parameters, each a vector in a network a and a network b, of |a - b|² / (|a|² + |b|²).
    """
    total = np.zeros((len(one), len(other)))
    for span in _trained(layout):
        a, b = one[:, span].astype(np.float64), other[:, span].astype(np.float64)
        sizes = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :]
        apart = np.maximum(sizes - 2 * a @ b.T, 0)
        total += np.divide(apart, sizes, out=np.zeros_like(apart), where=sizes > 0)
    return total


def _paired_distances(layout: Layout, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """`relative_distances` of each row of one to the same row of the other, `[N]`."""
    total = np.zeros(len(one))
    for span in _trained(layout):
        a, b = one[:, span].astype(np.float64), other[:, span].astype(np.float64)
        sizes, apart = (a**2 + b**2).sum(axis=1), ((a - b) ** 2).sum(axis=1)
        total += np.divide(apart, sizes, out=np.zeros_like(apart), where=sizes > 0)
    return total


def _sorted(layout: Layout, weights: np.ndarray) -> np.ndarray:
    """Weights `[N, P]`, the values of each parameter in ascending order."""
    ordered = np.array(weights)
    for tensor in (ordered[:, layout.span(name)] for name in layout.names):
        tensor.sort(axis=1)
    return ordered


def _trained(layout: Layout) -> list[slice]:
    return [layout.span(name) for name in layout.names if name not in layout.buffers]


def same_model(nearest: np.ndarray, wanted: np.ndarray, groups: Sequence[Sequence[int]]) -> np.ndarray:
    """Bool `[Q]`: whether the nearest model is the wanted one, or has the same weights as that."""
    first = np.arange(max(nearest.max(initial=0), wanted.max(initial=0), *map(max, groups), 0) + 1)
    for group in groups:
        first[list(group)] = min(group)
    return first[nearest] == first[wanted]


def _directions(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1, zero where a row is zero: float64."""
    rows = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def _behaviour(logits: np.ndarray) -> np.ndarray:
    """Logits `[N, images, classes]` as directions: what an image adds to all classes alike changes no prediction."""
    values = np.nan_to_num(np.asarray(logits, np.float64), posinf=65504.0, neginf=-65504.0)
    centred = values - values.mean(axis=2, keepdims=True)
    return _directions(centred.reshape(len(values), -1))


def _squared_distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    inner = one @ other.T
    return (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None, :] - 2 * inner
