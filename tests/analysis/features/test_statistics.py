"""s(W) against NumPy and SciPy, parameter by parameter, and which states are there."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tests.benchmarks.features import measure
from weightzoo.analysis.features import feature_matrix, states_of
from weightzoo.errors import NotFoundError
from weightzoo.zoo import Zoo


def test_statistics_are_those_of_numpy(small_zoo: Zoo):
    found = feature_matrix(small_zoo, ["statistics", "more"], epochs=[0, 4])
    for model, epoch in ((0, 0), (7, 4)):
        row = found.loc[(model, epoch)]
        for name, tensor in small_zoo.state_dict(model, epoch).items():
            values = tensor.astype(np.float64).reshape(-1)
            expected = {"mean": values.mean(), "variance": values.var()}
            expected |= {f"q{share}": np.percentile(values, share) for share in (1, 25, 50, 75, 99)}
            for column, value in expected.items():
                assert row[f"statistics:{name}.{column}"] == pytest.approx(value, rel=1e-4, abs=1e-7)
            more = {
                "skewness": stats.skew(values),
                "kurtosis": stats.kurtosis(values),
                "q90": np.percentile(values, 90),
            }
            more |= {"below_0.01": (np.abs(values) < 0.01).mean(), "log_deviation": np.log10(values.std())}
            for column, value in more.items():
                assert row[f"more:{name}.{column}"] == pytest.approx(value, rel=1e-3, abs=1e-5)
    assert found["statistics:fc2.bias.mean"].dtype == np.float32
    assert sum(column.startswith("statistics:") for column in found) == 7 * len(small_zoo.layout.names)


def test_w_is_the_weight_vector_by_name(small_zoo: Zoo):
    found = feature_matrix(small_zoo, ["raw"], epochs=[2])
    np.testing.assert_array_equal(found.loc[(4, 2)], small_zoo.weights([4], [2])[0, 0])
    assert found.loc[(4, 2), "raw:fc2.bias[3]"] == small_zoo.state_dict(4, 2)["fc2.bias"][3]


def test_only_states_that_are_there_have_a_row(small_zoo: Zoo):
    found = feature_matrix(small_zoo, epochs=[0, 2, 4])
    expected = [(model, epoch) for model in range(8) for epoch in (0, 2, 4) if epoch == 0 or model not in (3, 5)]
    assert [tuple(at) for at in found.index] == expected
    assert len(states_of(small_zoo)) == len(found)
    assert np.isfinite(found.to_numpy()).all()


def test_batches_make_no_difference(small_zoo: Zoo, monkeypatch: pytest.MonkeyPatch):
    names = ["statistics", "spectral", "invariant", "more"]
    whole = feature_matrix(small_zoo, names)
    monkeypatch.setattr("weightzoo.analysis.features.states._MOST_STATES", 3)
    np.testing.assert_allclose(feature_matrix(small_zoo, names), whole, rtol=1e-4, atol=1e-6)
    some = whole.index.to_frame(index=False).iloc[[1, 9, 15]]  # few of many: read one by one
    np.testing.assert_allclose(
        feature_matrix(small_zoo, names, states=some), whole.iloc[[1, 9, 15]], rtol=1e-4, atol=1e-6
    )


def test_what_is_not_there_is_said(small_zoo: Zoo):
    with pytest.raises(NotFoundError, match=r"no features 'statistic'.*statistics"):
        feature_matrix(small_zoo, ["statistic"])
    with pytest.raises(NotFoundError, match="does not hold epoch 3; it has 0 to 4"):
        feature_matrix(small_zoo, epochs=[3])
    with pytest.raises(NotFoundError, match="needs the images of digits"):
        feature_matrix(small_zoo, ["margins"])
    with pytest.raises(NotFoundError, match="holds no probe outputs"):
        feature_matrix(small_zoo, ["probe"])


def test_the_benchmark_counts_states(small_zoo: Zoo):
    found = measure(small_zoo.path, ["statistics", "margins"], states=7)
    assert set(found) == {"statistics"}  # there are no images beside this zoo
    assert found["statistics"]["states"] == 7
    assert found["statistics"]["columns"] == 70
