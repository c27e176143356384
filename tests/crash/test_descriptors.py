"""A router that may open no more descriptors, at whatever it needs one for.

Who asks for something new is told, or waits; the router says in its log what is missing; whoever is connected does not
notice; and when descriptors are there again, everything is as before, without a restart.
"""

import contextlib
import itertools
import os
import resource
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

import ffverbs.libibverbs_enums as e
from etcd_registry.records import gid_of
from ffverbs.pyverbs_error import PyverbsError
from tests.conformance.between_hosts import (  # noqa: F401 - the fixture is used
    Cast,
    containers_fixture,
    exchange,
    held,
    router_status,
)
from tests.conformance.pair import DEADLINE_S, Options, Pair, Peer, Recv, Send
from tests.hosts import Hosts

LARGE = 1 << 20
# How many descriptors are left while two containers of two hosts connect: none, and so many that each step fails.
SPARE = (0, 1, 2, 3, 4, 6, 8, 10, 12, 15, 18, 21, 25, 30, 40)


class ThreeHosts(Hosts):
    """Hosts whose registry knows a few containers of each."""

    def container_ips(self, name: str) -> list[str]:
        return [self.address_of(name, number) for number in range(1, 4)]

    def address_of(self, name: str, number: int) -> str:
        return f"10.77.{self.names.index(name) + 1}.{number}"


@pytest.fixture(name="hosts")
def hosts_fixture(node_directory: Path) -> Iterator[ThreeHosts]:
    made = ThreeHosts(node_directory, ("a", "b", "c"))
    yield made
    made.close()


@contextlib.contextmanager
def few_descriptors(pid: int, spare: int = 0) -> Iterator[None]:
    """Let a process open no more than so many descriptors more."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    taken = {int(number) for number in os.listdir(f"/proc/{pid}/fd")}
    free = (number for number in itertools.count() if number not in taken)
    limit = next(itertools.islice(free, spare, None))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def wait_for(what: str, hosts: Hosts, name: str) -> None:
    """Wait until the router of a host has said that."""
    deadline = time.monotonic() + DEADLINE_S
    while what not in hosts.log(name):
        assert time.monotonic() < deadline, hosts.log(name)
        time.sleep(0.05)


def connect(a: Peer, b: Peer) -> bool:
    """Connect two containers of two hosts and send a message each way, if that can be had."""
    pair = Pair(a, b, "tcp")
    try:
        pair.connect(Options(), timeout=8)
    except PyverbsError:
        with contextlib.suppress(PyverbsError):
            pair.close()
        return False
    for peer in (pair.a, pair.b):
        peer.post_recv(Recv(3))
    for peer in (pair.a, pair.b):
        peer.post_send(Send(4))
    sent = [peer.sent()[0].status for peer in (pair.a, pair.b)]
    assert set(sent) <= {e.IBV_WC_SUCCESS, e.IBV_WC_RETRY_EXC_ERR, e.IBV_WC_WR_FLUSH_ERR}
    if not any(sent):
        assert [peer.received()[0].wr_id for peer in (pair.a, pair.b)] == [3, 3]
    pair.close()
    return not any(sent)


def connects_again(containers: Cast, one: str, other: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        a, b = containers(one), containers(other)
        good = connect(a, b)
        containers.kill(a)
        containers.kill(b)
        if good:
            return
        assert time.monotonic() < deadline


def write_large(pair: Pair) -> None:
    crc = pair.a.fill(LARGE, 7)
    pair.a.post_send(pair.remote(e.IBV_WR_RDMA_WRITE, wr_id=9, pieces=((0, LARGE),)))
    assert pair.a.sent()[0].ok
    assert pair.b.checksum(LARGE) == crc


def test_containers_come_meanwhile(hosts: ThreeHosts, containers: Cast) -> None:
    """They are served by their own host, and by others as soon as the router has descriptors again."""
    bystanders = Pair(containers("a"), containers("b"), "tcp").connect(Options(length=LARGE))
    exchange(bystanders)
    with few_descriptors(hosts.pid("b")):
        newcomer, neighbour = (containers("b", hosts.address_of("b", number)) for number in (2, 3))
        near = Pair(newcomer, neighbour, "processes").connect()
        exchange(near)
        assert not connect(containers("b"), containers("a"))
        wait_for("nobody can be served: Too many open files; raise the limit of open files (ulimit -n)", hosts, "b")
        wait_for("the containers of this host: they cannot be looked at: Too many open files", hosts, "b")
        exchange(bystanders)
        write_large(bystanders)
    here = {gid_of(IPv4Address(hosts.address_of("b", number))) for number in (2, 3)}
    deadline = time.monotonic() + DEADLINE_S
    while not here <= set(router_status(hosts, "b")["containers"]):
        assert time.monotonic() < deadline, hosts.log("b")
        time.sleep(0.05)
    exchange(near)
    near.close()
    assert connect(containers("a"), newcomer)
    exchange(bystanders)


def test_no_place_for_a_container_of_another_host(hosts: ThreeHosts, containers: Cast) -> None:
    """Who sends to a host that cannot take it in is told; and that host says why."""
    bystanders = Pair(containers("a"), containers("b"), "tcp").connect(Options(length=LARGE))
    exchange(bystanders)
    a, b = containers("a", hosts.address_of("a", 2)), containers("b")
    pair = Pair(a, b, "tcp").create()
    with few_descriptors(hosts.pid("b")):
        a.connect(pair.to_b, timeout=8)
        a.post_send(Send(4))
        assert a.sent()[0].status == e.IBV_WC_RETRY_EXC_ERR
        wait_for(f"{hosts.address_of('a', 2)} of another host is not to be reached from here: ", hosts, "b")
        write_large(bystanders)
    pair.close()
    assert connect(a, b)
    exchange(bystanders)


@pytest.mark.parametrize("which", ["a", "b"])
def test_every_step_of_connecting(which: str, hosts: ThreeHosts, containers: Cast) -> None:
    """Whatever one of the two routers cannot open: it fails clearly, nothing is left of it, and then it works."""
    bystanders = Pair(containers("a"), containers("b"), "tcp").connect(Options(length=LARGE))
    exchange(bystanders)
    connects_again(containers, "a", "b")
    before = held(hosts.pid(which))
    outcomes = []
    for spare in SPARE:
        a, b = containers("a"), containers("b")
        with few_descriptors(hosts.pid(which), spare):
            outcomes.append(connect(a, b))
            exchange(bystanders)
        containers.kill(a)
        containers.kill(b)
    assert not outcomes[0]
    assert outcomes[-1], outcomes
    connects_again(containers, "a", "b")
    write_large(bystanders)
    deadline = time.monotonic() + DEADLINE_S
    while (now := held(hosts.pid(which))) > before or now[1] > before[1]:
        assert time.monotonic() < deadline, (now, before)
        time.sleep(0.05)


def test_another_router_connects_meanwhile(hosts: ThreeHosts, containers: Cast) -> None:
    """Its containers are told that this host cannot be reached, and it connects when it can."""
    bystanders = Pair(containers("a"), containers("b"), "tcp").connect(Options(length=LARGE))
    exchange(bystanders)
    with few_descriptors(hosts.pid("b")):
        assert not connect(containers("c"), containers("b"))
        wait_for("cannot be reached: the router of host b cannot be reached", hosts, "c")
        write_large(bystanders)
    connects_again(containers, "c", "b")
    exchange(bystanders)
