"""Elementary functions from multiply-adds, divisions and square roots alone, so that no library has a say in the bits.

Errors are measured against float64 in tests/training/lanes/test_mathematics.py. NaN goes in, NaN comes out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from weightzoo.training.lanes.language import Value, fma

LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = (
    0.693359375,
    -2.12194440e-4,
)  # their sum is ln 2; products of the first with small integers are exact
ROUNDING = 12582912.0  # 1.5 * 2**23: adding it leaves the nearest integer in the lowest bits
ROUNDING_BITS = 0x4B400000

# Minimax polynomials of exp and log: Moshier, Cephes Mathematical Library (1992), expf.c and logf.c.
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
_LOG = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
    -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip

# Minimax polynomials of sin and cos on a quarter turn: the same, sinf.c.
_SIN = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COS = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)

# tanh(x) = x * p(x**2) / q(x**2): the rational minimax approximation of degree 13/6 that Eigen uses (MathFunctions.h).
_TANH_LIMIT = 7.99881172180175781  # with fused multiply-adds, the smallest number where the quotient is 1
_TANH_P = (
    -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
    1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03,
)  # fmt: skip
_TANH_Q = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)

# normal_tail(a) = exp(-a**2 / 2) * t * p(t) with t = 1 / (1 + 0.35 a), in the form of Abramowitz and Stegun 26.2.17;
# p is a weighted Chebyshev fit of degree 8 on 0 <= a <= 14, of relative error 3.2e-8.
_TAIL_SCALE = 0.35
_TAIL = (
    -0.02914611648, 0.1439725768, -0.255716004, 0.1591760685, -0.02311107506,
    0.1055084923, 0.1198327547, 0.1398618836, 0.1396214036,
)  # fmt: skip
_INVERSE_SQRT_2PI = 0.3989422804014327


def polynomial(x: Value, coefficients: Sequence[float]) -> Value:
    """Horner's scheme, highest power first."""
    result = x.code.number(coefficients[0])
    for coefficient in coefficients[1:]:
        result = fma(result, x, coefficient)
    return result


def clamp(x: Value, low: float, high: float) -> Value:
    """`x` between two limits; NaN stays NaN."""
    x = (x < low).select(low, x)
    return (x > high).select(high, x)


def exp(x: Value) -> Value:
    """e**x, relative error under 2e-7; arguments outside of [-87.3, 88.3] count as these limits."""
    x = clamp(x, -87.3, 88.3)
    shifted = fma(x, LOG2_E, ROUNDING)
    exponent = shifted.bits() - ROUNDING_BITS
    whole = shifted - ROUNDING
    rest = fma(whole, -LN2_LOW, fma(whole, -LN2_HIGH, x))
    mantissa = fma(polynomial(rest, _EXP), rest * rest, rest) + 1.0
    return mantissa * ((exponent + 127) << 23).bits()


def log(x: Value) -> Value:
    """The natural logarithm of a positive, normal number, relative error under 2e-7 away from 1, absolute near it."""
    bits = x.bits()
    exponent = (bits - 0x3F3504F3).shift_signed(23)  # of a mantissa between sqrt(1/2) and sqrt(2)
    rest = (bits - (exponent << 23)).bits() - 1.0
    square = rest * rest
    power = exponent.to_float()
    correction = fma(square, -0.5, fma(power, LN2_LOW, rest * square * polynomial(rest, _LOG)))
    result = fma(power, LN2_HIGH, rest + correction)
    return x.is_number().select(result, x)


def tanh(x: Value) -> Value:
    """The hyperbolic tangent, absolute error under 3e-7; exactly 1 from 8 on: saturated units have no gradient."""
    x = clamp(x, -_TANH_LIMIT, _TANH_LIMIT)
    square = x * x
    return x * polynomial(square, _TANH_P) / polynomial(square, _TANH_Q)


def sigmoid(x: Value) -> Value:
    """1 / (1 + e**-x), relative error under 4e-7 on both sides."""
    small = exp(-absolute(x))
    return (x < 0.0).select(small, 1.0) / (small + 1.0)


def absolute(x: Value) -> Value:
    """|x|."""
    return (x < 0.0).select(-x, x)


def turn(k: Value) -> tuple[Value, Value]:
    """Cosine and sine of `2 pi k / 2**24` for an integer 0 <= k < 2**24, absolute error under 2e-7."""
    quadrant = (k + (1 << 21)) >> 22  # the nearest multiple of a quarter turn; what is left is exact
    x = (k - (quadrant << 22)).to_float() * (2 * math.pi / 2**24)
    square = x * x
    sine = fma(polynomial(square, _SIN) * square, x, x)
    cosine = fma(polynomial(square, _COS) * square, square, fma(square, -0.5, 1.0))
    swapped = (quadrant & 1).equals(1)
    across, up = swapped.select(sine, cosine), swapped.select(cosine, sine)
    return _negated_if(across, (quadrant + 1) & 2), _negated_if(up, quadrant & 2)


def _negated_if(x: Value, two: Value) -> Value:
    """-x where the integer is 2, x where it is 0."""
    return (x.bits() ^ (two << 30)).bits()


def normal(x: Value) -> tuple[Value, Value]:
    """Distribution and density of the standard normal, `Phi(x) = (1 + erf(x / sqrt 2)) / 2` and `phi(x)`.

    Phi has a small relative error in the lower tail too, which `x * Phi(x)` needs.
    """
    gauss = exp(x * x * -0.5)
    t = 1.0 / fma(absolute(x), _TAIL_SCALE, 1.0)
    tail = gauss * (t * polynomial(t, _TAIL))
    return (x > 0.0).select(1.0 - tail, tail), gauss * _INVERSE_SQRT_2PI
