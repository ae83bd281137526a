"""The layer graph as a `torch.nn.Module`, with the parameter names of the layout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from weightzoo.architectures.graph import (
    Activation,
    Architecture,
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
from weightzoo.architectures.layers import Named
from weightzoo.errors import SpecError

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
}


class _Chain(nn.Module):
    """Modules, each below its dotted path as in `layer1.0.conv1`; `chain[i]` is the i-th, whatever its path."""

    def __init__(self, modules: Iterable[tuple[str, nn.Module]]) -> None:
        super().__init__()
        self.paths: tuple[str, ...] = ()
        for path, module in modules:
            *outer, name = path.split(".")
            parent: nn.Module = self
            for part in outer:
                if part not in dict(parent.named_children()):
                    parent.add_module(part, nn.Sequential())
                parent = cast("nn.Module", getattr(parent, part))
            parent.add_module(name, module)
            self.paths += (path,)

    def __getitem__(self, index: int) -> nn.Module:
        return self.get_submodule(self.paths[index])

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[nn.Module]:
        return map(self.get_submodule, self.paths)


class Network(_Chain):
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


class _ResidualBlock(_Chain):
    """The layers of the body, then those of the shortcut."""

    def __init__(self, modules: Iterable[tuple[str, nn.Module]], body_length: int) -> None:
        super().__init__(modules)
        self.body_length = body_length

    def forward(self, input: Tensor) -> Tensor:
        body = shortcut = input
        for index, layer in enumerate(self):
            if index < self.body_length:
                body = layer(body)
            else:
                shortcut = layer(shortcut)
        return body + shortcut


class _BatchNorm(nn.BatchNorm2d):
    """PyTorch's, but its counter of batches is no part of the state: at a fixed momentum nothing depends on it."""

    _version = 1  # PyTorch's number for state dicts without the counter: its own module then takes them as they are

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("num_batches_tracked", torch.tensor(0), persistent=False)
        self.register_load_state_dict_pre_hook(_without_counter)


def _without_counter(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """PyTorch puts the counter into state dicts that lack it, and those of its own modules have it."""
    state.pop(f"{prefix}num_batches_tracked", None)


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
    return Network(_modules(architecture.layers, activation, dropout))


def parameters_of(architecture: Architecture, vectors: Tensor) -> dict[str, Tensor]:
    """Weight vectors `[..., P]` on any device as parameters and buffers `[..., *shape]` by name: views, not copies.

    Raises:
        LayoutError: the last axis is not P long.
    """
    slices = architecture.layout.unflatten(cast("Any", vectors))  # only slices and reshapes, which tensors do alike
    return cast("dict[str, Any]", slices)


_PREFIXES: dict[type[Layer], str] = {
    MaxPool: "pool",
    GlobalAveragePool: "avgpool",
    Activation: "activation",
    Dropout: "dropout",
    Flatten: "flatten",
}


def _modules(
    layers: Iterable[Layer], activation: str, dropout: float, inside: str = ""
) -> Iterator[tuple[str, nn.Module]]:
    """The modules of layers and their paths below the module `inside` which they are in.

    Layers that have no name are numbered by kind: `pool1`, `activation1`, ...
    """
    layers = tuple(layers)
    taken = {layer.name.removeprefix(inside).partition(".")[0] for layer in layers if isinstance(layer, Named)}
    counts = dict.fromkeys(_PREFIXES, 0)
    for layer in layers:
        if isinstance(layer, Named):
            name = layer.name.removeprefix(inside)
        else:
            counts[type(layer)] += 1
            name = f"{_PREFIXES[type(layer)]}{counts[type(layer)]}"
            while name in taken:
                name += "_"
            taken.add(name)
        yield name, _module(layer, activation, dropout)


def _module(layer: Layer, activation: str, dropout: float) -> nn.Module:
    match layer:
        case Conv():
            return nn.Conv2d(
                layer.in_channels, layer.out_channels, layer.kernel, layer.stride, layer.padding, bias=layer.bias
            )
        case BatchNorm():
            return _BatchNorm(layer.channels)
        case MaxPool(size):
            return nn.MaxPool2d(size)
        case GlobalAveragePool():
            return nn.AdaptiveAvgPool2d(1)
        case Activation():
            return ACTIVATIONS[activation]()
        case Dropout():
            return nn.Dropout(dropout)
        case Flatten():
            return nn.Flatten()
        case Linear(_, in_features, out_features):
            return nn.Linear(in_features, out_features)
        case Residual(name, body, shortcut):
            return _ResidualBlock(_modules((*body, *shortcut), activation, dropout, f"{name}."), len(body))
