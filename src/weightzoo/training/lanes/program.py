"""The whole program of a network: `train` (see `train_program`), and `evaluate`, which measures without training.

One sample at a time goes forward and back, so that all its activations stay in the cache; a minibatch's gradient is the
sum in the order of its samples. Memory is handed in by the caller, everything `[..., lanes]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from weightzoo.training.lanes import samples, train_program, variational_program
from weightzoo.training.lanes.cross_entropy import SUM, add_compensated, cross_entropy
from weightzoo.training.lanes.language import ArrayType, Code, Function, Program
from weightzoo.training.lanes.network import Network, Recipe
from weightzoo.training.lanes.stages import bordered
from weightzoo.training.protocol import PROBE_SIZE


@dataclass(frozen=True)
class Emitted:
    """A program's LLVM IR, and how many vectors of working memory its functions want (zeroed before the first call)."""

    text: str
    train_workspace: int
    evaluate_workspace: int


def emit(recipe: Recipe, width: int, registers: int, triple: str) -> Emitted:
    """The program of a recipe: functions `train` and `evaluate`, with the parameters that are named with each."""
    program = Program(width, registers, triple)
    train = (variational_program if recipe.sparse == "variational" else train_program).emit_train(program, recipe)
    evaluate = _emit_evaluate(program, recipe)
    return Emitted(str(program.module), train.workspace.size, evaluate.workspace.size)


def evaluate_parameters(recipe: Recipe) -> dict[str, Any]:
    """The parameters of `evaluate`, in their order."""
    return {
        "images": samples.images_type(recipe.architecture.input_shape),  # float [N, C * H * W], shared
        "labels": ArrayType((1,), "int", lanes=False),  # int [N], shared
        "weights": ArrayType((recipe.architecture.layout.size,)),  # [P], by lane
        "loss": SUM,  # [2], by lane, added to
        "hits": ArrayType((recipe.architecture.classes,), "int"),  # [classes], by lane, added to
        "logits": ArrayType((PROBE_SIZE + 1, recipe.architecture.classes)),  # by lane
        "work": ArrayType((1,)),
        "start": "index",
        "stop": "index",
    }


def _emit_evaluate(program: Program, recipe: Recipe) -> Network:
    net = Network(program, recipe, training=False)
    shape = recipe.architecture.input_shape
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

    program.function("evaluate", evaluate_parameters(recipe), body, exported=True)
    return net
