"""Both ends of a measurement on this host, in two processes with a processor each (`ffverbs perf --local`).

The server's process is this module run as a script; it inherits one end of a socket pair as its link.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ffverbs._perf import Link, PerfError, Report, Settings, run_client, run_server

__all__ = ["default_cpus", "run_local"]

_ENDS_WITHIN_S = 30.0


def default_cpus() -> tuple[int, int]:
    """Return the first two processors that this process may use (the same one twice if there is only one)."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[min(1, len(allowed) - 1)]


@contextmanager
def _pinned(cpu: int) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _check_cpus(cpus: Sequence[int]) -> None:
    allowed = os.sched_getaffinity(0)
    missing = [cpu for cpu in cpus if cpu not in allowed]
    if len(cpus) != 2 or missing:
        raise PerfError(f"processors {','.join(map(str, cpus))}: name two of {','.join(map(str, sorted(allowed)))}")


def _start_server(link: socket.socket, cpu: int, device: str | None, gid_index: int) -> subprocess.Popen[bytes]:
    package = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    arguments = [str(link.fileno()), str(cpu), device or "", str(gid_index)]
    return subprocess.Popen(
        [sys.executable, "-m", "ffverbs._perf_local", *arguments],
        pass_fds=[link.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
    )


def run_local(
    settings: Settings,
    cpus: tuple[int, int] | None = None,
    device: str | None = None,
    gid_index: int = 1,
) -> Report:
    """Run client (here) and server (a child), pinned to the two processors `cpus`, and return the client's report."""
    chosen = cpus or default_cpus()
    _check_cpus(chosen)
    ours, theirs = socket.socketpair()
    with theirs:
        server = _start_server(theirs, chosen[1], device, gid_index)
    try:
        with _pinned(chosen[0]):
            report = run_client(Link(ours), settings, device, gid_index)
        if server.wait(_ENDS_WITHIN_S) != 0:
            raise PerfError(f"the server's process ended with status {server.returncode}")
        return report
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()


def _serve(descriptor: str, cpu: str, device: str, gid_index: str) -> int:
    os.sched_setaffinity(0, {int(cpu)})
    try:
        run_server(Link(socket.socket(fileno=int(descriptor))), None, device or None, int(gid_index))
    except (PerfError, OSError) as error:
        print(f"ffverbs perf: server: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_serve(*sys.argv[1:]))
