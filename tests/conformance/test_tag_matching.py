"""Tag matching: messages go to the memory of the tag that they match, or to a receive; a rendezvous is fetched."""

import struct
from errno import EINVAL, ENOMEM, EOPNOTSUPP
from typing import Any

import pytest

import ffverbs.libibverbs_enums as e
from tests.conformance.pair import RC, Done, Options, Pair, Peer, Recv, Send

ADD, DELETE, SYNC = int(e.IBV_WR_TAG_ADD), int(e.IBV_WR_TAG_DEL), int(e.IBV_WR_TAG_SYNC)
NO_TAG, RENDEZVOUS, FIN, EAGER = 0, 1, 2, 3
ADDED, DELETED, SYNCED = int(e.IBV_WC_TM_ADD), int(e.IBV_WC_TM_DEL), int(e.IBV_WC_TM_SYNC)
RECEIVED, UNTAGGED = int(e.IBV_WC_TM_RECV), int(e.IBV_WC_TM_NO_TAG)
MATCHED = int(e.IBV_WC_TM_MATCH)
VALID = int(e.IBV_WC_TM_DATA_VALID)
OUT_OF_PHASE = int(e.IBV_WC_TM_SYNC_REQ)
HEADER = 16
SENDER, MATCHING = Options(RC), Options(RC, tags=16)


def connect(pair: Pair, sender: Options = SENDER, matching: Options = MATCHING) -> None:
    pair.connect(sender, matching)
    pair.b.post_recv(*(Recv(100 + i, ((4096 * (i + 4), 4096),)) for i in range(4)))


def header(opcode: int, tag: int, context: int = 0) -> bytes:
    return struct.pack(">B3xIQ", opcode, context, tag)


def send(pair: Pair, opcode: int, tag: int, payload: bytes = b"", qp: int = 0) -> None:
    message = header(opcode, tag, 7) + payload
    pair.a.write(message)
    pair.a.post_send(Send(tag, pieces=((0, len(message)),)), qp=qp)


def add(b: Peer, tag: int, at: int, length: int = 64, **fields: Any) -> int:
    handle = b.tag_op(ADD, wr_id=tag, tag=tag, recv_wr_id=1000 + tag, pieces=((at, length),), **fields)
    done = b.received()[0]
    assert (done.wr_id, done.opcode, done.ok) == (tag, ADDED, True)
    assert not done.flags
    return handle


def shape(done: Done) -> tuple[int, int, int, int]:
    return done.wr_id, done.opcode, done.flags, done.byte_len


def test_eager_messages_go_to_their_tags(apart: Pair) -> None:
    connect(apart)
    for tag in range(1, 9):
        add(apart.b, tag, 64 * tag)
    for tag in range(8, 0, -1):
        send(apart, EAGER, tag, b"payload %d" % tag)
        assert apart.a.sent()[0].ok
        done = apart.b.received()[0]
        assert shape(done) == (1000 + tag, RECEIVED, MATCHED | VALID, 9)
        assert done.qp_num == apart.to_b.qpn
        assert apart.b.read(9, 64 * tag) == b"payload %d" % tag
    assert apart.b.refused_recv(*(Recv(i) for i in range(12))) == (0, 0), "no receive was used"


@pytest.mark.parametrize("length", [33000, 700000])
def test_large_eager_messages(apart: Pair, length: int) -> None:
    """Between hosts they come in pieces."""
    connect(apart, Options(RC, length=1 << 21), Options(RC, tags=16, length=1 << 21))
    add(apart.b, 5, 1 << 20, length=length)
    expected = apart.a.fill(length, 3, HEADER)
    apart.a.write(header(EAGER, 5, 7))
    apart.b.post_recv(Recv(7, ((1 << 20, HEADER + length),)))
    apart.a.post_send(Send(1, pieces=((0, HEADER + length),)))
    assert apart.a.sent()[0].ok
    assert shape(apart.b.received()[0]) == (1005, RECEIVED, MATCHED | VALID, length)
    assert apart.b.checksum(length, 1 << 20) == expected
    for _ in range(4):  # the receives that came first, which are too short for it
        send(apart, NO_TAG, 0, b"short")
        assert apart.b.received()[0].ok
    apart.a.write(header(EAGER, 5, 7))
    apart.a.fill(length, 4, HEADER)
    apart.a.post_send(Send(2, pieces=((0, HEADER + length),)))  # its tag is used up
    assert apart.a.sent(5)[-1].ok
    done = apart.b.received()[0]
    assert (done.wr_id, done.opcode, done.byte_len) == (7, RECEIVED, HEADER + length)
    assert apart.b.read(HEADER, 1 << 20) == header(EAGER, 5, 7)


