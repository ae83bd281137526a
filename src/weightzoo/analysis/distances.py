"""How far apart models are in weight space, as they are and with their units in the same order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from weightzoo.analysis.alignment import distances, match_weights
from weightzoo.analysis.bootstrap import bootstrap
from weightzoo.analysis.factors import levels, varied_factors
from weightzoo.analysis.pairs import ALL, between_levels, compared, kinds, pair_mean, pair_scores, sampled_pairs
from weightzoo.analysis.results import Context, Figure, Result, Score
from weightzoo.analysis.weights import evenly

if TYPE_CHECKING:
    from weightzoo.zoo import Zoo

MOST, MOST_QUICK = 1000, 200  # models
PAIRS, PAIRS_QUICK = 200, 40  # that are aligned, of each kind
_MOST_BYTES = 2 << 30  # of weights read at a time
_MOST_EPOCHS, _MOST_ALIGNED_EPOCHS = 26, 6
_L2, _COSINE = "L2_distance", "cosine_distance"
_SAMPLE, _ALIGNED = "weights, of a sample", "weights, of the same aligned"


def weight_distances(zoo: Zoo, context: Context) -> Result:
    """Euclidean and cosine distance of the weights of each two finished models: by factor and over the epochs.

    Raw of all pairs; of a sample of them also aligned, that is, with the units of one in the order of the other
    (Ainsworth et al. 2023), since two models that compute the same may differ in that order alone. Running means and
    variances are left out.

    References: Schürholt et al. 2022, section 4; Ainsworth, Hayase and Srinivasa 2023, "Git Re-Basin".

    Raises:
        NotFoundError: the zoo has fewer than two finished models.
    """
    affordable = max(2, _MOST_BYTES // (8 * zoo.layout.size))
    rows = compared(zoo, min(MOST_QUICK if context.quick else MOST, affordable))
    models = zoo.models.iloc[rows].reset_index(drop=True)
    by_kind = kinds(models)
    kept = zoo.checkpoint_epochs
    epochs = [kept[index] for index in evenly(len(kept), _MOST_EPOCHS)]
    aligned_epochs = {epochs[index] for index in evenly(len(epochs), _MOST_ALIGNED_EPOCHS)}
    count = PAIRS_QUICK if context.quick else PAIRS
    chosen = {
        kind: sampled_pairs(pairs, count, np.random.default_rng([context.seed, number]))
        for number, (kind, pairs) in enumerate(by_kind.items())
    }
    over_epochs: list[dict[str, object]] = []
    sampled: list[dict[str, object]] = []
    euclidean, cosine, weights = np.empty(0), np.empty(0), np.empty(0)
    samples: dict[str, dict[str, pd.DataFrame]] = {}
    for done, epoch in enumerate(epochs):
        context.on_progress(done, len(epochs) + 1)
        weights = zoo.weights(rows.tolist(), [epoch])[:, 0]
        euclidean, cosine = all_distances(weights[:, zoo.layout.is_trained])
        for kind, pairs in by_kind.items():
            means = {_L2: pair_mean(euclidean, pairs), _COSINE: pair_mean(cosine, pairs)}
            over_epochs.append({"epoch": epoch, "pairs": kind, **means})
            if epoch in aligned_epochs:
                first, second = chosen[kind].T
                raw = pd.DataFrame({_L2: euclidean[first, second], _COSINE: cosine[first, second]})
                samples[kind] = {"raw": raw, "aligned": aligned_distances(zoo, weights, chosen[kind])}
                for how, table in samples[kind].items():
                    sampled.append({"epoch": epoch, "pairs": f"{kind}, {how}", **table.mean().to_dict()})
    context.on_progress(len(epochs), len(epochs) + 1)
    scores = [
        *pair_scores(euclidean, models, "L2 distance", [context.seed, 10], features="weights"),
        *pair_scores(cosine, models, "cosine distance", [context.seed, 11], features="weights"),
        *_sample_scores(samples, context.seed),
    ]
    by_value = _by_value(zoo, models, weights, cosine, count // 4, context)
    between = between_levels(cosine, models, _COSINE)
    tables = {
        "by_epoch": pd.DataFrame(over_epochs),
        "sampled": pd.DataFrame(sampled),
        "by_value": by_value,
        "between_values": between,
    }
    return Result(
        "distances",
        "Distances of weights",
        _summary(scores),
        tuple(scores),
        tables,
        tuple(_figures(tables)),
        (
            "Schürholt et al. 2022, Model Zoos: A Dataset of Diverse Populations of Neural Network Models, section 4",
            "Ainsworth, Hayase and Srinivasa 2023, Git Re-Basin: Merging Models modulo Permutation Symmetries",
        ),
    )


def all_distances(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean and cosine distance, 1 - cos, of each two rows of `weights [M, P]`: float64 `[M, M]` each.

    NaN with a row that is not finite; the cosine distance also with one of zeros.
    """
    vectors = weights.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        inner = vectors @ vectors.T
        squares = np.diagonal(inner)
        apart = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * inner, 0))
        cosine = 1 - inner / np.sqrt(squares[:, None] * squares[None, :])
    return apart, cosine


