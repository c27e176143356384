"""Sockets between containers of two hosts: over the routers if both ends are on verbs, else over the container network.

Each host is a network namespace with its router, each container another one. The containers have a network of their
own, for TCP, and the hosts have theirs; so each can be cut.
"""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.network import NetHosts, Network, unavailable
from tests.sockets import debian
from tests.sockets.conversation import VERBS, Connection, exchange
from tests.sockets.datagrams import check_iperf3_udp, talk_in_datagrams
from tests.sockets.translated import ENDS, HANG_SECONDS, Ends, Place

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=f"no networks on this host: {unavailable()}")

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(sys.executable).name
PROGRAMS = str(Path(__file__).with_name("programs.py"))
FETCH = "import sys, urllib.request; urllib.request.urlretrieve(sys.argv[1], sys.argv[2])"
PORTS = itertools.count(7001)


class ContainerNetwork(Network):
    """What the containers' TCP goes over."""

    prefix_bits = 16

    def address(self, name: str) -> str:
        return f"10.77.{self.names.index(name) + 1}.1"


class OpenHosts(NetHosts):
    """Whose containers may be of any user: PostgreSQL does not run as root."""

    def make_directory(self, name: str) -> None:
        super().make_directory(name)
        self.directory(name).chmod(0o777)
        self.folder.parent.chmod(0o711)


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
    with Network(names) as between_hosts, OpenHosts(between_hosts) as hosts, ContainerNetwork(names) as network:
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


@pytest.mark.parametrize("kind", ENDS)
def test_asyncio_with_many_connections(plain: Ends, kind: str) -> None:
    """Five hundred at once, in one thread at each end."""
    faces = [VERBS if on_verbs else () for on_verbs in ENDS[kind]]
    command = (sys.executable, *faces[0], PROGRAMS, "asyncio-serve", plain.server_at.address)
    with plain.serving(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        talk = (PROGRAMS, "asyncio-talk", plain.server_at.address, echo_port(server), "500")
        assert int(plain.run(sys.executable, *faces[1], *talk)) == (500 if kind == "both" else 0)


@pytest.mark.parametrize("kind", ENDS)
def test_http_server_with_urllib(plain: Ends, kind: str, tmp_path: Path) -> None:
    """Two programs of the standard library that know nothing of us."""
    faces = [VERBS if on_verbs else () for on_verbs in ENDS[kind]]
    (tmp_path / "file").write_bytes(body := os.urandom(3_000_000))
    port = next(PORTS)
    where = (plain.server_at.address, str(port))
    serve = ("-m", "http.server", "-b", where[0], "-d", tmp_path, where[1])
    with plain.serving(
        sys.executable, *faces[0], *serve, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as server:
        plain.await_port(port, server)
        plain.run(sys.executable, *faces[1], "-c", FETCH, f"http://{where[0]}:{port}/file", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == body


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


@pytest.fixture(name="port")
def port_fixture() -> int:
    """A port that no test before this one has used: the containers' networks are ours alone."""
    return next(PORTS)


def test_http_server_with_curl(ends: Ends, port: int, tmp_path: Path) -> None:
    debian.check_http_server(ends, port, tmp_path)


def test_iperf3(ends: Ends, port: int) -> None:
    debian.check_iperf3(ends, port, 32)


def test_iperf3_with_datagrams(ends: Ends, port: int) -> None:
    check_iperf3_udp(ends, port)


@pytest.mark.parametrize("face", ["python", "translated"])
def test_every_datagram_arrives(ends: Ends, seed: int, face: str) -> None:
    talk_in_datagrams(ends, seed, face)


def test_redis(ends: Ends, port: int, tmp_path: Path) -> None:
    debian.check_redis(ends, port, tmp_path, "4")


def test_memcached(ends: Ends, port: int) -> None:
    debian.check_memcached(ends, port, "2")


def test_nginx_with_curl_and_wrk(ends: Ends, port: int, tmp_path: Path) -> None:
    debian.check_nginx(ends, port, tmp_path)


def test_rsync_from_its_daemon(ends: Ends, port: int, tmp_path: Path) -> None:
    debian.check_rsync(ends, port, tmp_path)


def test_sockperf(ends: Ends, port: int) -> None:
    debian.check_sockperf(ends, port)


def test_openssh(ends: Ends, port: int, tmp_path: Path) -> None:
    debian.check_openssh(ends, port, tmp_path)


def test_postgresql_with_pgbench(ends: Ends, port: int) -> None:
    debian.check_postgresql(ends, port)


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
