"""A process dies, or stops, at every fault point of the connection manager, on either side of a connection.

The survivor gets the event that tells the end, goes on with the next peer in the dead one's place, and keeps nothing.
"""

import contextlib
import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import cm
from tests.conformance.paths import _accept, _listen, _Remote
from tests.crash.actors import ROOT
from tests.hosts import FAULTS

ADDRESS = {"server": "10.7.0.1", "client": "10.7.0.2"}
WITHIN_S = 30.0  # of an event that a death causes; seldom more than a millisecond, but the machine may be busy
STOPPED_S = 4.0  # after this at the earliest, a stopped process is given up
REJECTED, UNREACHABLE = "REJECTED", "UNREACHABLE"
LOST = (UNREACHABLE, -errno.ECONNRESET)

# point: the side that dies there, and the events that the other side gets from the request or the end on, each the one
# or the other of several where both sides' threads race.
DEATHS: dict[str, tuple[str, list[set[tuple[str, int]]]]] = {
    "cm_claimed": ("server", [{(REJECTED, 8)}]),  # its names are still there
    "cm_req_received": ("server", [{LOST}]),
    "cm_req_posted": ("server", [{LOST}]),
    "cm_rep_unsent": ("server", [{LOST}]),
    "cm_rep_sent": ("server", [{("ESTABLISHED", 0), ("CONNECT_ERROR", -errno.ECONNRESET),
                                ("CONNECT_ERROR", -errno.EPIPE)}, {("DISCONNECTED", 0), LOST}]),
    "cm_rej_unsent": ("server", [{LOST}]),
    "cm_req_unsent": ("client", []),
    "cm_req_sent": ("client", [{("CONNECT_REQUEST", 0)}, {LOST}]),
    "cm_rep_received": ("client", [{LOST}]),
    "cm_rtu_unsent": ("client", [{LOST}]),
    "cm_rtu_sent": ("client", [{("ESTABLISHED", 0)}, {("DISCONNECTED", 0)}]),
    "cm_dreq_unsent": ("client", [{("DISCONNECTED", 0)}]),
    "cm_dreq_sent": ("client", [{("DISCONNECTED", 0)}]),
    "cm_dreq_received": ("client", [{("DISCONNECTED", 0)}, {("TIMEWAIT_EXIT", 0)}]),
}  # fmt: skip
POINTS = set(DEATHS)


@contextmanager
def side(name: str, role: str, folder: Path, node_directory: Path, fault: str = "") -> Iterator[Any]:
    """Yield a side in a process of its own, of the engine with fault points."""
    if not FAULTS.exists():
        pytest.fail(f"{FAULTS} is not there: run `make faults`")
    listener = _listen(folder, name)
    environment = {**os.environ, "PYTHONPATH": f"{FAULTS}{os.pathsep}{ROOT}", "FFVERBS_FAULT": fault}
    if not fault:
        del environment["FFVERBS_FAULT"]
    command = [sys.executable, "-P", "-c", cm._MAIN, str(folder / name)]
    process = subprocess.Popen(command, env=environment, cwd=ROOT)

    def kill() -> None:
        process.kill()
        process.wait(30)

    remote = _Remote(_accept(listener), kill, lambda: f"status {process.wait(30)}")
    try:
        remote.begin(str(node_directory), ADDRESS[role])
        yield remote
    finally:
        remote._end()


def attempt(victim: Any, *command: Any, **arguments: Any) -> None:
    """Have the victim do what it may not survive, without waiting for that."""
    victim.busy = False
    with contextlib.suppress(BrokenPipeError):  # it has died already
        victim._begin("do", *command, **arguments)


