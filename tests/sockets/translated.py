"""Runs programs with their sockets translated, or as they are, and tells what went by verbs."""

import os
import random
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ffverbs import _sockets

HANG_SECONDS = 120
# Which ends of a connection are translated; the words are the tests' names.
ENDS = {"both": (True, True), "server": (True, False), "client": (False, True)}


@dataclass
class Ends:
    """Which ends are translated, and where their programs say what they did."""

    server: bool
    client: bool
    report: Path

    def run(self, *command: str | Path, **options: object) -> str:
        """Run a client to its end; its output. CalledProcessError if it failed."""
        return _run(command, self.client, self.report, **options)

    @contextmanager
    def serving(self, *command: str | Path, **options: object) -> Iterator[subprocess.Popen[str]]:
        """Run a server meanwhile; it is told to end afterwards, and killed if it does not."""
        process = subprocess.Popen(
            [str(part) for part in command], env=environment(self.server, self.report), text=True, **options
        )  # type: ignore[call-overload]
        try:
            yield process
        finally:
            end(process)

    def went_by_verbs(self, program: str) -> tuple[int, int]:
        """Of how many connections the program sent and received by verbs, in its processes that have ended so far."""
        lines = [line.split() for line in self.report.read_text().splitlines()] if self.report.exists() else []
        mine = [line for line in lines if line[1] == program]
        return sum(int(line[3]) for line in mine), sum(int(line[4]) for line in mine)

    def check(self, program: str, at_least: int = 1) -> None:
        """The program's connections went by verbs if both ends are translated, else by TCP."""
        sent, received = self.went_by_verbs(program)
        if self.server and self.client:
            assert min(sent, received) >= at_least
        else:
            assert (sent, received) == (0, 0)


def environment(is_translated: bool, report: Path) -> dict[str, str]:
    """Return the environment of a program."""
    base = {**os.environ, "FFVERBS_SOCKETS_REPORT": str(report)}
    return _sockets.environment(base) if is_translated else base


def _run(command: Sequence[str | Path], is_translated: bool, report: Path, **options: object) -> str:
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [str(part) for part in command],
        env=environment(is_translated, report),
        stdout=subprocess.PIPE,
        text=True,
        timeout=HANG_SECONDS,
        check=True,
        **options,
    )  # type: ignore[call-overload]
    return done.stdout


def end(process: subprocess.Popen[str]) -> None:
    """End a process, gently at first."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def free_port() -> int:
    """Return a TCP port that nobody uses, outside of those that the kernel gives to clients."""
    while True:
        port = random.SystemRandom().randrange(12000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def await_port(port: int, process: subprocess.Popen[str]) -> None:
    """Wait until a server accepts connections; AssertionError if it ends instead."""
    deadline = time.monotonic() + HANG_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended with status {process.returncode}"
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError(f"nobody listens at port {port}")
