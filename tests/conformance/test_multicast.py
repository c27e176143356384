"""UD multicast: a datagram to a group comes to every member, wherever that is, and to nobody else."""

import itertools

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs.pyverbs_error import PyverbsRDMAError
from tests.conformance.pair import GRH_BYTES, QKEY, RC, UD, Address, Options, Pair, Peer, Recv, Send
from tests.stopping import stopped

EVERYBODY = 0xFFFFFF
GROUPS = {
    "IPv4": "0000:0000:0000:0000:0000:ffff:ef01:0203",
    "IPv6": "ff0e:0000:0000:0000:0000:0000:0000:0077",
}
GROUP = GROUPS["IPv6"]
SIZES = (0, 1, 63, 64, 1024, 4096)
# Mirrored memory, and memory whose first and last pages are shared with other data, which only its owner reaches.
PLACES = {"whole": 8192, "odd": 8192 + 13}


def to(group: str) -> Address:
    return Address(group, (EVERYBODY,), 0, 0, 0, 0)


def options(depth: int = 16, channel: bool = False) -> Options:
    return Options(
        UD, length=1 << 16, send_wr=depth, recv_wr=depth, send_cqe=4 * depth, recv_cqe=4 * depth, channel=channel
    )


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("group", GROUPS.values(), ids=GROUPS)
def test_everybody_gets_it(pair: Pair, group: str, place: int) -> None:
    pair.connect(options())
    pair.b.join(group)
    for wr_id, size in enumerate(SIZES):
        crc = pair.a.fill(size, wr_id, 5)
        pair.b.post_recv(Recv(wr_id, ((place, GRH_BYTES), (place + 5000, 4096))))
        pair.a.post_send(Send(9, int(e.IBV_WR_SEND_WITH_IMM), ((5, size),), imm=0x01020304, to=to(group)))
        (sent,), (received,) = pair.a.sent(), pair.b.received()
        assert (sent.wr_id, sent.status, sent.opcode) == (9, e.IBV_WC_SUCCESS, e.IBV_WC_SEND)
        assert (received.wr_id, received.status, received.opcode) == (wr_id, e.IBV_WC_SUCCESS, e.IBV_WC_RECV)
        assert (received.byte_len, received.imm) == (size + GRH_BYTES, 0x01020304)
        assert received.flags == e.IBV_WC_GRH | e.IBV_WC_WITH_IMM
        assert (received.qp_num, received.src_qp) == (pair.to_b.qpn, pair.to_a.qpn)
        assert pair.b.checksum(size, place + 5000) == crc


def test_a_sender_that_is_a_member_gets_its_own(pair: Pair) -> None:
    pair.connect(options())
    for side in {id(side): side for side in (pair.a, pair.b)}.values():
        side.join(GROUP)
        if not (pair.is_self and side is pair.b):
            side.post_recv(Recv(1, ((4096, 4136),)))
    pair.a.write(b"to all of us")
    pair.a.post_send(Send(2, pieces=((0, 12),), to=to(GROUP)))
    assert pair.a.sent()[0].ok
    for side in (pair.a,) if pair.is_self else (pair.a, pair.b):
        (received,) = side.received()
        assert (received.wr_id, received.byte_len, received.src_qp) == (1, GRH_BYTES + 12, pair.to_a.qpn)
        assert side.read(12, 4096 + GRH_BYTES) == b"to all of us"


def test_only_members_of_the_group_with_its_key_get_it(apart: Pair) -> None:
    apart.connect(options())
    apart.b.join(GROUP)
    for wr_id in range(3):
        apart.b.post_recv(Recv(wr_id, ((4096, 4136),)))
    lost = (
        Send(1, to=to(GROUPS["IPv4"])),
        Send(2, to=to(GROUP), qkey=QKEY + 1),
        Send(3, to=Address(GROUP, (apart.to_b.qpn,), 0, 0, 0, 0)),
    )
    apart.a.post_send(*lost)
    apart.a.post_send(Send(4, pieces=((0, 44),), to=to(GROUP)))
    assert [done.status for done in apart.a.sent(4)] == [e.IBV_WC_SUCCESS] * 4
    assert [(done.wr_id, done.byte_len) for done in apart.b.received()] == [(0, 84)]
    apart.b.leave(GROUP)
    apart.b.join(GROUPS["IPv4"])
    apart.a.post_send(Send(5, to=to(GROUP)), Send(6, pieces=((0, 55),), to=to(GROUPS["IPv4"])))
    assert [done.status for done in apart.a.sent(2)] == [e.IBV_WC_SUCCESS] * 2
    # A datagram of the same sender that went after it has come: the first is not on its way any more.
    assert [(done.wr_id, done.byte_len) for done in apart.b.received()] == [(1, 95)]
    apart.b.join(GROUP)
    apart.a.post_send(Send(7, pieces=((0, 66),), to=to(GROUP)))
    assert [(done.wr_id, done.byte_len) for done in apart.b.received()] == [(2, 106)]
    assert apart.b.poll_now("recv") == []


