"""The map against scikit-learn's PCA, the norms against their definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from tests.report.synthetic import HYP, synthetic_zoo
from weightzoo import analysis
from weightzoo.zoo import Zoo

FACTORS = {**{factor: values[:1] for factor, values in HYP.items()}, "activation": ["tanh", "sigmoid", "relu"]}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    path = tmp_path_factory.mktemp("zoos") / "weights"
    return synthetic_zoo(path, FACTORS, seeds=4, epochs=6, kept=(0, 2, 6), diverged=[3], pruned=[5])


def directions(zoo: Zoo, rows: list[int], epoch: int) -> np.ndarray:
    weights = zoo.weights(rows, [epoch])[:, 0].astype(np.float64)
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def test_coordinates_and_shares_are_those_of_pca(zoo: Zoo):
    space = analysis.weight_space(zoo)
    kept = [row for row in range(12) if row not in (3, 5)]
    assert np.flatnonzero(space.mapped).tolist() == kept
    final = directions(zoo, kept, 6)
    pca = PCA(3, svd_solver="full").fit(final)
    expected = pca.transform(final)
    expected *= np.sign(expected[np.abs(expected).argmax(axis=0), range(3)])  # the largest in size is positive
    np.testing.assert_allclose(space.coordinates[kept, -1], expected, atol=2e-7)
    np.testing.assert_allclose(space.explained, pca.explained_variance_ratio_, atol=1e-7)
    earlier = np.abs(pca.transform(directions(zoo, kept, 2)))
    np.testing.assert_allclose(np.abs(space.coordinates[kept, 1]), earlier, atol=2e-7)


def test_the_number_of_threads_that_add_makes_no_difference(zoo: Zoo):
    with threadpool_limits(1):
        one = analysis.weight_space(zoo)
    with threadpool_limits(2):
        two = analysis.weight_space(zoo)
    assert one.coordinates.tobytes() == two.coordinates.tobytes()
    assert one.explained.tobytes() == two.explained.tobytes()
    assert one.norms.tobytes() == two.norms.tobytes()


def test_models_that_did_not_finish_are_not_on_the_map(zoo: Zoo):
    space = analysis.weight_space(zoo)
    assert np.isnan(space.coordinates[[3, 5]]).all()


def test_norms_are_euclidean_and_end_where_a_model_does(zoo: Zoo):
    space = analysis.weight_space(zoo)
    weights = zoo.weights([0], [2])[0, 0].astype(np.float64)
    for layer, norm in zip(space.layers, space.norms[0, 1], strict=True):
        assert norm == pytest.approx(np.linalg.norm(weights[zoo.layout.span(layer)]))
    assert space.total_norms[0, 1] == pytest.approx(np.linalg.norm(weights))
    assert np.isfinite(space.norms[3]).all(axis=1).tolist() == [True, False, False]  # diverged in epoch 2
    assert np.isfinite(space.norms[5]).all(axis=1).tolist() == [True, True, False]  # pruned behind epoch 2


def test_a_model_with_weights_that_are_not_finite_is_left_out_whatever_its_status(tmp_path: Path):
    zoo = synthetic_zoo(tmp_path / "zoo", FACTORS, seeds=2, epochs=3, diverged=[1])
    zoo.models["status"] = "finished"
    space = analysis.weight_space(zoo)
    assert space.mapped.tolist() == [True, False, True, True, True, True]
    assert np.isfinite(space.coordinates[space.mapped]).all()


def test_a_large_zoo_is_sampled_evenly(zoo: Zoo):
    space = analysis.weight_space(zoo, most_models=4)
    assert space.rows.tolist() == [0, 4, 7, 11]
    assert space.norms.shape == (4, 3, 5)


def test_a_model_that_ran_off_does_not_take_the_map_for_itself(tmp_path: Path):
    zoo = synthetic_zoo(tmp_path / "zoo", FACTORS, seeds=2, epochs=3)
    plain = analysis.weight_space(zoo)

    class Enlarged(Zoo):
        def weights(self, models=None, epochs=None, layer=None):
            factors = np.where(np.arange(len(self)) == 4, np.float32(1e6), np.float32(1))
            chosen = factors if models is None else factors[models]
            return super().weights(models, epochs, layer) * chosen[:, None, None]

    enlarged = analysis.weight_space(Enlarged.open(zoo.path))
    np.testing.assert_allclose(enlarged.coordinates, plain.coordinates, atol=1e-6)
    np.testing.assert_allclose(enlarged.total_norms[4], 1e6 * plain.total_norms[4], rtol=1e-5)


def test_equal_models_have_no_map(tmp_path: Path):
    one = {factor: values[:1] for factor, values in HYP.items()}
    space = analysis.weight_space(synthetic_zoo(tmp_path / "zoo", one, seeds=1, epochs=2))
    assert np.isnan(space.explained).all()
    assert not space.coordinates.any()
