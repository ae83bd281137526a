"""Kernels of sparse variational dropout (Molchanov et al. 2017, arXiv 1701.05369); see `training.sparse.variational`.

A layer's output is normal, with a mean and a variance that are two sums over the same inputs (section 4.1):

    z = m + sqrt(q + epsilon) * noise,    m = bias + sum of x * w,    q = sum of x**2 * s,    s = alpha * w**2

The kernels here give z, keep `ratio = noise / (2 sqrt(q + epsilon))`, the derivative of z by q, for the way back, and
turn the gradients by w and s into those by the parameters w and log sigma**2. The gradients of both sums are those of
an ordinary layer, once for x, w and g, once for x**2, s and `g * ratio`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from weightzoo.training.lanes.activation import Pointwise
from weightzoo.training.lanes.choice import bits_of, choose, pick, store
from weightzoo.training.lanes.dropout import DRAWS, SCALE, Masks, visit_bits
from weightzoo.training.lanes.geometry import Geometry
from weightzoo.training.lanes.language import Array, ArrayType, Cell, Code, Function, Program, Value, fma, sqrt
from weightzoo.training.lanes.mathematics import absolute, clamp, exp, log, sigmoid, turn
from weightzoo.training.lanes.tiling import block_size, spans
from weightzoo.training.sparse.variational import EPSILON, K1, K2, K3


def even(size: int) -> int:
    """The next even number: noise comes in pairs."""
    return size + size % 2


def draw_noise(program: Program, name: str, size: int) -> Function:
    """Emit `noise[i]` for i < even(size): `weightzoo.seeds.noise` with the counters from `first` on."""
    half = even(size) // 2

    def body(code: Code, a: Any) -> None:
        for i in code.range(half):
            radius, angle = (visit_bits(a.draws, a.first + i + part) >> 8 for part in (0, half))
            uniform = (radius.to_float() + 0.5) * 2.0**-24
            length = sqrt(log(uniform) * -2.0)
            cosine, sine = turn(angle)
            a.noise[i], a.noise[i + half] = length * cosine, length * sine

    parameters: dict[str, Any] = {"draws": DRAWS, "first": "index", "noise": ArrayType((even(size),))}
    return program.function(name, parameters, body)


def square(program: Program, name: str, x: ArrayType) -> Function:
    """Emit `square = x * x`."""

    def body(code: Code, a: Any) -> None:
        for i in code.range(x.size):
            a.square[i] = a.x[i] * a.x[i]

    flat = ArrayType((x.size,))
    return program.function(name, {"x": flat, "square": flat}, body)


def share_gradient(program: Program, name: str, size: int) -> Function:
    """Emit `out = g * ratio`, the gradient by q."""

    def body(code: Code, a: Any) -> None:
        for i in code.range(size):
            a.out[i] = a.g[i] * a.ratio[i]

    flat = ArrayType((size,))
    return program.function(name, {"g": flat, "ratio": flat, "out": flat}, body)


def join_gradients(program: Program, name: str, shape: tuple[int, ...], x: ArrayType, *, derivative: bool) -> Function:
    """Emit `out = d * (out + 2 x through_q)`, from the gradients by x through m and through q by x**2.

    `d` counts as 1 if `derivative` is False.
    """

    def body(code: Code, a: Any) -> None:
        for c in code.range(shape[0]):
            for row in code.range(shape[1]):
                for column in code.range(shape[2]):
                    place = (c, row, column)
                    total = fma(a.x[place] * 2.0, a.through_q[place], a.out[place])
                    a.out[place] = total * a.d[place] if derivative else total

    whole = ArrayType(shape)
    return program.function(name, {"x": x, "through_q": whole, "out": whole, "d": whole}, body)


def conv_forward(
    program: Program,
    name: str,
    geometry: Geometry,
    x: ArrayType,
    output: ArrayType,
    pointwise: Pointwise,
    activation: str,
    *,
    dropout: bool,
) -> Function:
    """Emit `h = pointwise(pooled z)`, its derivative `d`, `choice` and `ratio` at the chosen outputs."""
    k, s, pool = geometry.kernel, geometry.stride, geometry.pool
    size = block_size(geometry.out_channels, program.registers * 3 // 4 // (2 * pool**2))
    places = [(i, j) for i in range(pool) for j in range(pool)]

    def finish(code: Code, a: Any, o: Value, y: Value, x: Value, sums: dict[Any, tuple[Cell, Cell]]) -> None:
        def grid(number: Callable[[int, int], Value]) -> list[list[Value]]:
            return [[number(i, j) for j in range(pool)] for i in range(pool)]

        noise = grid(lambda i, j: a.noise[o, y * pool + i, x * pool + j])
        deviation = grid(lambda i, j: sqrt(sums[i, j][1].value + EPSILON))
        window = grid(lambda i, j: fma(deviation[i][j], noise[i][j], sums[i, j][0].value))
        best, choice = choose(code, window)
        store(a.choice, (o, y, x), choice)
        row, column = choice[: bits_of(pool)], choice[bits_of(pool) :]
        chosen_noise, chosen_deviation = (
            pick(row, [pick(column, line) for line in numbers]) for numbers in (noise, deviation)
        )
        a.ratio[o, y, x] = chosen_noise / (chosen_deviation * 2.0)
        unit = (o * geometry.out_height + y) * geometry.out_width + x
        a.h[o, y, x], derivative = pointwise.apply(best, unit, activation, Masks(a.draws, a.scale) if dropout else None)
        if derivative is not None:
            a.d[o, y, x] = derivative

    def tile(code: Code, a: Any, o: Value, y: Value, x: Value, outputs: int) -> None:
        sums = {
            (n, place): (code.cell(a.bias[o + n]), code.cell(code.number(0.0)))
            for n in range(outputs)
            for place in places
        }
        for c in code.range(geometry.in_channels):
            for ky in code.range(k):
                for kx in range(k):
                    for n in range(outputs):
                        w, variance = a.w[o + n, c, ky, kx], a.s[o + n, c, ky, kx]
                        for i, j in places:
                            at = (c, (y * pool + i) * s + ky, (x * pool + j) * s + kx)
                            sums[n, (i, j)][0].add_product(a.x[at], w)
                            sums[n, (i, j)][1].add_product(a.square[at], variance)
        for n in range(outputs):
            finish(code, a, o + n, y, x, {place: sums[n, place] for place in places})

    def body(code: Code, a: Any) -> None:
        for start, stop, outputs in spans(geometry.out_channels, size):
            for o in code.range(start, stop, outputs):
                for y in code.range(geometry.out_height):
                    for x in code.range(geometry.out_width):
                        tile(code, a, o, y, x, outputs)

    parameters = {
        "x": x,
        "square": ArrayType(x.shape),
        "w": geometry.weight,
        "s": geometry.weight,
        "bias": ArrayType((geometry.out_channels,)),
        "noise": ArrayType((geometry.out_channels, *geometry.conv_output)),
        "h": output,
        "d": ArrayType(geometry.output),
        "choice": geometry.choice,
        "ratio": ArrayType(geometry.output),
        "draws": DRAWS,
        "scale": SCALE,
    }
    return program.function(name, parameters, body)


def linear_forward(
    program: Program, name: str, inputs: int, outputs: int, pointwise: Pointwise, activation: str, *, dropout: bool
) -> Function:
    """Emit `h = pointwise(z)`, its derivative `d` and `ratio`."""
    size = block_size(outputs, program.registers // 6)

    def tile(code: Code, a: Any, o: Value, count: int) -> None:
        means = [code.cell(a.bias[o + n]) for n in range(count)]
        variances = [code.cell(code.number(0.0)) for _ in range(count)]
        for i in code.range(inputs):
            value, squared = a.x[i], a.square[i]
            for n in range(count):
                means[n].add_product(value, a.w[o + n, i])
                variances[n].add_product(squared, a.s[o + n, i])
        masks = Masks(a.draws, a.scale) if dropout else None
        for n in range(count):
            noise, deviation = a.noise[o + n], sqrt(variances[n].value + EPSILON)
            a.ratio[o + n] = noise / (deviation * 2.0)
            z = fma(deviation, noise, means[n].value)
            a.h[o + n], derivative = pointwise.apply(z, o + n, activation, masks)
            if derivative is not None:
                a.d[o + n] = derivative

    def body(code: Code, a: Any) -> None:
        for start, stop, count in spans(outputs, size):
            for o in code.range(start, stop, count):
                tile(code, a, o, count)

    weight, units = ArrayType((outputs, inputs)), ArrayType((outputs,))
    features = ArrayType((inputs,))
    parameters = {
        "x": features, "square": features, "w": weight, "s": weight, "bias": units, "noise": units, "h": units,
        "d": units, "ratio": units, "draws": DRAWS, "scale": SCALE,
    }  # fmt: skip
    return program.function(name, parameters, body)


@dataclass(frozen=True)
class _Alpha:
    """log alpha of a weight, the condition that it is not at its bound, and `exp(log alpha) * w`."""

    logarithm: Value
    is_free: Value
    times_weight: Value


def _alpha(w: Value, log_variance: Value, bound: float) -> _Alpha:
    raw = fma(log(absolute(w) + EPSILON), w.code.number(-2.0), log_variance)
    bounded = clamp(raw, -bound, bound)
    return _Alpha(bounded, (raw >= -bound) & (raw <= bound), exp(bounded) * w)


def set_variances(
    code: Code, weights: Array, log_variances: Array, variances: Array, start: int, size: int, bound: float
) -> None:
    """`s = alpha w**2` of the weights from `start` on."""
    for i in code.range(start, start + size):
        w = weights[i]
        variances[i] = _alpha(w, log_variances[i], bound).times_weight * w


def divergence(log_alpha: Value) -> tuple[Value, Value]:
    """The Kullback-Leibler divergence of equation 14 and its derivative by log alpha."""
    off = sigmoid(-fma(log_alpha, K3, K2))
    inverse = exp(-log_alpha)
    value = fma(off, K1, log(inverse + 1.0) * 0.5)
    slope = fma(off * (1.0 - off), -K1 * K3, inverse / (inverse + 1.0) * -0.5)
    return value, slope


def chain_gradients(
    code: Code,
    weights: Array,
    log_variances: Array,
    gradients: Array,
    variance_gradients: Array,
    kl: Value,
    start: int,
    size: int,
    bound: float,
) -> Value:
    """Add to the gradients by w what comes through s and the divergence; turn those by s into those by log sigma**2.

    `kl` is what the divergence is multiplied by. Gives the sum of the divergences.
    """
    total = code.cell(code.number(0.0))
    for i in code.range(start, start + size):
        w, by_s = weights[i], variance_gradients[i]
        alpha = _alpha(w, log_variances[i], bound)
        value, slope = divergence(alpha.logarithm)
        total.value += value
        by_alpha = alpha.is_free.select(fma(kl, slope, by_s * alpha.times_weight * w), 0.0)
        sign = (w > 0.0).select(code.number(1.0), (w < 0.0).select(code.number(-1.0), 0.0))
        through_alpha = by_alpha * sign / (absolute(w) + EPSILON)
        gradients[i] = gradients[i] + fma(through_alpha, code.number(-2.0), by_s * alpha.times_weight * 2.0)
        variance_gradients[i] = by_alpha
    return total.value
