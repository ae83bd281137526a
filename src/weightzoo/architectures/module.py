"""The layer graph as a `torch.nn.Module`, with the parameter names of the layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from torch import Tensor, nn

from weightzoo.architectures.graph import Activation, Architecture, Conv, Dropout, Flatten, Layer, Linear, MaxPool
from weightzoo.errors import SpecError

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
}


class Network(nn.Sequential):
    """The layers of an architecture in order, so that `network[i]` is its layer i.

    Every dropout layer is there at any rate, 0 included: names and positions never depend on a hyperparameter.
    """

    def forward(self, input: Tensor, masks: Mapping[int, Tensor] | None = None) -> Tensor:
        """Images `[B, channels, height, width]` to logits `[B, classes]`.

        `masks` maps the position of a dropout layer to the factors, 0 or 1/(1 - rate), that its input `[B, *shape]` is
        multiplied by; the layer's own random draw then doesn't happen.
        """
        hidden = input
        for index, layer in enumerate(self):
            hidden = hidden * masks[index] if masks and index in masks else layer(hidden)
        return hidden


def build_module(architecture: Architecture, activation: str, dropout: float = 0.0) -> Network:
    """A module with PyTorch's own fresh weights, whose state dict has exactly the names and shapes of the layout.

    In training mode its dropout layers draw from PyTorch's generator at the rate `dropout`.

    >>> from weightzoo.architectures import architecture
    >>> network = build_module(architecture("cnn-s", (1, 28, 28), 10), "tanh")
    >>> sum(parameter.numel() for parameter in network.parameters())
    2464

    Raises:
        SpecError: the activation is unknown.
    """
    if activation not in ACTIVATIONS:
        raise SpecError(f"unknown activation {activation!r}; there are {', '.join(ACTIVATIONS)}")
    network = Network()
    for name, layer in _named(architecture):
        network.add_module(name, _module(layer, activation, dropout))
    return network


def parameters_of(architecture: Architecture, vectors: Tensor) -> dict[str, Tensor]:
    """Weight vectors `[..., P]` on any device as parameters `[..., *shape]` by name: views, nothing is copied.

    Raises:
        LayoutError: the last axis is not P long.
    """
    slices = architecture.layout.unflatten(cast("Any", vectors))  # only slices and reshapes, which tensors do alike
    return cast("dict[str, Any]", slices)


def _named(architecture: Architecture) -> Iterator[tuple[str, Layer]]:
    """The layers with a name for each; those without weights are numbered by kind: `pool1`, `activation1`, ..."""
    prefixes = {MaxPool: "pool", Activation: "activation", Dropout: "dropout", Flatten: "flatten"}
    taken = set(architecture.layout.layers)
    counts = dict.fromkeys(prefixes, 0)
    for layer in architecture.layers:
        if isinstance(layer, Conv | Linear):
            yield layer.name, layer
        else:
            counts[type(layer)] += 1
            name = f"{prefixes[type(layer)]}{counts[type(layer)]}"
            while name in taken:
                name += "_"
            taken.add(name)
            yield name, layer


def _module(layer: Layer, activation: str, dropout: float) -> nn.Module:
    match layer:
        case Conv(_, in_channels, out_channels, kernel, stride, padding):
            return nn.Conv2d(in_channels, out_channels, kernel, stride, padding)
        case MaxPool(size):
            return nn.MaxPool2d(size)
        case Activation():
            return ACTIVATIONS[activation]()
        case Dropout():
            return nn.Dropout(dropout)
        case Flatten():
            return nn.Flatten()
        case Linear(_, in_features, out_features):
            return nn.Linear(in_features, out_features)