def test_the_first_tag_that_matches_under_its_mask(apart: Pair) -> None:
    connect(apart)
    for at, (tag, mask) in enumerate(((0x10, 0xF0), (0x12, 0xFF), (0x10, 0xF0))):
        apart.b.tag_op(ADD, tag=tag, mask=mask, recv_wr_id=at, pieces=((64 * at, 64),), flags=0)
    for expected in (0, 1, 2):
        send(apart, EAGER, 0x12)
        assert shape(apart.b.received()[0]) == (expected, RECEIVED, MATCHED | VALID, 0)
    send(apart, EAGER, 0x12)
    assert shape(apart.b.received()[0]) == (100, RECEIVED, 0, HEADER)


def test_messages_without_a_tag(apart: Pair) -> None:
    connect(apart)
    add(apart.b, 5, 0)
    send(apart, NO_TAG, 5, b"no tag")
    assert shape(apart.b.received()[0]) == (100, UNTAGGED, 0, HEADER + 6)
    assert apart.b.read(HEADER + 6, 4 * 4096) == header(NO_TAG, 5, 7) + b"no tag"
    apart.a.post_send(Send(1, pieces=((0, 3),)))
    assert shape(apart.b.received()[0]) == (101, UNTAGGED, 0, 3)


def test_unexpected_messages_stop_new_tags_until_they_are_handled(apart: Pair) -> None:
    connect(apart)
    add(apart.b, 1, 0)
    send(apart, EAGER, 2, b"too early")
    assert shape(apart.b.received()[0]) == (100, RECEIVED, 0, HEADER + 9)
    apart.b.tag_op(ADD, wr_id=2, tag=2, recv_wr_id=1002, pieces=((64, 64),))
    assert shape(apart.b.received()[0]) == (2, ADDED, OUT_OF_PHASE, 0)
    send(apart, EAGER, 2, b"again")
    assert shape(apart.b.received()[0]) == (101, RECEIVED, 0, HEADER + 5), "the new tag does not count yet"
    send(apart, EAGER, 1, b"old")
    assert shape(apart.b.received()[0]) == (1001, RECEIVED, MATCHED | VALID, 3), "the old one does"
    apart.b.tag_op(SYNC, wr_id=9, unexpected=1)
    assert shape(apart.b.received()[0]) == (9, SYNCED, OUT_OF_PHASE, 0)
    apart.b.tag_op(SYNC, wr_id=9, unexpected=2)
    assert shape(apart.b.received()[0]) == (9, SYNCED, 0, 0)
    send(apart, EAGER, 2, b"now")
    assert shape(apart.b.received()[0]) == (1002, RECEIVED, MATCHED | VALID, 3)


def test_tags_are_deleted_unless_a_message_has_them(apart: Pair) -> None:
    connect(apart)
    handles = [add(apart.b, tag, 64 * tag) for tag in (1, 2)]
    send(apart, EAGER, 2)
    assert apart.b.received()[0].wr_id == 1002
    for handle, status in zip(handles, (e.IBV_WC_SUCCESS, e.IBV_WC_TM_ERR), strict=True):
        apart.b.tag_op(DELETE, wr_id=3, handle=handle)
        done = apart.b.received()[0]
        assert (done.wr_id, done.status) == (3, status)
    apart.b.tag_op(DELETE, wr_id=4, handle=handles[0])
    assert apart.b.received()[0].status == e.IBV_WC_TM_ERR
    send(apart, EAGER, 1)
    assert shape(apart.b.received()[0]) == (100, RECEIVED, 0, HEADER)


def rendezvous(pair: Pair, tag: int, length: int, rkey: int | None = None) -> None:
    data = pair.to_a.addr + 8192
    request = struct.pack(">QII", data, pair.to_a.rkey if rkey is None else rkey, length)
    send(pair, RENDEZVOUS, tag, request)


