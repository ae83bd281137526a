"""Architecture search with accuracies predicted from weights as a method of analysis: what it finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from weightzoo import seeds
from weightzoo.analysis.dynamics.architecture_search import (
    BY_ACCURACY,
    BY_WEIGHTS,
    EPOCHS,
    FIRST,
    LOOK,
    RANDOM,
    Bench,
    Full,
    Search,
    Space,
    Surrogate,
    searches,
    surrogate,
)
from weightzoo.analysis.dynamics.measures import MEASURES, mean_score, scores
from weightzoo.analysis.dynamics.prediction import SHUFFLED
from weightzoo.analysis.dynamics.trained import fewer, refuse_large
from weightzoo.analysis.results import Context, Figure, Result, Score, images_of
from weightzoo.architectures.cost import multiply_adds

if TYPE_CHECKING:
    from weightzoo.zoo import Zoo

METHOD, _KEY = "architecture-search", 6902
SHARE = 0.5  # of the parameters of the architecture of the zoo, that a graph may have
REPETITIONS, REPETITIONS_QUICK = 3, 1
OWN = "the zoo's own architecture"
WEIGHTS, EARLY, SIZE = "s(W)", "val accuracy", "number of parameters"
LAST_VALUE, SURROGATE = "last value", "trees and ridge"


def search_architectures(zoo: Zoo, context: Context) -> Result:
    """Architecture search with accuracies predicted from weights, against random search at the same cost.

    The space is of layer graphs with one to three blocks of a convolution, max-pooling and activation, of 2 to 16
    channels and kernels of 3 or 5, and a hidden linear layer of 8 to 48 units, that have at most half as many
    parameters as the zoo's own architecture. A graph is trained as eight models that differ in their seeds, for ten
    epochs.

    All searches begin with the same twelve random graphs. Then Optuna's TPE asks in rounds for six graphs that are
    trained for two epochs; the best two of those not trained in full yet are, and the next round is asked for. How good
    a graph is that was only looked at says a predictor, trees and ridge regression, from s(W) of each layer behind two
    epochs, fitted to the final validation accuracies of the graphs that are trained in full. The same search by the
    validation accuracy behind two epochs, and random search, have the same number of epochs. What counts is the test
    accuracy of the graph with the best validation accuracy, as the mean over its models. Intervals are bootstraps over
    repetitions with other draws, those of the predictor over graphs.

    Raises:
        NotFoundError: the images are not at hand, or the architecture is too large to train many for this, or too small
            for any to be found.
    """
    images = fewer(images_of(zoo, context))
    refuse_large(zoo.architecture)
    space = Space(images, int(zoo.architecture.layout.size * SHARE))
    repetitions = REPETITIONS_QUICK if context.quick else REPETITIONS
    found: list[dict[str, Search]] = []
    own: list[Full] = []
    for seed in seeds.spawn(context.seed, "architecture searches", repetitions):
        bench = Bench(images, seed, context.threads)
        own.append(bench.full(zoo.architecture))
        found.append({})
        for search in searches(bench, space, seed, context):
            found[-1][search.name] = search
            context.on_progress(sum(map(len, found)), 3 * repetitions)
    return _result(zoo, context, found, own)


def _result(zoo: Zoo, context: Context, found: list[dict[str, Search]], own: list[Full]) -> Result:
    rng = np.random.default_rng([context.seed, _KEY])
    target = "test accuracy of the best architecture"
    names = (BY_WEIGHTS, BY_ACCURACY, RANDOM)
    best = {name: np.array([_best(searched[name]) for searched in found]) for name in names}
    told = [mean_score(target, "mean", best[name], rng, estimator=name) for name in names]
    told.append(mean_score(target, "mean", np.array([full.test_accuracy.mean() for full in own]), rng, estimator=OWN))
    gain = mean_score(f"{target}, gain over random search", "mean", best[BY_WEIGHTS] - best[RANDOM], rng)
    told.append(gain)
    for name in names[:2]:
        share = np.array([searched[name].cost / searched[RANDOM].cost for searched in found])
        told.append(mean_score("multiply-adds, as a share of random search's", "mean", share, rng, estimator=name))
    ranked, table = _ranked(context, [searched[RANDOM] for searched in found], rng)
    told += ranked
    spent = found[0][RANDOM].spent
    tau = {(one.features, one.estimator): one.value for one in ranked if one.metric == "Kendall tau"}
    number = {one.estimator: one.value for one in told[:4]}
    return Result(
        METHOD,
        "Architecture search by weights",
        f"At the cost of {spent} epochs, the search by accuracies predicted from weights finds an architecture of test "
        f"accuracy {number[BY_WEIGHTS]:.3f}, the same search by early accuracies {number[BY_ACCURACY]:.3f}, random "
        f"search {number[RANDOM]:.3f} (means of {len(found)}; gain over random search {gain.value:+.3f}, interval "
        f"{gain.low:+.3f} to {gain.high:+.3f}); {zoo.architecture.name}, which has twice as many parameters or more, "
        f"reaches {number[OWN]:.3f}. Of unseen architectures, weights behind {LOOK} epochs tell the order of the final "
        f"accuracies with a Kendall tau of {tau[WEIGHTS, SURROGATE]:.2f}, the accuracies measured then "
        f"{tau[EARLY, LAST_VALUE]:.2f}, the number of parameters {tau[SIZE, LAST_VALUE]:.2f}.",
        tuple(told),
        {"progress": _progress(found), "architectures": _architectures(found), "predicted": table},
        (
            Figure(
                "lines",
                "progress",
                "Best architecture so far",
                "Validation accuracy of the best architecture trained in full, behind the random ones that all "
                "searches begin with: mean over its models and over repetitions, and the range of repetitions.",
                "epochs",
                "best",
                "search",
                "low",
                "high",
            ),
            Figure(
                "points",
                "predicted",
                "Final accuracy of unseen architectures",
                f"Predicted from weights behind {LOOK} epochs, and measured behind {EPOCHS}; a point is an "
                "architecture.",
                "measured",
                "predicted",
                "blocks",
            ),
            Figure(
                "points",
                "architectures",
                "Size and accuracy of all architectures that were trained in full",
                "Validation accuracy, mean over models.",
                "parameters",
                "val_accuracy",
                "search",
                log_x=True,
            ),
        ),
        (
            "White et al. 2021, How powerful are performance predictors in neural architecture search?, arXiv "
            "2104.01177",
            "Bergstra et al. 2011, Algorithms for hyper-parameter optimization",
            "Unterthiner et al. 2020, Predicting neural network accuracy from weights, arXiv 2002.11448",
        ),
    )


def _best(search: Search) -> float:
    return float(search.fulls[search.best].test_accuracy.mean())


def _ranked(
    context: Context, at_random: Sequence[Search], rng: np.random.Generator
) -> tuple[list[Score], pd.DataFrame]:
    """How well the final accuracies of random graphs are told that nothing was fitted on, by what is known early."""
    rows: list[pd.DataFrame] = []
    for number, search in enumerate(at_random):
        graphs = [*search.fulls]
        known, unseen = graphs[:FIRST], graphs[FIRST:]
        looks = [search.looks[graph] for graph in unseen]
        truth = [search.fulls[graph].val_accuracy for graph in known]
        dealt = [truth[place] for place in rng.permutation(len(truth))]
        control = Surrogate([search.looks[graph] for graph in known], dealt, context)
        rows.append(
            pd.DataFrame(
                {
                    "repetition": number,
                    "architecture": [graph.name for graph in unseen],
                    "blocks": [f"{len(graph.channels)}" for graph in unseen],
                    "measured": [search.fulls[graph].val_accuracy.mean() for graph in unseen],
                    "predicted": surrogate(search, known, context).says(looks),
                    "early": [look.val_accuracy.mean() for look in looks],
                    "parameters": [look.built.layout.size for look in looks],
                    "shuffled": control.says(looks),
                }
            )
        )
    table = pd.concat(rows, ignore_index=True)
    told: list[Score] = []
    for column, features, estimator, metrics in (
        ("predicted", WEIGHTS, SURROGATE, tuple(MEASURES)),
        ("early", EARLY, LAST_VALUE, tuple(MEASURES)),
        ("parameters", SIZE, LAST_VALUE, ("Kendall tau",)),
        ("shuffled", WEIGHTS, SHUFFLED, ("Kendall tau",)),
    ):
        own = table["measured"].to_numpy(np.float64), table[column].to_numpy(np.float64), rng
        told += scores(
            "final accuracy of unseen architectures", *own, features=features, estimator=estimator, metrics=metrics
        )
    return told, table.drop(columns="shuffled")


def _progress(found: Sequence[Mapping[str, Search]]) -> pd.DataFrame:
    """The best validation accuracy by search and epochs spent: mean and range over repetitions."""
    every = [search for searched in found for search in searched.values()]
    steps = sorted({spent for search in every for spent in search.spent_by.values()})
    steps = [spent for spent in steps if spent >= FIRST * EPOCHS]  # before, all do the same
    rows: list[dict[str, object]] = []
    for name in found[0]:
        for spent in steps:
            best = [
                max(
                    (
                        float(search.fulls[graph].val_accuracy.mean())
                        for graph, by in search.spent_by.items()
                        if by <= spent
                    ),
                    default=np.nan,
                )
                for search in (searched[name] for searched in found)
            ]
            rows.append({"search": name, "epochs": spent, "best": np.mean(best), "low": min(best), "high": max(best)})
    return pd.DataFrame(rows)


def _architectures(found: Sequence[Mapping[str, Search]]) -> pd.DataFrame:
    """Every graph that a search looked at, in that order."""
    rows: list[dict[str, object]] = []
    for number, searched in enumerate(found):
        for name, search in searched.items():
            for order, (graph, look) in enumerate(search.looks.items()):
                full = search.fulls.get(graph)
                rows.append(
                    {
                        "search": name,
                        "repetition": number,
                        "order": order,
                        "architecture": graph.name,
                        **graph.parameters,
                        "parameters": look.built.layout.size,
                        "multiply_adds": multiply_adds(look.built),
                        "epochs": LOOK if full is None else EPOCHS,
                        "early_val_accuracy": look.val_accuracy.mean(),
                        "val_accuracy": np.nan if full is None else full.val_accuracy.mean(),
                        "test_accuracy": np.nan if full is None else full.test_accuracy.mean(),
                    }
                )
    return pd.DataFrame(rows)
