"""How models become sparse: accuracy against sparsity, which layers and weights go first, what stays of the parent."""

from __future__ import annotations

import contextlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import rankdata, spearmanr

from weightzoo.analysis.dynamics.measures import mean_score
from weightzoo.analysis.dynamics.trained import fewer, refuse_large
from weightzoo.analysis.dynamics.twins import make_twins
from weightzoo.analysis.performance import finished, metric_matrix
from weightzoo.analysis.results import Context, Figure, Result, Score, images_of
from weightzoo.analysis.weights import evenly
from weightzoo.errors import NotFoundError, WeightzooError

if TYPE_CHECKING:
    from weightzoo.zoo import Zoo

METHOD, _KEY = "sparsification", 6701
MOST_MODELS, MOST_MODELS_QUICK = 400, 100
MOST_TWINS = 64  # that are trained for this
NETWORK = "all layers"


def describe_sparsification(zoo: Zoo, context: Context) -> Result:
    """The trajectories of sparse twins: of a zoo of twins its own, of dense models those that are made of some of them.

    - Accuracy and sparsity by epoch, the latter by layer as well.
    - Whether the size of a weight tells that it goes: the area under the ROC curve of the smallness of the weight,
      against its being dropped at the end, within a model, and Spearman's correlation of size and epoch of the drop
      among those that go. By the parent's weights where its zoo lies beside this one, else by the twin's first ones.
    - How often twin and parent say the same of the probe images, where the parent's zoo lies beside.

    Intervals are bootstraps over models. Twins of dense models are trained by variational dropout, as `make_twins` has
    it, from the last kept epoch of finished models.

    Raises:
        NotFoundError: no model finished; or the models are dense, and their images are not at hand, the architecture is
            too large to train many for this, or a first look is asked for.
    """
    if zoo.header.sparse is not None:
        return _described(zoo, parent_zoo(zoo), context)
    if context.quick:
        raise NotFoundError("needs sparse twins, which are not trained for a first look; ask for it by name")
    images = fewer(images_of(zoo, context))
    refuse_large(zoo.architecture)
    done = finished(zoo.models) & zoo.present[:, -1]
    rows = np.flatnonzero(done)
    if not len(rows):
        raise NotFoundError(f"zoo {zoo.name} has no finished model whose last epoch is kept")
    with TemporaryDirectory() as folder:
        chosen = rows[evenly(len(rows), MOST_TWINS)]
        twins = make_twins(zoo, chosen, images, Path(folder) / "twins", context.threads)
        return _described(twins, zoo, context)


def _described(zoo: Zoo, parents: Zoo | None, context: Context) -> Result:
    rows = evenly(len(zoo), MOST_MODELS_QUICK if context.quick else MOST_MODELS)
    rows = rows[finished(zoo.models)[rows] & zoo.present[rows].all(axis=1)]
    if not len(rows):
        raise NotFoundError(f"zoo {zoo.name} has no finished model whose epochs are all there")
    rng = np.random.default_rng([context.seed, _KEY])
    by_epoch, layers = _by_epoch(zoo, rows), _by_layer(zoo, rows)
    size, whose = _sizes(zoo, parents, rows)
    context.on_progress(1, 3)
    found: list[Score] = []
    first = _first_drops(zoo, rows)
    order = _which_go(zoo, first, size, whose, rng, found)
    context.on_progress(2, 3)
    tables = {"by_epoch": by_epoch, "layers": layers, "order": order}
    agreement = _agreement(zoo, parents, rows)
    text = ""
    if agreement is not None:
        tables["agreement"] = pd.DataFrame({"epoch": zoo.checkpoint_epochs, "agreement": agreement.mean(axis=0)})
        score = mean_score("twin and parent agree at the end", "share of probe images", agreement[:, -1], rng)
        found.append(score)
        text = f" Twin and parent agree on {score.value:.0%} of the probe images at the end."
    start, end = by_epoch.iloc[0], by_epoch.iloc[-1]
    found += [
        mean_score("final sparsity", "mean", metric_matrix(zoo, "sparsity").to_numpy()[rows, -1], rng),
        mean_score("final test accuracy", "mean", metric_matrix(zoo, "test_accuracy").to_numpy()[rows, -1], rng),
    ]
    context.on_progress(3, 3)
    auc = {one.target: one.value for one in found if one.metric == "AUC"}
    return Result(
        METHOD,
        "Trajectories of sparsification",
        f"{end['sparsity']:.0%} of the weights are dropped at the end, while the mean test accuracy goes from "
        f"{start['test_accuracy']:.3f} to {end['test_accuracy']:.3f}. The smallness of the {whose} weights tells which "
        f"go with an AUC of {auc.get(_target(NETWORK), np.nan):.2f} within a network.{text}",
        tuple(found),
        tables,
        (
            Figure(
                "lines",
                "by_epoch",
                "Accuracy against sparsity",
                "Means over models, epoch by epoch; the band is from the 5% to the 95% quantile.",
                "sparsity",
                "test_accuracy",
                None,
                "low",
                "high",
            ),
            Figure("lines", "layers", "Sparsity by layer", "Means over models.", "epoch", "sparsity", "layer"),
            Figure(
                "bars",
                "order",
                "Does size tell which weights go?",
                f"Area under the ROC curve of the smallness of the {whose} weights; 0.5 tells nothing.",
                "layer",
                "auc",
                None,
                "low",
                "high",
            ),
            *(
                [Figure("lines", "agreement", "Twin and parent agree", "Share of probe images.", "epoch", "agreement")]
                if agreement is not None
                else []
            ),
        ),
        (
            "Molchanov, Ashukha, Vetrov 2017, Variational dropout sparsifies deep neural networks, arXiv 1701.05369",
            "Han et al. 2015, Learning both weights and connections for efficient neural networks, arXiv 1506.02626",
        ),
    )


