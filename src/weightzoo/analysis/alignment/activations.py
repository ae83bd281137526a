"""Activation matching: units that do the same on the same images belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from weightzoo.analysis.alignment.matching import Matching, assign, join
from weightzoo.analysis.alignment.signs import groups_by_layer
from weightzoo.architectures import Architecture
from weightzoo.architectures.graph import Activation, Conv, Layer, Linear, Residual
from weightzoo.architectures.module import build_module
from weightzoo.errors import LayoutError
from weightzoo.training.devices import torch_threads
from weightzoo.zoo.permute import Symmetries


def match_activations(
    architecture: Architecture,
    activation: str,
    reference: np.ndarray,
    models: np.ndarray,
    inputs: np.ndarray,
    *,
    threads: int = 1,
) -> Matching:
    """Match the units of `models [N, P]` to those of `reference`, `[P]` or `[N, P]`, by what they do.

    Units are paired so that the sum of the correlations of their activations over images and positions is largest (Li,
    Yosinski, Clune, Lipson and Hopcroft 2016, "Convergent Learning", arXiv 1511.07543; Ainsworth et al. 2023, arXiv
    2209.04836, section 3.1). `inputs` are normalised images, float32 `[B, channels, height, width]`. A unit that is
    constant correlates with none. `threads` bounds PyTorch's; a small network is slowed down by more than one.

    Raises:
        LayoutError: shapes do not fit.
        SpecError: the activation is unknown.
    """
    symmetries = Symmetries.of(architecture)
    expected = (len(models), architecture.layout.size)
    if models.shape != expected or reference.shape not in (expected, expected[1:]):
        raise LayoutError(f"reference {list(reference.shape)} and models {list(models.shape)} do not fit each other")
    observer = _Observer(architecture, activation, inputs)
    parts: list[Matching] = []
    with torch_threads(threads):
        shared = observer(reference) if reference.ndim == 1 else None
        for row in range(len(models)):
            goal, own = shared or observer(reference[row]), observer(models[row])
            found = {name: assign(_correlations(goal[name], own[name])[None]) for name in goal}
            parts.append(Matching(symmetries, found, {}))
    return join(symmetries, parts)


class _Observer:
    """What the hidden units of a network do on some images."""

    def __init__(self, architecture: Architecture, activation: str, inputs: np.ndarray) -> None:
        self._layout = architecture.layout
        self._network = build_module(architecture, activation).eval()
        self._inputs = torch.from_numpy(np.ascontiguousarray(inputs, np.float32))
        self._sizes = {group.name: group.size for group in architecture.symmetries}
        groups = groups_by_layer(architecture.symmetries)
        self._seen: dict[str, list[np.ndarray]] = {}
        for name, module in _observed(architecture.layers, self._network, groups):
            module.register_forward_hook(self._hook(name))

    @torch.no_grad()
    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Standardised activations by group, float32 `[U, images * positions]`; zero for a constant unit."""
        state = self._layout.unflatten(np.array(weights, np.float32))
        self._network.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
        self._seen = {name: [] for name in self._sizes}
        self._network(self._inputs)
        return {name: np.concatenate(parts, axis=1) for name, parts in self._seen.items()}

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            by_unit = output.reshape(len(output), self._sizes[name], -1).transpose(0, 1).flatten(1)
            centred = by_unit - by_unit.mean(1, keepdim=True)
            length = centred.norm(dim=1, keepdim=True)
            flat = ~(length > 1e-6 * by_unit.norm(dim=1, keepdim=True))
            self._seen[name].append(torch.where(flat, 0.0, centred / length).numpy())

        return note


def _correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Correlation of every unit with every one, `[U, U]`; the sum over the places where a group was looked at."""
    found = one @ other.T
    return np.where(np.isfinite(found), found, 0.0)


def _observed(
    layers: Iterable[Layer], modules: Iterable[nn.Module], groups: Mapping[str, str]
) -> Iterator[tuple[str, nn.Module]]:
    """Where the units of each group are looked at: behind every activation, or behind the layer if it has none."""
    bare: tuple[str, nn.Module] | None = None  # a layer whose activation did not come yet
    group = ""
    for layer, module in zip(layers, modules, strict=True):
        match layer:
            case Conv() | Linear():
                if bare is not None:
                    yield bare
                group = groups.get(layer.name, "")
                bare = (group, module) if group else None
            case Residual():
                if bare is not None:
                    yield bare
                inner = list(cast("Iterable[nn.Module]", module))
                ends = len(layer.body)
                yield from _observed(layer.body, inner[:ends], groups)
                yield from _observed(layer.shortcut, inner[ends:], groups)
                names = [one.name for one in layer.body if isinstance(one, Conv | Linear)]
                group, bare = groups.get(names[-1], "") if names else group, None
            case Activation():
                if group:
                    yield group, module
                bare = None
            case _:
                pass
    if bare is not None:
        yield bare
