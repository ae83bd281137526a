"""What the methods share that predict from weights: which models, statistics of their weights, and the estimator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor

from weightzoo.analysis.dynamics.measures import kendall_tau, mean_score
from weightzoo.analysis.performance import finished
from weightzoo.analysis.weights import evenly
from weightzoo.errors import NotFoundError
from weightzoo.layout import Layout

if TYPE_CHECKING:
    from weightzoo.analysis.results import Context, Score
    from weightzoo.zoo import Zoo

MOST_MODELS, MOST_MODELS_QUICK = 4000, 400
FEWEST_TRAIN, FEWEST_TEST = 20, 8
TREES, TREES_QUICK = 200, 60
LARGEST = 1e30  # trees compare in float32
EXTRA_TREES, SHUFFLED = "extra trees", "shuffled targets"
SHUFFLES, CONTROL_TREES = 10, 20
_CHUNK_BYTES = 64 << 20


def train_and_test(zoo: Zoo, context: Context) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the finished models to fit on (split train) and to score on (split test); of a large zoo, of some.

    Raises:
        NotFoundError: there are too few.
    """
    rows = evenly(len(zoo), MOST_MODELS_QUICK if context.quick else MOST_MODELS)
    rows = rows[finished(zoo.models)[rows]]
    split = zoo.models["split"].to_numpy()[rows]
    train, test = rows[split == "train"], rows[split == "test"]
    if len(train) < FEWEST_TRAIN or len(test) < FEWEST_TEST:
        raise NotFoundError(
            f"zoo {zoo.name} has {len(train)} finished models in its train and {len(test)} in its test split; "
            f"prediction wants at least {FEWEST_TRAIN} and {FEWEST_TEST}"
        )
    return train, test


def last_epoch(zoo: Zoo) -> int:
    """The last epoch that any model of the zoo was trained to."""
    return int(zoo.models["last_epoch"].to_numpy(np.int64).max())


def weight_statistics(layout: Layout, weights: np.ndarray) -> np.ndarray:
    """Of each parameter of `weights [N, P]`: mean, variance and percentiles 1, 25, 50, 75, 99; `[N, 7 * parameters]`.

    References: Unterthiner et al. 2020, "Predicting neural network accuracy from weights", arXiv 2002.11448.
    """
    columns: list[np.ndarray] = []
    for name, _ in layout.parameters:
        own = weights[:, layout.span(name)].astype(np.float64)
        columns += [own.mean(1), own.var(1), *np.percentile(own, (1, 25, 50, 75, 99), axis=1)]
    return bounded(np.stack(columns, axis=1))


def statistics_of(zoo: Zoo, rows: np.ndarray, epoch: int) -> np.ndarray:
    """`weight_statistics` of some models behind an epoch, and of what has changed since epoch 0 if the zoo holds it."""
    held = zoo.checkpoint_epochs
    since = [0] if 0 in held and epoch != 0 else []
    parts: list[np.ndarray] = []
    for some in chunks(len(rows), 4 * zoo.layout.size * (1 + len(since))):
        weights = zoo.weights(models=rows[some].tolist(), epochs=[*since, epoch])
        now = weights[:, -1]
        own = [weight_statistics(zoo.layout, now)]
        if since:
            own += [weight_statistics(zoo.layout, weights[:, 0]), weight_statistics(zoo.layout, now - weights[:, 0])]
        parts.append(np.concatenate(own, axis=1))
    return np.concatenate(parts)


def fitted(
    features: np.ndarray, target: np.ndarray, context: Context, *, key: int, trees: int | None = None
) -> ExtraTreesRegressor:
    """Extremely randomised trees on `features [N, F]`: deterministic, whatever the number of threads.

    References: Geurts, Ernst, Wehenkel 2006, "Extremely randomized trees".
    """
    forest = ExtraTreesRegressor(
        trees or (TREES_QUICK if context.quick else TREES),
        max_features=0.5,
        min_samples_leaf=2,
        n_jobs=context.threads,
        random_state=seed_of(context, key),
    )
    forest.fit(features, target)
    forest.n_jobs = 1  # several threads would add up the trees of a prediction in any order
    return forest


def shuffled_control(
    target: str,
    features: np.ndarray,
    truth: np.ndarray,
    unseen: np.ndarray,
    unseen_truth: np.ndarray,
    context: Context,
    *,
    key: int,
    names: str = "s(W)",
) -> Score:
    """Kendall's tau of trees that are fitted to shuffled targets: the mean over several shuffles, which should be 0.

    Its interval is over shuffles, and wide where few models are distinct.
    """
    rng = np.random.default_rng([context.seed, key, SHUFFLES])
    every = np.ones((1, len(unseen)))
    found: list[float] = []
    for _ in range(SHUFFLES):
        forest = fitted(features, rng.permutation(truth), context, key=key, trees=CONTROL_TREES)
        found.append(float(kendall_tau(unseen_truth, forest.predict(unseen), every)[0]))
    score = mean_score(target, "Kendall tau", np.nan_to_num(found), rng, features=names, estimator=SHUFFLED)
    return replace(score, models=len(unseen))


def seed_of(context: Context, *key: int) -> int:
    """A seed below 2**32 for libraries that take one, drawn from the context's."""
    return int(np.random.default_rng([context.seed, *key]).integers(2**32))


def bounded(features: np.ndarray) -> np.ndarray:
    """Finite numbers that fit float32."""
    return np.clip(np.nan_to_num(features, nan=0.0, posinf=LARGEST, neginf=-LARGEST), -LARGEST, LARGEST)


def chunks(count: int, bytes_each: int) -> Iterator[slice]:
    """Slices of `count` things that fit memory."""
    step = max(1, _CHUNK_BYTES // bytes_each)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
