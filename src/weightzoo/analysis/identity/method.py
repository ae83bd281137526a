"""Re-identification: how well changed checkpoints are traced to the models that they were made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from weightzoo.analysis.bootstrap import bootstrap
from weightzoo.analysis.dynamics.trained import MOST_PARAMETERS, fewer, member, protocol, train_in_memory
from weightzoo.analysis.identity.duplicates import duplicates
from weightzoo.analysis.identity.gallery import ALIGNED, INVARIANT, SORTED, WEIGHTS, Gallery, same_model
from weightzoo.analysis.identity.perturbations import noisy, pruned, shuffled
from weightzoo.analysis.parents import parent_states
from weightzoo.analysis.performance import finished
from weightzoo.analysis.results import Context, Figure, Result, Score
from weightzoo.analysis.weights import evenly
from weightzoo.errors import NotFoundError
from weightzoo.members import FACTORS, Hyperparameters
from weightzoo.training.devices import torch_threads
from weightzoo.training.evaluation import evaluate

if TYPE_CHECKING:
    from weightzoo.datasets.images import ImageData
    from weightzoo.zoo import Zoo

NOISE, PRUNING = (0.1, 0.3, 1.0), (0.5, 0.7, 0.9)
FURTHER, FURTHER_QUICK = (1, 5), (1,)  # epochs of further training
EARLIER = (0.75, 0.5, 0.25)  # of the way to the last epoch
OWN, SHUFFLED = "units in their order", "units shuffled"
_KEY = 7201
_QUERIES, _QUERIES_QUICK = 64, 16  # models
_GALLERY_BYTES = 256 << 20  # of weights
_FURTHER_SEED = 2**31 - 7201  # of the order of images: another than any model was trained with


@dataclass(frozen=True)
class Checkpoints:
    """Q changed checkpoints with the rows of the gallery that they come from."""

    change: str
    weights: np.ndarray  # float32 [Q, P]
    models: np.ndarray  # int64 [Q], rows of the gallery
    activations: np.ndarray  # str [Q]


def identity(zoo: Zoo, context: Context) -> Result:
    """Which model is this checkpoint from? The share that is found after noise, pruning, further training and more.

    The models of the zoo behind the last epoch are the gallery, and some of them are changed; of sparse twins the
    parents are the gallery, if their zoo lies beside. Each changed checkpoint is looked for as it is and with its units
    shuffled. Also: from which initial weights final ones come, and which models are the same. Without the images
    nothing is trained further and no outputs are compared.

    Raises:
        NotFoundError: the zoo has less than two finished models with finite weights.
    """
    rng = np.random.default_rng([context.seed, _KEY])
    images, last = context.images, zoo.checkpoint_epochs[-1]
    rows = _usable(zoo)
    weights = zoo.weights(rows, [last])[:, 0]
    same = duplicates(zoo.symmetries, weights)
    gallery = Gallery(zoo, weights, _logits(zoo, rows, last) if images is not None else None)
    queries = np.sort(rng.permutation(len(rows))[: _QUERIES_QUICK if context.quick else _QUERIES])
    changes = list(_changes(zoo, rows, weights, queries, context, rng))
    tables: list[pd.DataFrame] = []
    groups = zoo.models["group"].to_numpy(str)[rows]
    for number, one in enumerate(changes):
        context.on_progress(number, len(changes) + 2)
        tables.append(_searched(zoo, gallery, one, same, groups, images, rng))
    twins = _twins(zoo, rows[queries], images)
    if twins is not None:
        tables.append(_searched(zoo, twins[0], twins[1], (), None, images, rng))
    context.on_progress(len(changes) + 1, len(changes) + 2)
    initial = _initial(zoo, rows[queries], weights[queries], rng)
    if initial is not None:
        tables.append(initial)
    table = pd.concat(tables, ignore_index=True)
    table.insert(3, "search", table["by"] + ", " + table["order"])
    bitwise = sum(map(len, zoo.duplicates()))
    scores = [
        *_scores(table, context),
        Score("duplicates", "models", float(bitwise), features="every bit"),
        Score("duplicates", "models", float(sum(map(len, same))), features="up to the order of units"),
    ]
    context.on_progress(len(changes) + 2, len(changes) + 2)
    accuracies = table.drop(columns="hits")
    return Result(
        "identity",
        "Which model a checkpoint is from",
        _summary(accuracies, len(rows), len(queries), same),
        tuple(scores),
        {"identity": accuracies, "duplicates": _named(zoo, rows, same)},
        (
            Figure(
                "matrix",
                "identity",
                "Checkpoints traced to their model",
                f"Share of {len(queries)} changed checkpoints whose nearest of {len(rows)} models is the one that they "
                "were made from.",
                x="search",
                y="change",
                by="accuracy",
            ),
        ),
        (
            "Schürholt et al. 2022, Model Zoos: A Dataset of Diverse Populations of Neural Network Models, section 5",
            "Ainsworth, Hayase, Srinivasa 2023, Git Re-Basin: Merging Models modulo Permutation Symmetries",
        ),
    )


def _usable(zoo: Zoo) -> np.ndarray:
    """Numbers of the finished models with finite weights behind the last kept epoch; evenly taken, if too many.

    Raises:
        NotFoundError: there are less than two.
    """
    done = np.flatnonzero(finished(zoo.models) & zoo.present[:, -1])
    done = done[evenly(len(done), max(2, _GALLERY_BYTES // (4 * zoo.layout.size)))]
    finite = np.isfinite(zoo.weights(done, [zoo.checkpoint_epochs[-1]])[:, 0]).all(axis=1)
    if finite.sum() < 2:
        raise NotFoundError(f"needs two finished models with finite weights, the zoo has {finite.sum()}")
    return done[finite]


def _changes(
    zoo: Zoo, rows: np.ndarray, weights: np.ndarray, queries: np.ndarray, context: Context, rng: np.random.Generator
) -> Iterator[Checkpoints]:
    """Every change that checkpoints are looked for after; `queries` are rows of the gallery, `rows` its models."""
    own = weights[queries]
    activations = zoo.models["activation"].to_numpy(str)[rows[queries]]

    def made(change: str, changed: np.ndarray) -> Checkpoints:
        known = np.isfinite(changed).all(axis=1)
        return Checkpoints(change, changed[known], queries[known], activations[known])

    yield made("none", own)
    for share in NOISE:
        yield made(f"noise {share:g}", noisy(zoo.layout, own, share, rng))
    for share in PRUNING:
        yield made(f"pruned {share:.0%}", pruned(zoo.architecture, own, share))
    if context.images is not None and zoo.layout.size <= MOST_PARAMETERS:
        epochs = FURTHER_QUICK if context.quick else FURTHER
        for epoch, changed in zip(epochs, _trained_further(zoo, rows[queries], own, epochs, context), strict=True):
            yield made(f"trained {epoch} epoch{'s'[: epoch > 1]} more", changed)
    kept = np.asarray(zoo.checkpoint_epochs)
    targets = [kept[0] + share * (kept[-1] - kept[0]) for share in EARLIER]
    for epoch in dict.fromkeys(int(kept[np.abs(kept - target).argmin()]) for target in targets):
        if epoch != kept[-1]:
            yield made(f"epoch {epoch} of {kept[-1]}", zoo.weights(rows[queries], [epoch])[:, 0])


def _trained_further(
    zoo: Zoo, models: np.ndarray, weights: np.ndarray, epochs: tuple[int, ...], context: Context
) -> list[np.ndarray]:
    """The weights float32 `[Q, P]` behind so many more epochs each, with each model's own hyperparameters."""
    assert context.images is not None
    data, how = fewer(context.images), protocol(epochs[-1], epochs)
    chosen = [
        member(zoo.architecture, data, Hyperparameters(**{name: row[name] for name in FACTORS}), _FURTHER_SEED, how)
        for row in zoo.models.iloc[models].to_dict("records")
    ]
    trained = train_in_memory(zoo.architecture, chosen, data, start=weights, threads=context.threads)
    return [trained.weights[:, place] for place in range(len(epochs))]


