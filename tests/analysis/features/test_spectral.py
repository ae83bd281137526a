"""Power laws against powerlaw and weightwatcher, norms against NumPy."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from weightzoo.analysis.features import feature_matrix
from weightzoo.analysis.features.spectral import eigenvalues, fit_power_law, spectral_metrics
from weightzoo.zoo import Zoo


@pytest.mark.parametrize("size", [20, 90])
def test_alpha_is_that_of_powerlaw(size: int):
    powerlaw = pytest.importorskip("powerlaw")
    rng = np.random.default_rng(size)
    values = np.sort(np.stack([rng.pareto(shape, size) + rng.uniform(0, 2, size) for shape in (1.0, 2.5, 4.0)]), axis=1)
    alphas, distances, starts = fit_power_law(values)
    for row, alpha, distance, start in zip(values, alphas, distances, starts, strict=True):
        bounds = {"alpha": [1, 100]}  # by default it takes none above 3
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            fitted = powerlaw.Fit(row, verbose=False, parameter_ranges=bounds).power_law
        assert fitted.xmin == pytest.approx(start)
        assert fitted.alpha == pytest.approx(alpha, rel=1e-6)
        assert float(fitted.D) == pytest.approx(distance, rel=1e-6)


def test_layers_are_those_of_weightwatcher():
    weightwatcher = pytest.importorskip("weightwatcher")
    logging.getLogger("weightwatcher").setLevel(logging.ERROR)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(6, 12, 3), nn.Flatten(), nn.Linear(60, 40))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        details = weightwatcher.WeightWatcher(model=model).analyze(randomize=False, plot=False)
    for row, layer in zip(details.itertuples(), (model[0], model[2]), strict=True):
        spectra = eigenvalues(layer.weight.detach().numpy()[None])
        ours = {name: values[0] for name, values in spectral_metrics(spectra).items()}
        assert len(spectra[0]) == row.num_evals
        assert ours["alpha"] == pytest.approx(row.alpha, rel=1e-5)
        assert ours["distance"] == pytest.approx(row.D, rel=1e-5)
        assert ours["stable_rank"] == pytest.approx(row.stable_rank, rel=1e-5)
        if isinstance(layer, nn.Linear):  # of convolutions, weightwatcher's norms are scaled by the kernel's size
            assert ours["log_frobenius"] == pytest.approx(row.log_norm, rel=1e-5)
            assert ours["log_spectral"] == pytest.approx(row.log_spectral_norm, rel=1e-5)
            assert ours["alpha_weighted"] == pytest.approx(row.alpha_weighted, rel=1e-5)
            assert ours["log_alpha"] == pytest.approx(row.log_alpha_norm, rel=1e-5)


def test_norms_are_those_of_numpy(small_zoo: Zoo):
    found = feature_matrix(small_zoo, ["spectral"], epochs=[4]).loc[(6, 4)]
    weight = small_zoo.state_dict(6, 4)["fc1.weight"].astype(np.float64)
    assert found["spectral:fc1.weight.log_frobenius"] == pytest.approx(np.log10((weight**2).sum()), rel=1e-5)
    assert found["spectral:fc1.weight.log_spectral"] == pytest.approx(2 * np.log10(np.linalg.norm(weight, 2)), rel=1e-5)


def test_a_tail_that_cannot_be_fitted_is_missing():
    few, same = np.arange(1.0, 8.0)[None], np.ones((1, 30))
    nothing = np.zeros((1, 30))
    for values in (few, same, nothing):
        assert np.isnan(fit_power_law(values)[0]).all()
    assert np.isnan(spectral_metrics(nothing)["log_spectral"]).all()
    assert spectral_metrics(same)["stable_rank"][0] == pytest.approx(30)
    assert spectral_metrics(same)["entropy"][0] == pytest.approx(1)