def lead_to(point: str, server: Any, client: Any) -> None:
    """Bring both sides to the step at which one of them dies; steps before it must succeed."""
    victim = server if DEATHS[point][0] == "server" else client
    steps: list[tuple[Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
        (server, cm.listen, (ADDRESS["server"],), {}),
        (client, cm.resolve, (ADDRESS["server"],), {}),
        (client, cm.connect, (), {}),
        (server, cm.next_event, (), {"keep": "child"}),
        (server, cm.reject if point == "cm_rej_unsent" else cm.accept, (), {}),
        (client, cm.next_event, (), {}),
        (server, cm.next_event, (), {}),
    ]
    if point == "cm_dreq_received":
        steps.append((server, cm.disconnect, ("child",), {}))
    elif point.startswith("cm_dreq"):
        steps.append((client, cm.disconnect, ("id",), {}))
    # how many of them come before, and is the last one's doer the victim?
    before = {"cm_claimed": 0, "cm_req_unsent": 2, "cm_req_sent": 2, "cm_req_received": 3, "cm_req_posted": 3,
              "cm_rep_unsent": 4, "cm_rep_sent": 4, "cm_rej_unsent": 4, "cm_rep_received": 5, "cm_rtu_unsent": 5,
              "cm_rtu_sent": 5}.get(point, len(steps) - (point != "cm_dreq_received"))  # fmt: skip
    for doer, step, arguments, keywords in steps[:before]:
        doer.do(step, *arguments, **keywords)
    if before < len(steps) and steps[before][0] is victim and point not in ("cm_req_received", "cm_req_posted"):
        _, step, arguments, keywords = steps[before]
        attempt(victim, step, *arguments, **keywords)
    if point == "cm_claimed":
        victim._how_it_ended()
        steps[1][0].do(steps[1][1], *steps[1][2])
        client.do(cm.connect)


def converse(server: Any, client: Any, listening: bool) -> None:
    """A whole life of a connection."""
    if not listening:
        server.do(cm.listen, ADDRESS["server"])
    client.do(cm.resolve, ADDRESS["server"], name="next")
    client.do(cm.connect, b"next", name="next")
    assert server.do(cm.next_event, keep="next child") == ("CONNECT_REQUEST", 0, b"next")
    server.do(cm.accept, name="next child")
    assert client.do(cm.next_event)[0] == "ESTABLISHED"
    assert server.do(cm.next_event)[0] == "ESTABLISHED"
    client.do(cm.disconnect, "next")
    assert server.do(cm.next_event)[0] == "DISCONNECTED"
    server.do(cm.disconnect, "next child")
    assert [client.do(cm.next_event)[0] for _ in range(2)] == ["DISCONNECTED", "TIMEWAIT_EXIT"]
    assert server.do(cm.next_event)[0] == "TIMEWAIT_EXIT"
    client.do(cm.close, "next")
    server.do(cm.close, "next child")


@pytest.mark.parametrize("point", DEATHS)
def test_death(point: str, node_directory: Path, tmp_path: Path) -> None:
    role, events = DEATHS[point]
    other = "client" if role == "server" else "server"
    with side("survivor", other, tmp_path, node_directory) as survivor:
        survivor.do(cm.bind, ADDRESS[other], 0)  # so that its device does not come and go, and sweep names
        with side("victim", role, tmp_path, node_directory, f"{point}:1:kill") as victim:
            server, client = (victim, survivor) if role == "server" else (survivor, victim)
            lead_to(point, server, client)
            assert victim._how_it_ended() == "status -9"
            for expected in events:
                got = survivor.do(cm.next_event, keep="child" if expected == {("CONNECT_REQUEST", 0)} else "",
                                  deadline_s=WITHIN_S)
                assert got[:2] in expected
        with side("next", role, tmp_path, node_directory) as successor:
            server, client = (successor, survivor) if role == "server" else (survivor, successor)
            counts = []
            for turn in range(2):
                converse(server, client, listening=role == "client" or turn > 0)
                counts.append(survivor.do(cm.descriptors))
            assert counts[0] == counts[1], "a connection leaves descriptors behind"
            successor.end()
        survivor.end()
    left = [name for name in os.listdir(node_directory) if len(name) > 40]
    assert all(name.endswith("-1d2f") for name in left), left  # of the victim's listener: swept by who asks for it


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ("cm_req_received", (UNREACHABLE, -errno.ETIMEDOUT)),
        ("cm_rep_received", (UNREACHABLE, -errno.ETIMEDOUT)),
        ("cm_dreq_received", ("DISCONNECTED", -errno.ETIMEDOUT)),
    ],
)
def test_a_stopped_process_is_given_up(
    point: str, expected: tuple[str, int], node_directory: Path, tmp_path: Path
) -> None:
    role = DEATHS[point][0]
    other = "client" if role == "server" else "server"
    with (
        side("survivor", other, tmp_path, node_directory) as survivor,
        side("victim", role, tmp_path, node_directory, f"{point}:1:stop") as victim,
        side("bystander", role, tmp_path, node_directory) as bystander,
    ):
        server, client = (victim, survivor) if role == "server" else (survivor, victim)
        began = time.monotonic()
        lead_to(point, server, client)
        assert survivor.do(cm.next_event, deadline_s=STOPPED_S + WITHIN_S)[:2] == expected
        assert time.monotonic() - began > STOPPED_S
        if role == "client":
            if point == "cm_dreq_received":
                assert survivor.do(cm.next_event)[0] == "TIMEWAIT_EXIT"
            converse(survivor, bystander, listening=True)
            bystander.end()
        survivor.end()
