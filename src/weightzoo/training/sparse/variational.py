"""Sparse variational dropout (Molchanov et al. 2017, arXiv 1701.05369), for any network of PyTorch modules.

Each weight of a convolution or linear layer is normally distributed with mean w and variance sigma^2 = alpha w^2. Where
alpha is large the weight is nothing but noise, and can be dropped.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

K1, K2, K3 = 0.63576, 1.87320, 1.48695  # of the approximation in the paper, equation 14
CONV_BOUND, LINEAR_BOUND = 8.0, 10.0  # of log alpha, either way
EPSILON = 1e-8  # keeps the logarithm and the square root finite


def log_alpha(weight: Tensor, log_variance: Tensor, bound: float) -> Tensor:
    """`log sigma^2 - 2 log |w|`, clamped to `bound` either way; NaN where one of them is."""
    return (log_variance - 2 * torch.log(weight.abs() + EPSILON)).clamp(-bound, bound)


def divergence(log_alpha: Tensor) -> Tensor:
    """The Kullback-Leibler divergence of each weight from the log-uniform prior, up to a constant.

    It is zero at infinite alpha. The approximation is within 0.009 of the integral everywhere.

    References:
        Equation 14: `-KL = k1 sigmoid(k2 + k3 log alpha) - log(1 + 1 / alpha) / 2 - k1`.
    """
    return K1 * torch.sigmoid(-(K2 + K3 * log_alpha)) + functional.softplus(-log_alpha) / 2


def kl_weight(most: float, epoch: int, epochs: int) -> float:
    """What the divergence is multiplied by in an epoch (1 is the first): it rises to `most` in the last one."""
    return min(1.0, most * epoch / epochs)


def is_kept(log_alpha: Tensor, threshold: float) -> Tensor:
    """Whether a weight stays: its log alpha is below the threshold, or NaN, which dropping must not hide."""
    return ~(log_alpha >= threshold)


def add_noise(network: nn.Module) -> dict[str, float]:
    """Have convolutions and linear layers add noise to what they give, by local reparameterisation (section 4.1).

    Each then has the buffers `variance`, of the shape of its weight (alpha w^2), and `noise`, of the shape of its
    output, which `torch.func.functional_call` can replace; as long as it does not, there is no noise. Gives the names
    of the layers, with the bound of the log alpha of each.
    """
    bounds: dict[str, float] = {}
    for name, layer in prunable_layers(network).items():
        layer.register_buffer("variance", torch.empty(0))
        layer.register_buffer("noise", torch.empty(0))
        layer.register_forward_hook(_add_noise)
        bounds[name] = CONV_BOUND if isinstance(layer, nn.Conv2d) else LINEAR_BOUND
    return bounds


def prunable_layers(network: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """The convolutions and linear layers of a network, by name, in the order of its modules."""
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}


def output_shapes(network: nn.Module, input_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The shape of one sample behind each convolution and linear layer; the network is put in evaluation mode."""
    layers = prunable_layers(network)
    shapes: dict[str, tuple[int, ...]] = {}

    def watch(name: str, layer: nn.Module) -> RemovableHandle:
        return layer.register_forward_hook(lambda _, inputs, output: shapes.update({name: tuple(output.shape[1:])}))

    handles = [watch(name, layer) for name, layer in layers.items()]
    parameter = next(network.eval().parameters())
    with torch.no_grad():
        network(torch.zeros(1, *input_shape, dtype=parameter.dtype, device=parameter.device))
    for handle in handles:
        handle.remove()
    return {name: shapes[name] for name in layers}


def _add_noise(layer: nn.Module, inputs: tuple[Tensor], mean: Tensor) -> Tensor | None:
    """`mean + sqrt(x^2 * alpha w^2) noise`: a sum of independent normals is one."""
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    variances, noise = cast("Tensor", layer.variance), cast("Tensor", layer.noise)
    if not noise.numel():
        return None
    squares = inputs[0].square()
    if isinstance(layer, nn.Conv2d):
        variance = functional.conv2d(squares, variances, None, layer.stride, layer.padding)
    else:
        variance = functional.linear(squares, variances)
    return mean + (variance + EPSILON).sqrt() * noise
