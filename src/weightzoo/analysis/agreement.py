"""Whether models give the same answers: pairwise agreement and Cohen's kappa of predictions on the probe images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from weightzoo.analysis.pairs import between_figure, between_levels, compared, kinds, pair_mean, pair_scores
from weightzoo.analysis.results import Context, Figure, Result
from weightzoo.analysis.weights import evenly

if TYPE_CHECKING:
    from weightzoo.zoo import Zoo

MOST, MOST_QUICK = 1000, 300  # models
_MOST_EPOCHS = 60
_AGREEMENT, _KAPPA = "agreement", "Cohen's kappa"


def agreement(zoo: Zoo, context: Context) -> Result:
    """How alike the predictions of each two finished models are, at the end, between factors and over the epochs.

    Agreement is the share of probe images of which both say the same class, kappa what of it is beyond the chance that
    two models with these frequencies of classes agree by: (p_o - p_e) / (1 - p_e).

    References: Cohen 1960, "A coefficient of agreement for nominal scales"; Schürholt et al. 2022, section 4.

    Raises:
        NotFoundError: the zoo holds no probe outputs, or has fewer than two finished models.
    """
    rows = compared(zoo, MOST_QUICK if context.quick else MOST)
    models = zoo.models.iloc[rows].reset_index(drop=True)
    classes = zoo.architecture.classes
    epochs = [zoo.checkpoint_epochs[index] for index in evenly(len(zoo.checkpoint_epochs), _MOST_EPOCHS)]
    over_epochs: list[dict[str, object]] = []
    observed, kappa = np.empty(0), np.empty(0)
    for done, epoch in enumerate(epochs):
        context.on_progress(done, len(epochs))
        observed, kappa = agreements(predictions(zoo.probe(rows.tolist(), [epoch])[:, 0]), classes)
        for kind, pairs in kinds(models).items():
            means = {_AGREEMENT: pair_mean(observed, pairs), "kappa": pair_mean(kappa, pairs)}
            over_epochs.append({"epoch": epoch, "pairs": kind, **means})
    features = f"predictions on {zoo.header.probe_images} images"
    scores = [
        *pair_scores(observed, models, _AGREEMENT, [context.seed, 0], features=features),
        *pair_scores(kappa, models, _KAPPA, [context.seed, 1], features=features),
    ]
    between = between_levels(kappa, models, "kappa")
    tables = {"by_epoch": pd.DataFrame(over_epochs), "between_values": between}
    said = "Mean over pairs of models."
    figures = [
        Figure("lines", "by_epoch", "Cohen's kappa over the epochs", said, "epoch", "kappa", "pairs"),
        Figure("lines", "by_epoch", "Raw agreement over the epochs", said, "epoch", "agreement", "pairs"),
    ]
    if len(between):
        figures.append(between_figure("kappa"))
    means = {score.target: score.value for score in scores if score.metric == _KAPPA}
    told = "; ".join(f"{kind} {value:.2f}" for kind, value in means.items())
    summary = (
        f"Two models agree on {scores[0].value:.0%} of the images; beyond chance, by Cohen's kappa: {told}. "
        f"{len(rows):,} finished models, {zoo.header.probe_images} test images."
    )
    references = (
        "Cohen 1960, A coefficient of agreement for nominal scales",
        "Schürholt et al. 2022, Model Zoos: A Dataset of Diverse Populations of Neural Network Models, section 4",
    )
    title = "Agreement of predictions"
    return Result("agreement", title, summary, tuple(scores), tables, tuple(figures), references)


def predictions(logits: np.ndarray) -> np.ndarray:
    """The class of the largest of the logits `[..., C]`, the first of equals; -1 where one is NaN. Int64 `[...]`."""
    return np.where(np.isnan(logits).any(axis=-1), -1, logits.argmax(axis=-1))


def agreements(predicted: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Share of equal predictions and Cohen's kappa of each two rows of `predicted [M, N]`, float64 `[M, M]` each.

    NaN of a row that holds -1. Kappa is NaN too where both predict one and the same class throughout: chance then
    accounts for all of it.
    """
    one_hot = (predicted[:, :, None] == np.arange(classes)).astype(np.float64)  # [M, N, C]
    flat = one_hot.reshape(len(predicted), -1)
    frequencies = one_hot.mean(axis=1)
    observed, expected = flat @ flat.T / predicted.shape[1], frequencies @ frequencies.T
    unknown = (predicted < 0).any(axis=1)
    observed[unknown], observed[:, unknown] = np.nan, np.nan
    # of counts of images, and so exact: no rounding may stand for a chance below 1
    with np.errstate(invalid="ignore", divide="ignore"):
        kappa = np.where(expected < 1 - 1e-12, (observed - expected) / (1 - expected), np.nan)
    return observed, kappa
