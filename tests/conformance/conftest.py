"""Instantiates the suite of verbs behaviour: a test that takes `pair` runs once for every path of `paths.PATHS`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ffverbs import _containers as containers
from tests.conformance.pair import Pair
from tests.conformance.paths import PATHS, Workers


@pytest.fixture(scope="session", name="workers")
def workers_fixture() -> Iterator[Workers]:
    """The worker processes of this session."""
    workers = Workers()
    yield workers
    workers.close()


@pytest.fixture(params=PATHS)
def pair(request: pytest.FixtureRequest, workers: Workers, node_directory: Path) -> Iterator[Pair]:
    """Two sides that can be connected, on each path."""
    yield from _pair(request, workers, node_directory)


@pytest.fixture(params=[path for path in PATHS if path != "self"])
def apart(request: pytest.FixtureRequest, workers: Workers, node_directory: Path) -> Iterator[Pair]:
    """Two sides that are two queue pairs, on each path."""
    yield from _pair(request, workers, node_directory)


def _pair(request: pytest.FixtureRequest, workers: Workers, node_directory: Path) -> Iterator[Pair]:
    path = request.param
    if path == "containers" and (reason := containers.unavailable()):
        pytest.skip(f"containers cannot be made on this host: {reason}")
    with workers.pair(path, node_directory) as made:
        yield made


@pytest.fixture
def here(workers: Workers, node_directory: Path) -> Iterator[Pair]:
    """Two contexts of this process: for what does not depend on where the other side is."""
    with workers.pair("contexts", node_directory) as made:
        yield made
