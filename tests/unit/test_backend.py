"""FFVERBS_BACKEND: one import serves machines with and without a real device."""

import os
import subprocess
import sys
from pathlib import Path

from tests.unit.real_pyverbs import DEBIAN_PACKAGES, evaluate

HOME = Path(__file__).parents[2]
SAME = """
import sys
import ffverbs.device as d, ffverbs.enums as e
from ffverbs.qp import QPInitAttr
import pyverbs, pyverbs.device, pyverbs.qp, ffverbs
assert d is pyverbs.device is ffverbs.device is sys.modules["ffverbs.device"], d
assert QPInitAttr is pyverbs.qp.QPInitAttr and d.__file__.startswith("/usr/lib/python3"), d.__file__
assert "ffverbs._native" not in sys.modules
ffverbs.install_as_pyverbs()
import pyverbs.cq
assert pyverbs.cq.__name__ == "pyverbs.cq"
print("same")
"""


def python(*arguments: str, backend: str, path: str = f"{HOME}:{DEBIAN_PACKAGES}") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": path, "FFVERBS_BACKEND": backend}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60, cwd="/"
    )


def test_pyverbs_itself_is_handed_out() -> None:
    evaluate("", "1")  # skips where there is none
    done = python("-c", SAME, backend="pyverbs")
    assert done.stdout == "same\n", done.stderr


def test_a_program_runs_on_it() -> None:
    evaluate("", "1")
    done = python("-m", "ffverbs", "-c", "import pyverbs.device as d; print(d.__name__)", backend="pyverbs")
    assert done.stdout == "pyverbs.device\n", done.stderr


def test_what_it_has_not_is_not_replaced() -> None:
    evaluate("", "1")
    done = python("-c", "import ffverbs.comp_cntr", backend="pyverbs")
    assert "the installed pyverbs has no pyverbs.comp_cntr" in done.stderr
    assert "unset" in done.stderr


def test_the_command_stays_that_of_this_engine() -> None:
    evaluate("", "1")
    done = python("-c", "import ffverbs.cli, ffverbs.base; print(ffverbs.base.__name__)", backend="pyverbs")
    assert done.stdout == "ffverbs.base\n", done.stderr


def test_without_pyverbs_one_line_says_what_to_do() -> None:
    done = python("-c", "import ffverbs", backend="pyverbs", path=str(HOME))
    assert "ImportError: FFVERBS_BACKEND=pyverbs, but no pyverbs is installed: install it" in done.stderr


def test_another_backend_is_refused() -> None:
    done = python("-c", "import ffverbs", backend="quantum")
    assert "ImportError: FFVERBS_BACKEND=quantum is neither ffverbs nor pyverbs" in done.stderr


def test_ffverbs_is_the_one_without_a_word() -> None:
    done = python("-c", "import ffverbs.enums; print(ffverbs.enums.__name__)", backend="ffverbs")
    assert done.stdout == "ffverbs.enums\n", done.stderr
