"""The methods of analysis as data, in the order of the report. A method's code is imported when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from weightzoo.analysis.results import Analysis
from weightzoo.errors import NotFoundError
from weightzoo.mistakes import nearest

Section = Literal[
    "Prediction from weights",
    "Diversity and agreement",
    "Alignment and loss landscape",
    "Learning dynamics",
]
Need = Literal["images", "images or twins", "another zoo"]


@dataclass(frozen=True)
class Method:
    """A function from a zoo to a `Result`, and what is to be known of it before it runs."""

    name: str
    title: str
    section: Section
    function: str  # module:name
    paper: str  # whose method it is
    quick: bool = True  # whether it is part of a first look
    needs: tuple[Need, ...] = ()  # beside a packed zoo: its images, or models that are sparse twins; a second zoo

    @property
    def module(self) -> str:
        """The dotted path of the module that holds the function."""
        return self.function.partition(":")[0]

    def load(self) -> Analysis:
        """The function itself."""
        return getattr(import_module(self.module), self.function.partition(":")[2])


METHODS = (
    Method(
        "properties",
        "Properties predicted from statistics of weights",
        "Prediction from weights",
        "weightzoo.analysis.prediction.properties:predict_properties",
        "Unterthiner et al. 2020",
    ),
    Method(
        "networks",
        "Properties predicted by equivariant networks",
        "Prediction from weights",
        "weightzoo.analysis.prediction.properties:predict_with_networks",
        "Zhou et al. 2023",
        quick=False,
    ),
    Method(
        "behaviour",
        "Accuracy and gap predicted from behaviour",
        "Prediction from weights",
        "weightzoo.analysis.prediction.properties:predict_from_behaviour",
        "Jiang et al. 2019",
        quick=False,
        needs=("images",),
    ),
    Method(
        "later-epochs",
        "Late epochs predicted from early ones",
        "Prediction from weights",
        "weightzoo.analysis.prediction.properties:predict_later_epochs",
        "Unterthiner et al. 2020",
        quick=False,
    ),
    Method(
        "another-zoo",
        "Properties of another zoo",
        "Prediction from weights",
        "weightzoo.analysis.prediction.properties:predict_another_zoo",
        "Unterthiner et al. 2020",
        quick=False,
        needs=("another zoo",),
    ),
    Method(
        "spread",
        "Spread of accuracy and generalisation gap",
        "Diversity and agreement",
        "weightzoo.analysis.diversity:spread",
        "Schürholt et al. 2022",
    ),
    Method(
        "agreement",
        "Agreement of predictions",
        "Diversity and agreement",
        "weightzoo.analysis.agreement:agreement",
        "Cohen 1960, Schürholt et al. 2022",
    ),
    Method(
        "output-similarity",
        "Similarity of outputs",
        "Diversity and agreement",
        "weightzoo.analysis.similarity:output_similarity",
        "Kornblith et al. 2019",
    ),
    Method(
        "hidden-similarity",
        "Similarity of hidden activations",
        "Diversity and agreement",
        "weightzoo.analysis.similarity:hidden_similarity",
        "Kornblith et al. 2019",
        needs=("images",),
    ),
    Method(
        "distances",
        "Distances of weights",
        "Diversity and agreement",
        "weightzoo.analysis.distances:weight_distances",
        "Schürholt et al. 2022, Ainsworth et al. 2023",
    ),
    Method(
        "barriers",
        "Barriers between models, before and after alignment",
        "Alignment and loss landscape",
        "weightzoo.analysis.landscape.barriers:barriers",
        "Ainsworth et al. 2023",
        needs=("images",),
    ),
    Method(
        "connectivity",
        "Curves of low loss between models",
        "Alignment and loss landscape",
        "weightzoo.analysis.landscape.curves:connectivity",
        "Garipov et al. 2018",
        needs=("images",),
    ),
    Method(
        "regions",
        "The loss around models",
        "Alignment and loss landscape",
        "weightzoo.analysis.landscape.directions:regions",
        "Li et al. 2018, Foret et al. 2021",
        needs=("images",),
    ),
    Method(
        "planes",
        "The loss on planes through three models",
        "Alignment and loss landscape",
        "weightzoo.analysis.landscape.planes:planes",
        "Garipov et al. 2018",
        needs=("images",),
    ),
    Method(
        "identity",
        "Which model a checkpoint is from",
        "Alignment and loss landscape",
        "weightzoo.analysis.identity.method:identity",
        "Schürholt et al. 2022",
    ),
    Method(
        "extrapolation",
        "Learning curves extrapolated",
        "Learning dynamics",
        "weightzoo.analysis.dynamics.extrapolation:extrapolate",
        "Domhan et al. 2015",
    ),
    Method(
        "stopping",
        "Early stopping and successive halving replayed",
        "Learning dynamics",
        "weightzoo.analysis.dynamics.stopping:replay_stopping",
        "Jamieson and Talwalkar 2016",
    ),
    Method(
        "trajectories",
        "Trajectories through weight space",
        "Learning dynamics",
        "weightzoo.analysis.dynamics.trajectories:describe_trajectories",
        "Schürholt et al. 2022",
    ),
    Method(
        "sparsification",
        "Trajectories of sparsification",
        "Learning dynamics",
        "weightzoo.analysis.dynamics.sparsification:describe_sparsification",
        "Molchanov et al. 2017",
        needs=("images or twins",),
    ),
    Method(
        "population-based",
        "Population-based training",
        "Learning dynamics",
        "weightzoo.analysis.dynamics.population_based:compare_population_based",
        "Jaderberg et al. 2017",
        quick=False,
        needs=("images",),
    ),
    Method(
        "architecture-search",
        "Architecture search by weights",
        "Learning dynamics",
        "weightzoo.analysis.dynamics.architecture_findings:search_architectures",
        "White et al. 2021",
        quick=False,
        needs=("images",),
    ),
    Method(
        "transfer",
        "Transfer predicted from source weights",
        "Learning dynamics",
        "weightzoo.analysis.dynamics.transfer:predict_transfer",
        "Schürholt et al. 2022",
        quick=False,
        needs=("images",),
    ),
    Method(
        "class-errors",
        "Errors by class from weights",
        "Learning dynamics",
        "weightzoo.analysis.dynamics.class_errors:predict_class_errors",
        "Schürholt et al. 2022",
        quick=False,
    ),
    Method(
        "planted-bias",
        "Planted biases found",
        "Learning dynamics",
        "weightzoo.analysis.dynamics.planted_bias:find_planted_bias",
        "Schürholt et al. 2022",
        quick=False,
        needs=("images",),
    ),
)


def chosen_methods(names: Sequence[str] = (), *, quick: bool = False) -> tuple[Method, ...]:
    """The methods of these names, in the order of the report; without names all, or those of the quick subset.

    Raises:
        NotFoundError: there is no method of a name; the message names the nearest.
    """
    known = {method.name: method for method in METHODS}
    for name in names:
        if name not in known:
            raise NotFoundError(f"no method {name!r}; {nearest(name, known)}")
    if names:
        return tuple(method for method in METHODS if method.name in names)
    return tuple(method for method in METHODS if method.quick or not quick)
