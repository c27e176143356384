"""`ffverbs perf`: every test in both loops with the data checked, its report, and how it fails."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ffverbs import _perf_c
from ffverbs._perf import PROTOCOL, TESTS, Endpoint, Link, PerfError, Report, Settings, run_client, run_server
from ffverbs._perf_local import run_local
from ffverbs.pyverbs_error import PyverbsError

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60
LATENCY_KEYS = ["min", "p50", "mean", "p90", "p99", "p99.9", "max"]
REPORT_KEYS = [
    "test",
    "loop",
    "size_bytes",
    "iters",
    "tx_depth",
    "post_list",
    "events",
    "checked",
    "latency_ns",
    "bandwidth_bytes_per_s",
    "message_rate_per_s",
]


def size_of(test: str, size: int) -> int:
    return 8 if test == "atomic_lat" else size


@pytest.mark.parametrize("loop", ["c", "python"])
@pytest.mark.parametrize(
    ("test", "size"),
    [(test, size) for test in TESTS for size in (1, 1000, 65536) if test != "atomic_lat"] + [("atomic_lat", 8)],
)
def test_every_test_with_checked_data(test: str, size: int, loop: str) -> None:
    settings = Settings.of(test, size_bytes=size, iters=200, warmup=33, loop=loop, check=True)
    report = run_local(settings)
    check_report(report)
    assert report.as_dict()["checked"] is True


def check_report(report: Report) -> None:
    found, settings = report.as_dict(), report.settings
    assert list(found) == REPORT_KEYS
    assert found["test"] == settings.test
    assert found["iters"] == settings.iters
    if TESTS[settings.test].is_latency:
        assert len(report.samples_ns) == settings.iters
        values = list(found["latency_ns"].values())
        assert list(found["latency_ns"]) == LATENCY_KEYS
        ordered = values[:2] + values[3:]
        assert ordered == sorted(ordered)
        assert 0 < values[0] <= values[2] <= values[-1]
        # The samples add up to the time of the run; in Python, but for what lies before and behind them.
        total = sum(report.samples_ns) * (2 if TESTS[settings.test].one_way else 1)
        assert total <= 1.001 * report.elapsed_ns + 1000
        if settings.loop == "c":
            assert total == pytest.approx(report.elapsed_ns, rel=0.01, abs=1000)
        assert found["bandwidth_bytes_per_s"] is found["message_rate_per_s"] is None
    else:
        assert found["latency_ns"] is None
        expected = found["message_rate_per_s"] * settings.size_bytes
        assert found["bandwidth_bytes_per_s"] == pytest.approx(expected)
        assert found["message_rate_per_s"] == pytest.approx(settings.iters * 1e9 / report.elapsed_ns)


@pytest.mark.parametrize("loop", ["c", "python"])
@pytest.mark.parametrize("test", [test for test in TESTS if test != "write_lat"])
def test_sleeping_on_events(test: str, loop: str) -> None:
    settings = Settings.of(test, size_bytes=size_of(test, 64), iters=300, loop=loop, events=True, check=True)
    check_report(run_local(settings))


@pytest.mark.parametrize("loop", ["c", "python"])
@pytest.mark.parametrize(("tx_depth", "rx_depth", "post_list"), [(1, 1, 1), (2, 1, 2), (7, 5, 3), (64, 512, 64)])
@pytest.mark.parametrize("test", ["send_lat", "send_bw", "write_bw", "read_bw"])
def test_depths_and_lists(test: str, tx_depth: int, rx_depth: int, post_list: int, loop: str) -> None:
    depths = {"tx_depth": tx_depth, "rx_depth": rx_depth, "post_list": post_list}
    check_report(run_local(Settings.of(test, size_bytes=64, iters=500, loop=loop, **depths)))


@pytest.mark.parametrize("warmup", [0, 1])
@pytest.mark.parametrize("test", TESTS)
def test_one_iteration(test: str, warmup: int) -> None:
    settings = Settings.of(test, size_bytes=size_of(test, 4096), iters=1, warmup=warmup)
    assert run_local(settings).as_dict()["iters"] == 1


@pytest.mark.parametrize("where", ["tcp", "unix"])
def test_client_and_server_print_the_same_object(node_directory: Path, where: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = "127.0.0.1" if where == "tcp" else f"unix:{node_directory}/perf.sock"
    command = [sys.executable, "-m", "ffverbs.cli", "perf", "send_lat", "--json", "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(
        [*command, "--bind", address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert server.stderr is not None
        assert "waiting for a client" in server.stderr.readline()
        client = subprocess.run(
            [*command, "--iters", "50", address],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
            env=environment,
        )
        served, complaint = server.communicate(timeout=DEADLINE_S)
    finally:
        if server.poll() is None:
            server.kill()
            server.communicate()
    assert client.returncode == 0, client.stderr
    assert server.returncode == 0, complaint
    assert json.loads(client.stdout) == json.loads(served)
    assert json.loads(served)["iters"] == 50
    assert list(node_directory.iterdir()) == []


class Pair:
    """Both ends in this process: the server in a thread, the client in the test's own."""

    def __init__(self, settings: Settings) -> None:
        ours, theirs = socket.socketpair()
        self.client_link, self.server_link = Link(ours), Link(theirs)
        self.client, self.server = Endpoint(settings, None, 1), Endpoint(settings, None, 1)
        connecting = threading.Thread(target=self.server.connect, args=(self.server_link,))
        connecting.start()
        self.client.connect(self.client_link)
        connecting.join(DEADLINE_S)

    def close(self) -> None:
        for thing in (self.client, self.server, self.client_link, self.server_link):
            thing.close()


