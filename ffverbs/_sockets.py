"""Runs programs with their TCP connections on verbs: `ffverbs sockets -- PROGRAM ARGS`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["environment", "run"]

_LIBRARY = Path(__file__).with_name("libffv_sockets.so")


def environment(base: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which programs load the library that translates their sockets.

    Raises ImportError if the library was not built.
    """
    if not _LIBRARY.exists():
        raise ImportError(f"{_LIBRARY} is missing: build it with `pip install .` in the source tree")
    others = [name for name in base.get("LD_PRELOAD", "").replace(":", " ").split() if name != str(_LIBRARY)]
    return {**base, "LD_PRELOAD": ":".join([str(_LIBRARY), *others])}


def run(command: Sequence[str]) -> None:
    """Become the program `command[0]`, looked for in PATH; OSError if it cannot be started."""
    os.execvpe(command[0], list(command), environment(os.environ))
