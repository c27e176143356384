"""Stopping another process (SIGSTOP): the signal stops one thread after the other, so what must stand is waited for."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

WITHIN_S = 20.0  # mostly a millisecond, but the machine may be busy


def wait_until_stopped(pid: int) -> None:
    """Wait until every thread of the process stands."""
    deadline = time.monotonic() + WITHIN_S
    while set(states := _thread_states(pid)) != {"T"}:
        assert time.monotonic() < deadline, f"process {pid} does not stop: {states}"
        time.sleep(0.0005)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Let the process stand meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until_stopped(pid)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _thread_states(pid: int) -> list[str]:
    """Return the state letter of every thread, of which some may end meanwhile."""
    states = []
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            states.append(stat.read_text().rsplit(")", 1)[1].split()[0])
    return states
