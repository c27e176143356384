"""What every Python test shares: a printed seed and a node directory of its own."""

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_report_header() -> str:
    return f"random seed: {seed()} (FFVERBS_TEST_SEED sets it)"


def seed() -> int:
    """Return the seed of this run: the same for every test, from FFVERBS_TEST_SEED or made anew."""
    if "FFVERBS_TEST_SEED" not in os.environ:
        os.environ["FFVERBS_TEST_SEED"] = str(random.SystemRandom().randrange(2**32))
    return int(os.environ["FFVERBS_TEST_SEED"])


@pytest.fixture(name="seed")
def seed_fixture() -> int:
    """The seed of this run, for tests that draw at random."""
    return seed()


@pytest.fixture(autouse=True)
def node_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give every test a node directory of its own, by a path short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="ffv-") as directory:
        monkeypatch.setenv("FFVERBS_DIR", directory)
        random.seed(seed())
        yield Path(directory)
