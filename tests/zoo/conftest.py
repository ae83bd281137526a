"""A packed zoo of synthetic models, with the records it was written from."""

from __future__ import annotations

import pytest

from tests.zoo import synthetic_zoo
from weightzoo.zoo import Zoo, write_zoo


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """`(path, header, records)` of a zoo of 12 models and epochs 0..4, read-only for tests."""
    head = synthetic_zoo.header(12)
    made = synthetic_zoo.records(head)
    path = write_zoo(tmp_path_factory.mktemp("zoos") / "synthetic", head, made)
    return path, head, made


@pytest.fixture
def zoo(written) -> Zoo:
    return Zoo.open(written[0])
