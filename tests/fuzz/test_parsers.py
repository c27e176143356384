"""Some seconds of libFuzzer over everything that a peer or a container can send to a router (long.py: minutes)."""

import subprocess
from pathlib import Path

import pytest

from tests.fuzz import programs

_SECONDS = 5


@pytest.fixture(scope="module", name="built")
def built_fixture() -> None:
    if why := programs.missing():
        pytest.skip(why)
    try:
        programs.build()
    except subprocess.CalledProcessError as error:
        pytest.fail(error.stdout.decode("utf-8", "replace")[-4000:])


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_nothing_that_is_sent_harms_a_router(name: str, tmp_path: Path) -> None:
    programs.seed(name, tmp_path / "corpus")
    done = subprocess.run(
        [*programs.command(name, _SECONDS, "-seed=1"), str(tmp_path / "corpus")],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False, timeout=800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:]
    assert "Done" in done.stderr