def aligned_distances(zoo: Zoo, weights: np.ndarray, pairs: np.ndarray) -> pd.DataFrame:
    """L2 and cosine distance of `pairs [N, 2]` of rows of `weights [M, P]`, the second aligned to the first.

    NaN where a weight is not finite.
    """
    first, second = weights[pairs[:, 0]], weights[pairs[:, 1]]
    known = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1)
    table = pd.DataFrame(np.full((len(pairs), 2), np.nan), columns=pd.Index([_L2, _COSINE]))
    if known.any():
        matching = match_weights(zoo.symmetries, first[known], second[known])
        table.loc[known] = np.stack(distances(zoo.layout, first[known], matching.apply(second[known])), axis=1)
    return table


def _sample_scores(samples: dict[str, dict[str, pd.DataFrame]], seed: int) -> list[Score]:
    """Mean distances of the same pairs raw and aligned, with an interval over these pairs."""
    scores: list[Score] = []
    for number, (kind, tables) in enumerate(samples.items()):
        for place, metric in enumerate((_L2, _COSINE)):
            values = np.stack([table[metric].to_numpy() for table in tables.values()], axis=1)
            values = values[np.isfinite(values).all(axis=1)]
            for own, features in zip(values.T, (_SAMPLE, _ALIGNED), strict=True):
                if len(own):
                    interval = bootstrap(own, np.mean, np.random.default_rng([seed, 12, number, place]))
                    mean, how = float(own.mean()), f"{len(own)} pairs"
                    scores.append(Score(kind, metric.replace("_", " "), mean, *interval, features, how))
    return scores


def _by_value(
    zoo: Zoo, models: pd.DataFrame, weights: np.ndarray, cosine: np.ndarray, count: int, context: Context
) -> pd.DataFrame:
    """Cosine distance of sampled pairs that share the value of a factor, raw and aligned: a row a value and kind."""
    rows: list[dict[str, object]] = []
    for place, factor in enumerate(varied_factors(models)):
        of_model = levels(models, factor)
        for code, label in enumerate(of_model.categories):
            here = np.asarray(of_model.codes) == code
            rng = np.random.default_rng([context.seed, 13, place, code])
            pairs = sampled_pairs(here[:, None] & here[None, :], count, rng)
            if not len(pairs):
                continue
            aligned = aligned_distances(zoo, weights, pairs)[_COSINE].to_numpy()
            found = {"raw": cosine[pairs[:, 0], pairs[:, 1]], "aligned": aligned}
            for kind, values in found.items():
                row = {"factor": factor, "value": f"{factor} {label}", "weights": kind, "pairs": len(pairs)}
                known = values[np.isfinite(values)]
                rows.append({**row, _COSINE: float(known.mean()) if len(known) else np.nan})
    return pd.DataFrame(rows, columns=pd.Index(["factor", "value", "weights", "pairs", _COSINE]))


def _figures(tables: dict[str, pd.DataFrame]) -> list[Figure]:
    said, mean = "Mean cosine distance of pairs: 0 is the same direction, 1 a right angle.", "Mean over pairs."
    sample = "Mean cosine distance of a sample of pairs, before and after aligning their units."
    figures = [
        Figure("lines", "by_epoch", "Cosine distance over the epochs", said, "epoch", _COSINE, "pairs"),
        Figure("lines", "by_epoch", "L2 distance over the epochs", mean, "epoch", _L2, "pairs", log_y=True),
        Figure("lines", "sampled", "Raw and aligned over the epochs", sample, "epoch", _COSINE, "pairs"),
    ]
    if len(tables["by_value"]):
        caption = "Mean cosine distance of sampled pairs that share the value, before and after aligning their units."
        figures.append(Figure("bars", "by_value", "Raw and aligned, by factor", caption, "value", _COSINE, "weights"))
    return figures


def _summary(scores: list[Score]) -> str:
    found = {(score.metric, score.features): score.value for score in scores if score.target == ALL}
    length, cosine = (found[metric, "weights"] for metric in ("L2 distance", "cosine distance"))
    told = f"Two models are {length:.3g} apart (L2) on average, the cosine distance of their weights is {cosine:.3f}"
    sample = found.get(("cosine distance", _SAMPLE))
    if sample is None:
        return f"{told}."
    aligned = found["cosine distance", _ALIGNED]
    return f"{told}. Of a sample it is {sample:.3f}, and with the units of one in the order of the other {aligned:.3f}."
