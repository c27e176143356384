"""Routers that stop, die and come back, that lie, and that lose their containers; and what containers see of it."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ffverbs.libibverbs_enums as e
from tests.conformance.between_hosts import (  # noqa: F401 - the fixtures are used
    Cast,
    containers_fixture,
    exchange,
    hosts_fixture,
    router_status,
)
from tests.conformance.pair import DEADLINE_S, UD, XRC, Address, Done, Options, Pair, Recv, Send
from tests.hosts import Hosts

RETRY_EXCEEDED, FLUSHED = int(e.IBV_WC_RETRY_EXC_ERR), int(e.IBV_WC_WR_FLUSH_ERR)


def wait_until_gone(directory: Path, count: int) -> None:
    """Wait until so many names (contexts and proxies) are left in the node directory."""
    deadline = time.monotonic() + DEADLINE_S
    while len([name for name in os.listdir(directory) if len(name) == 36]) > count:
        assert time.monotonic() < deadline, os.listdir(directory)
        time.sleep(0.01)


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "stopped"])
@pytest.mark.parametrize("which", ["a", "b"])
def test_a_router_ends_and_comes_back(hosts: Hosts, containers: Cast, which: str, kill: bool) -> None:
    a, b, neighbour = containers("a"), containers("b"), containers("a")
    far = Pair(a, b, "tcp").connect()
    exchange(far)
    second = containers("a")
    near = Pair(second, neighbour, "processes").connect()
    exchange(near)
    far.a.post_send(Send(1))  # nobody receives: it waits over there
    hosts.stop(which, kill=kill)
    assert far.a.sent()[0].status in (RETRY_EXCEEDED, FLUSHED)
    far.a.wait_state(int(e.IBV_QPS_ERR))
    far.b.wait_state(int(e.IBV_QPS_ERR))
    exchange(near)  # who is on one host does not notice
    hosts.start(which)
    hosts.wait(which)
    again = Pair(containers("a"), containers("b"), "tcp").connect()
    exchange(again)
    exchange(near)


def test_a_container_dies(hosts: Hosts, containers: Cast) -> None:
    a, b = containers("a"), containers("b")
    pair = Pair(a, b, "tcp").connect()
    exchange(pair)
    containers.kill(b)
    pair.a.wait_state(int(e.IBV_QPS_ERR))
    wait_until_gone(hosts.directory("a"), 1)
    again = Pair(containers("a"), containers("b"), "tcp").connect()
    exchange(again)


def test_an_xrc_queue_of_a_third_container(hosts: Hosts, containers: Cast) -> None:
    """The queue pair that requests arrive at and the queue that they name are of different processes there."""
    for name in hosts.names:
        (hosts.directory(name) / "domain").touch()
    options = Options(XRC, domain="domain")
    third = containers("b")
    pair = Pair(containers("a"), containers("b"), "tcp").connect(options)
    queue = third.create(options)
    pair.a.write(b"over two")
    pair.a.post_send(Send(1, srqn=queue.srqn))
    assert pair.a.poll_now("send") == []
    third.post_recv(Recv(7))
    assert pair.a.sent()[0].ok
    done = third.received()[0]
    assert (done.wr_id, done.qp_num) == (7, pair.to_b.targets[0])
    assert third.read(8) == b"over two"
    pair.a.post_send(Send(2, int(e.IBV_WR_RDMA_WRITE), remote=queue.addr + 64, rkey=queue.rkey, srqn=queue.srqn))
    assert pair.a.sent()[0].ok
    assert third.read(8, 64) == b"over two"
    containers.kill(third)
    pair.a.post_send(Send(3, srqn=queue.srqn))
    assert pair.a.sent()[0].status == e.IBV_WC_REM_INV_REQ_ERR


def test_another_secret_is_refused(hosts: Hosts, containers: Cast) -> None:
    hosts.stop("b")
    (hosts.folder / "secret").write_text("quite another secret, of another cluster", encoding="ascii")
    hosts.start("b")
    hosts.wait("b")
    pair = Pair(containers("a"), containers("b"), "tcp").create()
    pair.a.connect(pair.to_b, retry_cnt=1, timeout=10)
    pair.a.post_send(Send(1))
    assert pair.a.sent()[0].status == RETRY_EXCEEDED
    assert "the cluster secrets of" in hosts.log("a") + hosts.log("b")


def test_noise_at_the_port_is_refused(hosts: Hosts, containers: Cast) -> None:
    for noise in (b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x00\x00\x00\x02{}", b"\xff" * 4096):
        hosts.send("b", noise)
    exchange(Pair(containers("a"), containers("b"), "tcp").connect())
    assert "is refused" in hosts.log("b")


@pytest.mark.parametrize("late", ["a", "b"])
def test_a_router_that_starts_late(hosts: Hosts, containers: Cast, late: str) -> None:
    hosts.stop(late)
    pair = Pair(containers("a"), containers("b"), "tcp").create()
    pair.a.connect(pair.to_b, timeout=18, retry_cnt=7)  # a second, eight times
    pair.b.connect(pair.to_a, timeout=18, retry_cnt=7)
    pair.b.post_recv(Recv(3))
    pair.a.post_recv(Recv(3))
    pair.a.post_send(Send(1))
    pair.b.post_send(Send(2))
    hosts.start(late)
    hosts.wait(late)
    assert pair.a.sent()[0].ok
    assert pair.b.sent()[0].ok
    assert pair.a.received()[0].wr_id == pair.b.received()[0].wr_id == 3
    exchange(pair)


def test_a_group_spans_hosts(node_directory: Path) -> None:
    """Each host gets a copy; one whose router comes back gets them again."""
    group, options = "ff0e:0000:0000:0000:0000:0000:0000:0099", Options(UD)
    everybody = Address(group, (0xFFFFFF,), 0, 0, 0, 0)
    hosts = Hosts(node_directory, ("a", "b", "c"))
    containers = Cast(hosts, node_directory)
    try:
        sender, *members = (containers(name) for name in hosts.names)
        for peer in (sender, *members):
            peer.connect(peer.create(options))
        for member in members:
            member.join(group)
            member.post_recv(*(Recv(n, ((0, 2048),)) for n in range(8)))
        sender.post_send(*(Send(n, pieces=((0, 100 + n),), to=everybody) for n in range(4)))
        assert all(done.ok for done in sender.sent(4))
        for member in members:
            assert [(done.wr_id, done.byte_len) for done in member.received(4)] == [(n, 140 + n) for n in range(4)]
        hosts.stop("c")
        sender.post_send(Send(4, pieces=((0, 104),), to=everybody))
        assert members[0].received()[0].byte_len == 144
        hosts.start("c")
        hosts.wait("c")
        deadline = time.monotonic() + DEADLINE_S
        got: list[Done] = []
        while not got:  # lost, until the routers know of each other again
            assert time.monotonic() < deadline
            sender.post_send(Send(5, pieces=((0, 105),), to=everybody))
            sender.sent()
            time.sleep(0.01)
            got = members[1].poll_now("recv")
        assert got[0].byte_len == 145
    finally:
        containers.end()
        hosts.close()


def _registry_with(hosts: Hosts, address: str, host: str, serial: int) -> str:
    """Return the cluster's file with a container elsewhere."""
    cluster = json.loads((hosts.folder / "cluster.json").read_text(encoding="utf-8"))
    cluster["serial"] = serial
    cluster["containers"][address] = {"host": host, "tenant": "default"}
    return json.dumps(cluster)


