"""Population-based training run for real, in memory, beside random search at the same cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from weightzoo import seeds
from weightzoo.analysis.dynamics.measures import mean_score
from weightzoo.analysis.dynamics.trained import epochs_of, fewer, member, protocol, refuse_large
from weightzoo.analysis.results import Context, Figure, Result, Score, images_of
from weightzoo.evolution import first_generation, succession
from weightzoo.members import Cohort, Member
from weightzoo.spec import EvolutionConfiguration, Factors, Range

if TYPE_CHECKING:
    from weightzoo.architectures import Architecture
    from weightzoo.datasets.images import ImageData
    from weightzoo.training.protocol import TrainState
    from weightzoo.zoo import Zoo

METHOD, _KEY = "population-based", 6801
FACTORS = Factors(
    init=("kaiming_uniform",),
    activation=("tanh",),
    optimizer=("adam",),
    learning_rate=Range(low=1e-5, high=1e-1, log=True),
    weight_decay=Range(low=1e-6, high=1e-2, log=True),
    dropout=Range(low=0.0, high=0.5),
)
MODELS, GENERATIONS, EPOCHS = 16, 8, 3  # epochs of a generation
RULE = EvolutionConfiguration(kind="evolution", models=MODELS, generations=GENERATIONS)
ALONE = EvolutionConfiguration(kind="evolution", models=MODELS, generations=GENERATIONS, exploit=0.0)
REPETITIONS, REPETITIONS_QUICK = 5, 2
EVOLVED, RANDOM = "population-based training", "random search"


@dataclass(frozen=True)
class Generation:
    """M members behind the epochs of one generation, several populations side by side."""

    members: tuple[Member, ...]
    parents: np.ndarray  # int [M], the member of the last generation whose state each one took over
    start: TrainState | None  # what they started from; None if that is fresh weights
    state: TrainState
    val_accuracy: np.ndarray  # float32 [M]; NaN of a member that diverged
    test_accuracy: np.ndarray  # float32 [M]


def generations(
    built: Architecture,
    data: ImageData,
    members: Sequence[Member],
    rule: EvolutionConfiguration,
    epochs: int,
    seed: int,
    threads: int | None = None,
    factors: Factors = FACTORS,
) -> Iterator[Generation]:
    """Train populations of `rule.models` members each, generation by generation of `epochs` epochs.

    Whoever takes over weights takes over the state of the optimiser too, and epochs are counted on: without
    exploitation the members are trained as they would be plainly, to the last bit. All are of one cohort, with a
    constant learning rate.
    """
    members, state = tuple(members), None
    parents = np.arange(len(members))
    for generation in range(1, rule.generations + 1):
        how = dataclasses.replace(members[0].protocol, epochs=generation * epochs, checkpoint_epochs=())
        cohort = Cohort(tuple(dataclasses.replace(one, protocol=how) for one in members))
        *_, last = epochs_of(built, cohort, data, state, threads)
        finite = np.isfinite(last.state.weights).all(axis=1) & np.isfinite(last.metrics.train_loss)
        accuracy = np.where(finite, last.metrics.val_accuracy, np.nan)
        yield Generation(members, parents, state, last.state, accuracy, last.metrics.test_accuracy)
        moved: list[Member] = []
        parents = np.arange(len(members))
        for first in range(0, len(members), rule.models):
            own = members[first : first + rule.models]
            values = accuracy[first : first + rule.models].tolist()
            if np.isnan(values).all():
                moved += own
                continue
            chosen = [one.hyperparameters for one in own]
            following = succession(values, chosen, factors, rule, seed + first, generation)
            parents[first : first + rule.models] = [first + one.parent for one in following]
            moved += [
                dataclasses.replace(place, hyperparameters=one.hyperparameters)
                for place, one in zip(own, following, strict=True)
            ]
        members, state = tuple(moved), last.state.select(parents)


def compare_population_based(zoo: Zoo, context: Context) -> Result:
    """Population-based training against random search: the same first generations, the same epochs in all.

    Populations of 16 models of the zoo's architecture are trained for 8 generations of 3 epochs: once with the worst
    fifth taking over weights and hyperparameters of the best and moving learning rate, weight decay and dropout, once
    each as it began. What counts is the test accuracy of the model with the best validation accuracy. Repeated with
    other draws; intervals are bootstraps over these repetitions.

    Raises:
        NotFoundError: the images are not at hand, or the architecture is too large to train many for this.
    """
    images = fewer(images_of(zoo, context))
    refuse_large(zoo.architecture)
    repetitions = REPETITIONS_QUICK if context.quick else REPETITIONS
    members = [one for number in range(repetitions) for one in _first(zoo.architecture, images, context, number)]
    drawn = seeds.spawn(context.seed, "population-based training", 1)[0]
    rows: list[pd.DataFrame] = []
    ends: dict[str, Generation] = {}
    steps = 0
    for name, rule in ((EVOLVED, RULE), (RANDOM, ALONE)):
        for number, one in enumerate(
            generations(zoo.architecture, images, members, rule, EPOCHS, drawn, context.threads), start=1
        ):
            rows.append(_table(name, number, one))
            ends[name] = one
            steps += 1
            context.on_progress(steps, 2 * GENERATIONS)
    table = pd.concat(rows, ignore_index=True)
    best = {name: _best_of(one) for name, one in ends.items()}
    rng = np.random.default_rng([context.seed, _KEY])
    target = "test accuracy of the best model"
    found = [mean_score(target, "mean", own, rng, estimator=name) for name, own in best.items()]
    found.append(mean_score(f"{target}, gain over random search", "mean", best[EVOLVED] - best[RANDOM], rng))
    found += [
        mean_score("val accuracy of a whole population", "mean", _populations(own).mean(axis=1), rng, estimator=name)
        for name, own in ((name, np.nan_to_num(one.val_accuracy)) for name, one in ends.items())
    ]
    progress = _progress(table)
    lineage = table.loc[(table["method"] == EVOLVED) & (table["repetition"] == 0)].reset_index(drop=True)
    gain: Score = found[2]
    return Result(
        METHOD,
        "Population-based training",
        f"At the cost of {MODELS} models and {GENERATIONS * EPOCHS} epochs, population-based training reaches a test "
        f"accuracy of {found[0].value:.3f} and random search {found[1].value:.3f} (means of {repetitions} repetitions; "
        f"gain {gain.value:+.3f}); the mean validation accuracy of its population is {found[3].value:.3f} instead of "
        f"{found[4].value:.3f}.",
        tuple(found),
        {"progress": progress, "lineage": lineage},
        (
            Figure(
                "lines",
                "progress",
                "Best of the population",
                "Validation accuracy of the best model, mean over repetitions; the band is their range.",
                "epoch",
                "best",
                "method",
                "low",
                "high",
            ),
            Figure(
                "lines",
                "lineage",
                "Learning rates of a population",
                "By place in the population: a jump is where a model took over another's weights and explored.",
                "epoch",
                "learning_rate",
                "place",
                log_y=True,
            ),
        ),
        ("Jaderberg et al. 2017, Population based training of neural networks, arXiv 1711.09846",),
    )


def _first(built: Architecture, data: ImageData, context: Context, repetition: int) -> list[Member]:
    """A first generation, with a seed of its own for each member."""
    drawn, *own = seeds.spawn(context.seed, f"population {repetition}", 1 + MODELS)
    chosen = first_generation(FACTORS, MODELS, drawn)
    return [member(built, data, one, seed, protocol(EPOCHS)) for one, seed in zip(chosen, own, strict=True)]


def _table(method: str, generation: int, one: Generation) -> pd.DataFrame:
    number = np.arange(len(one.members))
    chosen = [own.hyperparameters for own in one.members]
    return pd.DataFrame(
        {
            "method": method,
            "repetition": number // MODELS,
            "epoch": generation * EPOCHS,
            "place": number % MODELS,
            "parent": one.parents % MODELS,
            "learning_rate": [own.learning_rate for own in chosen],
            "weight_decay": [own.weight_decay for own in chosen],
            "dropout": [own.dropout for own in chosen],
            "val_accuracy": one.val_accuracy,
            "test_accuracy": one.test_accuracy,
        }
    )


def _populations(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, MODELS)


def _best_of(one: Generation) -> np.ndarray:
    """The test accuracy of the model of the best validation accuracy, of each population."""
    best = _populations(np.nan_to_num(one.val_accuracy, nan=-1)).argmax(axis=1)
    return _populations(one.test_accuracy)[np.arange(len(best)), best].astype(np.float64)


def _progress(table: pd.DataFrame) -> pd.DataFrame:
    """The best validation accuracy of each population by method and epoch: mean and range over repetitions."""
    best = table.groupby(["method", "epoch", "repetition"], sort=False).agg({"val_accuracy": "max"}).reset_index()
    grouped = best.groupby(["method", "epoch"], sort=False)["val_accuracy"]
    return grouped.agg(best="mean", low="min", high="max").reset_index()
