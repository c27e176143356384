"""Both ends of a conversation on this host; modules with ends elsewhere have fixtures of their own by these names."""

from pathlib import Path

import pytest

from tests.sockets.translated import ENDS, Ends


@pytest.fixture(params=ENDS)
def ends(request: pytest.FixtureRequest, tmp_path: Path) -> Ends:
    """Both ends translated, or one."""
    return Ends(*ENDS[request.param], tmp_path / "report")


@pytest.fixture
def both(tmp_path: Path) -> Ends:
    """Both ends translated."""
    return Ends(True, True, tmp_path / "report")