@pytest.fixture(name="three")
def three_fixture(node_directory: Path) -> Iterator[tuple[Hosts, Cast]]:
    hosts = Hosts(node_directory, ("a", "b", "c"))
    containers = Cast(hosts, node_directory)
    yield hosts, containers
    containers.end()
    hosts.close()


def test_a_host_speaks_for_its_own_containers_only(three: tuple[Hosts, Cast]) -> None:
    hosts, containers = three
    honest = Pair(containers("a"), containers("b"), "tcp").connect()
    exchange(honest)
    theirs = hosts.container_ip("b")
    other = hosts.folder / "other.json"
    other.write_text(_registry_with(hosts, theirs, "c", 1), encoding="utf-8")
    hosts.stop("c")
    hosts.start("c", "--registry", f"static:{other}")
    hosts.wait("c")
    liar = Pair(containers("c", theirs), containers("a"), "tcp").create()
    liar.a.connect(liar.to_b)
    liar.a.post_send(Send(1))
    assert liar.a.sent()[0].status == RETRY_EXCEEDED
    assert f"host c speaks for {theirs} and may not: it is host b's" in hosts.log("a")
    assert router_status(hosts, "a")["counters"]["claims_refused"] >= 1
    exchange(honest)


def test_a_container_moves_while_its_old_host_is_cut_off(three: tuple[Hosts, Cast]) -> None:
    """Nothing is heard of the old host any more: that the container is elsewhere is the registry's word alone."""
    hosts, containers = three
    moving = hosts.container_ip("b")
    a, b = containers("a"), containers("b")
    first = Pair(a, b, "tcp").connect()
    exchange(first)
    hosts.signal("b", signal.SIGSTOP)
    try:
        containers.kill(b)
        edited = hosts.folder / "edited.json"
        edited.write_text(_registry_with(hosts, moving, "c", 2), encoding="utf-8")
        edited.replace(hosts.folder / "cluster.json")
        began = time.monotonic()
        first.a.wait_state(int(e.IBV_QPS_ERR))
        print(f"the old connection ended after {time.monotonic() - began:.2f} s")
        again = Pair(containers("a"), containers("c", moving), "tcp").create()
        began = time.monotonic()
        again.a.connect(again.to_b, timeout=18, retry_cnt=7)
        again.b.connect(again.to_a, timeout=18, retry_cnt=7)
        exchange(again)
        print(f"the new one took {time.monotonic() - began:.2f} s")
    finally:
        hosts.signal("b", signal.SIGCONT)
    exchange(again)  # what the old host still says changes nothing
