"""Every operation of every transport delivers its bytes and its completions, on every path."""

import pytest

import ffverbs.libibverbs_enums as e
from tests.conformance.pair import GRH_BYTES, RC, UC, UD, Done, Options, Pair, Peer, Recv, Send

SIZES = (0, 1, 63, 64, 4095, 4096, 4097, 65536)
OFFSET = 5  # not aligned to anything


def options(qp_type: int = RC) -> Options:
    return Options(qp_type=qp_type, length=1 << 18)


@pytest.mark.parametrize("qp_type", [RC, UC], ids=["RC", "UC"])
def test_send(pair: Pair, qp_type: int) -> None:
    pair.connect(options(qp_type))
    for wr_id, size in enumerate(SIZES):
        crc = pair.a.fill(size, wr_id, OFFSET)
        pair.b.post_recv(Recv(100 + wr_id, ((4096, 65536),)))
        pair.a.post_send(Send(wr_id, pieces=((OFFSET, size),)))
        (sent,), (received,) = pair.a.sent(), pair.b.received()
        assert (sent.wr_id, sent.status, sent.opcode) == (wr_id, e.IBV_WC_SUCCESS, e.IBV_WC_SEND)
        assert sent.qp_num == pair.to_a.qpn
        assert received == Done(100 + wr_id, 0, int(e.IBV_WC_RECV), size, 0, pair.to_b.qpn, 0, 0)
        assert pair.b.checksum(size, 4096) == crc


@pytest.mark.parametrize("qp_type", [RC, UC], ids=["RC", "UC"])
def test_immediate_data(pair: Pair, qp_type: int) -> None:
    pair.connect(options(qp_type))
    pair.a.write(b"immediately")
    pair.b.post_recv(Recv(1), Recv(2))
    pair.a.post_send(Send(7, int(e.IBV_WR_SEND_WITH_IMM), ((0, 11),), imm=0x01020304))
    pair.a.post_send(pair.remote(e.IBV_WR_RDMA_WRITE_WITH_IMM, 2048, wr_id=8, pieces=((0, 11),), imm=0x90A0B0C0))
    assert [(d.wr_id, d.status, d.opcode) for d in pair.a.sent(2)] == [
        (7, 0, e.IBV_WC_SEND),
        (8, 0, e.IBV_WC_RDMA_WRITE),
    ]
    first, second = pair.b.received(2)
    assert (first.wr_id, first.opcode, first.imm, first.flags) == (1, e.IBV_WC_RECV, 0x01020304, e.IBV_WC_WITH_IMM)
    assert (second.wr_id, second.opcode) == (2, e.IBV_WC_RECV_RDMA_WITH_IMM)
    assert (second.imm, second.flags, second.byte_len) == (0x90A0B0C0, e.IBV_WC_WITH_IMM, 11)
    assert pair.b.read(11) == pair.b.read(11, 2048) == b"immediately"


@pytest.mark.parametrize("qp_type", [RC, UC], ids=["RC", "UC"])
def test_write(pair: Pair, qp_type: int) -> None:
    pair.connect(options(qp_type))
    for wr_id, size in enumerate(SIZES):
        crc = pair.a.fill(size, wr_id, OFFSET)
        pair.a.post_send(pair.remote(e.IBV_WR_RDMA_WRITE, 4099, wr_id=wr_id, pieces=((OFFSET, size),)))
        (sent,) = pair.a.sent()
        assert (sent.wr_id, sent.status, sent.opcode) == (wr_id, e.IBV_WC_SUCCESS, e.IBV_WC_RDMA_WRITE)
        assert pair.b.checksum(size, 4099) == crc
    assert pair.b.poll_now("recv") == []


def test_write_of_nothing_needs_no_key(pair: Pair) -> None:
    pair.connect()
    pair.a.post_send(Send(1, int(e.IBV_WR_RDMA_WRITE), (), remote=0, rkey=0))
    pair.a.post_send(Send(2, int(e.IBV_WR_RDMA_READ), (), remote=0, rkey=0))
    assert [d.ok for d in pair.a.sent(2)] == [True, True]


