"""Features that do not change when hidden units are reordered, though they look at units one by one."""

from __future__ import annotations

import numpy as np

from weightzoo.analysis.features.states import Batch
from weightzoo.architectures.units import WeightGraph

_CONSTANTS = (-1.0, 0.5, 1.0)  # what saturated tanh and sigmoid units give


def invariant(batch: Batch) -> dict[str, np.ndarray]:
    """Sorted norms and means of the units' incoming and outgoing weights, singular values, sorted biases.

    Of a weight tensor, the spectra are those of its two unfoldings, one row a unit that it leads to or comes from, so
    their squares are the eigenvalues of the Gram matrices of the units; a kernel's mean and deviation at each position
    tell what is shared by all units. Units whose order means something (image channels, classes) are not sorted.
    """
    graph = WeightGraph.of(batch.architecture)
    columns: dict[str, np.ndarray] = {}
    for edges in graph.edges:
        between = graph.edge_features(batch.weights, edges).astype(np.float64)
        for end, axis, group in (("in", 1, edges.target), ("out", 2, edges.source)):
            rows = np.moveaxis(between, axis, 1).reshape(len(batch), between.shape[axis], -1)
            ordered = np.sort if graph.units[group].free else _as_they_are
            columns |= _numbered(f"{edges.parameter}.{end}.norm", ordered(np.linalg.norm(rows, axis=2)))
            columns |= _numbered(f"{edges.parameter}.{end}.mean", ordered(rows.mean(axis=2)))
            columns |= _numbered(f"{edges.parameter}.{end}.singular", np.linalg.svd(rows, compute_uv=False))
        if edges.features > 1:
            columns |= _numbered(f"{edges.parameter}.position.mean", between.mean(axis=(1, 2)))
            columns |= _numbered(f"{edges.parameter}.position.deviation", between.std(axis=(1, 2)))
    for number, units in enumerate(graph.units):
        entries = graph.unit_features(batch.weights, number)
        for (name, _, _), values in zip(units.vectors, entries, strict=True):
            own = np.sort(values, axis=1) if units.free else values
            columns |= _numbered(name, own.reshape(len(batch), -1))
        if number == len(graph.units) - 1:
            columns |= _saturated(batch, graph)
    return columns


def _saturated(batch: Batch, graph: WeightGraph) -> dict[str, np.ndarray]:
    """What the classes' logits would be if all units before them gave the same number, below the largest of them.

    A network whose units are stuck (saturated, or at zero behind a ReLU) gives one class for every image: this one.
    """
    last = len(graph.units) - 1
    biases = [batch.weights[:, span] for _, span, block in graph.units[last].vectors if block == 1]
    bias = sum(biases, np.zeros((len(batch), graph.units[last].size)))
    columns = _numbered("saturated.0", bias - bias.max(axis=1, keepdims=True))
    into = [edges for edges in graph.edges if edges.target == last]
    if len(into) != 1:
        return columns
    total = graph.edge_features(batch.weights, into[0]).sum(axis=(2, 3), dtype=np.float64)
    for constant in _CONSTANTS:
        logits = bias + constant * total
        columns |= _numbered(f"saturated.{constant:g}", logits - logits.max(axis=1, keepdims=True))
    return columns


def _as_they_are(values: np.ndarray) -> np.ndarray:
    return values


def _numbered(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{name}[{index}]": values[:, index] for index in range(values.shape[1])}
