"""One step of an optimiser on the weights of many members at once."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from weightzoo.training.protocol import BETA2, EPSILON


def update(
    optimizer: str,
    weights_MP: Tensor,
    gradients_MP: Tensor,
    slots: Mapping[str, Tensor],
    rate_M1: Tensor,
    decay: Tensor,
    momentum: float,
    step: int,
) -> None:
    """Update weights and slots in place, with PyTorch's formulas; the gradients are overwritten.

    `rate_M1`, in float64, and `momentum` are those of this step, which counts from 0 over all epochs; `decay` is
    `[M, 1]`, or `[M, P]` with zeros where there is none.

    References:
        Adam: Kingma & Ba 2015, arXiv 1412.6980, with the penalty in the gradient; AdamW: Loshchilov & Hutter 2019,
        arXiv 1711.05101; SGD with momentum in the form of Sutskever et al. 2013, without dampening.
    """
    if optimizer == "adamw":
        weights_MP *= (1 - rate_M1 * decay).float()
    else:
        gradients_MP += decay * weights_MP

    if optimizer == "sgd":
        velocity = slots["momentum_buffer"]
        velocity.mul_(momentum).add_(gradients_MP)
        weights_MP -= rate_M1.float() * velocity
    else:
        mean, square = slots["exp_avg"], slots["exp_avg_sq"]
        mean.lerp_(gradients_MP, 1 - momentum)
        square.mul_(BETA2).addcmul_(gradients_MP, gradients_MP, value=1 - BETA2)
        mean_correction, square_correction = 1 - momentum ** (step + 1), 1 - BETA2 ** (step + 1)
        denominator = (square.sqrt() / math.sqrt(square_correction)).add_(EPSILON)
        weights_MP -= (rate_M1 / mean_correction).float() * (mean / denominator)
