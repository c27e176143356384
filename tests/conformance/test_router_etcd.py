"""Hosts that know each other by a real etcd: containers that move, and an etcd that is not there."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

import ffverbs.libibverbs_enums as e
from tests.conformance.between_hosts import Cast, exchange
from tests.conformance.pair import DEADLINE_S, Pair
from tests.hosts import Hosts
from tests.registry.servers import Cluster, EtcdServer, running_etcd

MOVING = "10.77.99.1"


class Lab:
    """An etcd, or a cluster of three, with hosts and their containers."""

    def __init__(self, folder: Path, members: list[EtcdServer]) -> None:
        self.etcd = members[0]
        self.members = members
        self.hosts = Hosts(folder, registry="etcd://" + ",".join(m.address for m in members) + "?timeout=1")
        self.start = Cast(self.hosts, folder, apart=True)

    def pair(self, a: str = "a", b: str = "b", b_ip: str = "") -> Pair:
        """Return two connected containers of two hosts, patient enough for a busy machine that starts an etcd."""
        return Pair(self.start(a), self.start(b, b_ip), "tcp").connect(timeout=18, retry_cnt=7)

    def close(self) -> None:
        for name in self.hosts.names:
            print(f"--- router {name}\n{self.hosts.log(name)}")  # shown if the test fails
        self.start.end()
        self.hosts.close()


@pytest.fixture(name="server")
def server_fixture() -> Iterator[EtcdServer]:
    with running_etcd() as server:
        yield server


@pytest.fixture(name="lab")
def lab_fixture(server: EtcdServer, node_directory: Path) -> Iterator[Lab]:
    lab = Lab(node_directory, [server])
    yield lab
    lab.close()


class Traffic:
    """Messages both ways in a thread, all the time; `end` raises what went wrong."""

    def __init__(self, pair: Pair) -> None:
        self._pair, self._over, self._count = pair, threading.Event(), 0
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                exchange(self._pair)
                self._count += 1
        except BaseException as failure:
            self._failure = failure

    def flows(self) -> None:
        """Wait until more has come through."""
        deadline, before = time.monotonic() + DEADLINE_S, self._count
        while self._count < before + 10 and self._failure is None:
            assert time.monotonic() < deadline, "traffic has stopped"
            time.sleep(0.005)
        if self._failure:
            raise self._failure

    def end(self) -> None:
        self._over.set()
        self._thread.join()
        if self._failure:
            raise self._failure


def test_a_container_moves_to_another_host(lab: Lab) -> None:
    first = lab.pair(b_ip=MOVING)
    exchange(first)
    lab.start.kill(first.b)
    first.a.wait_state(int(e.IBV_QPS_ERR))
    # On the very host of its peer, and back: no other way leads to it any more.
    for host, peer in (("a", "b"), ("b", "a")):
        moved = lab.pair(peer, host, MOVING)
        exchange(moved)
        lab.start.kill(moved.b)
        moved.a.wait_state(int(e.IBV_QPS_ERR))


@pytest.mark.parametrize("late", ["etcd", "a", "b"])
def test_everything_starts_in_any_order(lab: Lab, late: str) -> None:
    for name in "ab":
        lab.hosts.stop(name)
    if late == "etcd":
        lab.etcd.kill()
    for name in "ab":
        if name != late:
            lab.hosts.start(name)
            lab.hosts.wait(name)
    pair = Pair(lab.start("a"), lab.start("b"), "tcp").create()
    if late == "etcd":
        lab.etcd.start()
    else:
        lab.hosts.start(late)
        lab.hosts.wait(late)
    pair.a.connect(pair.to_b, timeout=18, retry_cnt=7)
    pair.b.connect(pair.to_a, timeout=18, retry_cnt=7)
    exchange(pair)


def kill(lab: Lab) -> Callable[[], None]:
    lab.etcd.kill()
    return lab.etcd.start


def pause(lab: Lab) -> Callable[[], None]:
    lab.etcd.pause()
    return lab.etcd.resume


def wipe(lab: Lab) -> Callable[[], None]:
    lab.etcd.wipe()
    return lambda: None


def revoke(lab: Lab) -> Callable[[], None]:
    leases = cast(list[dict[str, str]], lab.etcd.post("lease/leases")["leases"])
    for lease in leases:
        lab.etcd.post("lease/revoke", ID=lease["ID"])
    assert leases
    return lambda: None


def compact(lab: Lab) -> Callable[[], None]:
    """Away while the routers' watches stand; what they missed is forgotten when they may look again."""
    header = cast(dict[str, str], lab.etcd.post("kv/put", key="eA==", value="eA==")["header"])
    lab.etcd.post("kv/compaction", revision=header["revision"])
    lab.etcd.kill()
    return lab.etcd.start


def test_traffic_goes_on_without_etcd(lab: Lab) -> None:
    traffic = Traffic(lab.pair())
    try:
        for trouble in (kill, pause, wipe, revoke, compact):
            end = trouble(lab)
            traffic.flows()
            late = lab.start("a"), lab.start("b")
            pair = Pair(*late, "tcp").create()  # while nobody can be told of them
            traffic.flows()
            end()
            began = time.monotonic()
            pair.a.connect(pair.to_b, timeout=18, retry_cnt=7)
            pair.b.connect(pair.to_a, timeout=18, retry_cnt=7)
            exchange(pair)
            print(f"{trouble.__name__}: the map is right after {time.monotonic() - began:.2f} s")
            traffic.flows()
            for side in late:
                lab.start.kill(side)
    finally:
        traffic.end()


def test_a_member_of_three_is_lost(node_directory: Path) -> None:
    cluster = Cluster()
    cluster.start()
    lab = None
    try:
        lab = Lab(node_directory, cluster.members)
        traffic = Traffic(lab.pair())
        try:
            for member in cluster.members:
                member.kill()
                traffic.flows()
                exchange(lab.pair())
                member.start()
        finally:
            traffic.end()
    finally:
        if lab:
            lab.close()
        cluster.close()
