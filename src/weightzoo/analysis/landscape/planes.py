"""The loss on planes through three models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from weightzoo.analysis.alignment import match_weights
from weightzoo.analysis.bootstrap import bootstrap
from weightzoo.analysis.landscape.barriers import AS_THEY_ARE, BY_WEIGHTS, along
from weightzoo.analysis.landscape.population import LARGE, fewer, fewer_images, learned
from weightzoo.analysis.results import Context, Figure, Result, Score, images_of
from weightzoo.errors import NotFoundError

if TYPE_CHECKING:
    from weightzoo.zoo import Zoo

_KEY = 7104
_PLANES, _SIDE = (12, 2), (17, 9)  # full, quick: planes, and points along each of their axes
_TRAIN, _TEST = (400, 200), (200, 100)  # images
_MARGIN = 0.2  # beyond the models, as a share of the first side


def plane(first: np.ndarray, second: np.ndarray, third: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal axes float64 `[2, P]` of the plane through three weight vectors `[P]`, and where these are `[3, 2]`.

    The first is the origin, the second on the first axis (Garipov et al. 2018, arXiv 1802.10026, appendix A.1).

    Raises:
        NotFoundError: the three are on one line.
    """
    one, two = (np.asarray(end, np.float64) - first for end in (second, third))
    u = one / np.linalg.norm(one)
    rest = two - (two @ u) * u
    length = np.linalg.norm(rest)
    if not length > 1e-6 * np.linalg.norm(two):  # weights are float32
        raise NotFoundError("three models on one line span no plane; take others")
    axes = np.stack([u, rest / length])
    return axes, np.array([[0, 0], [np.linalg.norm(one), 0], [two @ u, length]])


def planes(zoo: Zoo, context: Context) -> Result:
    """Train loss and test accuracy on planes through three models each, before and after alignment to the first.

    Raises:
        NotFoundError: the images are not at hand, or there are not three models of one activation that learned.
    """
    quick, large = int(context.quick), zoo.layout.size > LARGE
    images = fewer_images(images_of(zoo, context), _TRAIN[quick or large], _TEST[quick or large])
    rng = np.random.default_rng([context.seed, _KEY])
    triples = _triples(zoo, rng, fewer(zoo.architecture, _PLANES[quick]))
    side = 5 if large else _SIDE[quick]
    rows: list[pd.DataFrame] = []
    for number, (kind, triple) in enumerate(triples):
        weights = zoo.weights(triple, [zoo.checkpoint_epochs[-1]])[:, 0]
        moved = match_weights(zoo.symmetries, weights[0], weights[1:]).apply(weights[1:])
        for place, (order, others) in enumerate(((AS_THEY_ARE, weights[1:]), (BY_WEIGHTS, moved))):
            context.on_progress(2 * number + place, 2 * len(triples))
            axes, corners = plane(weights[0], others[0], others[1])
            margin = _MARGIN * corners[1, 0]
            x, y = (
                np.linspace(corners[:, axis].min() - margin, corners[:, axis].max() + margin, side) for axis in (0, 1)
            )
            grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
            points = (weights[0] + grid @ axes).astype(np.float32)
            # the first and the last point of a path keep their statistics of batch normalisation: two more are cut off
            path = np.concatenate([points[:1], points, points[-1:]])[None]
            losses = along(zoo.architecture, np.array([kind]), path, images, context)
            inside = _inside(grid, corners)
            rows.append(
                pd.DataFrame(
                    {
                        "plane": number,
                        "models": "-".join(map(str, triple)),
                        "activation": kind,
                        "order": order,
                        "x": grid[:, 0],
                        "y": grid[:, 1],
                        "inside": inside,
                        "train_loss": losses.train_loss[0, 1:-1],
                        "test_accuracy": losses.test_accuracy[0, 1:-1],
                    }
                )
            )
    context.on_progress(2 * len(triples), 2 * len(triples))
    table = pd.concat(rows, ignore_index=True)
    within: dict[str, np.ndarray] = {
        order: np.array(
            [own["test_accuracy"][own["inside"]].mean() for own in rows if own["order"].iloc[0] == order], np.float64
        )
        for order in (AS_THEY_ARE, BY_WEIGHTS)
    }
    scores = tuple(
        Score(
            "test accuracy between three models",
            "mean",
            float(values.mean()),
            *bootstrap(values, np.mean, np.random.default_rng([context.seed, _KEY, number])),
            "triangle",
            order,
            3 * len(triples),
        )
        for number, (order, values) in enumerate(within.items())
    )
    shown = {order: _cells(table, order) for order in (AS_THEY_ARE, BY_WEIGHTS)}
    names = {AS_THEY_ARE: "plane_as_they_are", BY_WEIGHTS: "plane_aligned"}
    return Result(
        "planes",
        "The loss on planes through three models",
        f"Within the triangle of three models, the mean test accuracy is {scores[0].value:.3f} as they are and "
        f"{scores[1].value:.3f} after weight matching ({len(triples)} planes).",
        scores,
        {"planes": table} | {names[order]: cells for order, cells in shown.items()},
        tuple(
            Figure(
                "matrix",
                names[order],
                f"Test accuracy on a plane through three models, {order}",
                "Coordinates are distances in weight space from the first model, towards the second and across.",
                x="x",
                y="y",
                by="test_accuracy",
            )
            for order in (AS_THEY_ARE, BY_WEIGHTS)
        ),
        (
            "Garipov et al. 2018, Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs",
            "Ainsworth, Hayase, Srinivasa 2023, Git Re-Basin: Merging Models modulo Permutation Symmetries",
        ),
    )


def _triples(zoo: Zoo, rng: np.random.Generator, count: int) -> list[tuple[str, list[int]]]:
    """Up to `count` triples of models that learned, of one activation each, the activations in turn."""
    good = learned(zoo)
    names = zoo.models["activation"].to_numpy(str)
    left = {kind: rng.permutation(np.flatnonzero(good & (names == kind))) for kind in np.unique(names[good])}
    turns = range(max(len(rows) // 3 for rows in left.values()))
    found = [
        (str(kind), rows[3 * turn : 3 * turn + 3].tolist())
        for turn in turns
        for kind, rows in left.items()
        if len(rows) >= 3 * (turn + 1)
    ][:count]
    if not found:
        raise NotFoundError(f"needs three models of one activation that learned something, the zoo has {good.sum()}")
    return found


def _inside(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Bool `[N]`: which of `points [N, 2]` are in the triangle of `corners [3, 2]`."""
    edges = np.stack([corners[1] - corners[0], corners[2] - corners[0]], axis=1)
    shares = np.linalg.solve(edges, (points - corners[0]).T)
    return (shares >= -1e-9).all(axis=0) & (shares.sum(axis=0) <= 1 + 1e-9)


def _cells(table: pd.DataFrame, order: str) -> pd.DataFrame:
    """The first plane as a matrix is drawn: from above, with round coordinates."""
    own = table.loc[(table["plane"] == 0) & (table["order"] == order), ["x", "y", "train_loss", "test_accuracy"]]
    return own.sort_values(by=["y", "x"], ascending=[False, True]).round(2).reset_index(drop=True)