def parent_zoo(zoo: Zoo) -> Zoo | None:
    """The zoo beside this one that has the parents of all its models, if there is one."""
    from weightzoo.zoo import Zoo

    wanted = set(zoo.models["parent"].dropna())
    name = zoo.path.name
    for folder in sorted(zoo.place.beside(), key=lambda one: not name.startswith(one.name)):  # digits-seed-sparse
        with contextlib.suppress(WeightzooError):  # a damaged neighbour is none
            other = Zoo.open(folder)
            if wanted and wanted <= set(other.models["member"]):
                return other
    return None


def auc(score: np.ndarray, positive: np.ndarray) -> float:
    """The area under the ROC curve, by ranks (Mann and Whitney 1947); NaN if all are positive, or none."""
    count = int(positive.sum())
    if count in (0, len(positive)):
        return float("nan")
    ranks = rankdata(score)[positive].sum()
    return float((ranks - count * (count + 1) / 2) / (count * (len(positive) - count)))


def _target(layer: str) -> str:
    return f"weights that are dropped, {layer}"


def _by_epoch(zoo: Zoo, rows: np.ndarray) -> pd.DataFrame:
    sparsity, accuracy = (metric_matrix(zoo, name).to_numpy()[rows] for name in ("sparsity", "test_accuracy"))
    low, high = np.nanquantile(accuracy, (0.05, 0.95), axis=0)
    columns = {"epoch": np.arange(sparsity.shape[1]), "sparsity": np.nanmean(sparsity, axis=0)}
    return pd.DataFrame(columns | {"test_accuracy": np.nanmean(accuracy, axis=0), "low": low, "high": high})


def _by_layer(zoo: Zoo, rows: np.ndarray) -> pd.DataFrame:
    table = zoo.epochs.loc[zoo.epochs["model"].isin(rows.tolist())]
    values = np.stack([np.asarray(own, np.float64) for own in table["layer_sparsity"]])
    parts = [
        pd.DataFrame({"epoch": table["epoch"].to_numpy(), "layer": name.removesuffix(".weight"), "sparsity": own})
        for name, own in zip(zoo.architecture.prunable, values.T, strict=True)
    ]
    whole = pd.concat(parts, ignore_index=True)
    return whole.groupby(["layer", "epoch"], sort=False).agg({"sparsity": "mean"}).reset_index()


