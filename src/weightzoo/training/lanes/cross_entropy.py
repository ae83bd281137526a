"""Softmax cross-entropy in nats, `loss = log(sum over i of e**z[i]) - z[label]`, and whether the arg-max is right."""

from __future__ import annotations

from dataclasses import dataclass

from weightzoo.training.lanes.language import Array, ArrayType, Code, Value
from weightzoo.training.lanes.mathematics import exp, log

SUM = ArrayType((2,))  # a compensated sum and its correction


@dataclass(frozen=True)
class Loss:
    """The loss of one sample, its gradient `softmax - onehot`, and 1 (int) if the prediction is right, else 0.

    The prediction is the first of equal maxima; it is wrong if any logit is NaN.
    """

    loss: Value
    gradient: list[Value]
    hit: Value


def cross_entropy(code: Code, logits: list[Value], label: Value) -> Loss:
    """Of logits for each class and a label (int, by lane or shared)."""
    best, prediction = logits[0], code.integer(0)
    for number, logit in enumerate(logits[1:], start=1):
        wins = logit.beats(best)
        best, prediction = wins.select(logit, best), wins.select(number, prediction)
    label = label.spread()
    own = code.number(0.0)
    total = code.number(0.0)
    powers: list[Value] = []
    for number, logit in enumerate(logits):
        centred = logit - best
        own = label.equals(number).select(centred, own)
        powers.append(exp(centred))
        total = total + powers[-1]
    inverse = 1.0 / total
    gradient = [
        power * inverse - label.equals(number).select(code.number(1.0), 0.0) for number, power in enumerate(powers)
    ]
    return Loss(log(total) - own, gradient, (prediction.equals(label) & best.is_number()).select(code.integer(1), 0))


def add_compensated(total: Array, addend: Value) -> None:
    """Add to a sum `total[0]`, and to `total[1]` the rounding error that it leaves out (Knuth's TwoSum)."""
    old = total[0]
    new = old + addend
    back = new - old
    total[0] = new
    total[1] = total[1] + ((old - (new - back)) + (addend - back))
