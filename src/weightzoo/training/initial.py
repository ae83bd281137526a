"""The state that training starts from: fresh weights, the same for every engine bit for bit, or an earlier state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from weightzoo import seeds
from weightzoo.architectures import Architecture
from weightzoo.architectures.graph import BatchNorm
from weightzoo.errors import LayoutError, SpecError
from weightzoo.members import Cohort, Member
from weightzoo.training.protocol import SLOTS, UNMEASURED, TrainState

BIAS = 0.01  # every bias of the published zoos starts here, but for those of batch normalisation


def starting_state(architecture: Architecture, cohort: Cohort, resume: TrainState | None) -> TrainState:
    """The state behind epoch 0, with all optimiser slots zero, or `resume` if it is one of this cohort.

    Weights that were given from outside become those of epoch 0.

    Raises:
        LayoutError: `resume` has other optimiser slots, members or parameters than the cohort.
    """
    slots = SLOTS[cohort.optimizer]
    if resume is None:
        weights = initial_weights(architecture, cohort.members)
        return TrainState(0, weights, {name: np.zeros_like(weights) for name in slots})
    if set(resume.slots) != set(slots):
        raise LayoutError(f"resumed state has the slots {sorted(resume.slots)}, {cohort.optimizer} has {sorted(slots)}")
    expected = (len(cohort), architecture.layout.size)
    for name, array in {"weights": resume.weights, **resume.slots}.items():
        if array.shape != expected:
            raise LayoutError(f"resumed {name}: got shape {list(array.shape)}, expected {list(expected)}")
    return replace(resume, epoch=0) if resume.epoch == UNMEASURED else resume


def initial_weights(architecture: Architecture, members: Sequence[Member]) -> np.ndarray:
    """The weights that the members start from, float32 `[M, P]`.

    A function of each member's `init` and init seed alone: parameter number i of the layout is filled from the stream
    `(seed, "init", i)`, in float64 and then rounded. Members that agree in both start from equal weights.

    Raises:
        SpecError: an initialisation is unknown.
    """
    rows: dict[tuple[str, int], np.ndarray] = {}
    for member in members:
        key = member.hyperparameters.init, member.seeds.init
        if key not in rows:
            rows[key] = _draw(architecture, *key)
    drawn = [rows[member.hyperparameters.init, member.seeds.init] for member in members]
    return np.stack(drawn) if drawn else np.empty((0, architecture.layout.size), np.float32)


def _draw(architecture: Architecture, init: str, seed: int) -> np.ndarray:
    """The weight vector float32 `[P]` of one initialisation and seed."""
    layout = architecture.layout
    vector = np.full(layout.size, BIAS)
    norms = {layer.name for layer in architecture.weighted if isinstance(layer, BatchNorm)}
    for index, (name, shape) in enumerate(layout.parameters):
        layer, _, part = name.rpartition(".")
        if layer in norms:  # the identity, whatever the initialisation
            vector[layout.span(name)] = part in ("weight", "running_var")
        elif part != "bias":
            vector[layout.span(name)] = _draw_weight(init, shape, seed, index)
    return vector.astype(np.float32)


def _draw_weight(init: str, shape: tuple[int, ...], seed: int, index: int) -> np.ndarray:
    """One weight tensor in C order, float64 `[size]`.

    The Kaiming initialisations (He et al. 2015, arXiv 1502.01852) are PyTorch's with default arguments: fan-in, and
    the gain sqrt(2) of a leaky ReLU of slope 0, whatever the activation.
    """
    size, fan_in = math.prod(shape), math.prod(shape[1:])
    match init:
        case "uniform":
            return seeds.uniforms(seed, "init", index, size=size)
        case "normal":
            return seeds.normals(seed, "init", index, size=size)
        case "kaiming_uniform":
            return math.sqrt(6 / fan_in) * (2 * seeds.uniforms(seed, "init", index, size=size) - 1)
        case "kaiming_normal":
            return math.sqrt(2 / fan_in) * seeds.normals(seed, "init", index, size=size)
        case _:
            known = "uniform, normal, kaiming_uniform, kaiming_normal"
            raise SpecError(f"unknown initialisation {init!r}; there are {known}")
