"""The power law: exact curves are found again, others fitted as well as by SciPy's general least squares."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares

from weightzoo.analysis.dynamics.power_law import fit_pow3


def test_an_exact_power_law_is_found_again_and_extrapolated():
    x = np.arange(1, 6)
    c, a, alpha = np.array([0.9, 0.5, 0.97]), np.array([0.4, 0.3, 0.8]), np.array([0.7, 2.0, 0.3])
    fitted = fit_pow3(x, c[:, None] - a[:, None] * x ** -alpha[:, None])
    np.testing.assert_allclose(fitted.c, c, atol=1e-5)
    np.testing.assert_allclose(fitted.a, a, atol=1e-5)
    np.testing.assert_allclose(fitted.alpha, alpha, rtol=1e-5)
    np.testing.assert_allclose(fitted.at(50), c - a * 50.0**-alpha, atol=1e-6)


def test_noisy_curves_are_fitted_as_well_as_by_a_general_optimiser():
    rng = np.random.default_rng(0)
    x = np.arange(1, 13)
    curves = 0.9 - 0.6 * x**-0.8 + 0.02 * rng.normal(size=(6, 12))
    fitted = fit_pow3(x, curves)
    for row, y in enumerate(curves):
        ours = ((fitted.c[row] - fitted.a[row] * x ** -fitted.alpha[row] - y) ** 2).sum()
        theirs = min(
            2
            * least_squares(
                lambda p, y=y: p[0] - p[1] * x ** -p[2] - y, start, bounds=([-9, -9, 0.01], [9, 9, 10])
            ).cost
            for start in ([0.9, 0.5, 0.5], [0.8, 0.3, 2.0])
        )
        assert ours <= theirs * (1 + 1e-6)


def test_two_points_are_too_few():
    with pytest.raises(ValueError, match="2 points, pow3 has 3 parameters"):
        fit_pow3(np.arange(1, 3), np.ones((1, 2)))
