"""Debian's pyverbs as the reference: evaluates expressions in a process that can import it, and returns the values."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

DEBIAN_PACKAGES = "/usr/lib/python3/dist-packages"

_CHILD = """
import json, sys
preamble, expressions = json.load(sys.stdin)
space = {}
exec(preamble, space)
def value(expression):
    try:
        return eval(expression, space)
    except Exception as error:
        return [type(error).__name__, str(error)]
json.dump([value(e) for e in expressions], sys.stdout)
"""


def evaluate(preamble: str, *expressions: str) -> list[Any]:
    """Return the values (as JSON carries them) of `expressions` after `preamble`; an exception is [class, text].

    Skips the calling test, saying why, where pyverbs cannot be imported.
    """
    environment = {**os.environ, "PYTHONPATH": DEBIAN_PACKAGES}
    probe = subprocess.run(
        [sys.executable, "-c", "import pyverbs.enums"], env=environment, capture_output=True, text=True, check=False
    )
    if probe.returncode:
        pytest.skip(f"no pyverbs to compare with (apt-get install python3-pyverbs): {probe.stderr.strip()[-200:]}")
    done = subprocess.run(
        [sys.executable, "-c", _CHILD],
        input=json.dumps([preamble, expressions]),
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    values: list[Any] = json.loads(done.stdout)
    return values


def evaluate_here(preamble: str, *expressions: str) -> list[Any]:
    """Evaluate the same in this process, with `pyverbs` in the text read as `ffverbs`."""
    space: dict[str, Any] = {}
    exec(preamble.replace("pyverbs.", "ffverbs."), space)

    def value(expression: str) -> Any:
        try:
            return eval(expression, space)
        except Exception as error:
            return [type(error).__name__, str(error)]

    values: list[Any] = json.loads(json.dumps([value(expression) for expression in expressions]))
    return values
