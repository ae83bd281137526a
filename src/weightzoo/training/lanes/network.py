"""One sample through a network, forward and back: the kernels of all stages and the working memory between them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from weightzoo.architectures.graph import Architecture
from weightzoo.training.lanes import convolution, convolution_gradients, linear, pooling, winograd, winograd_rows
from weightzoo.training.lanes.choice import choice_type
from weightzoo.training.lanes.cross_entropy import Loss
from weightzoo.training.lanes.dropout import DRAWS, SCALE
from weightzoo.training.lanes.geometry import Geometry
from weightzoo.training.lanes.language import Array, ArrayType, Code, Function, Program, Value
from weightzoo.training.lanes.memory import Workspace
from weightzoo.training.lanes.stages import Affine, Pool, Stage, bordered, lower


@dataclass(frozen=True)
class Recipe:
    """What a program is emitted for; everything else is data."""

    architecture: Architecture
    activation: str
    optimizer: str
    dropout: bool
    sparse: Literal["masked", "variational"] | None = None  # how members are made sparse, if they are


class Network:
    """One direction (training or evaluation) of a network."""

    def __init__(self, program: Program, recipe: Recipe, *, training: bool) -> None:
        self.program = program
        self.recipe = recipe
        self.training = training
        self.dropout = training and recipe.dropout
        self.stages = lower(recipe.architecture)
        self.prefix = "train" if training else "evaluate"
        self.workspace = Workspace(program.width)
        self.methods = self._methods()
        self.transforms = self._transforms()
        self.gradient_transforms = self._gradient_transforms() if training else {}
        self.forwards = [self._forward(number, stage) for number, stage in enumerate(self.stages)]
        self.backwards = [self._backward(number, stage) for number, stage in enumerate(self.stages)] if training else []
        self._lay_out()

    def input_type(self, number: int) -> ArrayType:
        """How stage `number` sees its input: with its border; the images are shared in evaluation."""
        stage = self.stages[number]
        lanes = self.training or number > 0
        if isinstance(stage.operation, Affine):
            return ArrayType((stage.operation.inputs,), lanes=lanes)
        padded = bordered(stage.input, stage.padding)
        return ArrayType(padded.shape, lanes=lanes)

    def _lay_out(self) -> None:
        architecture = self.recipe.architecture
        first = self.stages[0]
        if self.training:
            self.workspace.add("image", ArrayType((math.prod(architecture.input_shape),)))
        if first.padding:
            # a shared image takes as many vectors as it has numbers: less than one image by lane would
            self.workspace.add("padded image", ArrayType(bordered(first.input, first.padding).shape))
        scratch = [ArrayType((1,))]
        for number, stage in enumerate(self.stages):
            output = ArrayType(stage.output)
            self.workspace.add(f"h{number}", stage.stored)
            if isinstance(stage.operation, Geometry):
                if (method := self.methods.get(number)) is not None:
                    self.workspace.add(f"u{number}", method.transformed_weight(stage.operation))
                    scratch.append(ArrayType((method.scratch(self.program, stage.operation).size,)))
                else:
                    scratch.append(convolution.scratch_type(self.program, stage.operation))
                if number in self.gradient_transforms:
                    u = winograd.transformed_weight(stage.operation, gradient=True)
                    self.workspace.add(f"gradient_u{number}", u)
                    scratch.append(ArrayType((winograd.scratch(self.program, stage.operation, gradient=True).size,)))
            if self.training:
                self.workspace.add(f"d{number}", output)
                self.workspace.add(f"g{number}", output)
                if not isinstance(stage.operation, Affine):
                    size = stage.operation.size if isinstance(stage.operation, Pool) else stage.operation.pool
                    self.workspace.add(f"choice{number}", choice_type(stage.output, size))
                if isinstance(stage.operation, Geometry) and "spread" in self.backwards[number]:
                    self.workspace.add(f"spread{number}", stage.operation.spread)
        self.workspace.add("scratch", max(scratch, key=lambda part: part.size))
        if not self.training:  # what training alone writes needs an address nevertheless
            self.workspace.add("unused", ArrayType((1,)))
        self.workspace.add("draws", DRAWS)
        self.workspace.add("scale", SCALE)

    def _methods(self) -> dict[int, ModuleType]:
        """The stages whose convolution is done by one of Winograd's methods, and the module of its kernels."""
        return {
            number: method
            for number, stage in enumerate(self.stages)
            for method in (winograd, winograd_rows)
            if isinstance(stage.operation, Geometry) and method.fits(stage.operation)
        }

    def _transforms(self) -> dict[int, Function]:
        """What transforms the weight of the stages that `methods` has."""
        return {
            number: method.transform_weight(
                self.program, f"{self.prefix}_transform{number}", self.stages[number].operation
            )
            for number, method in self.methods.items()
        }

    def _gradient_transforms(self) -> dict[int, Function]:
        """What transforms it for the gradient of a stage's input, where that has other tiles than the outputs have."""
        found: dict[int, Function] = {}
        for number, method in self.methods.items():
            operation = self.stages[number].operation
            if method is not winograd or not isinstance(operation, Geometry) or not self._has_input_gradient(number):
                continue
            if winograd.has_own_gradient(operation):
                name = f"gradient_transform{number}"
                found[number] = winograd.transform_weight(self.program, name, operation, gradient=True)
        return found

    def _forward(self, number: int, stage: Stage) -> Function:
        name = f"{self.prefix}_forward{number}"
        x = self.input_type(number)
        operation = stage.operation
        mode: dict[str, Any] = {"training": self.training, "dropout": self.dropout}
        act = self.recipe.activation
        if isinstance(operation, Affine):
            return linear.forward(
                self.program, name, operation.inputs, operation.outputs, x, stage.pointwise, act, **mode
            )
        output = stage.stored.interior(stage.border)
        if isinstance(operation, Pool):
            return pooling.forward(
                self.program, name, stage.input, operation.size, x, output, stage.pointwise, act, **mode
            )
        return self.methods.get(number, convolution).forward(
            self.program, name, operation, x, output, stage.pointwise, act, **mode
        )

    def _backward(self, number: int, stage: Stage) -> dict[str, Function]:
        """The functions that lead back through a stage: to its weights, and to its input if any weights come before."""
        x, operation, derivative = self.input_type(number), stage.operation, self._derivative(number)
        inner = self._has_input_gradient(number)
        found: dict[str, Function] = {}
        if isinstance(operation, Affine):
            sizes = operation.inputs, operation.outputs
            found["weight"] = linear.weight_gradient(self.program, f"weight{number}", *sizes, x)
            if inner:
                found["input"] = linear.input_gradient(self.program, f"input{number}", *sizes, derivative=derivative)
        elif isinstance(operation, Geometry):
            found["weight"] = convolution_gradients.weight_gradient(self.program, f"weight{number}", operation, x)
            if inner and self.methods.get(number) is winograd:
                found["input"] = winograd.input_gradient(
                    self.program, f"input{number}", operation, derivative=derivative
                )
            elif inner:
                if operation.is_spread:
                    found["spread"] = convolution_gradients.spread_gradient(self.program, f"spread{number}", operation)
                found["input"] = convolution_gradients.input_gradient(
                    self.program, f"input{number}", operation, derivative=derivative
                )
        elif inner:
            found["input"] = pooling.input_gradient(
                self.program, f"input{number}", stage.input, operation.size, derivative=derivative
            )
        return found

    def _has_input_gradient(self, number: int) -> bool:
        """Whether weights come before a stage, to which its input's gradient leads."""
        return any(not isinstance(before.operation, Pool) for before in self.stages[:number])

    def _derivative(self, number: int) -> bool:
        """Whether the input gradient of a stage has a derivative to be multiplied by: that of the layers before it."""
        return number > 0 and self.stages[number - 1].pointwise.has_derivative(self.dropout)

    def _weights(self, block: Array, stage: Stage) -> tuple[Array, Array]:
        """A stage's weight and bias in an array `[P]`."""
        assert not isinstance(stage.operation, Pool)
        weight = stage.operation.weight
        part = block.part(stage.start).viewed(weight)
        bias = block.part(stage.start + weight.size).viewed(ArrayType((weight.shape[0],)))
        return part, bias

    def prepare(self, code: Code, work: Array, weights: Array) -> None:
        """Call what depends on the weights alone; to be done before `forward` and whenever they have changed."""
        for number, kernel in self.transforms.items():
            w, _ = self._weights(weights, self.stages[number])
            kernel(code, w=w, u=self.workspace(work, f"u{number}"))
        for number, kernel in self.gradient_transforms.items():
            w, _ = self._weights(weights, self.stages[number])
            kernel(code, w=w, u=self.workspace(work, f"gradient_u{number}"))

    def forward(self, code: Code, work: Array, weights: Array, image: Array) -> list[Value]:
        """Call the forward kernels on an image; the logits."""
        for number in range(len(self.stages)):
            self._stage_forward(code, work, weights, image, number)
        classes = self.recipe.architecture.classes
        logits = self.workspace(work, f"h{len(self.stages) - 1}").viewed(ArrayType((classes,)))
        return [logits[number] for number in range(classes)]

    def backward(self, code: Code, work: Array, weights: Array, gradients: Array, image: Array) -> None:
        """Call the backward kernels, from the gradient of the last stage's output on."""
        for number in reversed(range(len(self.stages))):
            self._stage_backward(code, work, weights, gradients, image, number)

    def _stage_forward(self, code: Code, work: Array, weights: Array, image: Array, number: int) -> None:
        at, stage = self.workspace, self.stages[number]
        nowhere = None if self.training else at(work, "unused")
        arguments: dict[str, Any] = {
            "x": image if number == 0 else at(work, f"h{number - 1}"),
            "h": at(work, f"h{number}"),
            "d": nowhere or at(work, f"d{number}"),
            "draws": at(work, "draws"),
            "scale": at(work, "scale"),
        }
        if not isinstance(stage.operation, Pool):
            arguments["w"], arguments["bias"] = self._weights(weights, stage)
        if not isinstance(stage.operation, Affine):
            arguments["choice"] = nowhere or at(work, f"choice{number}")
        if isinstance(stage.operation, Geometry):
            arguments["scratch"] = at(work, "scratch")
        if number in self.transforms:
            arguments["u"] = at(work, f"u{number}")
            del arguments["w"]
        self.forwards[number](code, **arguments)

    def _stage_backward(
        self, code: Code, work: Array, weights: Array, gradients: Array, image: Array, number: int
    ) -> None:
        at, stage, kernels = self.workspace, self.stages[number], self.backwards[number]
        g = at(work, f"g{number}")
        if "weight" in kernels:
            x = image if number == 0 else at(work, f"h{number - 1}")
            gw, gbias = self._weights(gradients, stage)
            kernels["weight"](code, x=x, g=g, gw=gw, gbias=gbias, **self._choice(work, number))
        if "input" in kernels:
            self._input_backward(code, work, weights, number, g, at(work, f"g{number - 1}"))

    def _input_backward(self, code: Code, work: Array, weights: Array, number: int, g: Array, out: Array) -> None:
        """The gradient by a stage's input into `out`, from that by its output, g."""
        at, stage, kernels = self.workspace, self.stages[number], self.backwards[number]
        arguments: dict[str, Any] = {"out": out, "d": at(work, f"d{number - 1}")}
        choice = self._choice(work, number)
        if isinstance(stage.operation, Affine):
            arguments |= {"g": g, "w": self._weights(weights, stage)[0]}
        elif isinstance(stage.operation, Pool):
            arguments |= {"g": g, **choice}
        elif self.methods.get(number) is winograd:
            u = f"gradient_u{number}" if number in self.gradient_transforms else f"u{number}"
            arguments |= {"g": g, "u": at(work, u), "scratch": at(work, "scratch"), **choice}
        else:
            if "spread" in kernels:
                spread = at(work, f"spread{number}")
                kernels["spread"](code, g=g, spread=spread, **choice)
                g = spread
            arguments |= {"spread": g, "w": self._weights(weights, stage)[0]}
        kernels["input"](code, **arguments)

    def _choice(self, work: Array, number: int) -> dict[str, Array]:
        """The argument `choice` of a kernel, where there is a choice."""
        is_affine = isinstance(self.stages[number].operation, Affine)
        return {} if is_affine else {"choice": self.workspace(work, f"choice{number}")}

    def start_gradient(self, work: Array, loss: Loss, scale: Value) -> None:
        """The gradient of `scale * loss` with respect to the last operation's output."""
        number = len(self.stages) - 1
        flat = ArrayType((self.recipe.architecture.classes,))
        g, d = (self.workspace(work, f"{name}{number}").viewed(flat) for name in "gd")
        derivative = self.stages[-1].pointwise.has_derivative(self.dropout)
        for i, gradient in enumerate(loss.gradient):
            g[i] = gradient * scale * d[i] if derivative else gradient * scale
