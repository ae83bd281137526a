"""Weight matching: coordinate descent over the groups of interchangeable units, for many pairs of models at once.

The squared distance of two networks is smallest where the inner product of their weight vectors is largest. With all
groups but one held fixed, that is a linear assignment problem (Ainsworth et al. 2023, arXiv 2209.04836, algorithm 1).

Shape suffixes: N pairs of models, P weights, U units of a group.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from weightzoo.architectures.graph import PermutedAxis, Symmetry
from weightzoo.errors import LayoutError
from weightzoo.layout import Layout
from weightzoo.zoo.permute import Symmetries

MOST_SWEEPS = 100  # over all groups; a few suffice for a CNN(s)
_TOLERANCE = 1e-9  # of the product of norms: a smaller gain is rounding
_CHUNK_BYTES = 128 << 20  # of weights in float64


@dataclass(frozen=True)
class Matching:
    """How the units of N models are to be ordered, and with which sign, to be those of their references.

    Unit i of a group is then what was unit `permutations[group][n, i]`, times `signs[group][n, i]`.
    """

    symmetries: Symmetries
    permutations: dict[str, np.ndarray]  # group -> int64 [N, U]
    signs: dict[str, np.ndarray]  # group -> int8 [N, U]; groups that are not named have none

    def __len__(self) -> int:
        return len(next(iter(self.permutations.values())))

    def apply(self, models: np.ndarray) -> np.ndarray:
        """The models `[N, P]` with their units so ordered; a copy.

        Raises:
            LayoutError: they are not as many, or not as long, as those that were matched.
        """
        if models.shape != (len(self), self.symmetries.layout.size):
            raise LayoutError(
                f"models: got shape {list(models.shape)}, expected {[len(self), self.symmetries.layout.size]}"
            )
        applied = np.array(models)
        for group in self.symmetries:
            _reorder(applied, group, self.symmetries.layout, self.permutations[group.name], self.signs.get(group.name))
        return applied


def match_weights(
    symmetries: Symmetries,
    reference: np.ndarray,
    models: np.ndarray,
    *,
    odd: Collection[str] = (),
    starts: int = 1,
    seed: int = 0,
) -> Matching:
    """Match the units of `models [N, P]` to those of `reference`, `[P]` or `[N, P]`, by their weights.

    The descent begins from the order that the models have, and as often as `starts` says more from random ones
    (a function of `seed`), of which the best is kept: it finds a local optimum. `odd` names the groups whose units may
    change sign as well (see `odd_groups`). Means and variances of batch normalisation are carried along, not compared.

    Raises:
        LayoutError: shapes do not fit.
    """
    reference = _paired(symmetries.layout, reference, models)
    step = max(1, _CHUNK_BYTES // (8 * symmetries.layout.size))
    parts: list[Matching] = []
    for first in range(0, len(models), step):
        rows = slice(first, first + step)
        parts.append(_match(symmetries, reference[rows], models[rows], odd, starts, seed))
    return join(symmetries, parts)


def objective(layout: Layout, reference: np.ndarray, models: np.ndarray) -> np.ndarray:
    """What matching maximises: the inner product of the trained weights, float64 `[N]`, of `[N, P]` each."""
    kept = layout.is_trained
    return np.einsum("np,np->n", reference[:, kept], models[:, kept], dtype=np.float64)


def distances(layout: Layout, reference: np.ndarray, models: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean and cosine distance of the trained weights, float64 `[N]`, of `[N, P]` or one reference `[P]`."""
    kept = layout.is_trained
    one, other = (np.asarray(vectors, np.float64)[..., kept] for vectors in (reference, models))
    with np.errstate(invalid="ignore", divide="ignore"):
        lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
        return np.linalg.norm(one - other, axis=-1), 1 - (one * other).sum(-1) / lengths


def assign(products: np.ndarray) -> np.ndarray:
    """The permutations int64 `[N, U]` of the columns of `products [N, U, U]` with the largest sum on the diagonal."""
    return np.stack([linear_sum_assignment(own, maximize=True)[1] for own in products]).reshape(products.shape[:2])


