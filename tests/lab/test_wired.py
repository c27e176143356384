"""Two machines on a wire, a router in each: their containers use real RDMA; the wire is cut, a machine dies."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

import ffverbs.libibverbs_enums as e
from tests.conformance.pair import RC, Options, Pair, Send
from tests.lab import conformance
from tests.lab.rdma_guest import begin_writes, send, write_and_read
from tests.lab.vm import packages
from tests.lab.vm.machine import Cable, Machine
from tests.lab.wired import ANSWER_S, GuestPeer, WiredHosts

pytestmark = [
    pytest.mark.skipif(packages.unavailable() is not None, reason=f"no machine: {packages.unavailable()}"),
    pytest.mark.timeout(2400),  # two machines among twenty other things to do
]

BIG = 1 << 20
WRITES = 4
OPTIONS = Options(qp_type=RC, length=BIG + 8192)
PATIENT: dict[str, Any] = {"timeout": 23, "retry_cnt": 7}  # 34 s, eight times
IMPATIENT: dict[str, Any] = {"timeout": 17, "retry_cnt": 7}  # 0.5 s, eight times
RETRY_EXCEEDED, FLUSHED = int(e.IBV_WC_RETRY_EXC_ERR), int(e.IBV_WC_WR_FLUSH_ERR)


def wait_for(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    """Wait until it is so; `what` is shown if it does not become so."""
    deadline = time.monotonic() + ANSWER_S
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.2)  # the machines tell nobody


def carried(peer: GuestPeer) -> list[str]:
    """Return how a host's router says that it reaches others."""
    return list(peer.router()["channels"].values())


def wait_until_rdma(pair: Pair) -> None:
    """Wait until both hosts say that real RDMA carries."""
    for peer in (cast(GuestPeer, pair.a), cast(GuestPeer, pair.b)):
        wait_for(partial(is_rdma, peer), partial(carried, peer))


def is_rdma(peer: GuestPeer) -> bool:
    return any(line.startswith("rdma rxe0 ") for line in carried(peer))


@pytest.fixture(name="wire")
def wire_fixture(tmp_path: Path) -> tuple[Cable, Cable]:
    return Cable.pair(tmp_path)


@pytest.fixture(name="left")
def left_fixture(wire: tuple[Cable, Cable]) -> Iterator[Machine]:
    with Machine("left", cable=wire[0]) as machine:
        yield machine


def begin(pair: Pair) -> int:
    """Post some large WRITEs, all of the same bytes; return their checksum."""
    return begin_writes(pair, pair.to_b.rkey, pair.to_b.addr, WRITES)


def lose_power(pair: Pair, machine: Machine) -> None:
    """The other machine ends while it is written to: what was under way fails as if nobody answered."""
    begin(pair)
    machine.kill()
    begin(pair)
    statuses = [done.status for done in pair.a.poll("send", 2 * WRITES, ANSWER_S)]
    done = statuses.count(0)
    assert statuses == [0] * done + [RETRY_EXCEEDED] + [FLUSHED] * (2 * WRITES - done - 1)
    pair.a.post_send(Send(99))
    assert pair.a.poll("send", 1, ANSWER_S)[0].status == FLUSHED


def cut_and_heal(pair: Pair, end: Cable) -> None:
    """What is under way when nothing passes any more is done when it does again, by a new real queue pair."""
    here = cast(GuestPeer, pair.a)
    crc = begin(pair)
    end.cut()
    begin(pair)
    wait_for(lambda: not is_rdma(here), lambda: carried(here))
    end.heal()
    assert [done.status for done in pair.a.poll("send", 2 * WRITES, ANSWER_S)] == [0] * 2 * WRITES
    assert pair.b.checksum(BIG, 0) == crc
    wait_until_rdma(pair)
    send(pair, 200_001)


def test_a_part_of_the_conformance_suite() -> None:
    """A host in each of two machines; that the counts are those of other ways is for the whole (conformance.py)."""
    outcomes = conformance.from_here("wired", conformance.WIRED_PART, print)
    assert len(outcomes) >= 20
    assert set(outcomes.values()) <= {"passed", "skipped"}, outcomes
    assert list(outcomes.values()).count("skipped") <= 1


def test_two_machines(left: Machine, wire: tuple[Cable, Cable], tmp_path: Path) -> None:
    """One test, for the machines take their time to boot."""
    cables = dict(zip("ab", wire, strict=True))
    with Machine("right", cable=wire[1]) as right:
        hosts = WiredHosts(tmp_path, {"a": left, "b": right}, cables)
        a, b = (cast(GuestPeer, hosts.container(name)) for name in hosts.names)
        pair = Pair(a, b, "rdma").connect(OPTIONS, **PATIENT)
        wait_until_rdma(pair)
        for size in (64, 200_001):
            send(pair, size)
            write_and_read(pair, size)
        cut_and_heal(pair, wire[1])
        pair.close()
        pair.connect(OPTIONS, **IMPATIENT)
        lose_power(pair, right)
    a.close()
    wait_for(lambda: a.real_regions() <= 1, a.real_regions)
    with Machine("again", cable=wire[1]) as right:
        hosts.replace("b", right)
        pair = Pair(a, cast(GuestPeer, hosts.container("b")), "rdma").connect(OPTIONS, **PATIENT)
        wait_until_rdma(pair)
        send(pair, 200_001)
        write_and_read(pair, 200_001)
        pair.close()
