"""The forward pass of many models at once, with what every layer gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from weightzoo.architectures.graph import Architecture
from weightzoo.architectures.layers import (
    Activation,
    BatchNorm,
    Conv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    Layer,
    Linear,
    MaxPool,
    Residual,
)
from weightzoo.architectures.module import ACTIVATIONS, parameters_of
from weightzoo.errors import SpecError


def forward_pass(
    architecture: Architecture, weights: Tensor, activation: str, inputs: Tensor
) -> Iterator[tuple[Layer, Tensor]]:
    """What each outermost layer of N models gives for B images: `[N, B, *shape]`, in evaluation mode.

    `weights` is `[N, P]`, `inputs` `[B, channels, height, width]`, or `[N, B, ...]` for images of each model's own; all
    models have the one activation. Convolutions of
    the N models run as one grouped convolution.

    Raises:
        SpecError: the activation is unknown.
    """
    if activation not in ACTIVATIONS:
        raise SpecError(f"unknown activation {activation!r}; there are {', '.join(ACTIVATIONS)}")
    hidden = inputs.expand(len(weights), *inputs.shape) if inputs.ndim == 4 else inputs
    yield from _through(architecture.layers, parameters_of(architecture, weights), ACTIVATIONS[activation](), hidden)


def _through(
    layers: Iterable[Layer], tensors: Mapping[str, Tensor], activation: Callable[[Tensor], Tensor], hidden: Tensor
) -> Iterator[tuple[Layer, Tensor]]:
    for layer in layers:
        match layer:
            case Conv():
                hidden = _convolve(layer, tensors, hidden)
            case Linear():
                weight = tensors[f"{layer.name}.weight"].transpose(1, 2)
                hidden = torch.baddbmm(tensors[f"{layer.name}.bias"][:, None], hidden, weight)
            case BatchNorm():
                scale, bias, mean, variance = (
                    tensors[f"{layer.name}.{part}"][:, None, :, None, None]
                    for part in ("weight", "bias", "running_mean", "running_var")
                )
                hidden = (hidden - mean) * (scale / torch.sqrt(variance + 1e-5)) + bias
            case MaxPool(size):
                hidden = functional.max_pool2d(hidden.flatten(0, 1), size).unflatten(0, hidden.shape[:2])
            case GlobalAveragePool():
                hidden = hidden.mean((3, 4), keepdim=True)
            case Activation():
                hidden = activation(hidden)
            case Flatten():
                hidden = hidden.flatten(2)
            case Dropout():
                pass
            case Residual():
                body = _last(_through(layer.body, tensors, activation, hidden), hidden)
                hidden = body + _last(_through(layer.shortcut, tensors, activation, hidden), hidden)
        yield layer, hidden


def _last(steps: Iterator[tuple[Layer, Tensor]], hidden: Tensor) -> Tensor:
    for _, hidden in steps:  # noqa: B007  (the last one is wanted)
        pass
    return hidden


def _convolve(layer: Conv, tensors: Mapping[str, Tensor], hidden: Tensor) -> Tensor:
    """`[N, B, channels, height, width]` through N convolutions, each model a group."""
    models = len(hidden)
    bias = tensors[f"{layer.name}.bias"].flatten() if layer.bias else None
    weight = tensors[f"{layer.name}.weight"].flatten(0, 1)
    grouped = hidden.transpose(0, 1).flatten(1, 2)
    given = functional.conv2d(grouped, weight, bias, layer.stride, layer.padding, groups=models)
    return given.unflatten(1, (models, -1)).transpose(0, 1)
