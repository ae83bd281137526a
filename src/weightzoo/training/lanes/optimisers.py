"""The update of one step, written as PyTorch documents it; what differs from step to step comes in `Step`.

References: SGD with momentum, Adam (Kingma and Ba 2015, arXiv 1412.6980) with L2 added to the gradient, AdamW
(Loshchilov and Hutter 2019, arXiv 1711.05101).
"""

from __future__ import annotations

from dataclasses import dataclass

from weightzoo.training.lanes.language import Array, Code, Value, fma, sqrt
from weightzoo.training.protocol import BETA2, EPSILON


@dataclass(frozen=True)
class Step:
    """`rate` and `decay` by lane; `momentum` and `variance` shared.

    sgd: learning rate, weight decay, momentum, unused. adam: learning rate / (1 - beta1**t), weight decay, 1 - beta1,
    1 / sqrt(1 - beta2**t). adamw: the same but for `decay`, 1 - learning rate * weight decay.
    """

    rate: Value
    decay: Value
    momentum: Value
    variance: Value


def update(
    code: Code,
    optimizer: str,
    step: Step,
    weights: Array,
    gradients: Array,
    first: Array,
    second: Array,
    kept: Array | None = None,
) -> None:
    """All weights `[P]` by their gradients. `first` is the momentum buffer or the mean, `second` the mean square.

    Where `kept` is 0, the gradient counts as 0 and the weight stays 0.
    """
    for i in code.range(weights.type.size):
        w, g = weights[i], gradients[i]
        is_kept = None if kept is None else kept[i] > 0.0
        if is_kept is not None:
            g = is_kept.select(g, 0.0)
        if optimizer != "adamw":
            g = fma(step.decay, w, g)
        if optimizer == "sgd":
            m = fma(step.momentum, first[i], g)
            first[i] = m
            w = fma(-step.rate, m, w)
        else:
            m, v = first[i], second[i]
            m = fma(step.momentum, g - m, m)
            v = fma(g * (1.0 - BETA2), g, v * BETA2)
            first[i], second[i] = m, v
            if optimizer == "adamw":
                w = w * step.decay
            w = fma(-step.rate, m / fma(sqrt(v), step.variance, EPSILON), w)
        weights[i] = w if is_kept is None else is_kept.select(w, 0.0)
