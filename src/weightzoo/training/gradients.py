"""Loss and gradient of several members on a minibatch each: stacked by `torch.func`, or one member by itself.

A loss function here is that of one member: `(parameters, inputs, labels, masks, ...)` by tensors without the axis M of
the members, to the loss and whatever else is wanted of it. Its parameters include the buffers, which batch
normalisation updates in place; these are copies.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import BatchNorm2d
from torch.nn.functional import cross_entropy

from weightzoo.architectures import Architecture
from weightzoo.architectures.module import build_module
from weightzoo.training.compilation import compiled
from weightzoo.training.devices import autocast

Tree = Any  # a tensor, or mappings and tuples of them


class Gradients:
    """The gradients of a loss function of one member, for a stack of members, all tensors with a leading axis M.

    `alone` takes stacks of one member and computes with no more transformation than an nn.Module would, its channels
    last in memory.
    """

    def __init__(
        self, loss: Callable[..., tuple[Tensor, Tree]], buffers: Collection[str], *, alone: bool, compile: bool = False
    ) -> None:
        self._loss, self._buffers, self._alone = loss, frozenset(buffers), alone
        function = self._of_one if alone else vmap(grad_and_value(self._of_one, has_aux=True))
        self._function: Callable[..., Any] = compiled(function) if compile else function

    def __call__(
        self, parameters: Mapping[str, Tensor], inputs: Tensor, *others: Tree
    ) -> tuple[dict[str, Tensor], Tensor, Tree, dict[str, Tensor]]:
        """Gradients by name, losses `[M]`, what the loss function gave beside them, and the buffers behind the batch.

        `parameters`, the buffers among them, are left as they are.
        """
        buffers = {name: tensor for name, tensor in parameters.items() if name in self._buffers}
        trained = {name: tensor for name, tensor in parameters.items() if name not in self._buffers}
        if not self._alone:
            gradients, (loss_M, (aside, buffers)) = self._function(trained, buffers, inputs, *others)
            return gradients, loss_M, aside, buffers

        leaves = {name: tensor[0].detach().requires_grad_() for name, tensor in trained.items()}
        image_batch = inputs[0].contiguous(memory_format=torch.channels_last)
        loss, (aside, buffers) = self._function(leaves, _first(buffers), image_batch, *map(_first, others))
        found = torch.autograd.grad(loss, list(leaves.values()))
        gradients = {name: gradient[None] for name, gradient in zip(leaves, found, strict=True)}
        return gradients, loss.detach()[None], _stacked(aside), _stacked(buffers)

    def _of_one(
        self, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], inputs: Tensor, *others: Tree
    ) -> tuple[Tensor, tuple[Tree, dict[str, Tensor]]]:
        after = {name: buffer.clone() for name, buffer in buffers.items()}
        if self._alone:
            parameters = {
                name: tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
                for name, tensor in parameters.items()
            }
        loss, aside = self._loss({**parameters, **after}, inputs, *others)
        return loss, (aside, after)


class Dense:
    """The network of a cohort with its loss and gradients. All stacks share it, so that it is compiled once."""

    def __init__(
        self,
        architecture: Architecture,
        activation: str,
        device: torch.device,
        precision: str = "float32",
        *,
        alone: bool = False,
        compile: bool = False,
    ) -> None:
        self._device, self._precision = device, precision
        self.network = build_module(architecture, activation).to(device)
        for module in self.network.modules():
            if isinstance(module, BatchNorm2d):
                module.num_batches_tracked = None  # or it would count within the transformed function
        self.gradients = Gradients(self.loss, architecture.layout.buffers, alone=alone, compile=compile)

    def training_mode(self) -> None:
        """Batch normalisation by the minibatch. Dropout stays off: the masks are handed in, and PyTorch's own would
        draw from a global generator."""
        self.network.eval()
        for module in self.network.modules():
            if isinstance(module, BatchNorm2d):
                module.train()

    def loss(
        self, parameters: Mapping[str, Tensor], inputs: Tensor, labels: Tensor, masks: Mapping[int, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy and logits `[B, C]` of one member on its minibatch."""
        with autocast(self._precision, self._device):
            logits = functional_call(self.network, dict(parameters), (inputs, masks)).float()
        return cross_entropy(logits, labels), logits


def _first(tree: Tree) -> Tree:
    """The tensors of the first member."""
    return _mapped(tree, lambda tensor: tensor[0])


def _stacked(tree: Tree) -> Tree:
    """The tensors of one member as a stack of one."""
    return _mapped(tree, lambda tensor: tensor.detach()[None])


def _mapped(tree: Tree, function: Callable[[Tensor], Tensor]) -> Tree:
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        return {key: _mapped(value, function) for key, value in cast("Mapping[Any, Tree]", tree).items()}
    return tuple(_mapped(value, function) for value in tree)
