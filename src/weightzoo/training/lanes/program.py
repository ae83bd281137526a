"""The whole program of a network: `train` runs minibatches of an epoch, `evaluate` measures without training.

One sample at a time goes forward and back, so that all its activations stay in the cache; a minibatch's gradient is the
sum in the order of its samples. Memory is handed in by the caller, everything `[..., lanes]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from weightzoo.training.lanes import samples
from weightzoo.training.lanes.cross_entropy import add_compensated, cross_entropy
from weightzoo.training.lanes.dropout import DRAWS, SCALE, Masks
from weightzoo.training.lanes.language import ArrayType, Code, Function, Program, Value
from weightzoo.training.lanes.network import Network, Recipe
from weightzoo.training.lanes.optimisers import Step, update
from weightzoo.training.lanes.stages import bordered
from weightzoo.training.protocol import PROBE_SIZE

MOMENTUM, VARIANCE, INVERSE_BATCH = 0, 1, 2  # columns of `shared`
SUM = ArrayType((2,))  # a compensated sum and its correction
TRAIN = (
    "images", "labels", "order", "weights", "first", "second", "gradients", "rates", "decays", "shared", "draws",
    "scale", "loss", "hits", "work", "first_step", "last_step", "samples", "batch", "first_visit",
)  # fmt: skip
EVALUATE = ("images", "labels", "weights", "loss", "hits", "logits", "work", "start", "stop")


@dataclass(frozen=True)
class Emitted:
    """A program's LLVM IR, and how many vectors of working memory its functions want (zeroed before the first call)."""

    text: str
    train_workspace: int
    evaluate_workspace: int


def emit(recipe: Recipe, width: int, registers: int, triple: str) -> Emitted:
    """The program of a recipe: functions `train` and `evaluate` with the parameters below, in their order."""
    program = Program(width, registers, triple)
    train = _emit_train(program, recipe)
    evaluate = _emit_evaluate(program, recipe)
    return Emitted(str(program.module), train.workspace.size, evaluate.workspace.size)


def _train_parameters(recipe: Recipe) -> dict[str, Any]:
    parameters = ArrayType((recipe.architecture.layout.size,))
    return {
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
        "first_step": "index",  # of the epoch, counted from 0
        "last_step": "index",  # exclusive
        "samples": "index",  # N
        "batch": "index",
        "first_visit": "index",  # the number of the epoch's first visit, for dropout
    }


def _emit_train(program: Program, recipe: Recipe) -> Network:
    net = Network(program, recipe, training=True)
    shape = recipe.architecture.input_shape
    load_images = samples.load_images(program, "load_images", shape)
    pad: Function | None = None
    if padding := net.stages[0].padding:
        target = bordered(shape, padding).interior(padding)
        pad = samples.copy_bordered(program, "train_pad", shape, ArrayType(shape), target)

    def sample(code: Code, a: Any, visit: Value, scale: Value) -> None:
        image = net.workspace(a.work, "image")
        following = (visit + 1 < a.samples).select(visit + 1, visit)
        load_images(code, images=a.images, order=a.order, visit=visit, following=following, x=image)
        if pad is not None:
            padded = net.workspace(a.work, "padded image")
            pad(code, source=image, target=padded)
            image = padded
        visited = a.order[visit]
        label = code.assemble([a.labels[visited.lane(lane).to_index()] for lane in range(program.width)])
        if recipe.dropout:
            draws = net.workspace(a.work, "draws")
            Masks(draws, a.scale).visit((a.first_visit + visit).to_int())
        logits = net.forward(code, a.work, a.weights, image)
        loss = cross_entropy(code, logits, label)
        add_compensated(a.loss, loss.loss)
        a.hits[0] = a.hits[0] + loss.hit
        net.start_gradient(a.work, loss, scale)
        net.backward(code, a.work, a.weights, a.gradients, image)

    def body(code: Code, a: Any) -> None:
        with code.flushing_denormals():
            if recipe.dropout:  # next to the other working memory
                draws, scale = net.workspace(a.work, "draws"), net.workspace(a.work, "scale")
                for row in range(DRAWS.size):
                    draws[row] = a.draws[row]
                scale[0] = a.scale[0]
            for t in code.range(a.first_step, a.last_step):
                for i in code.range(a.gradients.type.size):
                    a.gradients[i] = code.number(0.0)
                net.prepare(code, a.work, a.weights)
                start, end = t * a.batch, (t + 1) * a.batch
                for visit in code.range(start, (end < a.samples).select(end, a.samples)):
                    sample(code, a, visit, a.shared[t, INVERSE_BATCH])
                decay = a.decays[t if recipe.optimizer == "adamw" else 0]
                step = Step(a.rates[t], decay, a.shared[t, MOMENTUM].spread(), a.shared[t, VARIANCE].spread())
                apply(code, a, step)

    def apply(code: Code, a: Any, step: Step) -> None:
        update(code, recipe.optimizer, step, a.weights, a.gradients, a.first, a.second)

    parameters = _train_parameters(recipe)
    assert tuple(parameters) == TRAIN
    program.function("train", parameters, body, exported=True)
    return net


def _emit_evaluate(program: Program, recipe: Recipe) -> Network:
    net = Network(program, recipe, training=False)
    shape, classes = recipe.architecture.input_shape, recipe.architecture.classes
    shared = ArrayType(shape, lanes=False)
    pad: Function | None = None
    padding = net.stages[0].padding
    frame = ArrayType(bordered(shape, padding).shape, lanes=False)
    if padding:
        pad = samples.copy_bordered(program, "evaluate_pad", shape, shared, frame.interior(padding))

    def body(code: Code, a: Any) -> None:
        with code.flushing_denormals():
            net.prepare(code, a.work, a.weights)
            for n in code.range(a.start, a.stop):
                image = a.images.part(n).viewed(shared)
                if pad is not None:
                    padded = net.workspace(a.work, "padded image").viewed(frame)
                    pad(code, source=image, target=padded)
                    image = padded
                logits = net.forward(code, a.work, a.weights, image)
                label = a.labels[n]
                loss = cross_entropy(code, logits, label)
                add_compensated(a.loss, loss.loss)
                a.hits[label.to_index()] = a.hits[label.to_index()] + loss.hit
                row = (n < PROBE_SIZE).select(n, PROBE_SIZE)  # the row behind the probes takes all other images
                for number, logit in enumerate(logits):
                    a.logits[row, number] = logit

    parameters: dict[str, Any] = {
        "images": samples.images_type(shape),  # float [N, C * H * W], shared
        "labels": ArrayType((1,), "int", lanes=False),  # int [N], shared
        "weights": ArrayType((recipe.architecture.layout.size,)),  # [P], by lane
        "loss": SUM,  # [2], by lane, added to
        "hits": ArrayType((classes,), "int"),  # [classes], by lane, added to
        "logits": ArrayType((PROBE_SIZE + 1, classes)),  # by lane
        "work": ArrayType((1,)),
        "start": "index",
        "stop": "index",
    }
    assert tuple(parameters) == EVALUATE
    program.function("evaluate", parameters, body, exported=True)
    return net
