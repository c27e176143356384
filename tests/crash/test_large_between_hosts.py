"""A container is killed while large payload goes between its memory and a router's sockets, in each of the four ways.

The survivor on the other host gets one completion for each of its work requests, in order, and its queue pair is in
error; others over the same routers go on, with what they had under way; and no router keeps a descriptor, a mapping of
the dead's memory, or much else. Where in the transfer death comes is left to chance.
"""

import time

import pytest

import ffverbs.libibverbs_enums as e
from tests.conformance.between_hosts import (  # noqa: F401 - the fixtures are used
    Cast,
    anonymous_bytes,
    check_end,
    containers_fixture,
    exchange,
    held,
    hosts_fixture,
)
from tests.conformance.pair import DEADLINE_S, Options, Pair, Recv, Send
from tests.hosts import Hosts

LENGTH, COUNT = 2 << 20, 12
WRITE, READ, SEND = int(e.IBV_WR_RDMA_WRITE), int(e.IBV_WR_RDMA_READ), int(e.IBV_WR_SEND)
OPTIONS = Options(length=LENGTH, send_wr=COUNT, recv_wr=COUNT)
WHOLE = ((0, LENGTH),)
DEATHS = 3
SLACK_BYTES = 4 << 20  # less than one message of each of the dead


def wait_until_held(hosts: Hosts, before: dict[str, tuple[int, int]]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while (now := {name: held(hosts.pid(name)) for name in hosts.names}) and any(
        now[name][kind] > before[name][kind] for name in hosts.names for kind in range(2)
    ):
        assert time.monotonic() < deadline, (now, before)
        time.sleep(0.05)


def wait_until_small(hosts: Hosts, before: dict[str, int]) -> None:
    """Wait until the routers are at rest, with no payload of the dead left."""
    deadline = time.monotonic() + DEADLINE_S
    while (grown := max(anonymous_bytes(hosts.pid(name)) - before[name] for name in hosts.names)) >= SLACK_BYTES:
        assert time.monotonic() < deadline, grown
        time.sleep(0.05)


def start(pair: Pair, way: str) -> str:
    """Put under way what goes with the victim, side b; return which of the survivor's queues tells of it."""
    if way == "written to":
        pair.a.post_send(*(pair.remote(WRITE, wr_id=n, pieces=WHOLE) for n in range(COUNT)))
        return "send"
    if way == "read from":
        pair.a.post_send(*(pair.remote(READ, wr_id=n, pieces=WHOLE) for n in range(COUNT)))
        return "send"
    if way == "sent to":
        pair.b.post_recv(*(Recv(n, WHOLE) for n in range(COUNT)))
        pair.a.post_send(*(Send(n, SEND, WHOLE) for n in range(COUNT)))
        return "send"
    pair.a.post_recv(*(Recv(n, WHOLE) for n in range(COUNT)))
    pair.b.post_send(*(Send(n, SEND, WHOLE) for n in range(COUNT)))
    return "recv"


@pytest.mark.parametrize("way", ["written to", "read from", "sent to", "sends"])
def test_death(hosts: Hosts, containers: Cast, way: str) -> None:
    bystanders = Pair(containers("a"), containers("b"), "tcp").connect(OPTIONS)
    exchange(bystanders)
    before = {name: held(hosts.pid(name)) for name in hosts.names}
    memory = {name: anonymous_bytes(hosts.pid(name)) for name in hosts.names}
    for n in range(DEATHS):
        survivor, victim = containers("a"), containers("b")
        pair = Pair(survivor, victim, "tcp").connect(OPTIONS)
        exchange(pair)
        bystanders.a.post_send(*(bystanders.remote(WRITE, wr_id=i, pieces=WHOLE) for i in range(COUNT)))
        kind = start(pair, way)
        done = survivor.poll(kind, 1 + n % 3)  # it is in the middle of it
        containers.kill(victim)
        done += survivor.poll(kind, COUNT - len(done))
        check_end(done, COUNT)
        survivor.wait_state(int(e.IBV_QPS_ERR))
        assert [(d.wr_id, d.ok) for d in bystanders.a.sent(COUNT)] == [(i, True) for i in range(COUNT)]
        exchange(bystanders)
        containers.kill(survivor)
        wait_until_held(hosts, before)
    wait_until_small(hosts, memory)
