"""Where the benchmarks run: the machine, and the `ffverbs` of the environment."""

import platform
import shutil
import sys
from pathlib import Path
from typing import Any


def ffverbs_command() -> str:
    """Return the `ffverbs` of the environment that runs this, else the one in PATH."""
    beside = Path(sys.executable).with_name("ffverbs")
    return str(beside) if beside.exists() else shutil.which("ffverbs") or "ffverbs"


def describe() -> dict[str, Any]:
    """Return what a reader of figures needs to know of the machine."""
    lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    return {"cpu": model, "kernel": platform.release(), "python": platform.python_version()}
