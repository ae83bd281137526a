"""Models of a zoo in the order of units of a reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from weightzoo.analysis.alignment.activations import match_activations
from weightzoo.analysis.alignment.matching import Matching, match_weights
from weightzoo.analysis.alignment.signs import odd_groups
from weightzoo.errors import NotFoundError
from weightzoo.zoo.choose import Models

if TYPE_CHECKING:
    from weightzoo.zoo import Zoo

By = Literal["weights", "activations"]


@dataclass(frozen=True)
class Aligned:
    """N models with their units in the order of their references."""

    weights: np.ndarray  # float32 [N, P]
    reference: np.ndarray  # float32 [N, P]
    matching: Matching


def align(
    zoo: Zoo,
    models: Models,
    reference: Models,
    epoch: int | None = None,
    *,
    by: By = "weights",
    inputs: np.ndarray | None = None,
    signs: bool = False,
    starts: int = 1,
    seed: int = 0,
) -> Aligned:
    """Align models of a zoo behind an epoch, by default the last that it holds, to one reference or to one each.

    `by` activations needs `inputs`, normalised images float32 `[B, channels, height, width]`. `signs` lets the units
    change sign where that is a symmetry, and `starts` and `seed` are those of `match_weights`.

    >>> aligned = align(zoo, [1, 2, 3], reference=0)  # doctest: +SKIP
    >>> aligned.weights.shape  # doctest: +SKIP
    (3, 2464)

    Raises:
        NotFoundError: there is no such model or epoch; by activations, without inputs, or models of several activation
            functions; or neither one reference nor one for each model.
    """
    epoch = zoo.checkpoint_epochs[-1] if epoch is None else epoch
    weights, goals = zoo.weights(models, [epoch])[:, 0], zoo.weights(reference, [epoch])[:, 0]
    if len(goals) not in (1, len(weights)):
        raise NotFoundError(f"{len(goals)} references for {len(weights)} models; give one, or one for each")
    goals = np.broadcast_to(goals, weights.shape)
    functions = zoo.select(models).models["activation"].tolist()
    others = zoo.select(reference).models["activation"].tolist()
    if by == "activations":
        if inputs is None:
            raise NotFoundError("aligning by activations takes images; give inputs, or align by weights")
        if len({*functions, *others}) > 1:
            raise NotFoundError("aligning by activations takes models of one activation function; choose those of one")
        matching = match_activations(zoo.architecture, functions[0], goals, weights, inputs)
    else:
        odd = odd_groups(zoo.architecture, functions[0]) if signs and len({*functions, *others}) == 1 else frozenset()
        matching = match_weights(zoo.symmetries, goals, weights, odd=odd, starts=starts, seed=seed)
    return Aligned(matching.apply(weights), np.array(goals), matching)
