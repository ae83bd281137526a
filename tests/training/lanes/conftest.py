from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cache(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Machine code of earlier test runs: compiling takes most of the time of these tests, and is tested by itself."""
    if pytestconfig.cache is None:
        return tmp_path_factory.mktemp("lanes")
    return Path(pytestconfig.cache.mkdir("lanes"))
