"""The shape of the graph of units that are active together: persistent homology of correlations."""

from __future__ import annotations

from typing import Any

import gudhi
import numpy as np
import torch

from weightzoo.analysis.features.behaviour import population, training_images
from weightzoo.analysis.features.states import Batch

IMAGES = 100
_DIMENSIONS = (0, 1)


def homology(batch: Batch, count: int = IMAGES) -> dict[str, np.ndarray]:
    """Of the units' activations on `count` training images: how long holes of the graph of correlations live, and when.

    The units are those of all hidden layers, a channel of a convolution by its mean over the positions, and the logits.
    Two are at the distance 1 - |correlation|, a unit that never changes at 1 from all. See `persistence`.

    Raises:
        NotFoundError: the images are not at hand.

    References: Corneanu, Escalera & Martinez 2020, "Computing the Testing Error without a Testing Set", CVPR.
    """
    inputs, _ = training_images(batch, count)
    table: dict[str, np.ndarray] = {}
    for rows, given in population(batch, inputs):
        units = torch.cat([hidden.flatten(3).mean(3) if hidden.ndim > 3 else hidden for hidden in given[1:]], 2)
        for row, distances in zip(rows, correlation_distances(units.double().numpy()), strict=True):
            for name, value in persistence(distances).items():
                table.setdefault(name, np.full(len(batch), np.nan))[row] = value
    return table


def correlation_distances(activations: np.ndarray) -> np.ndarray:
    """1 - |Pearson correlation| of each two units: `[N, units, units]` of `[N, images, units]`, 0 on the diagonal."""
    centred = activations - activations.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1, keepdims=True)
    scale = np.linalg.norm(activations, axis=1, keepdims=True)
    changes = norm > 1e-6 * scale + 1e-12
    unit = np.where(changes, centred / np.where(changes, norm, 1), 0)
    distances = 1 - np.minimum(np.abs(unit.swapaxes(1, 2) @ unit), 1)
    distances[:, np.arange(distances.shape[1]), np.arange(distances.shape[1])] = 0
    return distances


def persistence(distances: np.ndarray) -> dict[str, float]:
    """Summary of the Vietoris-Rips persistence of points with `distances [U, U]`, in dimensions 0 and 1.

    Of the features that are born and die: how many, the mean and the largest life (death - birth), the mean midlife
    ((birth + death) / 2), the entropy of the lives. The component that never dies is left out.
    """
    rips: Any = gudhi.RipsComplex(distance_matrix=distances, max_edge_length=1.0)
    tree = rips.create_simplex_tree(max_dimension=1)
    tree.collapse_edges()
    tree.expansion(max(_DIMENSIONS) + 1)
    tree.compute_persistence()
    summary: dict[str, float] = {}
    for dimension in _DIMENSIONS:
        spans = np.asarray(tree.persistence_intervals_in_dimension(dimension), np.float64).reshape(-1, 2)
        spans = spans[np.isfinite(spans).all(axis=1)]
        life = spans[:, 1] - spans[:, 0]
        share = life[life > 0] / life.sum() if life.sum() > 0 else np.ones(1)
        summary |= {
            f"h{dimension}.count": float(len(life)),
            f"h{dimension}.life": float(life.mean()) if len(life) else 0.0,
            f"h{dimension}.longest": float(life.max()) if len(life) else 0.0,
            f"h{dimension}.midlife": float(spans.mean()) if len(life) else 0.0,
            f"h{dimension}.entropy": float(-(share * np.log(share)).sum()),
        }
    return summary
