"""A node directory for each microbenchmark, and a connected pair for those that want one."""

import tempfile
from collections.abc import Iterator

import pytest

from benchmarks.micro.ends import Pair, make_pair


@pytest.fixture(name="directory", autouse=True)
def directory_fixture(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="ffv-") as directory:
        monkeypatch.setenv("FFVERBS_DIR", directory)
        yield directory


@pytest.fixture(name="pair")
def pair_fixture() -> Pair:
    return make_pair()
