"""Hosts with a network between them: a part of the conformance suite over it, and what a cut of that network does.

Each host is a network namespace with its router; its containers have no network, only its node directory.
"""

import os
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

import ffverbs.libibverbs_enums as e
from tests.conformance.pair import DEADLINE_S, Options, Pair, Peer, Recv, Send
from tests.conformance.paths import _Remote, spawn
from tests.conformance.test_channels import test_a_sleeper_is_woken_from_the_other_side  # noqa: F401
from tests.conformance.test_operations import (  # noqa: F401
    test_a_large_message,
    test_atomics,
    test_datagrams,
    test_gather_and_scatter,
    test_immediate_data,
    test_order_of_what_is_sent_is_kept,
    test_read,
    test_send,
    test_write,
)
from tests.conformance.test_status import (  # noqa: F401
    test_a_queue_pair_can_be_reset_and_used_again,
    test_a_receive_that_is_too_small,
    test_everything_is_flushed_in_order,
)
from tests.lab.network import NetHosts, Network, unavailable

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=f"no networks on this host: {unavailable()}")

RETRY_EXCEEDED = int(e.IBV_WC_RETRY_EXC_ERR)
PATIENT: dict[str, Any] = {"timeout": 20, "retry_cnt": 7}  # 4.3 s, eight times: the longest cut is shorter


@pytest.fixture(scope="module", name="hosts")
def hosts_fixture() -> Iterator[NetHosts]:
    with Network(("a", "b")) as network, NetHosts(network) as hosts:
        yield hosts


@pytest.fixture(scope="module", name="sides")
def sides_fixture(hosts: NetHosts) -> Iterator[tuple[Peer, Peer]]:
    made = [
        spawn(hosts.folder, f"w-{name}", env=hosts.environment(name), prefix=hosts.network.enter_nowhere())
        for name in hosts.names
    ]
    yield cast(Peer, made[0]), cast(Peer, made[1])
    for remote in made:
        remote._end()


@pytest.fixture(name="pair")
def pair_fixture(hosts: NetHosts, sides: tuple[Peer, Peer]) -> Iterator[Pair]:
    hosts.check()
    pair = Pair(*sides, "tcp")
    yield pair
    if not any(cast(_Remote, side).busy or cast(_Remote, side).broken for side in sides):
        pair.close()


@pytest.fixture(name="cut")
def cut_fixture(hosts: NetHosts) -> Iterator[str]:
    """The name of a host that is cut off; it is not any more afterwards."""
    yield "b"
    hosts.network.heal("b")


def resumptions(hosts: NetHosts) -> list[int]:
    return [hosts.log(name).count("goes on") for name in hosts.names]


def wait_until_resumed(hosts: NetHosts, before: list[int]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not all(now > then for now, then in zip(resumptions(hosts), before, strict=True)):
        hosts.check()
        assert time.monotonic() < deadline, hosts.log("a")
        time.sleep(0.02)


def test_containers_have_no_network_and_hosts_one_connection(hosts: NetHosts, pair: Pair) -> None:
    pair.connect()
    pair.b.post_recv(Recv(1))
    pair.a.post_send(Send(2))
    assert pair.a.sent()[0].ok
    assert hosts.network.connections("a") == hosts.network.connections("b") == 1
    assert os.readlink(f"/proc/{pair.a.pid()}/ns/net") != os.readlink(f"/proc/{hosts.pid('a')}/ns/net")


@pytest.mark.parametrize("seconds", [0.3, 3.0], ids=["short", "long"])
def test_a_cut_that_heals(hosts: NetHosts, pair: Pair, cut: str, seconds: float) -> None:
    """What is posted before and during a cut comes after it, once each and in order, in both directions."""
    pair.connect(Options(send_wr=64, recv_wr=64), **PATIENT)
    for n in range(40):
        pair.a.post_recv(Recv(n))
        pair.b.post_recv(Recv(n))
    for n in range(10):
        pair.a.post_send(Send(n))
    hosts.network.cut(cut)
    for n in range(10, 40):
        pair.a.post_send(Send(n))
        pair.b.post_send(Send(n))
    time.sleep(seconds)
    hosts.network.heal(cut)
    assert [d.wr_id for d in pair.a.sent(40)] == list(range(40))
    assert [d.wr_id for d in pair.b.received(40)] == list(range(40))
    assert [d.wr_id for d in pair.b.sent(30)] == list(range(10, 40))
    assert [d.wr_id for d in pair.a.received(30)] == list(range(30))
    if seconds > 1:
        assert "goes on" in hosts.log("a")


def test_impatience_in_a_cut(hosts: NetHosts, pair: Pair, cut: str) -> None:
    """Who has less patience than the cut takes ends with the right status, and works again when connected anew."""
    pair.connect(timeout=14, retry_cnt=6)  # 67 ms, seven times: at most four times that, 1.9 s
    pair.b.post_recv(Recv(1))
    pair.a.post_send(Send(1))
    assert pair.a.sent()[0].ok
    before = resumptions(hosts)
    hosts.network.cut(cut)
    began = time.monotonic()
    pair.a.post_send(Send(2))
    assert pair.a.sent()[0].status == RETRY_EXCEEDED
    assert time.monotonic() - began >= 0.9
    hosts.network.heal(cut)
    wait_until_resumed(hosts, before)
    pair.close()
    pair.connect(**PATIENT)
    pair.b.post_recv(Recv(1))
    pair.a.post_send(Send(3))
    assert pair.a.sent()[0].ok
    assert pair.b.received()[0].wr_id == 1
