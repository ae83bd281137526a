"""Minimal filtering F(m, 3): m outputs of a filter of 3 taps by m + 2 multiplications, along one axis.

With the filter w, the m + 2 inputs x of the outputs y, and ' for transposed (Winograd 1980; Lavin & Gray 2016, arXiv
1509.09308, equations 5 and 6),

    y = A' [(G w) * (B' x)],    y[i] = x[i] w[0] + x[i + 1] w[1] + x[i + 2] w[2].

B', G and A' belong to polynomials at the points 0, 1, -1 and infinity, and for F(4, 3) at 2 and -2. Every function here
takes and gives lists of numbers; sums of products are fused where that saves an operation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from weightzoo.training.lanes.language import Value, fma

TAPS = 3
Axis = Sequence[Value]
Map = Callable[[Axis], list[Value]]


@dataclass(frozen=True)
class Filtering:
    """The maps of F(m, 3); `points` is m + 2."""

    outputs: int  # m
    inputs: Map  # B': points to points
    inputs_transposed: Map  # B: the gradient by B' x to that by x
    taps: Map  # G: 3 taps to points
    products: Map  # A': points to m outputs
    products_transposed: Map  # A: the gradient by the outputs to that by the products

    @property
    def points(self) -> int:
        """How many multiplications it takes, and how many inputs m outputs see."""
        return self.outputs + TAPS - 1


def _inputs_of_2(x: Axis) -> list[Value]:
    return [x[0] - x[2], x[1] + x[2], x[2] - x[1], x[1] - x[3]]


def _inputs_of_2_transposed(v: Axis) -> list[Value]:
    return [v[0], v[1] - v[2] + v[3], v[1] + v[2] - v[0], -v[3]]


def _taps_of_2(w: Axis) -> list[Value]:
    half = (w[0] + w[2]) * 0.5
    return [w[0], fma(w[1], 0.5, half), fma(w[1], -0.5, half), w[2]]


def _products_of_2(m: Axis) -> list[Value]:
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _products_of_2_transposed(g: Axis) -> list[Value]:
    return [g[0], g[0] + g[1], g[0] - g[1], -g[1]]


def _inputs_of_4(x: Axis) -> list[Value]:
    near, far = fma(x[2], -4.0, x[4]), fma(x[1], -4.0, x[3])
    inner, outer = x[4] - x[2], (x[3] - x[1]) * 2.0
    return [
        fma(x[0], 4.0, fma(x[2], -5.0, x[4])),
        near + far, near - far, inner + outer, inner - outer,
        fma(x[1], 4.0, fma(x[3], -5.0, x[5])),
    ]  # fmt: skip


def _inputs_of_4_transposed(v: Axis) -> list[Value]:
    near, far = v[1] + v[2], v[1] - v[2]
    inner, outer = v[3] + v[4], (v[3] - v[4]) * 2.0
    return [
        v[0] * 4.0,
        fma(far, -4.0, fma(v[5], 4.0, -outer)),
        fma(near, -4.0, fma(v[0], -5.0, -inner)),
        far + fma(v[5], -5.0, outer),
        v[0] + near + inner,
        v[5],
    ]


def _taps_of_4(w: Axis) -> list[Value]:
    sixth = (w[0] + w[2]) * (-1 / 6)
    outer = fma(w[0], 1 / 24, w[2] * (1 / 6))
    return [
        w[0] * 0.25,
        fma(w[1], -1 / 6, sixth), fma(w[1], 1 / 6, sixth), fma(w[1], 1 / 12, outer), fma(w[1], -1 / 12, outer),
        w[2],
    ]  # fmt: skip


def _products_of_4(m: Axis) -> list[Value]:
    near, far = m[1] + m[2], m[1] - m[2]
    inner, outer = m[3] + m[4], m[3] - m[4]
    return [m[0] + near + inner, fma(outer, 2.0, far), fma(inner, 4.0, near), fma(outer, 8.0, far + m[5])]


def _products_of_4_transposed(g: Axis) -> list[Value]:
    near, far = g[0] + g[2], g[1] + g[3]
    inner, outer = fma(g[2], 4.0, g[0]), fma(g[3], 8.0, g[1] * 2.0)
    return [g[0], near + far, near - far, inner + outer, inner - outer, g[3]]


F2 = Filtering(2, _inputs_of_2, _inputs_of_2_transposed, _taps_of_2, _products_of_2, _products_of_2_transposed)
F4 = Filtering(4, _inputs_of_4, _inputs_of_4_transposed, _taps_of_4, _products_of_4, _products_of_4_transposed)
