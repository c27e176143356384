"""Runs programs with their sockets translated, or as they are, and tells what went by verbs."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ffverbs import _sockets

HANG_SECONDS = 120
# Which ends of a connection are translated; the words are the tests' names.
ENDS = {"both": (True, True), "server": (True, False), "client": (False, True)}
_CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).close()
except OSError:
    sys.exit(1)
"""


# A connection asks for a stream for a second or so: where processors are scarce it may be the next one that gets it.
_LINES = """
import ctypes, socket, sys, time
state = ctypes.CDLL(None).ffv_sockets_state if sys.argv[3] == "both" else lambda _: 3
left = 500
while left:
    end = time.monotonic() + 5
    with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as sock, sock.makefile("rw") as file:
        while left and (left < 500 or time.monotonic() < end):
            file.write(f"{left}\\n")
            file.flush()
            assert file.readline() == f"{left}\\n"
            left -= state(sock.fileno()) == 3
"""


@dataclass
class Place:
    """Where the programs of an end run: what goes before their commands, and what they find in the environment."""

    prefix: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    address: str = "127.0.0.1"


@dataclass
class Ends:
    """Which ends are translated, where they are, and where their programs say what they did."""

    server: bool
    client: bool
    report: Path
    server_at: Place = field(default_factory=Place)
    client_at: Place = field(default_factory=Place)

    def run(self, *command: str | Path, may_fail: bool = False, **options: object) -> str:
        """Run a client to its end; its output. CalledProcessError if it failed."""
        environ = self._environment(self.client, self.client_at)
        return _run(self._command(command, self.client_at), environ, may_fail, **options)

    def starting(self, *command: str | Path, **options: object) -> subprocess.Popen[str]:
        """Start a client, which the caller ends."""
        process: subprocess.Popen[str] = subprocess.Popen(
            self._command(command, self.client_at),
            env=self._environment(self.client, self.client_at),
            text=True,
            **options,
        )  # type: ignore[call-overload]
        return process

    def talk_until_on_verbs(self, port: str) -> None:
        """Exchange lines with an echo server until 500 of them went by verbs; 500 lines if one end is TCP only."""
        kind = "both" if self.server and self.client else "one"
        self.run(sys.executable, "-c", _LINES, self.server_at.address, port, kind)

    def efforts(self, program: str, went: Callable[[str], tuple[int, int]] | None = None) -> Iterator[int]:
        """Yield 1, 2, 4 and so on until the program's connections have gone by verbs; 1 alone if one end is TCP only.

        A client is to do so many times its work: a short one may have done it all before there is a stream.
        """
        deadline, effort = time.monotonic() + HANG_SECONDS, 1
        while True:
            yield effort
            if not (self.server and self.client) or min((went or self.went_by_verbs)(program)) > 0:
                return
            assert time.monotonic() < deadline, f"nothing goes by verbs: {self.report.read_text()}"
            effort = min(2 * effort, 16)

    @contextmanager
    def serving(self, *command: str | Path, **options: object) -> Iterator[subprocess.Popen[str]]:
        """Run a server meanwhile; it is told to end afterwards, and killed if it does not."""
        process = subprocess.Popen(
            self._command(command, self.server_at),
            env=self._environment(self.server, self.server_at),
            text=True,
            **options,
        )  # type: ignore[call-overload]
        try:
            yield process
        finally:
            end(process)

    def await_port(self, port: int, process: subprocess.Popen[str]) -> None:
        """Wait until the server accepts connections; AssertionError if it ends instead."""
        where = (self.server_at.address, str(port))
        command = [*self.server_at.prefix, sys.executable, "-c", _CONNECT, *where]
        deadline = time.monotonic() + HANG_SECONDS
        while subprocess.run(command, check=False, timeout=HANG_SECONDS).returncode:
            assert process.poll() is None, f"the server ended with status {process.returncode}"
            assert time.monotonic() < deadline, f"nobody listens at {where}"
            time.sleep(0.02)

    @staticmethod
    def _command(command: Sequence[str | Path], place: Place) -> list[str]:
        return [*place.prefix, *(str(part) for part in command)]

    def _environment(self, is_translated: bool, place: Place) -> dict[str, str]:
        return {**environment(is_translated, self.report), **place.environment}

    def went_by_verbs(self, program: str) -> tuple[int, int]:
        """Of how many connections the program sent and received by verbs, in its processes that have ended so far."""
        lines = [line.split() for line in self.report.read_text().splitlines()] if self.report.exists() else []
        mine = [line for line in lines if line[1] == program]
        return sum(int(line[3]) for line in mine), sum(int(line[4]) for line in mine)

    def datagrams_by_verbs(self, program: str) -> tuple[int, int]:
        """How many datagrams the program's processes that have ended so far sent and received by verbs."""
        lines = [line.split() for line in self.report.read_text().splitlines()] if self.report.exists() else []
        mine = [line for line in lines if line[1] == program]
        return sum(int(line[5]) for line in mine), sum(int(line[6]) for line in mine)

    def check_datagrams(self, program: str) -> None:
        """The program's datagrams went by verbs, both ways, if both ends are translated, else none."""
        sent, received = self.datagrams_by_verbs(program)
        if self.server and self.client:
            assert min(sent, received) > 0, self.report.read_text() if self.report.exists() else "no report"
        else:
            assert (sent, received) == (0, 0)

    def check(self, program: str, at_least: int = 1) -> None:
        """The program's connections went by verbs if both ends are translated, else by TCP."""
        sent, received = self.went_by_verbs(program)
        if self.server and self.client:
            assert min(sent, received) >= at_least, self.report.read_text() if self.report.exists() else "no report"
        else:
            assert (sent, received) == (0, 0)


def need(*programs: str) -> None:
    """Skip the test if a program is not there."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (tests/setup/system_packages.sh test)")


def environment(is_translated: bool, report: Path) -> dict[str, str]:
    """Return the environment of a program."""
    base = {**os.environ, "FFVERBS_SOCKETS_REPORT": str(report)}
    return _sockets.environment(base) if is_translated else base


def _run(command: Sequence[str], environ: dict[str, str], may_fail: bool = False, **options: object) -> str:
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, env=environ, stdout=subprocess.PIPE, text=True, timeout=HANG_SECONDS, check=not may_fail, **options
    )  # type: ignore[call-overload]
    return done.stdout


def end(process: subprocess.Popen[str]) -> None:
    """End a process, gently at first."""
    if process.stdin is not None and not process.stdin.closed:
        process.stdin.close()  # which those that are in a PID namespace of their own mind more than a signal
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
