"""The function `train` of a network whose weights are normally distributed (see `variational`)."""

from __future__ import annotations

from typing import Any

from weightzoo.training.lanes.cross_entropy import add_compensated, cross_entropy
from weightzoo.training.lanes.dropout import DRAWS, draw_visit
from weightzoo.training.lanes.language import Code, Program, Value
from weightzoo.training.lanes.network import Recipe
from weightzoo.training.lanes.optimisers import Step, update
from weightzoo.training.lanes.train_program import (
    INVERSE_BATCH,
    image_loader,
    keep_near,
    labels_of,
    minibatch,
    step_at,
    train_parameters,
)
from weightzoo.training.lanes.variational import chain_gradients, set_variances
from weightzoo.training.lanes.variational_network import VariationalNetwork


def emit_train(program: Program, recipe: Recipe) -> VariationalNetwork:
    """Emit `train`, that of `train_program` with noise in every layer, a penalty, and variances to be updated too."""
    net = VariationalNetwork(program, recipe)
    load = image_loader(program, net)

    def sample(code: Code, a: Any, visit: Value, scale: Value) -> None:
        image, label = load(code, a, visit), labels_of(code, a, visit)
        number = (a.first_visit + visit).to_int()
        if recipe.dropout:
            draw_visit(net.workspace(a.work, "draws"), number)
        net.draw(code, a.work, number)
        loss = cross_entropy(code, net.forward(code, a.work, a.weights, image), label)
        add_compensated(a.loss, loss.loss)
        a.hits[0] = a.hits[0] + loss.hit
        net.start_gradient(a.work, loss, scale)
        net.backward(code, a.work, a.weights, a.gradients, image)

    def body(code: Code, a: Any) -> None:
        variances, by_variance = (net.workspace(a.work, name) for name in ("variances", "variance gradients"))
        with code.flushing_denormals():
            keep_near(code, net, a)
            keys = net.workspace(a.work, "noise draws")
            for row in range(DRAWS.size):
                keys[row] = a.noise_draws[row]
            for t in code.range(a.first_step, a.last_step):
                for i in code.range(a.gradients.type.size):
                    a.gradients[i] = by_variance[i] = code.number(0.0)
                for span in net.spans():
                    set_variances(code, a.weights, a.log_variances, variances, *span)
                start, stop = minibatch(a, t)
                for visit in code.range(start, stop):
                    sample(code, a, visit, a.shared[t, INVERSE_BATCH])
                kl = a.kl[0].spread()
                for span in net.spans():
                    arrays = (a.weights, a.log_variances, a.gradients, by_variance)
                    divergence = chain_gradients(code, *arrays, kl, *span)
                    add_compensated(a.penalty, divergence * kl * (stop - start).to_int().to_float())
                step = step_at(recipe, a, t)
                update(code, recipe.optimizer, step, a.weights, a.gradients, a.first, a.second)
                no_decay = code.number(1.0 if recipe.optimizer == "adamw" else 0.0)
                step = Step(step.rate, no_decay, step.momentum, step.variance)
                slots = a.variance_first, a.variance_second
                update(code, recipe.optimizer, step, a.log_variances, by_variance, *slots)

    program.function("train", train_parameters(recipe), body, exported=True)
    return net
