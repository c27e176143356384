"""UDP programs with their sockets on verbs, both or one of the two; by `ffverbs.rsocket` and as they are."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.sockets.conversation import VERBS
from tests.sockets.datagrams import PROGRAMS, check_iperf3_udp, talk_in_datagrams
from tests.sockets.debian import ping_pong
from tests.sockets.translated import HANG_SECONDS, Ends, need

CPYTHON_TESTS = str(Path(__file__).with_name("cpython_datagrams.py"))
CASES = str(Path(__file__).with_name("datagram_cases.py"))
PYTHON = Path(sys.executable).name
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FFVERBS_IP", "10.7.7.7")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.parametrize("face", ["python", "translated"])
def test_every_datagram_arrives(ends: Ends, seed: int, face: str) -> None:
    talk_in_datagrams(ends, seed, face)


@pytest.mark.parametrize("case", ["waits", "who_sleeps", "peeking", "names", "control_data", "groups", "fork"])
def test_semantics(both: Ends, case: str) -> None:
    """What one process does with both ends, or with a child: the cases are in datagram_cases.py."""
    assert both.run(sys.executable, CASES, case) == "done\n"


def test_iperf3(ends: Ends) -> None:
    check_iperf3_udp(ends, free_port())


def test_sockperf(ends: Ends) -> None:
    need("sockperf")
    where = ("-i", "127.0.0.1", "-p", str(free_port()))
    with ends.serving("sockperf", "sr", *where, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        while "sockperf" not in server.stdout.readline():
            assert server.poll() is None
        for effort in ends.efforts("sockperf", ends.datagrams_by_verbs):
            assert "# duplicated messages = 0" in ping_pong(ends, effort, *where)
    ends.check_datagrams("sockperf")


@pytest.mark.parametrize("kind", ["UDP-LISTEN", "UDP-RECVFROM"])
def test_socat(ends: Ends, kind: str) -> None:
    """A server that forks for each client, or for each datagram; its children have UDP."""
    need("socat")
    port = free_port()
    command = ("socat", f"{kind}:{port},bind=127.0.0.1,fork", "EXEC:cat")
    with ends.serving(*command, stderr=subprocess.DEVNULL, start_new_session=True) as server:
        try:
            for number in range(3):
                deadline, told, patience_s = time.monotonic() + HANG_SECONDS, "", 0.25
                while told != f"line {number}\n":  # as nobody answers before the server is there
                    assert server.poll() is None
                    assert time.monotonic() < deadline
                    patience_s = min(2 * patience_s, 8)
                    client = ("socat", "-t", str(patience_s), "-", f"UDP:127.0.0.1:{port}")
                    told = ends.run(*client, input=f"line {number}\n", stderr=subprocess.DEVNULL, may_fail=True)
        finally:
            os.killpg(server.pid, signal.SIGKILL)  # the children, which nothing tells that a client has gone


def test_socat_to_socat(ends: Ends, tmp_path: Path) -> None:
    """A file, in datagrams one after the other; as much as a receiver has room for arrives."""
    need("socat")
    port = free_port()
    data = b"".join(b"%07d\n" % number for number in range(4000))
    got = tmp_path / "got"
    with ends.serving("socat", "-u", f"UDP-RECV:{port},bind=127.0.0.1", f"CREATE:{got}") as server:
        deadline = time.monotonic() + HANG_SECONDS
        while not got.exists():
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (tmp_path / "data").write_bytes(data)
        ends.run("socat", "-u", "-b", "800", f"OPEN:{tmp_path}/data", f"UDP-SENDTO:127.0.0.1:{port}")
        while len(got.read_bytes()) < len(data) // 4:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    lines = got.read_bytes().splitlines()
    assert set(lines) <= set(data.splitlines())
    assert len(lines) == len(set(lines))


# ---- `ffverbs.rsocket` alone ----------------------------------------


def run_python(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *VERBS, *arguments], stdout=subprocess.PIPE, text=True, timeout=HANG_SECONDS, check=True
    )
    return done.stdout


def test_asyncio() -> None:
    sent, received = json.loads(run_python(PROGRAMS, "asyncio", "300"))
    assert sent > 100
    assert received > 100


@pytest.mark.parametrize("closes", [True, False])
def test_no_names_are_left(node_directory: Path, closes: bool) -> None:
    """Of the addresses that a process had, after it has closed its sockets, or has ended."""
    code = f"""
import os, socket
sock = socket.socket(type=socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", 0))
def names():
    return [name for name in os.listdir(os.environ["FFVERBS_DIR"]) if name.count("-") == 2]
assert len(names()) == 1
if {closes}:
    sock.close()
    assert names() == []
else:
    import sys
    sys.modules["kept"] = sock
print("done")
"""
    assert run_python("-c", code) == "done\n"
    assert [path.name for path in node_directory.iterdir() if path.name.count("-") == 2] == []


def test_python_semantics() -> None:
    """Duplicates, options that leave it to UDP, a child of fork; nothing is left open."""
    code = """
import os, select, socket, sys, time
def opened():
    return len(os.listdir("/proc/self/fd"))
def pair():
    one, other = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
    one.bind(("127.0.0.1", 0)), other.bind(("127.0.0.1", 0))
    while not other.datagrams_on_verbs()[1]:
        one.sendto(b"?", other.getsockname())
        assert other.recvfrom(10) == (b"?", one.getsockname())
    return one, other
def once():
    one, other = pair()
    with one, other, other.dup() as copy:
        one.sendto(b"dup", copy.getsockname())
        assert copy.recvfrom(10) == (b"dup", one.getsockname())
        number = other.detach()
        with socket.socket(fileno=number) as again:
            one.sendto(b"large" * 3000, again.getsockname())
            assert again.recv(20000) == b"large" * 3000
once()
before = opened()
for _ in range(10):
    once()
while opened() > before:
    time.sleep(0.01)
one, other = pair()
other.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
while not select.select([other], [], [], 0.05)[0]:
    one.sendto(b"x", other.getsockname())
assert other.recvmsg(10, 100)[1][0][:2] == (socket.IPPROTO_IP, 8)
one, other = pair()
child = os.fork()
if not child:
    one.sendto(b"child", other.getsockname())
    os._exit(0)
assert other.recvfrom(10) == (b"child", one.getsockname())
assert os.waitpid(child, 0)[1] == 0
one.sendto(b"parent", other.getsockname())
assert other.recv(10) == b"parent"
with select.epoll() as epoll, socket.socket(type=socket.SOCK_DGRAM) as late:
    epoll.register(late, select.EPOLLIN)
    late.sendto(b"late", other.getsockname())
    other.sendto(*other.recvfrom(10))
    assert epoll.poll(60) == [(late.fileno(), select.EPOLLIN)]
    assert late.recv(10) == b"late"
print("done")
"""
    assert run_python("-c", code) == "done\n"


CPYTHON = "BasicUDPTest UDPTimeoutTest SendmsgUDPTest RecvmsgUDPTest RecvmsgIntoUDPTest RecvmsgUDP6Test"


def test_cpython_says_so_too() -> None:
    pytest.importorskip("test.test_socket", reason="this interpreter came without its tests")
    told = json.loads(run_python(CPYTHON_TESTS, *CPYTHON.split()))
    assert told["ran"] > 50
    assert told["failed"] == 0
    assert told["sent"] > 20
    assert told["received"] > 20