def test_read(pair: Pair) -> None:
    pair.connect(options())
    for wr_id, size in enumerate(SIZES):
        crc = pair.b.fill(size, wr_id, OFFSET)
        pair.a.post_send(pair.remote(e.IBV_WR_RDMA_READ, OFFSET, wr_id=wr_id, pieces=((4099, size),)))
        (sent,) = pair.a.sent()
        assert (sent.wr_id, sent.status, sent.opcode) == (wr_id, e.IBV_WC_SUCCESS, e.IBV_WC_RDMA_READ)
        assert sent.byte_len == size
        assert pair.a.checksum(size, 4099) == crc


def word(value: int) -> bytes:
    """Atomics are in the order of the host."""
    return value.to_bytes(8, "little")


def test_atomics(pair: Pair) -> None:
    pair.connect()
    pair.b.write(word(1000), 64)
    add = pair.remote(e.IBV_WR_ATOMIC_FETCH_AND_ADD, 64, wr_id=1, pieces=((8, 8),), compare_add=234)
    pair.a.post_send(add)
    (done,) = pair.a.sent()
    assert (done.status, done.opcode, done.byte_len) == (0, e.IBV_WC_FETCH_ADD, 8)
    assert (pair.a.read(8, 8), pair.b.read(8, 64)) == (word(1000), word(1234))
    for compare, expected in ((1, 1234), (1234, 77)):
        swap = pair.remote(e.IBV_WR_ATOMIC_CMP_AND_SWP, 64, wr_id=2, pieces=((16, 8),), compare_add=compare, swap=77)
        pair.a.post_send(swap)
        (done,) = pair.a.sent()
        assert (done.status, done.opcode) == (0, e.IBV_WC_COMP_SWAP)
        assert (pair.a.read(8, 16), pair.b.read(8, 64)) == (word(1234), word(expected))
    pair.b.write(word(2**64 - 1), 64)
    pair.a.post_send(pair.remote(e.IBV_WR_ATOMIC_FETCH_AND_ADD, 64, pieces=((8, 8),), compare_add=2))
    assert pair.a.sent()[0].ok
    assert pair.b.read(8, 64) == word(1), "an addition wraps"


@pytest.mark.parametrize("qp_type", [RC, UC], ids=["RC", "UC"])
def test_inline_data_is_taken_at_once(pair: Pair, qp_type: int) -> None:
    pair.connect(options(qp_type))
    flags = int(e.IBV_SEND_INLINE | e.IBV_SEND_SIGNALED)
    pair.b.post_recv(Recv(1, ((4096, 64),)))
    pair.a.write(b"0123456789" * 6)
    # Two pieces, with a key that does not exist: inline data needs none.
    pair.a.post_send(
        Send(1, pieces=((0, 10, 0xBAD), (20, 30, 0xBAD)), flags=flags),
        pair.remote(e.IBV_WR_RDMA_WRITE, 8192, wr_id=2, pieces=((1, 9),), flags=flags),
    )
    pair.a.write(bytes(64))
    assert [d.ok for d in pair.a.sent(2)] == [True, True]
    assert pair.b.received()[0].byte_len == 40
    assert pair.b.read(40, 4096) == b"0123456789" * 4
    assert pair.b.read(9, 8192) == b"123456789"


def test_inline_data_of_no_bytes(pair: Pair) -> None:
    pair.connect()
    flags = int(e.IBV_SEND_INLINE | e.IBV_SEND_SIGNALED)
    pair.b.post_recv(Recv(1), Recv(2, ()))
    pair.a.post_send(Send(1, pieces=(), flags=flags), Send(2, pieces=((0, 0),), flags=flags))
    assert [d.ok for d in pair.a.sent(2)] == [True, True]
    assert [(d.wr_id, d.byte_len) for d in pair.b.received(2)] == [(1, 0), (2, 0)]


