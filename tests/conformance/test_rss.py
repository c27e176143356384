"""Receive-side scaling: each packet comes to the work queue that its Toeplitz hash names, wherever that is."""

import socket
import struct

import pytest

import ffverbs.libibverbs_enums as e
from tests.conformance.pair import Options, Pair, Recv, Send
from tests.conformance.test_raw import DST, RAW, SRC, mac

LOG_SIZE = 3
# Of rdma-core's test and of nobody: any key spreads.
KEY = list(bytes.fromhex("2cc681d15bdbf4f7fca28319db1a3e946b9e38d92c9c03d1ad9944a7d9563d59063c25f3fc1fdc2a"))
ADDRESSES = int(e.IBV_RX_HASH_SRC_IPV4 | e.IBV_RX_HASH_DST_IPV4)
PORTS = int(e.IBV_RX_HASH_SRC_PORT_UDP | e.IBV_RX_HASH_DST_PORT_UDP)


def toeplitz(data: bytes) -> int:
    """The hash as its definition says it: the key, shifted to each bit that is set."""
    key, bits = int.from_bytes(bytes(KEY)), len(KEY) * 8
    result = 0
    for position in range(len(data) * 8):
        if data[position // 8] & 0x80 >> position % 8:
            result ^= key >> (bits - 32 - position) & 0xFFFFFFFF
    return result


def frame(number: int) -> tuple[bytes, bytes, bytes]:
    """A frame of its own addresses and ports, and those."""
    addresses = bytes([10, number, 2, 3, 172, 16, number // 7, 9])
    ports = struct.pack("!2H", 1000 + number, 4791)
    ip = struct.pack("!2B3H2BH", 0x45, 0, 40, 0, 0, 64, socket.IPPROTO_UDP, 0) + addresses
    return mac(DST) + mac(SRC) + b"\x08\x00" + ip + ports + struct.pack("!2H", 20, 0) + bytes(12), addresses, ports


@pytest.mark.parametrize("fields", [0, ADDRESSES, ADDRESSES | PORTS], ids=["none", "addresses", "ports"])
def test_packets_go_where_their_hash_says(pair: Pair, fields: int) -> None:
    pair.connect(Options(RAW, length=1 << 16, recv_cqe=512))
    wqns = pair.b.spread(LOG_SIZE, KEY, fields)
    seen: set[int] = set()
    last = -1
    for number in range(24):
        sent, addresses, ports = frame(number)
        entry = toeplitz((addresses if fields & ADDRESSES else b"") + (ports if fields & PORTS else b"")) % len(wqns)
        seen.add(entry)
        for which in range(len(wqns)):
            if last in (-1, which):
                pair.b.post_to_queue(which, Recv(which, ((16384 + 2048 * which, 50), (30000 + 2048 * which, 2000))))
        pair.a.write(sent)
        pair.a.post_send(Send(1, pieces=((0, len(sent)),)))
        assert pair.a.sent()[0].ok
        (done,) = pair.b.received()
        assert (done.wr_id, done.qp_num, done.byte_len) == (entry, wqns[entry], len(sent))
        halves = pair.b.read(50, 16384 + 2048 * entry), pair.b.read(len(sent) - 50, 30000 + 2048 * entry)
        assert b"".join(halves) == sent
        last = entry
    assert len(seen) == 1 if not fields else len(seen) > 4


def test_a_queue_that_fails_says_so(pair: Pair) -> None:
    pair.connect(Options(RAW, length=1 << 16))
    pair.b.spread(0, KEY, 0)
    sent, _, _ = frame(1)
    pair.a.write(sent)
    pair.b.post_to_queue(0, Recv(1, ((0, 8),)), Recv(2, ((0, 2000),)))
    pair.a.post_send(Send(1, pieces=((0, len(sent)),)))
    assert [done.status for done in pair.b.received(2)] == [e.IBV_WC_LOC_LEN_ERR, e.IBV_WC_WR_FLUSH_ERR]
    assert pair.b.async_event() == e.IBV_EVENT_WQ_FATAL
    pair.b.reset_queue(0, int(e.IBV_WQS_ERR))
    pair.b.close_queue(0)