def _twins(zoo: Zoo, models: np.ndarray, images: ImageData | None) -> tuple[Gallery, Checkpoints] | None:
    """The parents of the zoo's models as a gallery, and some of their descendants behind the last epoch."""
    found = parent_states(zoo)
    if found is None:
        return None
    source, numbers, epochs = found
    epoch = int(epochs[0])
    if (epochs != epoch).any():
        return None
    parents = np.unique(numbers)
    weights = source.weights(parents, [epoch])[:, 0]
    gallery = Gallery(source, weights, _logits(source, parents, epoch) if images is not None else None)
    own = zoo.weights(models, [zoo.checkpoint_epochs[-1]])[:, 0]
    activations = zoo.models["activation"].to_numpy(str)[models]
    wanted = np.searchsorted(parents, numbers[models])
    return gallery, Checkpoints("parent of a descendant", own, wanted, activations)


def _initial(zoo: Zoo, models: np.ndarray, weights: np.ndarray, rng: np.random.Generator) -> pd.DataFrame | None:
    """From which initial weights final ones come, among all different ones of the zoo."""
    if zoo.checkpoint_epochs[0] != 0 or len(zoo.checkpoint_epochs) < 2:
        return None
    most = max(2, _GALLERY_BYTES // (4 * zoo.layout.size))
    every = np.union1d(np.flatnonzero(zoo.present[:, 0])[evenly(int(zoo.present[:, 0].sum()), most)], models)
    states, of_model = np.unique(zoo.weights(every, [0])[:, 0], axis=0, return_inverse=True)
    if len(states) < 2 or not np.isfinite(states).all():
        return None
    wanted = of_model.reshape(-1)[np.searchsorted(every, models)]
    activations = zoo.models["activation"].to_numpy(str)[models]
    checkpoints = Checkpoints(f"initial state (of {len(states)})", weights, wanted, activations)
    return _searched(zoo, Gallery(zoo, states), checkpoints, (), None, None, rng)


def _searched(
    zoo: Zoo,
    gallery: Gallery,
    checkpoints: Checkpoints,
    same: tuple[tuple[int, ...], ...],
    groups: np.ndarray | None,
    images: ImageData | None,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """How many of the checkpoints are traced to their model, a row a way to search and an order of units."""
    logits = _evaluated(zoo, checkpoints, images)
    rows: list[dict[str, object]] = []
    for order in (OWN, SHUFFLED):
        weights = checkpoints.weights
        if order == SHUFFLED and len(weights):
            weights = shuffled(zoo.symmetries, weights, rng)
        for by, nearest in gallery.nearest(weights, logits).items() if len(weights) else ():
            hits = same_model(nearest, checkpoints.models, same)
            in_group = np.nan
            if groups is not None:
                in_group = float((groups[nearest] == groups[checkpoints.models]).mean())
            rows.append(
                {
                    "change": checkpoints.change,
                    "order": order,
                    "by": by,
                    "checkpoints": len(weights),
                    "accuracy": float(hits.mean()),
                    "group_accuracy": in_group,
                    "hits": hits,
                }
            )
    return pd.DataFrame(rows)


def _logits(zoo: Zoo, models: np.ndarray, epoch: int) -> np.ndarray | None:
    """What the zoo holds of the models' outputs, `[M, images, classes]`; None if nothing."""
    return zoo.probe(models, [epoch])[:, 0].astype(np.float32) if zoo.header.probe_images else None


def _evaluated(zoo: Zoo, checkpoints: Checkpoints, images: ImageData | None) -> np.ndarray | None:
    """Logits of the checkpoints on the images of which a zoo holds the outputs, float32 `[Q, images, classes]`."""
    count = zoo.header.probe_images
    if images is None or not count:
        return None
    logits = np.zeros((len(checkpoints.weights), count, zoo.architecture.classes), np.float32)
    inputs, labels = images.inputs["test"][:count], images.labels["test"][:count]
    with torch_threads(1):
        for kind in np.unique(checkpoints.activations):
            rows = np.flatnonzero(checkpoints.activations == kind)
            found = evaluate(
                zoo.architecture, str(kind), checkpoints.weights[rows], inputs, labels, keep_logits=True
            ).logits
            assert found is not None
            logits[rows] = found
    return logits


def _scores(table: pd.DataFrame, context: Context) -> list[Score]:
    """The accuracy of each way to search after each change, the units shuffled; by the weights also as they are."""
    scores: list[Score] = []
    for number, row in enumerate(table.to_dict("records")):
        if row["order"] == OWN and row["by"] != WEIGHTS:
            continue
        rng = np.random.default_rng([context.seed, _KEY, 1, number])
        interval = bootstrap(row["hits"].astype(np.float64), np.mean, rng)
        features = f"{row['by']}, {row['order']}"
        scores.append(
            Score(str(row["change"]), "accuracy", row["accuracy"], *interval, features, "nearest", row["checkpoints"])
        )
    return scores


def _named(zoo: Zoo, rows: np.ndarray, same: tuple[tuple[int, ...], ...]) -> pd.DataFrame:
    """The models that are the same up to the order of units, by number and id."""
    names = zoo.models["member"].to_numpy(str)
    found = [(number, int(rows[row]), names[rows[row]]) for number, group in enumerate(same) for row in group]
    return pd.DataFrame(found, columns=pd.Index(["group", "model", "member"]))


def _summary(table: pd.DataFrame, models: int, queries: int, same: tuple[tuple[int, ...], ...]) -> str:
    moved = table.loc[(table["order"] == SHUFFLED) & ~table["change"].str.startswith(("initial", "parent"))]
    share = {by: float(moved.loc[moved["by"] == by, "accuracy"].mean()) for by in (WEIGHTS, SORTED, INVARIANT, ALIGNED)}
    raw = table.loc[(table["order"] == OWN) & (table["by"] == WEIGHTS) & table["change"].isin(moved["change"])]
    return (
        f"Of {queries} checkpoints with shuffled units, averaged over the kinds of change, {share[ALIGNED]:.1%} are "
        f"traced to the right one of {models} models by aligned weights, {share[SORTED]:.1%} by sorted weights, "
        f"{share[INVARIANT]:.1%} by invariant features and {share[WEIGHTS]:.1%} by the weights as they are, which "
        f"find {float(raw['accuracy'].mean()):.1%} where units keep their order. {sum(map(len, same))} models have the "
        "same weights as another."
    )