def test_gather_and_scatter(pair: Pair) -> None:
    pair.connect()
    data = bytes(range(200))
    pair.a.write(data)
    pair.b.post_recv(Recv(1, ((1000, 3), (2000, 0), (3000, 150), (5000, 500))))
    pair.a.post_send(Send(1, pieces=((100, 50), (0, 7), (7, 0), (60, 120))))
    assert pair.a.sent()[0].ok
    assert pair.b.received()[0].byte_len == 177
    expected = data[100:150] + data[:7] + data[60:180]
    assert pair.b.read(3, 1000) + pair.b.read(150, 3000) + pair.b.read(24, 5000) == expected
    assert pair.b.read(1, 5024) == b"\0"
    pair.a.post_send(pair.remote(e.IBV_WR_RDMA_READ, 3000, pieces=((300, 1), (400, 9), (500, 100))))
    assert pair.a.sent()[0].byte_len == 110
    assert pair.a.read(1, 300) + pair.a.read(9, 400) + pair.a.read(100, 500) == expected[3:113]


def test_lists_of_every_length(pair: Pair) -> None:
    most = 32
    pair.connect(Options(send_sge=most, recv_sge=most))
    pair.a.write(bytes(range(256)))
    for count in range(most + 1):
        pair.b.post_recv(Recv(count, tuple((4096 + 2 * i, 1) for i in range(count))))
        pair.a.post_send(Send(count, pieces=tuple((3 * i, 1) for i in range(count))))
        assert pair.a.sent()[0].ok
        assert pair.b.received()[0].byte_len == count
        assert pair.b.read(2 * most, 4096)[: 2 * count : 2] == bytes(3 * i for i in range(count))


def test_datagrams(pair: Pair) -> None:
    pair.connect(options(UD))
    for wr_id, size in enumerate((0, 1, 100, 4096)):
        crc = pair.a.fill(size, wr_id, OFFSET)
        pair.b.post_recv(Recv(wr_id, ((8192, GRH_BYTES + 4096),)))
        pair.a.post_send(Send(wr_id, int(e.IBV_WR_SEND_WITH_IMM), ((OFFSET, size),), imm=wr_id, to=pair.to_b))
        assert pair.a.sent()[0].ok
        (received,) = pair.b.received()
        assert (received.status, received.byte_len, received.src_qp) == (0, size + GRH_BYTES, pair.to_a.qpn)
        assert received.flags == e.IBV_WC_GRH | e.IBV_WC_WITH_IMM
        assert pair.b.checksum(size, 8192 + GRH_BYTES) == crc
        sender = bytes.fromhex(pair.to_a.gid.replace(":", ""))
        header = pair.b.read(GRH_BYTES, 8192)
        assert header[20] == 0x45
        assert header[32:36] == sender[12:], "the sender's IPv4 address"


def test_datagrams_that_are_not_for_the_receiver_are_lost(pair: Pair) -> None:
    pair.connect(Options(UD))
    pair.b.post_recv(Recv(1), Recv(2))
    pair.a.post_send(Send(1, to=pair.to_b, qkey=0x12345))
    assert pair.a.sent()[0].ok, "nobody tells the sender"
    pair.a.write(b"the next")
    pair.a.post_send(Send(2, to=pair.to_b))
    assert pair.a.sent()[0].ok
    assert pair.b.received()[0].wr_id == 1
    assert pair.b.read(8, GRH_BYTES) == b"the next"
    assert pair.b.poll_now("recv") == []


def test_datagrams_without_a_receive_are_lost(pair: Pair) -> None:
    if pair.elsewhere:
        pytest.skip("the sender does not know when a datagram arrives, or does not, on another host")
    pair.connect(Options(UD))
    pair.a.post_send(Send(1, to=pair.to_b))
    assert pair.a.sent()[0].ok
    pair.b.post_recv(Recv(5))
    assert pair.b.poll_now("recv") == []
    pair.a.post_send(Send(2, to=pair.to_b))
    assert pair.b.received()[0].wr_id == 5


def test_unreliable_sends_without_a_receive_are_lost(pair: Pair) -> None:
    pair.connect(Options(UC))
    pair.a.post_send(Send(1))
    assert pair.a.sent()[0].ok
    pair.b.post_recv(Recv(5))
    pair.a.post_send(Send(2))
    assert pair.a.sent()[0].ok
    assert pair.b.received()[0].wr_id == 5
    assert pair.b.poll_now("recv") == []


