"""One zoo of each kind, written once: the tests only read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.gallery import gallery
from tests.report.synthetic import HYP, synthetic_zoo
from weightzoo.analysis.output import write_analysis
from weightzoo.analysis.results import Context
from weightzoo.report import write_report
from weightzoo.zoo import Zoo

SMALL = {
    **{factor: values[:1] for factor, values in HYP.items()},
    "activation": ["tanh", "relu"],
    "dropout": [0.0, 0.5],
}


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """12 models, 6 epochs; model 2 diverged in epoch 2, model 7 was pruned behind it."""
    return synthetic_zoo(tmp_path_factory.mktemp("zoos") / "small", SMALL, seeds=3, epochs=6, diverged=[2], pruned=[7])


@pytest.fixture(scope="session")
def report(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of `zoo` with an analysis, to be read only."""
    folder = tmp_path_factory.mktemp("reports") / "small"
    write_analysis(folder, zoo, Context(), gallery())
    return write_report(zoo, folder).parent
