"""What a router promises to operators: addresses, tenants, draining, what it shows, and words for bad input."""

import base64
import ipaddress
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

import ffverbs.libibverbs_enums as e
from etcd_registry.records import ContainerRecord, encode, gid_of, key_of
from ffverbs import _status
from ffverbs.pyverbs_error import PyverbsRDMAError
from tests.conformance.between_hosts import exchange, router_status
from tests.conformance.pair import DEADLINE_S, Options, Pair, Peer, Recv, Send
from tests.conformance.paths import _Remote, spawn
from tests.hosts import Hosts
from tests.ports import free_port
from tests.registry.servers import EtcdServer, running_etcd

RETRY_EXCEEDED = int(e.IBV_WC_RETRY_EXC_ERR)
ROOT = Path(__file__).parents[2]
PRETENDED = str(ROOT / "build/plain/tests/native/wire/libfake_ibverbs.so")  # two devices at 192.0.2.1 and 192.0.2.2


class Stage:
    """Hosts and their containers, ended with the test."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._all = folder, list[_Remote]()
        self.hosts: Hosts

    def begin(self, *more: str, registry: str = "") -> Hosts:
        self.hosts = Hosts(self._folder, registry=registry, more=more)
        return self.hosts

    def __call__(self, host: str, ip: str = "") -> Peer:
        remote = spawn(self._folder, f"w{len(self._all)}", env=self.hosts.environment(host, ip))
        self._all.append(remote)
        return cast(Peer, remote)

    def pair(self) -> Pair:
        return Pair(self("a"), self("b"), "tcp").connect()

    def end(self) -> None:
        for remote in self._all:
            remote._end()
        if hasattr(self, "hosts"):
            for name in self.hosts.names:
                print(f"--- router {name}\n{self.hosts.log(name)}")  # shown if the test fails
            self.hosts.close()


@pytest.fixture(name="stage")
def stage_fixture(node_directory: Path) -> Iterator[Stage]:
    made = Stage(node_directory)
    yield made
    made.end()


@pytest.fixture(name="etcd")
def etcd_fixture() -> Iterator[EtcdServer]:
    with running_etcd() as server:
        yield server


def until(true: Callable[[], bool], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)


# ---- addresses ------------------------------------------------------------------------------------------------------


def test_addresses_come_from_the_pool_until_it_is_empty(stage: Stage, etcd: EtcdServer) -> None:
    hosts = stage.begin("--pool", "10.78.0.4/31", registry=f"etcd://{etcd.address}")
    a, b = stage("a", "auto"), stage("b", "auto")
    pair = Pair(a, b, "tcp").create()
    assert {pair.to_a.gid, pair.to_b.gid} == {f"0000:0000:0000:0000:0000:ffff:0a4e:000{n}" for n in (4, 5)}
    pair.a.connect(pair.to_b)
    pair.b.connect(pair.to_a)
    exchange(pair)
    # Another process of the same container has the same address, and that costs none.
    again = stage("a", "auto")
    assert Pair(again, b, "tcp").a.create(Options(), None).gid == pair.to_a.gid
    hosts.stop("b")
    hosts.start("b", "--pool", "10.78.0.4/32")  # which a has
    hosts.wait("b")
    with pytest.raises(PyverbsRDMAError, match=r"pool 10.78.0.4/32 is too small: all of its 1 addresses are in use"):
        stage("b", "auto").create(Options(), None)


def test_an_address_that_another_container_has_is_refused(stage: Stage, etcd: EtcdServer) -> None:
    stage.begin(registry=f"etcd://{etcd.address}")
    pair = stage.pair()
    with pytest.raises(PyverbsRDMAError, match=r"held by the container with address 10\.77\.1\.1 on host a"):
        stage("b", stage.hosts.container_ip("a")).create(Options(), None)
    exchange(pair)


def test_auto_without_a_pool_or_a_router_is_refused(stage: Stage, node_directory: Path) -> None:
    hosts = stage.begin()
    with pytest.raises(
        PyverbsRDMAError, match='FFVERBS_IP is "auto": .*has no pool of addresses: start it with --pool'
    ):
        stage("a", "auto").create(Options(), None)
    hosts.stop("a")
    with pytest.raises(PyverbsRDMAError, match='FFVERBS_IP is "auto": no router runs on this host'):
        stage("a", "auto").create(Options(), None)


# ---- tenants --------------------------------------------------------------------------------------------------------


def test_tenants_talk_only_where_both_sides_allow_it(stage: Stage, etcd: EtcdServer) -> None:
    hosts = stage.begin(registry=f"etcd://{etcd.address}")
    pair = Pair(stage("a"), stage("b"), "tcp").create()
    for allowed in ("nobody", "a", "both"):
        for name, tenant, other in (("a", "blue", "green"), ("b", "green", "blue")):
            hosts.stop(name)
            more = ["--allow-tenant", other] if allowed in (name, "both") else []
            hosts.start(name, "--tenant", tenant, *more)
            hosts.wait(name)
        pair = Pair(stage("a"), stage("b"), "tcp").create()
        patience = {"timeout": 18, "retry_cnt": 7} if allowed == "both" else {"timeout": 10, "retry_cnt": 1}
        pair.a.connect(pair.to_b, **patience)
        pair.b.connect(pair.to_a, **patience)
        if allowed == "both":
            exchange(pair)
            continue
        pair.b.post_recv(Recv(3))
        pair.a.post_send(Send(1))
        assert pair.a.sent()[0].status == RETRY_EXCEEDED
        said = "belongs to tenant green" if allowed == "nobody" else "of tenant blue, the one of b of green"
        until(lambda: said in hosts.log("a"), lambda: hosts.log("a"))  # noqa: B023


# ---- draining -------------------------------------------------------------------------------------------------------


def test_a_router_that_is_stopped_lets_work_end(stage: Stage) -> None:
    hosts = stage.begin("--drain-seconds", "60")
    pair = stage.pair()
    exchange(pair)
    pair.a.post_send(Send(5))  # nobody receives yet
    until(lambda: router_status(hosts, "a")["counters"]["under_way"] > 0, lambda: str(router_status(hosts, "a")))
    hosts.signal("a", signal.SIGTERM)
    until(lambda: not (hosts.directory("a") / "router.sock").exists(), lambda: hosts.log("a"))
    pair.b.post_recv(Recv(6))
    assert pair.a.sent()[0].ok
    assert pair.b.received()[0].wr_id == 6
    hosts.stop("a")  # it has ended by itself
    pair.a.wait_state(int(e.IBV_QPS_ERR))
    pair.b.wait_state(int(e.IBV_QPS_ERR))


def test_a_router_that_is_stopped_does_not_wait_for_ever(stage: Stage) -> None:
    hosts = stage.begin("--drain-seconds", "0.3")
    pair = stage.pair()
    pair.a.post_send(Send(5))
    until(lambda: router_status(hosts, "a")["counters"]["under_way"] > 0, lambda: str(router_status(hosts, "a")))
    hosts.stop("a")
    assert pair.a.sent()[0].status == RETRY_EXCEEDED


# ---- what it shows --------------------------------------------------------------------------------------------------


def get(hosts: Hosts, name: str, page: str) -> tuple[int, str]:
    where = re.search(r"metrics and health are at (http://[0-9.]+:\d+)", hosts.log(name))
    assert where, hosts.log(name)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(where[1] + page, timeout=DEADLINE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_status_metrics_and_health_tell_of_the_traffic(stage: Stage, etcd: EtcdServer) -> None:
    hosts = stage.begin("--http", "127.0.0.1:0", "--log-format", "json", registry=f"etcd://{etcd.address}?timeout=1")
    exchange(stage.pair())
    told = router_status(hosts, "a")
    assert told["host"] == "a"
    assert told["problems"] == []
    (peer,) = told["peers"]
    assert (peer["host"], peer["transport"], peer["pairs"], peer["proxies"]) == ("b", "tcp", 1, 1)
    assert re.match("tcp, for there is no RDMA at this end: .", peer["carrier"])
    assert peer["bytes_sent"] > 0
    status = _status.gather(str(hosts.directory("a")))
    carried = [pair for context in status["contexts"] for pair in context["qps"] if pair["path"] == "router"]
    assert {pair["transport"] for pair in carried} == {"tcp"}
    assert _status.render(status)
    code, text = get(hosts, "a", "/metrics")
    assert code == 200
    metrics = dict(re.findall(r"^(ffverbs_router_\S+) (\S+)$", text, re.M))
    assert float(metrics["ffverbs_router_healthy"]) == 1
    assert float(metrics["ffverbs_router_pairs"]) == 1
    assert float(metrics['ffverbs_router_peer_bytes_sent_total{host="b",transport="tcp"}']) > 0
    assert get(hosts, "a", "/health")[0] == 200
    assert get(hosts, "a", "/else")[0] == 404
    for line in hosts.log("a").splitlines():
        assert json.loads(line).keys() >= {"time", "level", "logger", "message"}
    etcd.kill()
    until(lambda: get(hosts, "a", "/health")[0] == 503, lambda: get(hosts, "a", "/health")[1])
    assert "the registry is away" in get(hosts, "a", "/health")[1]
    etcd.start()
    until(lambda: get(hosts, "a", "/health")[0] == 200, lambda: get(hosts, "a", "/health")[1])


def test_status_says_what_carries_a_pair_whatever_the_registry_says_now(stage: Stage, etcd: EtcdServer) -> None:
    hosts = stage.begin(registry=f"etcd://{etcd.address}")
    exchange(stage.pair())
    moved = ContainerRecord(gid_of(ipaddress.ip_address(hosts.container_ip("b"))), "c", "default", 1, "0" * 16)
    key, value = (base64.b64encode(raw).decode() for raw in (key_of(moved).encode(), encode(moved)))
    etcd.post("kv/put", key=key, value=value)
    until(lambda: "has lost its place in the registry" in hosts.log("b"), lambda: hosts.log("b"))
    status = _status.gather(str(hosts.directory("a")))
    carried = [pair for context in status["contexts"] for pair in context["qps"] if pair["path"] == "router"]
    assert {pair["transport"] for pair in carried} == {"tcp"}, status


# ---- bad input ------------------------------------------------------------------------------------------------------


def route(folder: Path, *words: str, registry: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a router that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "router", "--dir", str(folder), "--host", "a", "--host-ip", "127.0.0.1",
         "--listen", str(free_port()), "--http", "off", "--registry", registry, *words],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **env}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "registry", "status", "text"),
    [
        ([], "static:{}/none.json", 1, "static registry .*none.json cannot be read: No such file"),
        ([], "static:{}/bad.json", 1, "static registry .*bad.json is malformed"),
        ([], "zookeeper://h:1", 1, "is of no kind that is known: write etcd://"),
        (["--pool", "10.1.0.1/16"], "static:{}/bad.json", 2, "pool '10.1.0.1/16': .*has host bits set"),
        (["--http", "everywhere"], "static:{}/bad.json", 2, "write ADDRESS:PORT"),
        (["--cluster-secret-file", "{}/short"], "static:{}/bad.json", 1, "fewer than 16 bytes"),
        (["--dir", "{}/nowhere"], "static:{}/bad.json", 1, "the node directory .*nowhere cannot be opened"),
    ],
)
def test_a_router_that_cannot_start_says_why_in_a_line(
    node_directory: Path, words: list[str], registry: str, status: int, text: str
) -> None:
    (node_directory / "bad.json").write_text("{}")
    (node_directory / "short").write_text("secret")
    where = str(node_directory)
    ended = route(node_directory, *(word.format(where) for word in words), registry=registry.format(where))
    last = ended.stderr.strip().splitlines()[-1]
    assert ended.returncode == status, ended.stderr
    assert re.search(text, last), ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("words", "library", "text"),
    [
        ([], "/nonexistent", "libibverbs"),
        ([], PRETENDED, "no RoCE v2 GID for 127.0.0.1: give its network interface that address, or say --host-ip"),
        (["--rdma-device", "mlx5_9"], PRETENDED, "there is no RDMA device mlx5_9 here: rdma link show lists them"),
        (["--rdma-gid-index", "900"], PRETENDED, "has no GID at index 900: .*change or drop --rdma-gid-index"),
    ],
)
def test_a_router_that_shall_use_rdma_and_cannot_says_why(
    node_directory: Path, words: list[str], library: str, text: str
) -> None:
    (node_directory / "cluster.json").write_text('{"schema": 1, "serial": 1, "hosts": {}, "containers": {}}')
    registry = f"static:{node_directory}/cluster.json"
    demanded = ["--transport", "rdma", *words]
    ended = route(node_directory, *demanded, registry=registry, FFVERBS_LIBIBVERBS=library)
    assert ended.returncode == 1, ended.stderr
    assert re.search(text, ended.stderr.strip().splitlines()[-1]), ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_registry_that_refuses_is_told_and_costs_nobody_anything(stage: Stage, etcd: EtcdServer) -> None:
    """A file without the host and the container; an etcd that wants credentials."""
    hosts = stage.begin()
    exchange(stage.pair())
    file = hosts.folder / "cluster.json"
    cluster = json.loads(file.read_text())
    stage("a", "10.77.9.9").create(Options(), None)  # a container that the file does not have
    until(lambda: "has no container" in hosts.log("a"), lambda: hosts.log("a"))
    replace(file, cluster | {"containers": {}})  # the serial as it was
    until(lambda: "is stale: it has changed, but not its serial" in hosts.log("a"), lambda: hosts.log("a"))
    exchange(stage.pair())
    etcd.enable_users()
    hosts.stop("b")
    hosts.registry = f"etcd://{etcd.address}"
    hosts.start("b")
    until(lambda: "host b is not registered" in hosts.log("b"), lambda: hosts.log("b"))
    assert re.search("host b is not registered: .*(user|credential|password)", hosts.log("b"))


def replace(file: Path, cluster: dict[str, object]) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(cluster), encoding="utf-8")
    fresh.replace(file)


def test_a_full_descriptor_table_stops_nobody_who_is_there(stage: Stage) -> None:
    hosts = stage.begin()
    pair = stage.pair()
    exchange(pair)
    pid = hosts.pid("a")
    used = len(os.listdir(f"/proc/{pid}/fd"))
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, before[1]))
    late = stage("a", "10.77.1.1")
    waiting = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(4)]
    try:
        for sock in waiting:
            sock.setblocking(False)
            sock.connect(str(hosts.directory("a") / "router.sock"))
        until(lambda: "raise the limit of open files" in hosts.log("a"), lambda: hosts.log("a"))
        exchange(pair)
    finally:
        for sock in waiting:
            sock.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    exchange(Pair(late, stage("b"), "tcp").connect(timeout=18, retry_cnt=7))
    exchange(pair)
