"""A process dies (SIGKILL) at every fault point of datagram sockets, in the midst of a conversation.

Nobody is told, as with UDP. The other end goes on with whoever takes the dead one's place, on the same socket, and
keeps nothing of the dead one.
"""

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.sockets.conversation import VERBS
from tests.sockets.datagrams import PROGRAMS
from tests.sockets.test_death import FAULTS, ROOT, settled_descriptors
from tests.sockets.translated import HANG_SECONDS, end

BOTH = ("python", "translated")
CLIENT, EITHER = ("client",), ("server", "client")
MOST_ROUNDS = 2000
DESCRIPTORS_ON_VERBS = 20  # of a process with one socket: at least 21; 8 without, 17 when it has asked only
SETTLED_ROUNDS = 20  # after which both ends are on verbs, surely enough for a process to be told to end

# point: who may die there, and whether that is when it ends.
DEATHS: dict[str, tuple[tuple[str, ...], bool]] = {
    "rs_datagrams_made": (EITHER, False),
    "rs_datagrams_bound": (EITHER, False),
    "rs_datagram_unsent": (EITHER, False),
    "rs_datagram_sent": (EITHER, False),
    "rs_datagram_copied": (EITHER, False),
    "rs_route_unasked": (EITHER, False),
    "rs_route_answered": (EITHER, False),
    "rs_question_read": (EITHER, False),
    "rs_question_answered": (EITHER, False),
    "rs_datagrams_open": (EITHER, True),
    "rs_datagrams_closed": (EITHER, True),
}
CASES = [
    pytest.param(point, victim, face, id=f"{point}-{victim}-{face}")
    for point, (victims, _) in DEATHS.items()
    for victim in victims
    for face in BOTH
]


class Process:
    """An end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self.stdin, self.stdout = process.stdin, process.stdout

    def line(self) -> str:
        """What it says, to the end of the line; nothing if it has died."""
        return self.stdout.readline().strip()

    def says_something(self, seconds: float) -> bool:
        return bool(select.select([self.stdout], [], [], seconds)[0])


@contextmanager
def running(face: str, *arguments: str, fault: str = "") -> Iterator[Process]:
    """An end in a process of its own, of the engine with fault points."""
    if not FAULTS.exists():
        pytest.fail(f"{FAULTS} is not there: run `make faults`")
    environ = {**os.environ, "FFVERBS_IP": "10.7.7.7", "PYTHONPATH": f"{FAULTS}{os.pathsep}{ROOT}"}
    environ.pop("FFVERBS_FAULT", None)
    if fault:
        environ["FFVERBS_FAULT"] = fault
    if face == "translated":
        environ["LD_PRELOAD"] = str(FAULTS / "ffverbs" / "libffv_sockets.so")
    as_module = VERBS if face == "python" else ()
    command = [sys.executable, "-P", *as_module, PROGRAMS, *arguments]
    process = subprocess.Popen(command, env=environ, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Process(process)
    finally:
        with contextlib.suppress(BrokenPipeError):  # what the dead one was told last
            Process(process).stdin.close()
        end(process)


def say(client: Process, count: int) -> bool:
    """Have it ask so many times; False if it is dead."""
    try:
        client.stdin.write(f"{count}\n")
        client.stdin.flush()
    except BrokenPipeError:
        return False
    return True


def converse_until_death(client: Process, victim: Process, dies_at_its_end: bool) -> bool:
    """Round after round; True if the client owes an answer yet."""
    for round_ in range(MOST_ROUNDS):
        if dies_at_its_end and round_ == SETTLED_ROUNDS:
            victim.stdin.close()
            assert victim.process.wait(HANG_SECONDS) == -9
            return False
        if not say(client, 20):
            break
        deadline = time.monotonic() + HANG_SECONDS
        while not client.says_something(0.05):
            assert time.monotonic() < deadline
            if victim.process.poll() is not None:
                break
        if victim.process.poll() is not None:
            break
        client.line()
    assert victim.process.wait(HANG_SECONDS) == -9
    return client is not victim


def check(client: Process) -> None:
    assert say(client, 100)
    assert client.line() == "100"


def await_verbs(client: Process) -> None:
    """Converse until its socket is on verbs: seconds, if the address was asked for while nobody was there."""
    deadline = time.monotonic() + HANG_SECONDS
    while len(os.listdir(f"/proc/{client.process.pid}/fd")) < DESCRIPTORS_ON_VERBS:
        assert time.monotonic() < deadline
        check(client)


@pytest.mark.parametrize(("point", "victim", "face"), CASES)
def test_death(point: str, victim: str, face: str) -> None:
    fault, dies_at_its_end = f"{point}:1:kill", DEATHS[point][1]
    at_server, at_client = (fault, "") if victim == "server" else ("", fault)
    with running(face, "serve", "127.0.0.1", fault=at_server) as server:
        port = server.line()
        if not port:  # it died at its socket's birth
            assert server.process.wait(HANG_SECONDS) == -9
            return
        with running(face, "ask", "127.0.0.1", port, fault=at_client) as client:
            dying, survivor = (server, client) if victim == "server" else (client, server)
            owes = converse_until_death(client, dying, dies_at_its_end)
            counts: list[int] = []
            for _ in range(2):
                if victim == "server":
                    with running(face, "serve", "127.0.0.1", port) as successor:
                        assert successor.line() == port
                        if owes:
                            assert client.line() == "20"
                            owes = False
                        check(client)
                        await_verbs(client)
                else:
                    with running(face, "ask", "127.0.0.1", port) as successor:
                        check(successor)
                counts.append(settled_descriptors(survivor.process.pid, counts[0] if counts else 0))
            assert counts[1] <= counts[0]
