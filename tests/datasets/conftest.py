"""Small data sets in the place of the published ones, and a server for their files."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.datasets.server import Server, running
from tests.datasets.small import WRITERS, Small, write
from weightzoo.datasets.sources import SOURCES


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Small]:
    """Makes a small data set that is known by its name while the test runs."""

    def make(name: str, *, urls: tuple[str, ...] = (), seed: int = 0) -> Small:
        made = write(name, tmp_path / f"files of {name}", urls=urls, seed=seed)
        monkeypatch.setitem(SOURCES, name, made.source)
        return made

    return make


@pytest.fixture(params=WRITERS)
def small(request: pytest.FixtureRequest, known: Callable[..., Small]) -> Small:
    """Each of the published data sets on a small scale."""
    return known(request.param)


@pytest.fixture
def serve() -> Generator[Callable[..., Server]]:
    """Starts servers of files that are given by their paths."""
    with ExitStack() as stack:
        yield lambda files, **options: stack.enter_context(running(Server(files, **options)))
