"""A process dies (SIGKILL) at every fault point of the sockets, in the midst of a conversation.

The other end sees what the kernel's TCP would show it, soon; then it goes on with others, and keeps nothing of
the dead one.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.sockets.conversation import End
from tests.sockets.translated import HANG_SECONDS, end

ROOT = Path(__file__).resolve().parents[2]
FAULTS = ROOT / "build" / "faults" / "package"
WITHIN_S = 20.0  # of the death; mostly milliseconds, but the machine may be busy
GONE = {"EOF", "ECONNRESET", "EPIPE"}
ENDING = {"finished", "ENOTCONN"}  # had all, or sees the end when it says its own
NOTHING = {"nobody"}  # the survivor has not heard of the connection
BOTH, PYTHON, TRANSLATED = ("python", "translated"), ("python",), ("translated",)
CLIENT, SERVER, EITHER = ("client",), ("server",), ("client", "server")

# point: who may die there, in which of the faces; what that one does with the connection; how it ends for the other.
DEATHS: dict[str, tuple[tuple[str, ...], tuple[str, ...], str, set[str]]] = {
    "rs_connect_unasked": (CLIENT, BOTH, "no", GONE | NOTHING),
    "rs_connect_asked": (CLIENT, BOTH, "no", GONE | NOTHING),
    "rs_connect_answered": (CLIENT, BOTH, "no", GONE | NOTHING),
    "rs_accept_made": (SERVER, BOTH, "no", GONE | {"ECONNREFUSED"}),
    "rs_accept_said": (SERVER, BOTH, "no", GONE | {"ECONNREFUSED"}),
    "rs_accept_queued": (SERVER, PYTHON, "no", GONE | {"ECONNREFUSED"}),
    "rs_accept_taken": (SERVER, PYTHON, "no", GONE | {"ECONNREFUSED"}),
    "rs_send_staged": (EITHER, BOTH, "no", GONE),
    "rs_send_written": (EITHER, BOTH, "no", GONE),
    "rs_receive_copied": (EITHER, BOTH, "no", GONE),
    "rs_receive_uncredited": (EITHER, BOTH, "no", GONE),
    "rs_receive_credited": (EITHER, BOTH, "no", GONE),
    "rs_shut_unsaid": (EITHER, BOTH, "no", GONE | ENDING),
    "rs_shut_said": (EITHER, BOTH, "no", GONE | ENDING),
    "rs_close_unsaid": (EITHER, BOTH, "no", {"finished"}),
    "rs_close_said": (EITHER, BOTH, "no", {"finished"}),
    "rs_mark_unsaid": (EITHER, TRANSLATED, "no", GONE),
    "rs_mark_said": (EITHER, TRANSLATED, "no", GONE),
    "pre_stream_asked": (EITHER, TRANSLATED, "no", GONE),
    "pre_stream_attached": (EITHER, TRANSLATED, "no", GONE),
    "pre_sending_begun": (EITHER, TRANSLATED, "no", GONE),
    "pre_leave_marked": (EITHER, TRANSLATED, "fork", GONE),
    "pre_leave_told": (EITHER, TRANSLATED, "fork", GONE),
    "pre_leave_answered": (EITHER, TRANSLATED, "fork", GONE),
    "pre_answer_read": (EITHER, TRANSLATED, "other forks", GONE),
    "pre_answer_said": (EITHER, TRANSLATED, "other forks", GONE),
    "pre_exec_prepared": (EITHER, TRANSLATED, "exec", GONE),
    "pre_retired": (EITHER, TRANSLATED, "fork", GONE | ENDING),
}  # fmt: skip
CASES = [
    pytest.param(point, victim, face, id=f"{point}-{victim}-{face}")
    for point, (victims, faces, _, _) in DEATHS.items()
    for victim in victims
    for face in faces
]


class Teller(End):
    """An end that tells how its conversations ended."""

    def outcome(self) -> tuple[str, float]:
        """How, and when."""
        answer = self.answer()
        assert isinstance(answer, list)
        how, when = answer
        return str(how), float(when)


@contextmanager
def running(face: str, role: str, hands_over: str, fault: str = "") -> Iterator[Teller]:
    """An end in a process of its own, of the engine with fault points."""
    if not FAULTS.exists():
        pytest.fail(f"{FAULTS} is not there: run `make faults`")
    environ = {
        **os.environ,
        "FFVERBS_IP": "10.7.7.7",
        "PYTHONPATH": f"{FAULTS}{os.pathsep}{ROOT}",
        "FFVERBS_FAULT": fault,
    }
    if not fault:
        del environ["FFVERBS_FAULT"]
    if face == "translated":
        environ["LD_PRELOAD"] = str(FAULTS / "ffverbs" / "libffv_sockets.so")
    as_module = ["-m", "ffverbs.rsocket"] if face == "python" else []
    command = [sys.executable, "-P", *as_module, "-m", "tests.sockets.ends_that_die", role, "127.0.0.1", hands_over]
    process = subprocess.Popen(command, env=environ, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Teller(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(HANG_SECONDS)
    finally:
        end(process)


def wait_for_death(process: subprocess.Popen[str]) -> float:
    """When it was dead."""
    assert process.wait(HANG_SECONDS) == -9
    return time.monotonic()


def settled_descriptors(pid: int, most: int = 0) -> int:
    """How many the process has when that changes no longer, or is not more than `most`."""
    deadline = time.monotonic() + HANG_SECONDS
    counts: list[int] = []
    while len(counts) < 20 or len(set(counts[-20:])) > 1:
        assert time.monotonic() < deadline, counts[-20:]
        counts.append(len(os.listdir(f"/proc/{pid}/fd")))
        if counts[-1] <= most:
            break
        time.sleep(0.01)
    return counts[-1]


def succeed(face: str, victim: str, survivor: Teller, port: object, before: set[str]) -> None:
    """A new process in the dead one's place converses with the survivor."""
    if victim == "client":
        with running(face, "connect", "no") as client:
            client.tell(port)
            assert client.outcome()[0] == "finished"
    else:
        with running(face, "listen", "no") as server:
            survivor.tell(server.answer())
            assert server.outcome()[0] == "finished"
    how, _ = survivor.outcome()
    if how != "finished" and "nobody" in before:
        assert how in before
        how, _ = survivor.outcome()
    assert how == "finished"


@pytest.mark.parametrize(("point", "victim", "face"), CASES)
def test_death(point: str, victim: str, face: str, node_directory: Path) -> None:
    _, _, hands_over, expected = DEATHS[point]
    mine, theirs = ("no", "fork") if hands_over == "other forks" else (hands_over, "no")
    fault = f"{point}:1:kill"
    roles = {"server": "listen", "client": "connect"}
    other = "server" if victim == "client" else "client"
    with (
        running(face, roles[other], theirs) as survivor,
        running(face, roles[victim], mine, fault) as dying,
    ):
        server, client = (dying, survivor) if victim == "server" else (survivor, dying)
        port = server.answer()
        client.tell(port)
        died_at = wait_for_death(dying.process)
        if "nobody" not in expected:
            how, when = survivor.outcome()
            assert how in expected
            assert when - died_at < WITHIN_S
        succeed(face, victim, survivor, port, expected)
        descriptors = settled_descriptors(survivor.process.pid)
        names = len(os.listdir(node_directory))
        succeed(face, victim, survivor, port, set())
        assert settled_descriptors(survivor.process.pid, descriptors) <= descriptors
        assert len(os.listdir(node_directory)) <= names
