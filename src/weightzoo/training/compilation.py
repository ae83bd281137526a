"""`torch.compile` where it works, the plain function where not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

_log = logging.getLogger("weightzoo")


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that compiles itself when it is called first; if that fails, it says why in the log and stays plain.

    Compiling needs a C++ compiler on a CPU and Triton on CUDA, and does not understand all that PyTorch computes.
    """
    chosen: list[Callable[..., Any]] = []

    def call(*arguments: Any) -> Any:
        if chosen:
            return chosen[0](*arguments)
        attempt: Callable[..., Any] = torch.compile(function, dynamic=False)
        try:
            result = attempt(*arguments)
        except Exception as error:  # of many kinds; what is no fault of the compiler's, the plain function raises again
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            _log.warning("torch.compile failed, training goes on without: %s", reason)
            result = function(*arguments)
            chosen.append(function)
        else:
            chosen.append(attempt)
        return result

    return call
