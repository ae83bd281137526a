"""The methods: what weights tell of the models' properties, by which estimator, beside the published numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from weightzoo.analysis.prediction.estimators import Boosting, Linear, Network, Prediction, Problem, together
from weightzoo.analysis.prediction.findings import Findings, Row
from weightzoo.analysis.prediction.published import REFERENCE
from weightzoo.analysis.prediction.study import Study, spread_epochs
from weightzoo.analysis.prediction.targets import ACCURACY, GAP, TARGETS
from weightzoo.analysis.results import Context, Result, images_of
from weightzoo.analysis.weights import evenly
from weightzoo.errors import NotFoundError

if TYPE_CHECKING:
    from weightzoo.zoo import Zoo

EPOCHS, QUICK_EPOCHS = 11, 5  # how many are looked at: in zoos of 50 epochs 0, 5, ... 50, or 0, 12, 25, 38, 50
SW, INVARIANT, SPECTRA = "s(W)", "s(W) + invariants", "spectra"
STRONG = ("statistics", "invariant")
NETWORKS, ROUNDS = 2, 20
_RAW_AT_MOST = 4000  # entries of W: ridge regression on more takes more than a minute
_STATISTICS = (
    "Unterthiner et al. 2020, Predicting Neural Network Accuracy from Weights, arXiv 2002.11448",
    REFERENCE,
)
_SPECTRA = "Martin, Peng & Mahoney 2021, Predicting trends in the quality of state-of-the-art neural networks"
_NETWORKS = (
    "Zhou et al. 2023, Permutation Equivariant Neural Functionals, arXiv 2302.14040",
    "Lim et al. 2023, Graph Metanetworks for Processing Diverse Neural Architectures, arXiv 2312.04501",
    "Kofinas et al. 2024, Graph Neural Networks for Learning Equivariant Representations, arXiv 2403.12143",
)


def predict_properties(zoo: Zoo, context: Context) -> Result:
    """Properties from W, s(W) and spectra (WeightWatcher's metrics): linear and boosted, with two controls.

    States are those of `EPOCHS` epochs, evenly spread; accuracy and gap are those of the state's own epoch. Models are
    split by configuration, so that those tested on have hyperparameters that no model of train has. Ridge regression
    chooses lambda from 1e3 to 1e-5 on val, the softmax its penalty, the trees their number.

    Controls: the same on values dealt out at random, which must score nothing, and the pairs of a fitted and a tested
    model that are kin (the same, twins, equal weights, one configuration), of which there must be none.

    Raises:
        NotFoundError: a split has no models, or nothing varies among them.
        LeakError: models have kin in test.
    """
    study = Study.of(zoo, epochs=spread_epochs(zoo, QUICK_EPOCHS if context.quick else EPOCHS))
    boosting = Boosting(study, ("statistics",), context.seed, quick=context.quick)
    linear = Linear(study, ("statistics",))
    rows = [
        Row(SW, "linear", linear, "s(W)"),
        Row(SW, "boosting", boosting),
        Row(INVARIANT, "boosting", Boosting(study, STRONG, context.seed, ranks=True, quick=context.quick)),
    ]
    if not context.quick:
        rows.append(Row(SPECTRA, "boosting", Boosting(study, ("spectral",), context.seed)))
    if zoo.layout.size <= _RAW_AT_MOST and not context.quick:
        rows.insert(0, Row("W", "linear", Linear(study, ("raw",)), "W"))
    found = Findings(zoo, study, context)
    found.score(rows, study.targets(), context.on_progress)
    found.control(linear, boosting)
    summary = (
        f"{found.told(ACCURACY)}From weights of {len(np.unique(study.train.models)):,} models, tested on "
        f"{len(np.unique(study.test.models)):,} of configurations that none of them has; values dealt out at random "
        f"score {found.chance}."
    )
    return found.result(
        "properties", "Properties predicted from statistics of weights", summary, (*_STATISTICS, _SPECTRA)
    )


def predict_with_networks(zoo: Zoo, context: Context) -> Result:
    """Properties by networks that are equivariant to the order of units, and by these and boosted trees together.

    The states are those of `predict_properties`. Accuracy is learned as its rank among the models of train, by networks
    and trees alike, and the ranks are averaged.

    Raises:
        NotFoundError: a split has no models, nothing varies among them, or the models are too large.
        LeakError: models have kin in test.
    """
    study = Study.of(zoo, epochs=spread_epochs(zoo, QUICK_EPOCHS if context.quick else EPOCHS))
    targets = study.targets()
    count, rounds = (1, 4) if context.quick else (NETWORKS, ROUNDS)
    seeds = [context.seed + number for number in range(count)]
    network = Network(study, targets, ("statistics",), seeds, rounds, context.on_progress)
    trees = Boosting(study, STRONG, context.seed, ranks=True, quick=context.quick)

    def both(problem: Problem) -> Prediction:
        return together(problem, trees(problem), network(problem))

    rows = [
        Row("weights", "equivariant network", network),
        Row("weights", "network and boosting", both, "embedding"),
    ]
    found = Findings(zoo, study, context)
    found.score(rows, targets)
    found.follow(rows[-1])
    title = "Properties predicted by equivariant networks"
    return found.result("networks", title, found.told(ACCURACY).strip(), (*_STATISTICS, *_NETWORKS))


def predict_from_behaviour(zoo: Zoo, context: Context) -> Result:
    """Accuracy and gap from what the models do with images, beside s(W) on the same states.

    Margins (Jiang et al. 2019) and persistent homology (Corneanu et al. 2020) look at training images, the stored
    outputs at test images, with their labels: that is a measurement on few images, no prediction from weights. So is
    the accuracy on the validation images, which is given as it is: how near a measurement on that many images comes.

    Raises:
        NotFoundError: a split has no models, or the images are not at hand.
        LeakError: models have kin in test.
    """
    images = images_of(zoo, context)
    study = Study.of(zoo, epochs=spread_epochs(zoo, 2 if context.quick else 4)[1:], images=images)
    names: dict[str, tuple[str, ...]] = {SW: ("statistics",), "margins": ("margins",), "homology": ("homology",)}
    if zoo.header.probe_images:
        names["test outputs"] = ("probe",)
    names["all of these"] = tuple(kind for own in names.values() for kind in own)
    rows: list[Row] = []
    for number, (title, kinds) in enumerate(names.items()):
        rows.append(Row(title, "boosting", Boosting(study, kinds, context.seed, quick=context.quick)))
        context.on_progress(number + 1, len(names) + 1)
    found = Findings(zoo, study, context)
    found.score(rows, study.targets((ACCURACY, GAP)))
    found.measured()
    references = (
        "Jiang et al. 2019, Predicting the Generalization Gap in Deep Networks with Margin Distributions",
        "Corneanu et al. 2020, Computing the Testing Error without a Testing Set, CVPR",
    )
    title = "Accuracy and gap predicted from behaviour"
    return found.result("behaviour", title, (found.told(GAP) or found.told(ACCURACY)).strip(), references)


def predict_later_epochs(zoo: Zoo, context: Context) -> Result:
    """Properties at late epochs, by what was fitted to early ones: the first half of training, and then the second.

    Raises:
        NotFoundError: a split has no models, or the zoo keeps fewer than four epochs.
        LeakError: models have kin in test.
    """
    epochs = spread_epochs(zoo, QUICK_EPOCHS if context.quick else EPOCHS)
    half = len(epochs) // 2
    if half < 2:
        raise NotFoundError(f"needs four kept epochs or more, the zoo {zoo.name} has {len(epochs)}")
    study = Study.of(zoo, epochs=epochs[:half], test_epochs=epochs[-half:])
    found = Findings(zoo, study, context)
    targets = study.targets([target for target in TARGETS if target.column != "epoch"])
    found.score(_transferable(study, context), targets, context.on_progress)
    summary = f"Fitted to epochs {epochs[0]} to {epochs[half - 1]}, tested on {epochs[-half]} to {epochs[-1]}. "
    return found.result(
        "later-epochs", "Late epochs predicted from early ones", summary + found.told(ACCURACY), _STATISTICS
    )


def predict_another_zoo(zoo: Zoo, context: Context) -> Result:
    """Properties of the models of another zoo, `context.other`, by what was fitted to this one.

    Raises:
        NotFoundError: there is no other zoo, or its models are of another architecture.
        LeakError: its models have kin here.
    """
    if context.other is None:
        raise NotFoundError("needs another zoo to be tested on: name it with --on")
    return across(zoo, context.other, context)


def across(fitted: Zoo, tested: Zoo, context: Context) -> Result:
    """Properties of all models of `tested`, by what was fitted to `fitted` and chosen on its val split.

    Both are seen at the same epochs: those that both hold, evenly spread.

    Raises:
        NotFoundError: they share no epochs, or their models are of different architectures.
        LeakError: models of one have kin in the other.
    """
    shared = sorted(set(fitted.checkpoint_epochs) & set(tested.checkpoint_epochs))
    if not shared:
        raise NotFoundError(f"{fitted.name} and {tested.name} hold no epoch in common")
    count = QUICK_EPOCHS if context.quick else EPOCHS
    epochs = [shared[place] for place in evenly(len(shared), count)]
    study = Study.of(fitted, tested, epochs=epochs)
    found = Findings(fitted, study, context)
    found.score(_transferable(study, context), study.targets(), context.on_progress)
    title = "Properties of another zoo"
    spread = [float(known.values[known.is_known].std()) for known in study.known(ACCURACY)[::2]]
    summary = (
        f"Tested on {tested.name}, whose accuracies have a standard deviation of {spread[1]:.3f}; here it is "
        f"{spread[0]:.3f}. {found.told(ACCURACY)}"
    )
    return found.result("another-zoo", title, summary, _STATISTICS)


def _transferable(study: Study, context: Context) -> list[Row]:
    return [
        Row(SW, "linear", Linear(study, ("statistics",))),
        Row(SW, "boosting", Boosting(study, ("statistics",), context.seed, quick=context.quick)),
        Row(INVARIANT, "boosting", Boosting(study, STRONG, context.seed, ranks=True, quick=context.quick)),
    ]
