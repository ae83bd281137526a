"""State dict <-> flat weight vector: the only code that knows how parameters are laid out.

The order is the published one: layer by layer, the weight in C order, then the bias. Batch normalisation adds its
running mean and variance, which are no parameters, but without which a model is not what it was: its buffers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from weightzoo.errors import LayoutError, NotFoundError


@dataclass(frozen=True)
class Layout:
    """The names and shapes of an architecture's parameters, in the order of the weight vector.

    `buffers` names those that are not trained: they count as entries of the vector, not as parameters of the model.

    >>> layout = Layout((("fc.weight", (2, 3)), ("fc.bias", (2,))))
    >>> layout.size, layout.span("fc.bias")
    (8, slice(6, 8, None))
    """

    parameters: tuple[tuple[str, tuple[int, ...]], ...]
    buffers: frozenset[str] = frozenset()

    @cached_property
    def size(self) -> int:
        """The length of the weight vector, P: all parameters, and the buffers."""
        return sum(math.prod(shape) for _, shape in self.parameters)

    @cached_property
    def trained(self) -> int:
        """The number of trained parameters: P without the buffers."""
        return sum(math.prod(shape) for name, shape in self.parameters if name not in self.buffers)

    @cached_property
    def is_trained(self) -> np.ndarray:
        """Bool `[P]`: whether an entry is a trained parameter, and not of a buffer."""
        mask = np.ones(self.size, np.bool_)
        for name in self.buffers:
            mask[self.span(name)] = False
        mask.setflags(write=False)
        return mask

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of parameters and buffers, in order."""
        return tuple(name for name, _ in self.parameters)

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """The layer names, in order: what stands before the last dot of a parameter's name."""
        return tuple(dict.fromkeys(name.rpartition(".")[0] for name in self.names))

    @cached_property
    def _spans(self) -> dict[str, slice]:
        spans: dict[str, slice] = {}
        start = 0
        for name, shape in self.parameters:
            spans[name] = slice(start, start + math.prod(shape))
            start += math.prod(shape)
        for layer in self.layers:
            own = [span for name, span in spans.items() if name.rpartition(".")[0] == layer]
            spans[layer] = slice(own[0].start, own[-1].stop)
        return spans

    def span(self, name: str) -> slice:
        """The part of the weight vector that a parameter (`conv1.weight`) or a whole layer (`conv1`) takes.

        Raises:
            NotFoundError: there is no such parameter or layer.
        """
        try:
            return self._spans[name]
        except KeyError:
            known = ", ".join(self.layers)
            raise NotFoundError(f"no layer or parameter {name!r}; the layers are {known}") from None

    def flatten(self, tensors: Mapping[str, Any]) -> np.ndarray:
        """Tensors `[..., *shape]` with common leading axes to weight vectors float32 `[..., P]`.

        Raises:
            LayoutError: a tensor is missing, unknown or of another shape.
        """
        unknown = [name for name in tensors if name not in self._spans or name in self.layers]
        missing = [name for name in self.names if name not in tensors]
        if unknown or missing:
            raise LayoutError(f"state dict does not fit: missing {missing or 'none'}, unknown {unknown or 'none'}")
        parts: list[np.ndarray] = []
        leading: tuple[int, ...] | None = None
        for name, shape in self.parameters:
            tensor = np.asarray(tensors[name], dtype=np.float32)
            lead = tensor.shape[: tensor.ndim - len(shape)]
            if tensor.shape[len(lead) :] != shape or (leading is not None and lead != leading):
                raise LayoutError(f"{name}: got shape {list(tensor.shape)}, expected {[*(leading or ()), *shape]}")
            leading = lead
            parts.append(tensor.reshape(*lead, math.prod(shape)))
        return np.concatenate(parts, axis=-1)

    def unflatten(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
        """Weight vectors `[..., P]` to tensors `[..., *shape]` by name: views, nothing is copied.

        Raises:
            LayoutError: the last axis is not P long.
        """
        if vectors.shape[-1] != self.size:
            raise LayoutError(f"weight vector has {vectors.shape[-1]} entries, the architecture has {self.size}")
        lead = vectors.shape[:-1]
        return {name: vectors[..., self._spans[name]].reshape(*lead, *shape) for name, shape in self.parameters}
