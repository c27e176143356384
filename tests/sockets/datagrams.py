"""Checks of UDP programs, wherever their ends are."""

import json
import subprocess
import sys
import time
from pathlib import Path

from tests.sockets.conversation import VERBS
from tests.sockets.translated import HANG_SECONDS, Ends, need

PROGRAMS = str(Path(__file__).with_name("datagram_programs.py"))


def check_iperf3_udp(ends: Ends, port: int) -> None:
    """Its datagrams, both ways, from one socket and two; it counts what arrived."""
    need("iperf3")
    where = ("-p", str(port))
    command = ("iperf3", "-s", "--forceflush", "-B", ends.server_at.address, *where)
    with ends.serving(*command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        for effort in ends.efforts("iperf3", ends.datagrams_by_verbs):
            for options in ((), ("-R",), ("-P", "2")):
                while "listening" not in server.stdout.readline():
                    assert server.poll() is None
                amount = ("-u", "-l", "1400", "-b", "10M", "-n", f"{effort}M")
                told = json.loads(ends.run("iperf3", "-J", "-c", ends.server_at.address, *where, *amount, *options))
                assert "error" not in told
                assert told["end"]["sum"]["packets"] >= effort * 700
                assert told["end"]["sum"]["lost_percent"] < 60  # the receiver may not run for a while
    ends.check_datagrams("iperf3")


def talk_in_datagrams(ends: Ends, seed: int, face: str) -> None:
    """Datagrams of random lengths there and back, with each way to wait; `ends` says which ends are on verbs."""
    on_verbs = (ends.server, ends.client)
    if face == "python":
        ends.server = ends.client = False
    faces = [VERBS if one and face == "python" else () for one in on_verbs]
    serve = (sys.executable, *faces[0], PROGRAMS, "serve", ends.server_at.address)
    with ends.serving(*serve, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        where = (ends.server_at.address, server.stdout.readline().strip())
        deadline, count, went = time.monotonic() + HANG_SECONDS, 200, (0, 0)
        while True:  # a short one may be over before it is known that the peer has verbs
            talk = (PROGRAMS, "talk", *where, str(seed), str(count))
            told = json.loads(ends.run(sys.executable, *faces[1], *talk))
            went = (told["sent"], told["received"])
            if face == "translated":
                went = ends.datagrams_by_verbs(Path(sys.executable).name)
            if not all(on_verbs) or min(went) > 0:
                break
            assert time.monotonic() < deadline, told
            count = min(2 * count, 2000)
        server.stdin.close()
        server.wait(HANG_SECONDS)
    assert all(on_verbs) or went == (0, 0)
