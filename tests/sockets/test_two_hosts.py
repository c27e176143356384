"""Sockets between containers of two hosts: over the routers if both ends are on verbs, else over the container network.

Each host is a network namespace with its router, each container another one. The containers have a network of their
own, for TCP, and the hosts have theirs; so each can be cut.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.network import NetHosts, Network, unavailable
from tests.sockets.conversation import VERBS, Connection, exchange
from tests.sockets.translated import ENDS, HANG_SECONDS, Ends, Place, check_iperf3, need

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=f"no networks on this host: {unavailable()}")

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(sys.executable).name
PROGRAMS = str(Path(__file__).with_name("programs.py"))
PORT = 7001


class ContainerNetwork(Network):
    """What the containers' TCP goes over."""

    prefix_bits = 16

    def address(self, name: str) -> str:
        return f"10.77.{self.names.index(name) + 1}.1"


class Containers:
    """One container on each of two hosts."""

    def __init__(self, network: ContainerNetwork, hosts: NetHosts) -> None:
        self.network = network
        self.hosts = hosts

    def place(self, name: str) -> Place:
        environment = {**self.hosts.environment(name), "PYTHONPATH": str(ROOT)}
        return Place(self.network.enter(name), environment, self.network.address(name))

    def ends(self, report: Path, kind: str) -> Ends:
        self.hosts.check()
        return Ends(*ENDS[kind], report, self.place("a"), self.place("b"))


@pytest.fixture(scope="module", name="containers")
def containers_fixture() -> Iterator[Containers]:
    names = ("a", "b")
    with Network(names) as between_hosts, NetHosts(between_hosts) as hosts, ContainerNetwork(names) as network:
        yield Containers(network, hosts)


@pytest.fixture(name="ends", params=ENDS)
def ends_fixture(request: pytest.FixtureRequest, containers: Containers, tmp_path: Path) -> Ends:
    """Both ends translated, or one."""
    return containers.ends(tmp_path / "report", request.param)


@pytest.fixture(name="both")
def both_fixture(containers: Containers, tmp_path: Path) -> Ends:
    """Both ends translated."""
    return containers.ends(tmp_path / "report", "both")


@pytest.fixture(name="plain")
def plain_fixture(containers: Containers, tmp_path: Path) -> Ends:
    """Neither end translated, as for programs that are on verbs by themselves."""
    ends = containers.ends(tmp_path / "report", "both")
    ends.server = ends.client = False
    return ends