def test_several_senders_of_datagrams(here: Pair) -> None:
    here.connect(Options(UD, recv_wr=64))
    third = Peer()
    third_address = third.create(Options(UD))
    third.connect(here.to_b)
    here.b.post_recv(*(Recv(i, ((i * 64, 64),)) for i in range(40)))
    for i in range(20):
        for side, name in ((here.a, b"a"), (third, b"c")):
            side.write(name + b"%03d" % i)
            side.post_send(Send(i, pieces=((0, 4),), to=here.to_b))
            assert side.sent()[0].ok
    texts: dict[Peer, list[bytes]] = {here.a: [], third: []}
    for done in here.b.received(40):
        side = here.a if done.src_qp == here.to_a.qpn else third
        assert done.src_qp in (here.to_a.qpn, third_address.qpn)
        texts[side].append(here.b.read(4, done.wr_id * 64 + GRH_BYTES))
    assert texts[here.a] == [b"a%03d" % i for i in range(20)]
    assert texts[third] == [b"c%03d" % i for i in range(20)]
    third.close()


def test_what_an_unreliable_sender_cannot_deliver_is_lost(apart: Pair) -> None:
    apart.create(Options(UC))
    apart.a.connect(apart.to_b)
    apart.a.post_send(Send(1), apart.remote(e.IBV_WR_RDMA_WRITE, wr_id=2))
    assert [(d.wr_id, d.ok) for d in apart.a.sent(2)] == [(1, True), (2, True)]
    apart.b.connect(apart.to_a)
    apart.b.post_recv(Recv(3))
    assert apart.b.poll_now("recv") == []
    apart.a.post_send(Send(3))
    assert apart.b.received()[0].wr_id == 3


def test_a_large_message(pair: Pair) -> None:
    size = 64 << 20
    pair.connect(Options(length=size))
    crc = pair.a.fill(size, 1)
    pair.b.post_recv(Recv(1, ((0, size),)))
    pair.a.post_send(Send(1, pieces=((0, size),)))
    assert pair.a.sent()[0].ok
    assert pair.b.received()[0].byte_len == size
    assert pair.b.checksum(size) == crc


def test_more_than_the_largest_message_is_a_length_error(pair: Pair) -> None:
    pair.connect()
    pair.a.post_send(pair.remote(e.IBV_WR_RDMA_WRITE, pieces=((0, 1 << 31), (0, 1))))
    # The key is checked with the list: the memory is not that long, and either mistake may be found first.
    assert pair.a.sent()[0].status in (e.IBV_WC_LOC_LEN_ERR, e.IBV_WC_LOC_PROT_ERR)


def test_order_of_what_is_sent_is_kept(pair: Pair) -> None:
    pair.connect(Options(send_wr=64, recv_wr=64, recv_cqe=128, send_cqe=128))
    pair.b.post_recv(*(Recv(i, ((i * 8, 8),)) for i in range(64)))
    for i in range(64):
        pair.a.write(word(i), i * 8)
    pair.a.post_send(*(Send(i, pieces=((i * 8, 8),)) for i in range(64)))
    assert [d.wr_id for d in pair.a.sent(64)] == list(range(64))
    assert [d.wr_id for d in pair.b.received(64)] == list(range(64))
    assert pair.b.read(512) == b"".join(word(i) for i in range(64))


def test_a_fence_waits_for_reads(pair: Pair) -> None:
    pair.connect()
    pair.b.write(b"read first", 100)
    pair.a.post_send(
        pair.remote(e.IBV_WR_RDMA_READ, 100, wr_id=1, pieces=((0, 10),)),
        pair.remote(
            e.IBV_WR_RDMA_WRITE, 200, wr_id=2, pieces=((0, 10),), flags=int(e.IBV_SEND_FENCE | e.IBV_SEND_SIGNALED)
        ),
    )
    assert [(d.wr_id, d.ok) for d in pair.a.sent(2)] == [(1, True), (2, True)]
    assert pair.b.read(10, 200) == b"read first"


def test_both_directions(pair: Pair) -> None:
    pair.connect()
    for side, other in ((pair.a, pair.b), (pair.b, pair.a)):
        other.post_recv(Recv(1, ((512, 64),)))
        side.write(b"hello there")
        side.post_send(Send(1, pieces=((0, 11),)))
        assert side.sent()[0].ok
        assert other.received()[0].byte_len == 11
        assert other.read(11, 512) == b"hello there"
