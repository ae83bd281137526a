"""A network on the weights of networks that does not see the order of their hidden units.

Units and the weights between them are the nodes and edges of a graph (`WeightGraph`), whose features are updated along
the forward pass and back: an edge sees its two units, a unit the mean over its edges. All units of a group share the
parameters, so reordering them reorders the features (equivariance), and what is read out at the end, means and maxima
over the group, stays the same (invariance). Only image channels and classes, whose order means something, are told
apart, by a learned place.

References: Zhou et al. 2023, "Permutation Equivariant Neural Functionals", arXiv 2302.14040; Lim et al. 2023, "Graph
Metanetworks for Processing Diverse Neural Architectures", arXiv 2312.04501; Kofinas et al. 2024, "Graph Neural Networks
for Learning Equivariant Representations of Neural Networks", arXiv 2403.12143.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from weightzoo.architectures.units import WeightGraph

_SHARPNESS = 100.0  # weights below its inverse are told apart on a linear scale, those above on a logarithmic one
_CUT = 6.0  # deviations


class EquivariantNetwork(nn.Module):
    """Weights `[N, P]` and features `[N, F]` that do not depend on the order to `[N, outputs]`, and to `[N, classes]`.

    The second output is a number for each class, read from the class's own unit, the same way for all classes.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, graph: WeightGraph, weights: Tensor, features: int, outputs: int, width: int = 32, dropout: float = 0.1
    ) -> None:
        """`weights [N, P]` are those that it will be fitted to, for the scale of each tensor."""
        super().__init__()
        self.graph = graph
        mean, scale = _scale_of_tensors(graph, weights)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.edge_inputs = nn.ModuleList(nn.Linear(2 * edges.features, width) for edges in graph.edges)
        self.unit_inputs = nn.ModuleList(nn.Linear(2 * max(units.features, 1), width) for units in graph.units)
        self.places = nn.ParameterList(
            nn.Parameter(0.5 * torch.randn(1 if units.free else units.size, width)) for units in graph.units
        )
        self.forwards = nn.ModuleList(_Step(width) for _ in graph.edges)
        self.backwards = nn.ModuleList(_Step(width) for _ in graph.edges)
        read = width * (sum(2 if units.free else units.size for units in graph.units) + 2 * len(graph.edges))
        self.norm = nn.LayerNorm(read)
        self.features = nn.Sequential(nn.Dropout(2 * dropout), nn.Linear(features, 2 * width), nn.GELU())
        self.dropout = nn.Dropout(dropout)
        self.head = _perceptron(read + 2 * width, 4 * width, outputs)
        self.context = nn.Linear(read + 2 * width, width)
        self.class_head = nn.Sequential(nn.LayerNorm(2 * width), _perceptron(2 * width, 2 * width, 1))

    def forward(self, weights: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        graph = self.graph
        shown = ((weights - self.mean) * self.scale).clamp(-_CUT, _CUT), weights.sign() * _log(weights)
        edges = [
            take(torch.cat([graph.edge_features(each, own) for each in shown], -1))
            for take, own in zip(self.edge_inputs, graph.edges, strict=True)
        ]
        units: list[Tensor] = []
        for number, own in enumerate(graph.units):
            hidden = self.places[number].expand(len(weights), own.size, -1)
            if own.vectors:
                entries = [entry for each in shown for entry in graph.unit_features(each, number)]
                hidden = hidden + self.unit_inputs[number](torch.cat(entries, -1))
            units.append(hidden)
        for index, own in enumerate(graph.edges):
            edges[index], units[own.target] = self.forwards[index](edges[index], units[own.target], units[own.source])
        for index, own in reversed([*enumerate(graph.edges)]):
            turned, units[own.source] = self.backwards[index](
                edges[index].transpose(1, 2), units[own.source], units[own.target]
            )
            edges[index] = turned.transpose(1, 2)
        read = self.norm(torch.cat([*self._read_units(units), *map(_read_edges, edges)], 1))
        known = self.dropout(torch.cat([read, self.features(features)], 1))
        context = self.context(known)[:, None].expand(-1, units[-1].shape[1], -1)
        return self.head(known), self.class_head(torch.cat([units[-1], context], -1))[..., 0]

    def _read_units(self, units: list[Tensor]) -> list[Tensor]:
        read: list[Tensor] = []
        for own, hidden in zip(self.graph.units, units, strict=True):
            read += [hidden.mean(1), hidden.amax(1)] if own.free else [hidden.flatten(1)]
        return read


class _Step(nn.Module):
    """The edges `[N, there, from, width]` see their units, then the units `there` see their edges."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_there, self.norm_source = nn.LayerNorm(width), nn.LayerNorm(width)
        self.of_edge, self.change = nn.Linear(width, width), nn.Linear(width, width)
        self.of_there, self.of_source = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.message = nn.Linear(width, width)
        self.mix = _perceptron(3 * width, width, width)

    def forward(self, edges: Tensor, there: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
        normal_there, normal_source = self.norm_there(there), self.norm_source(source)
        seen = self.of_edge(edges) + self.of_source(normal_source)[:, None] + self.of_there(normal_there)[:, :, None]
        edges = edges + self.change(functional.gelu(seen))
        messages = (edges * self.message(normal_source)[:, None]).mean(2)  # as weights times what the units give
        return edges, there + self.mix(torch.cat([normal_there, messages, edges.mean(2)], -1))


def _perceptron(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, outputs))


def _read_edges(edges: Tensor) -> Tensor:
    flat = edges.flatten(1, 2)
    mean = flat.mean(1)
    return torch.cat([mean, ((flat - mean[:, None]).square().mean(1) + 1e-6).sqrt()], 1)


def _log(weights: Tensor) -> Tensor:
    return 0.5 * (_SHARPNESS * weights.abs()).log1p()


def _scale_of_tensors(graph: WeightGraph, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and inverse deviation of each tensor's entries over all models, spread to `[P]`."""
    mean, scale = torch.zeros(weights.shape[1]), torch.ones(weights.shape[1])
    spans = [edges.span for edges in graph.edges] + [span for units in graph.units for _, span, _ in units.vectors]
    for span in spans:
        own = weights[:, span].double()
        mean[span], scale[span] = own.mean().float(), 1 / (own.std() + 1e-6).float()
    return mean, scale