@pytest.mark.parametrize("length", [1, 4096, 40000, 700000])
def test_a_rendezvous_is_fetched(apart: Pair, length: int) -> None:
    connect(apart, Options(RC, length=1 << 20), Options(RC, tags=16, length=1 << 20))
    apart.a.post_recv(Recv(55, ((1024, 64),)))
    expected = apart.a.fill(length, 3, 8192)
    add(apart.b, 6, 1 << 14, length=720000)
    rendezvous(apart, 6, length)
    assert apart.a.sent()[0].ok
    matched, whole = apart.b.received(2)
    assert shape(matched)[:3] == (1006, RECEIVED, MATCHED)
    assert shape(whole) == (1006, RECEIVED, VALID, length)
    assert apart.b.checksum(length, 1 << 14) == expected
    fin = apart.a.received()[0]
    assert shape(fin) == (55, int(e.IBV_WC_RECV), 0, HEADER)
    assert apart.a.read(HEADER, 1024) == header(FIN, 6, 7)


def test_many_rendezvous_at_once(apart: Pair) -> None:
    connect(apart)
    for tag in range(16):
        apart.b.tag_op(ADD, tag=tag, recv_wr_id=tag, pieces=((64 * tag, 64),), flags=0)
    apart.a.write(b"the data", 8192)
    for tag in range(16):
        rendezvous(apart, tag, 8)
        assert apart.a.sent()[0].ok
    apart.a.post_recv(*(Recv(tag, ((1024, 64),)) for tag in range(16)))
    done = apart.b.received(32)
    assert sorted(d.wr_id for d in done if d.flags == VALID) == list(range(16))
    assert all(d.ok for d in done)
    assert all(d.ok for d in apart.a.received(16))
    assert [apart.b.read(8, 64 * tag) for tag in range(16)] == [b"the data"] * 16


def test_a_rendezvous_that_cannot_be_fetched(apart: Pair) -> None:
    connect(apart)
    apart.a.post_recv(Recv(55))
    add(apart.b, 6, 1 << 14)
    rendezvous(apart, 6, 32, rkey=apart.to_a.rkey ^ 0x100)
    assert apart.a.sent()[0].ok, "the request itself arrived"
    matched, failed = apart.b.received(2)
    assert (matched.flags, failed.wr_id, failed.status) == (MATCHED, 1006, e.IBV_WC_TM_RNDV_INCOMPLETE)
    apart.b.wait_state(int(e.IBV_QPS_ERR))
    add(apart.b, 7, 0)
    assert apart.b.poll_now("recv") == []


def test_a_message_longer_than_its_tag(apart: Pair) -> None:
    connect(apart)
    add(apart.b, 1, 0, length=4)
    send(apart, EAGER, 1, b"five.")
    assert apart.a.sent()[0].status == e.IBV_WC_REM_INV_REQ_ERR
    done = apart.b.received()[0]
    assert (done.wr_id, done.status) == (1001, e.IBV_WC_LOC_LEN_ERR)


def test_unexpected_messages_wait_for_a_receive(apart: Pair) -> None:
    connect(apart)
    for tag in range(40, 44):
        send(apart, EAGER, tag)
        assert apart.b.received()[0].ok
    send(apart, EAGER, 44, b"patience")
    assert apart.a.sent(4)[3].ok
    assert apart.a.poll_now("send") == []
    apart.b.post_recv(Recv(200, ((0, 64),)))
    assert shape(apart.b.received()[0]) == (200, RECEIVED, 0, HEADER + 8)


def test_limits_and_nonsense(here: Pair) -> None:
    connect(here)
    b = here.b
    for tag in range(16):
        b.tag_op(ADD, tag=tag, flags=0)
    assert b.refused_tag_op(ADD, tag=16) == ENOMEM
    for _ in range(8):
        b.tag_op(SYNC)
    assert b.refused_tag_op(SYNC) == ENOMEM, "eight operations are not polled"
    assert len(b.received(8)) == 8
    assert b.refused_tag_op(SYNC, flags=16) == EINVAL
    assert b.refused_tag_op(ADD, pieces=((0, 1),) * 5) == EINVAL
    ordinary = Peer()
    try:
        ordinary.create(Options(RC, srq_wr=4))
        assert ordinary.refused_tag_op(SYNC) == EOPNOTSUPP
    finally:
        ordinary.close()


def test_tags_outlive_their_queue_pairs(apart: Pair) -> None:
    two = Options(RC, tags=16, qps=2)
    connect(apart, Options(RC, qps=2), two)
    add(apart.b, 1, 0)
    apart.b.destroy_qp(0)
    send(apart, EAGER, 1, b"other", qp=1)
    assert shape(apart.b.received()[0]) == (1001, RECEIVED, MATCHED | VALID, 5)
