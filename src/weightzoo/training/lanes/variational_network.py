"""One sample through a network whose weights are normally distributed, forward and back (see `variational`)."""

from __future__ import annotations

import math
from types import ModuleType

from weightzoo.training.lanes import variational
from weightzoo.training.lanes.dropout import DRAWS, draw_visit
from weightzoo.training.lanes.geometry import Geometry
from weightzoo.training.lanes.language import Array, ArrayType, Code, Function, Program, Value
from weightzoo.training.lanes.network import Network, Recipe
from weightzoo.training.lanes.stages import Affine, Pool, Stage
from weightzoo.training.sparse.variational import CONV_BOUND, LINEAR_BOUND

Layer = Geometry | Affine


class VariationalNetwork(Network):
    """The training direction of a network with a mean and a variance for each weight of its layers.

    A layer has the squares of its input, noise, `ratio` and the gradient by q beside what it has in `Network`.
    """

    def __init__(self, program: Program, recipe: Recipe) -> None:
        super().__init__(program, recipe, training=True)
        self.squares: dict[int, Function] = {}
        self.noises: dict[int, Function] = {}
        self.shares: dict[int, Function] = {}
        self.joins: dict[int, Function] = {}
        for number, layer in self.layers.items():
            size = math.prod(self.stages[number].output)
            self.squares[number] = variational.square(program, f"square{number}", self.input_type(number))
            self.noises[number] = variational.draw_noise(program, f"noise{number}", math.prod(_units(layer)))
            self.shares[number] = variational.share_gradient(program, f"share{number}", size)
            if "input" in self.backwards[number]:
                before = self.stages[number - 1]
                self.joins[number] = variational.join_gradients(
                    program,
                    f"join{number}",
                    before.output,
                    before.stored.interior(before.border),
                    derivative=super()._derivative(number),
                )

    @property
    def layers(self) -> dict[int, Layer]:
        """The stages that have weights, by number."""
        stages = enumerate(self.stages)
        return {number: stage.operation for number, stage in stages if not isinstance(stage.operation, Pool)}

    def spans(self) -> list[tuple[int, int, float]]:
        """First and count of each layer's weights in the weight vector, and the bound of their log alpha."""
        return [
            (self.stages[number].start, layer.weight.size, LINEAR_BOUND if isinstance(layer, Affine) else CONV_BOUND)
            for number, layer in self.layers.items()
        ]

    def draw(self, code: Code, work: Array, visit: Value) -> None:
        """Draw all noise of visit `visit` (int32, shared)."""
        draws = self.workspace(work, "noise draws")
        draw_visit(draws, visit)
        first = 0
        for number, layer in self.layers.items():
            self.noises[number](code, draws=draws, first=first, noise=self.workspace(work, f"noise{number}"))
            first += variational.even(math.prod(_units(layer)))

    def _stage_forward(self, code: Code, work: Array, weights: Array, image: Array, number: int) -> None:
        if number not in self.layers:
            super()._stage_forward(code, work, weights, image, number)
            return
        at, stage = self.workspace, self.stages[number]
        x = image if number == 0 else at(work, f"h{number - 1}")
        self.squares[number](code, x=x, square=at(work, f"square{number}"))
        own = {name: at(work, f"{name}{number}") for name in ("square", "noise", "ratio", "h", "d")}
        w, bias = self._weights(weights, stage)
        s, _ = self._weights(at(work, "variances"), stage)
        masks = {name: at(work, name) for name in ("draws", "scale")}
        self.forwards[number](code, x=x, w=w, s=s, bias=bias, **own, **masks, **self._choice(work, number))

    def _stage_backward(
        self, code: Code, work: Array, weights: Array, gradients: Array, image: Array, number: int
    ) -> None:
        """Also adds the gradients by s to `variance gradients` of the workspace."""
        super()._stage_backward(code, work, weights, gradients, image, number)
        if number not in self.layers:
            return
        at = self.workspace
        by_q = at(work, f"by_q{number}")
        self.shares[number](code, g=at(work, f"g{number}"), ratio=at(work, f"ratio{number}"), out=by_q)
        gs, _ = self._weights(at(work, "variance gradients"), self.stages[number])
        self.backwards[number]["weight"](
            code, x=at(work, f"square{number}"), g=by_q, gw=gs, gbias=at(work, "no bias"), **self._choice(work, number)
        )
        if number in self.joins:
            through_q, out, d = at(work, "through q"), at(work, f"g{number - 1}"), at(work, f"d{number - 1}")
            self._input_backward(code, work, at(work, "variances"), number, by_q, through_q)
            self.joins[number](code, x=at(work, f"h{number - 1}"), through_q=through_q, out=out, d=d)

    def _methods(self) -> dict[int, ModuleType]:
        return {}  # two sums share their inputs, which Winograd's transforms would keep apart

    def _derivative(self, number: int) -> bool:
        return number not in self.layers and super()._derivative(number)  # a layer's is multiplied in by `joins`

    def _lay_out(self) -> None:
        super()._lay_out()
        parameters = ArrayType((self.recipe.architecture.layout.size,))
        self.workspace.add("noise draws", DRAWS)
        self.workspace.add("variances", parameters)
        self.workspace.add("variance gradients", parameters)
        self.workspace.add("through q", ArrayType((max(math.prod(stage.output) for stage in self.stages),)))
        self.workspace.add("no bias", ArrayType((max(stage.output[0] for stage in self.stages),)))
        for number, layer in self.layers.items():
            self.workspace.add(f"square{number}", self.input_type(number))
            self.workspace.add(f"noise{number}", ArrayType((variational.even(math.prod(_units(layer))),)))
            self.workspace.add(f"ratio{number}", ArrayType(self.stages[number].output))
            self.workspace.add(f"by_q{number}", ArrayType(self.stages[number].output))

    def _forward(self, number: int, stage: Stage) -> Function:
        operation, act = stage.operation, self.recipe.activation
        if isinstance(operation, Pool):
            return super()._forward(number, stage)
        name, x = f"train_forward{number}", self.input_type(number)
        if isinstance(operation, Affine):
            sizes = (operation.inputs, operation.outputs)
            return variational.linear_forward(self.program, name, *sizes, stage.pointwise, act, dropout=self.dropout)
        output = stage.stored.interior(stage.border)
        return variational.conv_forward(
            self.program, name, operation, x, output, stage.pointwise, act, dropout=self.dropout
        )


def _units(layer: Layer) -> tuple[int, ...]:
    """The shape that noise is drawn in: a layer's outputs before pooling."""
    return (layer.outputs,) if isinstance(layer, Affine) else (layer.out_channels, *layer.conv_output)
