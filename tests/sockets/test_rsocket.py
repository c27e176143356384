"""`ffverbs.rsocket`: unmodified programs, with the peer on verbs or not; a soak; CPython's own tests of sockets.

By hand, longer: FFVERBS_SOAK_SECONDS=300 FFVERBS_SOAK_CONNECTIONS=200 pytest tests/sockets -k soak
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

PROGRAMS = str(Path(__file__).with_name("programs.py"))
ROOT = Path(__file__).resolve().parents[2]
HANG_SECONDS = 240
MANY = 500  # connections at once
VERBS = [sys.executable, "-m", "ffverbs.rsocket"]
PLAIN = [sys.executable]


@pytest.fixture(autouse=True)
def address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FFVERBS_IP", "10.7.7.7")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@contextmanager
def server(face: list[str], how: str = "serve") -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """An echo server; its port and its process."""
    with subprocess.Popen(
        [*face, PROGRAMS, how, "127.0.0.1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline()), process
        finally:
            process.kill()


def talk(face: list[str], port: int, seed: int, connections: int, seconds: float) -> subprocess.Popen[str]:
    arguments = [PROGRAMS, "talk", "127.0.0.1", str(port), str(seed), str(connections), str(seconds)]
    return subprocess.Popen([*face, *arguments], stdout=subprocess.PIPE, text=True)


def outcome(client: subprocess.Popen[str], seconds: float) -> dict[str, object]:
    with client:
        try:
            out, _ = client.communicate(timeout=HANG_SECONDS + seconds)
        except subprocess.TimeoutExpired:
            client.kill()
            raise
    assert client.returncode == 0
    result: dict[str, object] = json.loads(out)
    assert result["failures"] == []
    return result


@pytest.mark.parametrize(
    ("serving", "talking"), [(VERBS, VERBS), (VERBS, PLAIN), (PLAIN, VERBS)], ids=["both", "server", "client"]
)
def test_a_program_runs_unmodified_with_either_end_on_verbs(serving: list[str], talking: list[str], seed: int) -> None:
    with server(serving) as (port, _):
        result = outcome(talk(talking, port, seed, 4, 0), 0)
    assert result["on_verbs"] == (result["streams"] if serving == talking else 0)


def test_soak(seed: int) -> None:
    """Random sizes, flags and ends on many connections; clients are killed meanwhile, and the server goes on."""
    seconds = float(os.environ.get("FFVERBS_SOAK_SECONDS", "6"))
    connections = int(os.environ.get("FFVERBS_SOAK_CONNECTIONS", "20"))
    print(f"seed {seed}, {connections} connections, {seconds} s")
    with server(VERBS) as (port, process), ExitStack() as victims:
        client = talk(VERBS, port, seed, connections, seconds)
        for number in range(3):
            victim = talk(VERBS, port, seed + 1 + number, 5, HANG_SECONDS)
            victims.callback(victim.wait)
            victims.callback(victim.kill)
        result = outcome(client, seconds)
        victims.close()
        again = outcome(talk(VERBS, port, seed + 99, 4, 0), 0)
        assert process.poll() is None
    print(result)
    assert result["on_verbs"] == result["streams"]
    assert again["on_verbs"] == again["streams"]


def test_asyncio_with_many_connections() -> None:
    with server(VERBS, "asyncio-serve") as (port, _):
        talk = [*VERBS, PROGRAMS, "asyncio-talk", "127.0.0.1", str(port), str(MANY)]
        done = subprocess.run(talk, stdout=subprocess.PIPE, text=True, timeout=HANG_SECONDS, check=True)
    assert int(done.stdout) == MANY


def test_nothing_is_left_open() -> None:
    code = """
import os, socket, time
def once():
    with socket.create_server(("127.0.0.1", 0)) as listener, \\
         socket.create_connection(listener.getsockname()) as one, listener.accept()[0] as other:
        assert one.is_on_verbs and other.is_on_verbs
        one.sendall(b"x")
        assert other.recv(1) == b"x"
def opened():
    return len(os.listdir("/proc/self/fd"))
once()
before = opened()
for _ in range(20):
    once()
while opened() > before:
    time.sleep(0.01)
print("done")
"""
    done = subprocess.run([*VERBS, "-c", code], stdout=subprocess.PIPE, text=True, timeout=HANG_SECONDS, check=True)
    assert done.stdout == "done\n"


def test_http_server_with_urllib(tmp_path: Path) -> None:
    """Two programs of the standard library that know nothing of us."""
    body = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(body)
    code = """
import functools, http.server, sys, threading, urllib.request
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/file") as answer:
    sys.stdout.buffer.write(answer.read())
server.shutdown()
"""
    done = subprocess.run(
        [*VERBS, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=HANG_SECONDS,
        check=True,
    )
    assert done.stdout == body


@pytest.mark.parametrize("make", ["connect", "connect_ex"])
def test_a_refused_connection_is_what_tcp_says(make: str) -> None:
    code = f"""
import errno, socket
with socket.create_server(("127.0.0.1", 0)) as listener:
    address = listener.getsockname()
try:
    result = socket.socket().{make}(address)
except ConnectionRefusedError as error:
    result = error.errno
print(errno.errorcode[result])
"""
    done = subprocess.run([*VERBS, "-c", code], stdout=subprocess.PIPE, text=True, timeout=HANG_SECONDS, check=True)
    assert done.stdout == "ECONNREFUSED\n"


# What runs in every run of the tests; the whole of it by hand, see docs/sockets.md.
CPYTHON = "BasicTCPTest NonBlockingTCPTests FileObjectClassTestCase SendmsgTCPTest RecvmsgTCPTest TCPTimeoutTest"


def test_cpython_says_so_too() -> None:
    pytest.importorskip("test.test_socket", reason="this interpreter came without its tests")
    names = [f"test.test_socket.{name}" for name in CPYTHON.split()]
    done = subprocess.run(
        [*VERBS, "-m", "unittest", *names], stderr=subprocess.PIPE, text=True, timeout=HANG_SECONDS, check=False
    )
    ran = re.search(r"Ran (\d+) tests", done.stderr)
    assert ran is not None
    assert int(ran.group(1)) > 50
    assert done.returncode == 0, done.stderr[-4000:]
