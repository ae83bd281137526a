"""Zoos that go on from the models of another: fine-tuned ones and sparse twins."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from weightzoo.mistakes import TAG, refusal, short
from weightzoo.spec.configurations import AnySeeds
from weightzoo.spec.training import Trained, Training
from weightzoo.spec.values import (
    MAX_EPOCHS,
    Distinct,
    Fraction,
    Initialisation,
    Listed,
    Name,
    NonNegative,
    Number,
    OptimizerKind,
    Positive,
    Rate,
    Section,
    Seed,
    expand_kind,
    kind_of,
)


def _start_epoch(value: object) -> object:
    if value not in ("last", "best") and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise refusal(f"got {short(value)}, expected last, best or the number of an epoch")
    return value


class Start(Section):
    """Where members start from: models of a packed zoo below `zoos/`, behind an epoch.

    `last` is the last that the zoo holds of a model, `best` the one of the highest validation accuracy. `where` is a
    condition on the columns of the zoo's table of models.
    """

    zoo: Name = Field(description="`zoo`, the name of a packed zoo below zoos/")
    epoch: Annotated[Literal["last", "best"] | int, BeforeValidator(_start_epoch)] = "last"
    where: str | None = None


class Overrides(Section):
    """Hyperparameters that replace those of the models started from; several values make a grid.

    The activation is part of the function that the weights were trained for, and stays.
    """

    init: Annotated[tuple[Initialisation, ...], Listed, Distinct] | None = None
    optimizer: Annotated[tuple[OptimizerKind, ...], Listed, Distinct] | None = None
    learning_rate: Annotated[tuple[Positive, ...], Listed, Distinct] | None = None
    weight_decay: Annotated[tuple[NonNegative, ...], Listed, Distinct] | None = None
    dropout: Annotated[tuple[Rate, ...], Listed, Distinct] | None = None


class Variational(Section):
    """Sparsification by variational dropout (Molchanov et al. 2017, arXiv 1701.05369).

    The weight of the Kullback-Leibler term rises to `kl_weight` at the last epoch; weights whose log alpha reaches
    `threshold` are dropped; `log_variance` is the log sigma^2 that every weight starts with.
    """

    kind: Literal["variational"] = "variational"
    kl_weight: NonNegative = 0.01
    threshold: Annotated[float, Number, Field(gt=-8, lt=8)] = 3.0
    log_variance: Annotated[float, Number, Field(ge=-50, le=50)] = -10.0


class Magnitude(Section):
    """Sparsification by iterative pruning of the smallest weights (Han et al. 2015, arXiv 1506.02626).

    To each of the `sparsities` in turn, at equal distances over all epochs, with training in between. The smallest
    weights are those of the whole network or, with `scope: layer`, of every layer.
    """

    kind: Literal["magnitude"] = "magnitude"
    sparsities: Annotated[tuple[Fraction, ...], Listed, Distinct] = Field(
        description="`sparsities`, shares of weights to prune, e.g. [0.5, 0.8, 0.9]"
    )
    scope: Literal["network", "layer"] = "network"

    @model_validator(mode="after")
    def _rising(self) -> Self:
        for index, (one, following) in enumerate(itertools.pairwise(self.sparsities), start=1):
            if following < one:
                raise refusal(f"got {following} behind {one}; pruned weights stay pruned", "sparsities", index)
        return self


Sparsification = Annotated[
    Annotated[Variational, Tag(TAG + "variational")] | Annotated[Magnitude, Tag(TAG + "magnitude")],
    Discriminator(kind_of),
    BeforeValidator(expand_kind),
]


class SparsifySpec(Trained):
    """A zoo of sparse twins: models of a packed zoo that are made sparse while they are trained on.

    Each with its own optimiser, learning rate, schedule, batch size and seeds, on the images that it was trained on.
    """

    start: Start = Field(description="`start`, e.g. {zoo: digits-seed}")
    method: Sparsification = Variational()
    epochs: Annotated[int, Number, Field(ge=1, le=MAX_EPOCHS)] = 25

    @model_validator(mode="after")
    def _an_epoch_a_step(self) -> Self:
        if isinstance(self.method, Magnitude) and len(self.method.sparsities) > self.epochs:
            raise refusal(f"got {self.epochs} for {len(self.method.sparsities)} sparsities; give each one", "epochs")
        return self


class FinetuneSpec(Trained):
    """A zoo whose members start from trained models, on any data set of the same image shape.

    Every model chosen by `start` is trained once for each point of `factors` and each of the `seeds`; what `factors`
    leaves out, and the seeds, are by default the model's own.
    """

    start: Start = Field(description="`start`, e.g. {zoo: digits-seed}")
    dataset: str = Field(description="`dataset`, the name of a section below `datasets`")
    factors: Overrides = Overrides()
    seeds: AnySeeds | None = None
    training: Training = Training()
    seed: Seed = 0
