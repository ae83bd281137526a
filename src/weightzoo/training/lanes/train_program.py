"""The function `train` of a network: minibatches of an epoch, each of them samples and an update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from weightzoo.training.lanes import samples
from weightzoo.training.lanes.cross_entropy import SUM, add_compensated, cross_entropy
from weightzoo.training.lanes.dropout import DRAWS, SCALE, draw_visit
from weightzoo.training.lanes.language import Array, ArrayType, Code, Function, Program, Value
from weightzoo.training.lanes.network import Network, Recipe
from weightzoo.training.lanes.optimisers import Step, update
from weightzoo.training.lanes.stages import bordered

MOMENTUM, VARIANCE, INVERSE_BATCH = 0, 1, 2  # columns of `shared`


def train_parameters(recipe: Recipe) -> dict[str, Any]:
    """The parameters of `train`, in their order."""
    parameters = ArrayType((recipe.architecture.layout.size,))
    arrays: dict[str, Any] = {
        "images": samples.images_type(recipe.architecture.input_shape),  # float [N, C * H * W], shared
        "labels": ArrayType((1,), "int", lanes=False),  # int [N], shared
        "order": samples.ORDER,  # int [N], by lane: the sample at each position of the epoch
        "weights": parameters,  # float [P], by lane, as all below
        "first": parameters,
        "second": parameters,
        "gradients": parameters,  # scratch; holds the last minibatch's gradient afterwards
        "rates": ArrayType((1,)),  # [steps]: see `optimisers.Step`
        "decays": ArrayType((1,)),  # [steps] for adamw, else [1]
        "shared": ArrayType((1, 3), lanes=False),  # [steps, 3], shared: momentum, variance, 1 / size of the minibatch
        "draws": DRAWS,  # int [5]: a member's dropout key (2 words) and threshold, then scratch
        "scale": SCALE,  # [1]
        "loss": SUM,  # [2], added to: the sum over samples and its correction
        "hits": ArrayType((1,), "int"),  # added to: right predictions
        "work": ArrayType((1,)),
    }
    masked: dict[str, Any] = {"kept": parameters}  # 1, or 0 where a weight is pruned
    variational: dict[str, Any] = {
        "log_variances": parameters,  # log sigma**2; what has none is left alone
        "variance_first": parameters,  # their optimiser state
        "variance_second": parameters,
        "noise_draws": DRAWS,  # a member's noise key, then scratch
        "kl": ArrayType((1,), lanes=False),  # shared: what the divergence is multiplied by
        "penalty": SUM,  # [2], added to: the sum over samples of what that gives, and its correction
    }
    numbers: dict[str, Any] = {
        "first_step": "index",  # of the epoch, counted from 0
        "last_step": "index",  # exclusive
        "samples": "index",  # N
        "batch": "index",
        "first_visit": "index",  # the number of the epoch's first visit, for dropout
    }
    return arrays | {"masked": masked, "variational": variational, None: {}}[recipe.sparse] | numbers


def image_loader(program: Program, net: Network) -> Callable[[Code, Any, Value], Array]:
    """`load(code, a, visit)` brings the images of a visit into working memory, with the border that they need."""
    shape = net.recipe.architecture.input_shape
    load_images = samples.load_images(program, "load_images", shape)
    pad: Function | None = None
    if padding := net.stages[0].padding:
        target = bordered(shape, padding).interior(padding)
        pad = samples.copy_bordered(program, "train_pad", shape, ArrayType(shape), target)

    def load(code: Code, a: Any, visit: Value) -> Array:
        image = net.workspace(a.work, "image")
        following = (visit + 1 < a.samples).select(visit + 1, visit)
        load_images(code, images=a.images, order=a.order, visit=visit, following=following, x=image)
        if pad is None:
            return image
        padded = net.workspace(a.work, "padded image")
        pad(code, source=image, target=padded)
        return padded

    return load


def labels_of(code: Code, a: Any, visit: Value) -> Value:
    """The label of each lane's sample."""
    visited = a.order[visit]
    lanes = range(code.program.width)
    return code.assemble([a.labels[visited.lane(lane).to_index()] for lane in lanes])


def emit_train(program: Program, recipe: Recipe) -> Network:
    """Emit `train`, for steps `first_step` to `last_step` of an epoch."""
    net = Network(program, recipe, training=True)
    load = image_loader(program, net)

    def sample(code: Code, a: Any, visit: Value, scale: Value) -> None:
        image, label = load(code, a, visit), labels_of(code, a, visit)
        if recipe.dropout:
            draw_visit(net.workspace(a.work, "draws"), (a.first_visit + visit).to_int())
        logits = net.forward(code, a.work, a.weights, image)
        loss = cross_entropy(code, logits, label)
        add_compensated(a.loss, loss.loss)
        a.hits[0] = a.hits[0] + loss.hit
        net.start_gradient(a.work, loss, scale)
        net.backward(code, a.work, a.weights, a.gradients, image)

    def body(code: Code, a: Any) -> None:
        with code.flushing_denormals():
            keep_near(code, net, a)
            for t in code.range(a.first_step, a.last_step):
                for i in code.range(a.gradients.type.size):
                    a.gradients[i] = code.number(0.0)
                net.prepare(code, a.work, a.weights)
                for visit in code.range(*minibatch(a, t)):
                    sample(code, a, visit, a.shared[t, INVERSE_BATCH])
                kept = a.kept if recipe.sparse == "masked" else None
                update(code, recipe.optimizer, step_at(recipe, a, t), a.weights, a.gradients, a.first, a.second, kept)

    program.function("train", train_parameters(recipe), body, exported=True)
    return net


def keep_near(code: Code, net: Network, a: Any) -> None:
    """Copy what dropout reads for every unit next to the other working memory."""
    if net.dropout:
        draws, scale = net.workspace(a.work, "draws"), net.workspace(a.work, "scale")
        for row in range(DRAWS.size):
            draws[row] = a.draws[row]
        scale[0] = a.scale[0]


def minibatch(a: Any, t: Value) -> tuple[Value, Value]:
    """The first visit of step `t` of the epoch, and the one behind its last."""
    start, end = t * a.batch, (t + 1) * a.batch
    return start, (end < a.samples).select(end, a.samples)


def step_at(recipe: Recipe, a: Any, t: Value) -> Step:
    """What the update of step `t` of the epoch takes."""
    decay = a.decays[t if recipe.optimizer == "adamw" else 0]
    return Step(a.rates[t], decay, a.shared[t, MOMENTUM].spread(), a.shared[t, VARIANCE].spread())
