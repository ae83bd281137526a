"""Activation and dropout: what happens to a single number between one layer's output and the next layer's input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from weightzoo.training.lanes.dropout import Masks
from weightzoo.training.lanes.language import Value, fma
from weightzoo.training.lanes.mathematics import normal, sigmoid, tanh

LEAKY_SLOPE = 0.01  # PyTorch's default


def _tanh(z: Value) -> tuple[Value, Value]:
    h = tanh(z)
    return h, fma(-h, h, 1.0)


def _sigmoid(z: Value) -> tuple[Value, Value]:
    h = sigmoid(z)
    return h, fma(-h, h, h)


def _relu(z: Value) -> tuple[Value, Value]:
    off = z <= 0.0  # so that NaN passes
    return off.select(0.0, z), off.select(z.code.number(0.0), 1.0)


def _leaky_relu(z: Value) -> tuple[Value, Value]:
    off = z <= 0.0
    return off.select(z * LEAKY_SLOPE, z), off.select(z.code.number(LEAKY_SLOPE), 1.0)


def _gelu(z: Value) -> tuple[Value, Value]:
    distribution, density = normal(z)
    return z * distribution, fma(z, density, distribution)


def _silu(z: Value) -> tuple[Value, Value]:
    s = sigmoid(z)
    h = z * s
    return h, fma(h, 1.0 - s, s)


# name -> z -> (h, dh/dz); where only h is used, LLVM drops the rest
ACTIVATIONS: dict[str, Callable[[Value], tuple[Value, Value]]] = {
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "gelu": _gelu,
    "silu": _silu,
}


@dataclass(frozen=True)
class Pointwise:
    """A run of activation layers (None) and dropout layers (the number of their first unit), in order."""

    steps: tuple[int | None, ...] = ()

    def apply(self, z: Value, unit: Value, activation: str, masks: Masks | None) -> tuple[Value, Value | None]:
        """The run's output for one number, and its derivative, which is None for an empty run (1 everywhere).

        `unit` is the position of the number in its layer, in C order. Without masks, dropout is the identity.
        """
        derivative: Value | None = None
        for first_unit in self.steps:
            if first_unit is None:
                z, factor = ACTIVATIONS[activation](z)
            elif masks is not None:
                factor = masks.factor(unit + first_unit)
                z = z * factor
            else:
                continue
            derivative = factor if derivative is None else derivative * factor
        return z, derivative

    def has_derivative(self, dropout: bool) -> bool:
        """Whether `apply` gives one."""
        return any(step is None or dropout for step in self.steps)
