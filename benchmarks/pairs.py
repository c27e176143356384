"""Peers' programs that come as a server, which listens on a TCP port, and a client: run pinned, one core each."""

import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.programs import NotMeasuredError, run

LISTEN: Final = "0A"  # the state's number in /proc/net/tcp


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    """Look without connecting: the server takes its first connection for its client."""
    for family in ("tcp", "tcp6"):
        with open(f"/proc/net/{family}", encoding="ascii") as table:
            rows = [line.split() for line in table][1:]
        if any(int(row[1].split(":")[1], 16) == port and row[3] == LISTEN for row in rows):
            return True
    return False


def wait_for_listener(server: "subprocess.Popen[bytes]", name: str, port: int, deadline_s: float = 10) -> None:
    """Wait until the server listens; NotMeasuredError if it ends instead, or does not in time."""
    end = time.monotonic() + deadline_s
    while not _listens(port):
        if server.poll() is not None or time.monotonic() > end:
            raise NotMeasuredError(f"{name}: its server does not listen (exit code {server.poll()})")
        time.sleep(0.01)


def run_pair(
    server: Sequence[str], client: Sequence[str], port: int, cpus: str, env: Mapping[str, str] | None = None
) -> str:
    """Run the client to its end, once the server listens on `port`, and return what it printed."""
    first, second = cpus.split(",")
    running = subprocess.Popen(
        ["taskset", "-c", first, *server],
        env={**os.environ, **(env or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_listener(running, server[0], port)
        return run(["taskset", "-c", second, *client], env=env)
    finally:
        running.terminate()
        running.wait()
