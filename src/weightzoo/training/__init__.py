"""Training: members in, trajectories of weights and metrics out, by interchangeable engines."""

from __future__ import annotations

import logging
from typing import get_args

from weightzoo.architectures import Architecture
from weightzoo.errors import EngineError
from weightzoo.members import Cohort
from weightzoo.spec import EngineChoice
from weightzoo.training.devices import resolve_device
from weightzoo.training.protocol import Engine

_log = logging.getLogger("weightzoo")


def choose_engine(
    choice: str,
    architecture: Architecture,
    cohort: Cohort,
    device: str = "cpu",
    *,
    threads: int | None = None,
    compile: bool = False,
) -> Engine:
    """The engine that trains a cohort: a forced one, or for `auto` the fastest that can.

    That is `lanes` on a CPU for the architectures it supports, else `torch`; a fall-back on a CPU is logged with its
    reason. `threads` bounds the CPU threads, None leaves them to the engine; `reference` always has one. `compile` has
    `torch` compile what it computes.

    Raises:
        EngineError: there is no such engine or device, or the forced engine can't train this cohort there.
    """
    resolve_device(device)
    known = get_args(EngineChoice)
    if choice not in known:
        raise EngineError(f"no engine {choice!r}; there are {', '.join(known)}")
    if choice == "auto" and device != "cpu":
        choice = "torch"
    wanted = "lanes" if choice == "auto" else choice
    try:
        engine = _build(wanted, cohort, device, threads, compile)
        reason = engine.supports(architecture, cohort, device)
    except ImportError as error:  # LLVM has no build for some platforms
        reason = f"it can't be loaded here ({error})"
    else:
        if reason is None:
            return engine
    if choice != "auto":
        raise EngineError(f"engine {choice} can't train {cohort.architecture} on {device}: {reason}; use engine: auto")
    _log.warning("%s is trained by the slower engine torch, since lanes can't: %s", cohort.architecture, reason)
    return _build("torch", cohort, device, threads, compile)


def _build(name: str, cohort: Cohort, device: str, threads: int | None, compile: bool) -> Engine:
    """Engines are imported when they are wanted: PyTorch's transforms and LLVM take a second each."""
    if name == "lanes":
        from weightzoo.training.lanes import LanesEngine

        return LanesEngine(threads=threads)
    if name == "torch" and cohort.sparsification is not None:
        from weightzoo.training.sparse import SparseEngine

        return SparseEngine(device, threads, compile=compile)
    if name == "torch":
        from weightzoo.training.stacked import StackedEngine

        return StackedEngine(device, threads, compile=compile)
    from weightzoo.training.reference import ReferenceEngine

    return ReferenceEngine(device)


__all__ = ["choose_engine"]