def echo_port(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    return server.stdout.readline().strip()


# ---- `ffverbs.rsocket` ----------------------------------------


@pytest.mark.parametrize("kind", ENDS)
def test_python_programs(plain: Ends, seed: int, kind: str) -> None:
    """Random sizes, flags and ends over several connections at once."""
    faces = [VERBS if on_verbs else () for on_verbs in ENDS[kind]]
    command = (sys.executable, *faces[0], PROGRAMS, "serve", plain.server_at.address)
    with plain.serving(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        talk = (PROGRAMS, "talk", plain.server_at.address, echo_port(server), str(seed), "4", "0.5")
        result = json.loads(plain.run(sys.executable, *faces[1], *talk))
    assert result["failures"] == []
    assert result["on_verbs"] == (result["streams"] if kind == "both" else 0)


# ---- unmodified programs ----------------------------------------


def test_every_byte_arrives(ends: Ends, seed: int) -> None:
    command = (sys.executable, PROGRAMS, "serve", ends.server_at.address)
    with ends.serving(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        port = echo_port(server)
        talk = (PROGRAMS, "talk", ends.server_at.address, port, str(seed), "4", "1")
        result = json.loads(ends.run(sys.executable, *talk))
        ends.talk_until_on_verbs(port)  # that lasts as long as it takes until there is a stream
    assert result["failures"] == []
    ends.check(PYTHON)


def test_iperf3(ends: Ends) -> None:
    check_iperf3(ends, PORT, 32)


def test_redis(ends: Ends, tmp_path: Path) -> None:
    need("redis-server", "redis-cli", "redis-benchmark")
    where = ("-h", ends.server_at.address, "-p", str(PORT + 1))
    with ends.serving(
        *("redis-server", "--port", str(PORT + 1), "--protected-mode", "no", "--save", "", "--dir", tmp_path),
        stdout=subprocess.DEVNULL,
    ) as server:
        ends.await_port(PORT + 1, server)
        for effort in ends.efforts("redis-benchmark"):
            work = ("-t", "set,get", "-n", str(2000 * effort), "-c", "10", "-P", "4", "--csv")
            told = ends.run("redis-benchmark", *where, *work)
            assert len(re.findall(r'^"(?:SET|GET)', told, re.M)) == 2
        value = os.urandom(500_000).hex()
        assert ends.run("redis-cli", *where, "-x", "set", "big", input=value) == "OK\n"
        assert ends.run("redis-cli", *where, "get", "big") == value + "\n"
    ends.check("redis-benchmark")


# ---- ends, cuts, restarts ----------------------------------------


@pytest.fixture(name="connection", params=["python", "translated"])
def connection_fixture(request: pytest.FixtureRequest, both: Ends) -> Connection:
    return Connection(both, is_translated=request.param == "translated")


def test_data_needs_no_network_of_containers(connection: Connection, containers: Containers) -> None:
    """It goes by the routers."""
    with connection as (server, client):
        containers.network.cut("b")
        try:
            exchange(server, client, 1_000_000)
        finally:
            containers.network.heal("b")


@pytest.mark.parametrize("at_once", [False, True], ids=["exit", "_exit"])
def test_what_was_sent_arrives_though_the_sender_ends(connection: Connection, at_once: bool) -> None:
    with connection as (server, client):
        assert client.do("send", 200_000) == 200_000  # fits into the ring
        assert client.process.stdin is not None
        if at_once:
            client.tell("end at once")
        else:
            client.process.stdin.close()
        assert client.process.wait(HANG_SECONDS) == 0
        assert server.do("receive", 300_000) == 200_000  # and then the end


def test_a_peer_that_is_killed(connection: Connection) -> None:
    with connection as (server, client):
        client.process.kill()
        assert server.do("receive", 1) == "ECONNRESET"


def test_data_waits_for_a_short_cut_to_end(connection: Connection, containers: Containers) -> None:
    network = containers.hosts.network
    with connection as (server, client):
        network.cut("a")
        client.tell("send", 100_000)
        server.tell("receive", 100_000)
        time.sleep(0.5)
        network.heal("a")
        assert client.answer() == 100_000
        assert server.answer() == 100_000


def test_the_patience_of_tcp(connection: Connection, containers: Containers) -> None:
    """TCP_USER_TIMEOUT, as without it a cut takes as long as TCP's."""
    network = containers.hosts.network
    connection.ends.client_at.environment["PATIENCE_MS"] = "5000"
    with connection as (_, client):
        network.cut("b")
        try:
            assert client.do("send until it fails") == "ETIMEDOUT"
        finally:
            network.heal("b")


@pytest.mark.parametrize("kill", [False, True], ids=["restart", "kill"])
def test_a_router_that_ends(connection: Connection, containers: Containers, kill: bool) -> None:
    """Its connections are reset; those made afterwards work."""
    hosts = containers.hosts
    with connection as (server, client):
        server.tell("receive", 1)
        client.tell("send until it fails")
        hosts.stop("a", kill=kill)
        hosts.start("a")
        assert server.answer() in {"ECONNRESET", 1}
        assert client.answer() == "ECONNRESET"
        hosts.wait("a")
    with Connection(connection.ends, is_translated=connection.ends.client) as (server, client):
        assert client.do("send", 1000) == 1000
        assert server.do("receive", 1000) == 1000


# ---- more at once ----------------------------------------


@pytest.mark.parametrize("face", ["python", "translated"])
def test_soak(both: Ends, seed: int, face: str) -> None:
    """Random sizes, flags and ends on many connections; clients are killed meanwhile, and the server goes on."""
    seconds = float(os.environ.get("FFVERBS_SOAK_SECONDS", "4"))
    connections = int(os.environ.get("FFVERBS_SOAK_CONNECTIONS", "12"))
    print(f"seed {seed}, {connections} connections, {seconds} s")
    both.server = both.client = face == "translated"
    command = (sys.executable, *(VERBS if face == "python" else ()), PROGRAMS)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with both.serving(*command, "serve", both.server_at.address, **pipes) as server, contextlib.ExitStack() as victims:
        talk = (*command, "talk", both.server_at.address, echo_port(server))
        for number in range(2):
            victim = both.starting(*talk, str(seed + 1 + number), "4", "600", stdout=subprocess.DEVNULL)
            victims.callback(victim.wait)
            victims.callback(victim.kill)
        result = json.loads(both.run(*talk, str(seed), str(connections), str(seconds)))
        victims.close()
        again = json.loads(both.run(*talk, str(seed + 99), "4", "0"))
    print(result)
    assert result["failures"] == again["failures"] == []
    if face == "python":
        assert result["on_verbs"] == result["streams"]
        assert again["on_verbs"] == again["streams"]
    else:
        both.check(PYTHON)


FORKING = """
import socketserver, sys
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)
class Server(socketserver.ForkingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
with Server((sys.argv[1], 0), Echo) as server:
    print(server.server_address[1], flush=True)
    server.serve_forever()
"""


def test_a_server_that_forks(ends: Ends) -> None:
    """Who connected looks for the child at the second place."""
    with ends.serving(
        *(sys.executable, "-c", FORKING, ends.server_at.address), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        ends.talk_until_on_verbs(echo_port(server))
    ends.check(PYTHON)
