"""An editor and mypy know ffverbs' interface: a pyverbs program passes their strictest check once it is ported."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))

WRONG = """
from ffverbs.cq import CQ
from ffverbs.device import Context
from ffverbs.pd import PD
from ffverbs.wr import SGE, SendWR

context = Context(name="ffv0")
cq = CQ(context, "16")
pd = PD(context, 4, 5)
SendWR(sg=SGE(1, 2, 3))
cq.pull()
completion = cq.poll()[1]
"""


def check(program: str, folder: Path) -> list[str]:
    """Return what mypy --strict has to say about a program; the project's own settings do not count."""
    path = folder / "program.py"
    path.write_text(program, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--warn-unreachable", "--config-file=", "--no-error-summary"]
    command += [f"--cache-dir={ROOT / '.mypy_cache'}", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return [re.sub(r"^.*?program\.py:", "", line) for line in done.stdout.splitlines()]


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "ffverbs" / "py.typed").exists()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_ported_examples(path: Path, tmp_path: Path) -> None:
    # What it keeps for the names of an older pyverbs goes when it is ported.
    ported = re.sub(r"try:\n    (import .*)\nexcept ImportError:.*\n.*\n", r"\1\n", path.read_text(encoding="utf-8"))
    ported = re.sub(r"\bpyverbs\b", "ffverbs", ported)
    assert "ffverbs" in ported
    assert check(ported, tmp_path) == []


def test_mistakes_are_found(tmp_path: Path) -> None:
    found = check(WRONG, tmp_path)
    lines = {int(text.partition(":")[0]) for text in found if "error" in text}
    assert lines == {8, 9, 10, 11}, found
