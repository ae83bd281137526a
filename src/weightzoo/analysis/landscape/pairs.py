"""Pairs of models that share something: how the landscape between them is, depends on what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from weightzoo.analysis.landscape.population import learned
from weightzoo.analysis.parents import parent_states
from weightzoo.members import FACTORS

if TYPE_CHECKING:
    from weightzoo.zoo import Zoo

CONFIGURATION = "same configuration"  # other seeds
INITIALISATION = "same initial weights"  # other hyperparameters
OTHER = "other configuration"  # and other initial weights
COPY = "permuted copy"  # of itself: what alignment has to undo
PARENT = "parent and child"
_TRIES = 40  # random models a model is compared with, to find one that it shares just that with


@dataclass(frozen=True)
class Pairs:
    """N pairs of networks of one activation function each."""

    kinds: np.ndarray  # str [N]
    first: np.ndarray  # int64 [N], numbers of models; of parents, in their own zoo
    second: np.ndarray  # int64 [N]
    activations: np.ndarray  # str [N]
    first_weights: np.ndarray  # float32 [N, P]
    second_weights: np.ndarray  # float32 [N, P]

    def __len__(self) -> int:
        return len(self.kinds)

    def select(self, rows: np.ndarray) -> Pairs:
        """Some of the pairs."""
        return Pairs(*(values[rows] for values in vars(self).values()))


def draw_pairs(zoo: Zoo, rng: np.random.Generator, count: int, *, copies: int = 0) -> Pairs:
    """Up to `count` pairs of each kind among the models that learned, no two of a kind alike, behind the last epoch.

    All pairs have one activation function, without which two networks can't be compared weight by weight. `copies`
    pairs are of a model and itself in a random order of units.

    Raises:
        NotFoundError: there are not two models that learned something.
    """
    rows = np.flatnonzero(learned(zoo))
    models = zoo.models.iloc[rows]
    columns = models[list(FACTORS)].astype(str)
    configuration = columns.agg("|".join, axis=1).to_numpy(str)
    activation = models["activation"].to_numpy(str)
    initial = (columns["init"] + "|" + models["seed_init"].astype(str)).to_numpy(str)

    found: dict[str, dict[tuple[int, int], None]] = {CONFIGURATION: {}, INITIALISATION: {}, OTHER: {}}
    order = rng.permutation(len(rows))
    for one in order:
        for other in rng.permutation(len(rows))[: _TRIES if len(rows) > _TRIES else None]:
            if one == other or activation[one] != activation[other]:
                continue
            same = configuration[one] == configuration[other], initial[one] == initial[other]
            kind = {(True, False): CONFIGURATION, (False, True): INITIALISATION, (False, False): OTHER}.get(same)
            if kind is not None and len(found[kind]) < count:
                found[kind][min(one, other), max(one, other)] = None
        twin = np.flatnonzero((configuration == configuration[one]) & (initial != initial[one]))
        if len(twin) and len(found[CONFIGURATION]) < count:  # a grid has few of them, random models hardly meet them
            other = int(rng.choice(twin))
            found[CONFIGURATION][min(one, other), max(one, other)] = None

    epoch = [zoo.checkpoint_epochs[-1]]
    parts: list[Pairs] = []
    for kind, chosen in found.items():
        if chosen:
            first, second = np.array(list(chosen), np.int64).T
            parts.append(
                Pairs(
                    np.full(len(first), kind),
                    rows[first],
                    rows[second],
                    activation[first],
                    zoo.weights(rows[first], epoch)[:, 0],
                    zoo.weights(rows[second], epoch)[:, 0],
                )
            )
    made = _copies(zoo, rows, rng, copies), _with_parents(zoo, rows, rng, count)
    parts += [part for part in made if part is not None]
    return Pairs(*(np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])))


def _copies(zoo: Zoo, rows: np.ndarray, rng: np.random.Generator, count: int) -> Pairs | None:
    chosen = np.sort(rng.permutation(rows)[:count])
    if not len(chosen):
        return None
    weights = zoo.weights(chosen, [zoo.checkpoint_epochs[-1]])[:, 0]
    orders = [{group.name: rng.permutation(group.size) for group in zoo.symmetries} for _ in chosen]
    moved = np.stack([own[zoo.symmetries.index(order)] for own, order in zip(weights, orders, strict=True)])
    activations = zoo.models["activation"].iloc[chosen].to_numpy(str)
    return Pairs(np.full(len(chosen), COPY), chosen, chosen, activations, weights, moved)


def _with_parents(zoo: Zoo, rows: np.ndarray, rng: np.random.Generator, count: int) -> Pairs | None:
    found = parent_states(zoo)
    if found is None:
        return None
    source, numbers, epochs = found
    chosen = np.sort(rng.permutation(rows)[:count])
    parents = np.concatenate([source.weights([int(numbers[row])], [int(epochs[row])])[:, 0] for row in chosen])
    weights = zoo.weights(chosen, [zoo.checkpoint_epochs[-1]])[:, 0]
    activations = zoo.models["activation"].iloc[chosen].to_numpy(str)
    return Pairs(np.full(len(chosen), PARENT), numbers[chosen], chosen, activations, parents, weights)
