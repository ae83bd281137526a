"""What training goes on from that makes members sparse: masks, and variances with their own optimiser state."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from weightzoo.architectures import Architecture
from weightzoo.errors import LayoutError
from weightzoo.members import Cohort
from weightzoo.spec import Variational
from weightzoo.training.initial import starting_state
from weightzoo.training.protocol import SLOTS, UNMEASURED, TrainState

LOG_VARIANCE, MASK = "log_variance", "mask"  # slots of the state


def starting_sparse_state(architecture: Architecture, cohort: Cohort, resume: TrainState | None) -> TrainState:
    """The state that members are made sparse from, or `resume` if it is one of this cohort.

    Nothing is dropped yet. Weights that were given from outside (`TrainState.given`) become those of epoch 0.

    Raises:
        LayoutError: `resume` has other slots, members or parameters than the cohort.
    """
    own = {*SLOTS[cohort.optimizer], MASK}
    method = cohort.sparsification
    if isinstance(method, Variational):
        own |= {LOG_VARIANCE, *(f"{LOG_VARIANCE}.{name}" for name in SLOTS[cohort.optimizer])}
    if resume is not None and resume.epoch != UNMEASURED:
        if set(resume.slots) != own:
            raise LayoutError(f"resumed state has the slots {sorted(resume.slots)}, the cohort has {sorted(own)}")
        for prefix in (f"{LOG_VARIANCE}.", "") if isinstance(method, Variational) else ("",):
            slots = {name: resume.slots[prefix + name] for name in SLOTS[cohort.optimizer]}
            starting_state(architecture, cohort, replace(resume, slots=slots))
        for name in own:
            if resume.slots[name].shape != resume.weights.shape:
                got, expected = list(resume.slots[name].shape), list(resume.weights.shape)
                raise LayoutError(f"resumed {name}: got shape {got}, expected {expected}")
        return resume
    start = starting_state(architecture, cohort, resume)
    slots = start.slots | {MASK: np.ones(start.weights.shape, np.uint8)}
    if isinstance(method, Variational):
        log_variance = np.zeros_like(start.weights)
        for name in architecture.prunable:
            log_variance[:, architecture.layout.span(name)] = method.log_variance
        slots |= {LOG_VARIANCE: log_variance}
        slots |= {f"{LOG_VARIANCE}.{name}": np.zeros_like(slot) for name, slot in start.slots.items()}
    return replace(start, slots=slots)