def test_many_keep_their_order(apart: Pair) -> None:
    depth = 256
    apart.connect(options(depth))
    apart.b.join(GROUP)
    for _ in range(4):
        apart.b.post_recv(*(Recv(wr_id, ((4096, 1064),)) for wr_id in range(depth)))
        for first in range(0, depth, 32):
            lengths = range(first, first + 32)
            apart.a.post_send(*(Send(n, pieces=((0, n),), to=to(GROUP)) for n in lengths))
        assert [done.wr_id for done in apart.a.sent(depth)] == list(range(depth))
        received = [(done.wr_id, done.byte_len) for done in apart.b.received(depth)]
        assert received == [(n, n + GRH_BYTES) for n in range(depth)]


def test_a_completion_event_wakes_a_member(apart: Pair) -> None:
    apart.connect(options(channel=True))
    apart.b.join(GROUP)
    apart.b.post_recv(Recv(1, ((4096, 4136),)), Recv(2, ((4096, 4136),)))
    apart.b.arm("recv", solicited_only=True)
    apart.a.post_send(Send(1, to=to(GROUP)))
    assert apart.a.sent()[0].ok
    assert apart.b.received()[0].wr_id == 1
    assert not apart.b.event_waits()
    apart.a.post_send(Send(2, flags=int(e.IBV_SEND_SIGNALED | e.IBV_SEND_SOLICITED), to=to(GROUP)))
    assert [done.wr_id for done in apart.b.wait_event("recv")] == [2]


def test_members_of_one_shared_receive_queue_take_one_each(apart: Pair) -> None:
    apart.connect(Options(UD, length=1 << 16), Options(UD, length=1 << 16, srq_wr=8, qps=2))
    apart.b.connect(apart.to_b, 1)
    for qp in range(2):
        apart.b.join(GROUP, qp)
    apart.b.post_recv(*(Recv(wr_id, ((8192 * wr_id, 4136),)) for wr_id in range(1, 4)))
    apart.b.set_srq_limit(2)
    apart.a.write(b"shared")
    apart.a.post_send(Send(1, pieces=((0, 6),), to=to(GROUP)))
    received = apart.b.received(2)
    assert sorted(done.wr_id for done in received) == [1, 2]
    assert {done.qp_num for done in received} == set(apart.to_b.qpns)
    assert apart.b.read(6, 8192 + GRH_BYTES) == apart.b.read(6, 16384 + GRH_BYTES) == b"shared"
    assert apart.b.async_event() == e.IBV_EVENT_SRQ_LIMIT_REACHED
    apart.a.post_send(Send(2, pieces=((0, 6),), to=to(GROUP)))  # one receive is left for two members
    assert len(apart.a.sent(2)) == 2
    assert [done.wr_id for done in apart.b.received()] == [3]
    assert apart.b.poll_now("recv") == []


def test_members_that_come_later_are_found(here: Pair) -> None:
    here.connect(options())
    here.b.join(GROUP)
    late = [Peer() for _ in range(3)]
    members = [here.b]
    try:
        for peer, number in zip(late, itertools.count(2)):
            address = peer.create(options())
            peer.connect(address)
            peer.join(GROUP)
            members.append(peer)
            for member in members:
                member.post_recv(Recv(number, ((4096, 4136),)))
            here.a.post_send(Send(1, pieces=((0, number),), to=to(GROUP)))
            for member in members:
                assert [(d.wr_id, d.byte_len) for d in member.received()] == [(number, number + GRH_BYTES)]
    finally:
        for peer in late:
            peer.close()


def test_a_stopped_member_disturbs_nobody(apart: Pair) -> None:
    if apart.path not in ("processes", "fork"):
        pytest.skip(f"a side of path {apart.path} cannot be stopped on its own")
    apart.connect(options())
    apart.b.join(GROUP)
    third = Peer()
    try:
        third.connect(third.create(options()))
        third.join(GROUP)
        apart.b.post_recv(Recv(1, ((4096, 4136),)))
        with stopped(apart.b.pid()):
            # More than the ring holds: whoever does not read loses, and nobody waits for it.
            for number in range(2000):
                third.post_recv(Recv(number, ((4096, 4136),)))
                apart.a.post_send(Send(number, pieces=((0, 4096),), to=to(GROUP)))
                assert apart.a.sent()[0].ok
                assert [(d.wr_id, d.byte_len) for d in third.received()] == [(number, 4136)]
        assert apart.b.state() == e.IBV_QPS_RTS
    finally:
        third.close()


def test_what_cannot_be_in_a_group(here: Pair) -> None:
    here.create(options(), Options(RC))
    for side, group in ((here.b, GROUP), (here.a, here.to_b.gid)):
        with pytest.raises(PyverbsRDMAError) as refused:
            side.join(group)
        assert refused.value.error_code == 22
    with pytest.raises(PyverbsRDMAError) as refused:
        here.a.leave(GROUP)
    assert refused.value.error_code == 22