def _sizes(zoo: Zoo, parents: Zoo | None, rows: np.ndarray) -> tuple[np.ndarray, str]:
    """Sizes of the weights before sparsification `[N, P]`, and whose they are."""
    models = zoo.models.iloc[rows]
    if parents is not None:
        number = {member: place for place, member in enumerate(parents.models["member"])}
        epochs = models["parent_epoch"].to_numpy(np.int64)
        if set(epochs.tolist()) <= set(parents.checkpoint_epochs):
            pairs = zip(models["parent"], epochs, strict=True)
            taken = [parents.weights([number[member]], [int(epoch)])[0, 0] for member, epoch in pairs]
            return np.abs(np.stack(taken)), "parent's"
    return np.abs(zoo.weights(rows.tolist(), [zoo.checkpoint_epochs[0]], raw=True)[:, 0]), "first epoch's"


def _first_drops(zoo: Zoo, rows: np.ndarray) -> np.ndarray:
    """The epoch from which each weight of a model is dropped for good, float64 `[N, P]`; infinite if it stays."""
    first = np.full((len(rows), zoo.layout.size), np.inf)
    for place, row in enumerate(rows):
        dropped = zoo.masks([int(row)])[0] == 0  # [E, P]
        for_good = np.flip(np.logical_and.accumulate(np.flip(dropped, 0)), 0)
        epochs = np.asarray(zoo.checkpoint_epochs, np.float64)[for_good.argmax(axis=0)]
        first[place] = np.where(for_good[-1], epochs, np.inf)
    return first


def _which_go(
    zoo: Zoo, first: np.ndarray, size: np.ndarray, whose: str, rng: np.random.Generator, found: list[Score]
) -> pd.DataFrame:
    """By layer: AUC of smallness, correlation of size and epoch of the drop, and the median epoch of the drops."""
    spans = {name.removesuffix(".weight"): zoo.layout.span(name) for name in zoo.architecture.prunable}
    prunable = np.zeros(zoo.layout.size, bool)
    for span in spans.values():
        prunable[span] = True
    places = {NETWORK: np.flatnonzero(prunable)}
    places |= {name: np.arange(span.start, span.stop) for name, span in spans.items()}
    table: list[dict[str, object]] = []
    for name, own in places.items():
        dropped = np.isfinite(first[:, own])
        areas = np.array([auc(-size[row, own], dropped[row]) for row in range(len(first))])
        ordered = np.array([_order(size[row, own], first[row, own]) for row in range(len(first))])
        defined = areas[np.isfinite(areas)]
        row: dict[str, object] = {"layer": name, "dropped": float(dropped.mean())}
        if len(defined):
            score = mean_score(_target(name), "AUC", defined, rng, features=f"size of the {whose} weights")
            found.append(score)
            row |= {"auc": score.value, "low": score.low, "high": score.high}
        gone = first[:, own][dropped]
        row |= {
            "size_and_epoch": float(np.nanmean(ordered)) if np.isfinite(ordered).any() else np.nan,
            "median_epoch": float(np.median(gone)) if len(gone) else np.nan,
        }
        table.append(row)
    columns = ["layer", "dropped", "auc", "low", "high", "size_and_epoch", "median_epoch"]
    return pd.DataFrame(table, columns=pd.Index(columns))


def _order(size: np.ndarray, epoch: np.ndarray) -> float:
    """Spearman's correlation of size and epoch among the weights that go; NaN where either does not vary."""
    gone = np.isfinite(epoch)
    if len(np.unique(epoch[gone])) < 2 or len(np.unique(size[gone])) < 2:
        return float("nan")
    return float(np.asarray(spearmanr(size[gone], epoch[gone])[0]))


def _agreement(zoo: Zoo, parents: Zoo | None, rows: np.ndarray) -> np.ndarray | None:
    """The share of probe images of which twin and parent say the same, by epoch, `[N, E]`; None if it can't be said."""
    if parents is None or not zoo.header.probe_images or zoo.header.probe_images != parents.header.probe_images:
        return None
    models = zoo.models.iloc[rows]
    number = {member: place for place, member in enumerate(parents.models["member"])}
    pairs = list(zip(models["parent"], models["parent_epoch"].to_numpy(np.int64), strict=True))
    if not {int(epoch) for _, epoch in pairs} <= set(parents.checkpoint_epochs):
        return None
    theirs = np.stack([parents.probe([number[member]], [int(epoch)])[0, 0].argmax(axis=1) for member, epoch in pairs])
    return (zoo.probe(rows.tolist()).argmax(axis=3) == theirs[:, None]).mean(axis=2)