def join(symmetries: Symmetries, parts: list[Matching]) -> Matching:
    """Several matchings as one of all their pairs."""

    def joined(tables: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {name: np.concatenate([table[name] for table in tables]) for name in (tables[0] if tables else ())}

    if not parts:
        return Matching(symmetries, {group.name: np.empty((0, group.size), np.int64) for group in symmetries}, {})
    return Matching(symmetries, joined([part.permutations for part in parts]), joined([part.signs for part in parts]))


def _match(
    symmetries: Symmetries, reference: np.ndarray, models: np.ndarray, odd: Collection[str], starts: int, seed: int
) -> Matching:
    best: Matching | None = None
    best_found = np.full(len(models), -np.inf)
    goal = np.asarray(reference, np.float64)
    for start in range(max(1, starts)):
        found = _identity(symmetries, len(models), odd)
        if start:
            random = {
                group.name: np.random.default_rng([seed, start, number]).permutation(group.size)
                for number, group in enumerate(symmetries)
            }
            found = Matching(
                symmetries, {name: np.tile(order, (len(models), 1)) for name, order in random.items()}, found.signs
            )
        current = found.apply(np.asarray(models, np.float64))
        _descend(found, goal, current)
        reached = objective(symmetries.layout, goal, current)
        better = reached > best_found + _TOLERANCE * np.abs(reached)
        if best is None:
            best, better = found, np.ones(len(models), bool)
        for mine, others in ((best.permutations, found.permutations), (best.signs, found.signs)):
            for name, values in mine.items():
                values[better] = others[name][better]
        best_found[better] = reached[better]
    assert best is not None
    return best


def _descend(found: Matching, reference: np.ndarray, current: np.ndarray) -> None:
    """Sweep over the groups until no pair gains; `found` and the reordered models `current` follow in place."""
    symmetries, layout = found.symmetries, found.symmetries.layout
    scale = np.linalg.norm(reference, axis=1) * np.linalg.norm(current, axis=1)
    moving = np.isfinite(scale) & (scale > 0)
    for _ in range(MOST_SWEEPS):
        rows = np.flatnonzero(moving)
        if not len(rows):
            return
        goal, own = reference[rows], current[rows]
        gained = np.zeros(len(rows), bool)
        for group in symmetries:
            products = _products(layout, goal, own, group)
            signs = found.signs.get(group.name)
            order = assign(products if signs is None else np.abs(products))
            chosen = np.take_along_axis(products, order[:, :, None], axis=2)[:, :, 0]
            flips = None if signs is None else np.where(chosen < 0, -1, 1).astype(np.int8)
            gain = (chosen if flips is None else chosen * flips).sum(1) - np.trace(products, axis1=1, axis2=2)
            better = gain > _TOLERANCE * scale[rows]
            if not better.any():
                continue
            moved = own[better]
            _reorder(moved, group, layout, order[better], None if flips is None else flips[better])
            if _is_tied_to_itself(group):  # then the assignment is only a linearisation
                real = objective(layout, goal[better], moved) > objective(layout, goal[better], own[better])
                better[better], moved = real, moved[real]
            own[better] = moved
            gained |= better
            orders = found.permutations[group.name]
            orders[rows[better]] = np.take_along_axis(orders[rows[better]], order[better], axis=1)
            if signs is not None and flips is not None:
                signs[rows[better]] = np.take_along_axis(signs[rows[better]], order[better], axis=1) * flips[better]
        current[rows] = own
        moving[rows] = gained


def _products(layout: Layout, reference: np.ndarray, models: np.ndarray, group: Symmetry) -> np.ndarray:
    """Inner products of the weights of each unit of the reference with those of each unit of the model, `[N, U, U]`."""
    total = np.zeros((len(models), group.size, group.size))
    one, other = layout.unflatten(reference), layout.unflatten(models)
    for axis in group.axes:
        if axis.parameter not in layout.buffers:
            total += _by_unit(one, axis, group) @ _by_unit(other, axis, group).transpose(0, 2, 1)
    return total


def _by_unit(tensors: Mapping[str, np.ndarray], axis: PermutedAxis, group: Symmetry) -> np.ndarray:
    """One parameter as `[N, U, weights of a unit]`."""
    tensor = np.moveaxis(tensors[axis.parameter], axis.axis + 1, 1)
    return tensor.reshape(len(tensor), group.size, -1)


def _reorder(models: np.ndarray, group: Symmetry, layout: Layout, order: np.ndarray, signs: np.ndarray | None) -> None:
    """Reorder the units of a group in models `[N, P]`, in place, each by its own `order [N, U]`, then flip signs."""
    tensors = layout.unflatten(models)
    for axis in group.axes:
        tensor = tensors[axis.parameter]
        taken = (order[:, :, None] * axis.block + np.arange(axis.block)).reshape(len(order), -1)
        shape = [len(order), *[1] * (tensor.ndim - 1)]
        shape[axis.axis + 1] = taken.shape[1]
        tensor[...] = np.take_along_axis(tensor, taken.reshape(shape), axis=axis.axis + 1)
        if signs is not None:
            tensor *= np.repeat(signs, axis.block, axis=1).reshape(shape).astype(tensor.dtype)


def _is_tied_to_itself(group: Symmetry) -> bool:
    """Whether a parameter has the group on two axes, as a convolution straight from a residual stream into itself."""
    names = [axis.parameter for axis in group.axes]
    return len(set(names)) < len(names)


def _identity(symmetries: Symmetries, pairs: int, odd: Collection[str]) -> Matching:
    return Matching(
        symmetries,
        {group.name: np.tile(np.arange(group.size), (pairs, 1)) for group in symmetries},
        {group.name: np.ones((pairs, group.size), np.int8) for group in symmetries if group.name in odd},
    )


def _paired(layout: Layout, reference: np.ndarray, models: np.ndarray) -> np.ndarray:
    """The reference of each model, `[N, P]`."""
    expected = (len(models), layout.size)
    if models.shape != expected or reference.shape not in (expected, (layout.size,)):
        raise LayoutError(
            f"reference {list(reference.shape)} and models {list(models.shape)}: expected [{layout.size}] or "
            f"{list(expected)}, and {list(expected)}"
        )
    return np.broadcast_to(reference, expected)
