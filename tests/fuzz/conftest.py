"""The victim and its honest peer, connected and talking, for every test of this folder."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.pair import Options
from tests.fuzz.actor import Remote, cast, connect, talk

ROUNDS = int(os.environ.get("FFVERBS_FUZZ_ROUNDS", "1"))


@pytest.fixture
def pair(node_directory: Path) -> Iterator[tuple[Remote, Remote]]:
    """(victim, honest peer): connected and proven to work; both must end well after the test."""
    with cast(node_directory, "victim", "honest") as (victim, honest):
        for actor in (victim, honest):
            actor.create(Options(qps=2))
        connect(victim, honest)
        talk(victim, honest, 1)
        yield victim, honest
        talk(victim, honest, 2)
        for actor in (victim, honest):
            assert actor.end() == 0, f"{actor.name} did not end well"


@pytest.fixture
def rounds() -> int:
    """How often longer than in `make test` to go on: FFVERBS_FUZZ_ROUNDS."""
    return ROUNDS