@pytest.mark.parametrize("test", ["read_lat", "atomic_lat"])
def test_wrong_bytes_are_found(test: str) -> None:
    """A third party spoils the memory that is read from; the client must notice."""
    size = size_of(test, 64)
    pair = Pair(Settings.of(test, size_bytes=size, iters=1 << 20, check=True))
    ended: list[Any] = []

    def serve() -> None:
        try:
            _perf_c.run(pair.server, pair.server_link, True)
        except PyverbsError as error:
            ended.append(error)

    def measure() -> None:
        try:
            _perf_c.run(pair.client, pair.client_link, False)
        except PyverbsError as error:
            ended.append(error)

    serving, measuring = threading.Thread(target=serve), threading.Thread(target=measure)
    serving.start()
    measuring.start()
    # What is written before the run starts is overwritten by it, so write until it is found.
    while measuring.is_alive():
        pair.server.mr.write(b"\xa5" * size, size, pair.server.settings.half_bytes)
        measuring.join(0.001)
    assert len(ended) == 1, "the client found nothing wrong"
    assert "does not hold the bytes that were sent" in str(ended[0])
    # The server waits for as long as its client does not give up.
    pair.client_link.close()
    serving.join(DEADLINE_S)
    assert not serving.is_alive()
    assert "the peer has ended the connection" in str(ended[1])
    pair.close()


def test_server_and_client_must_measure_the_same() -> None:
    ours, theirs = socket.socketpair()
    told: list[str] = []

    def serve() -> None:
        try:
            run_server(Link(theirs), "send_bw")
        except PerfError as error:
            told.append(str(error))

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(PerfError, match="the peer failed: the server measures send_bw, the client asked for send_lat"):
        run_client(Link(ours), Settings.of("send_lat"))
    thread.join(DEADLINE_S)
    assert told == ["the server measures send_bw, the client asked for send_lat: start both alike"]


@pytest.mark.parametrize("line", [b"", b"GET / HTTP/1.1\r\n", b"[]\n", b'{"kind": "settings", "protocol": 99}\n'])
def test_a_stranger_is_turned_away(line: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(line)
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(PerfError, match="ended the connection|does not speak|different versions"):
            run_server(Link(theirs), None)


def test_a_failed_client_ends_its_server() -> None:
    """The client opens a context, connects, and then gives up in good order."""
    settings = Settings.of("read_lat")
    ours, theirs = socket.socketpair()
    told: list[str] = []

    def serve() -> None:
        try:
            run_server(Link(theirs))
        except PerfError as error:
            told.append(str(error))

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(ValueError, match="no more"), Link(ours) as link:  # noqa: PT012
        link.send("settings", protocol=PROTOCOL, **dataclasses.asdict(settings))
        link.receive("ready")
        with Endpoint(settings, None, 1) as endpoint:
            endpoint.connect(link)
            raise ValueError("no more")
    thread.join(DEADLINE_S)
    assert told == ["the peer failed: no more"]


def test_a_dead_server_ends_the_client(node_directory: Path) -> None:
    """The server is killed in the middle of a run that would last for days."""
    ours, theirs = socket.socketpair()
    program = (
        "import socket, sys\n"
        "from ffverbs._perf import Link, run_server\n"
        "run_server(Link(socket.socket(fileno=int(sys.argv[1]))))\n"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", program, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    theirs.close()
    failures: list[PyverbsError] = []

    def measure() -> None:
        try:
            run_client(Link(ours), Settings.of("send_bw", size_bytes=64, iters=1 << 40, warmup=10))
        except PyverbsError as error:
            failures.append(error)

    thread = threading.Thread(target=measure)
    thread.start()
    try:
        wait_for_traffic(node_directory)
    finally:
        server.kill()
        server.wait()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert len(failures) == 1
    assert "the peer has ended the connection" in str(failures[0])


def wait_for_traffic(directory: Path) -> None:
    """Return once a queue pair of the directory has sent more than the warm-up does."""
    from ffverbs._status import gather

    pause = threading.Event()
    for _ in range(1000 * DEADLINE_S):
        contexts = gather(str(directory))["contexts"]
        if any(pair["messages_sent"] > 100 for context in contexts for pair in context["qps"]):
            return
        pause.wait(0.001)
    raise AssertionError("no traffic")
