"""Every completion status arises where the specification says, at both ends, and ends the connection as it says."""

from dataclasses import replace

import pytest

import ffverbs.libibverbs_enums as e
from tests.conformance.pair import ALL_ACCESS, GRH_BYTES, RC, UC, UD, Address, Options, Pair, Piece, Recv, Send

WRITE, READ = int(e.IBV_WR_RDMA_WRITE), int(e.IBV_WR_RDMA_READ)
SWAP, ADD = int(e.IBV_WR_ATOMIC_CMP_AND_SWP), int(e.IBV_WR_ATOMIC_FETCH_AND_ADD)
LOCAL_WRITE = int(e.IBV_ACCESS_LOCAL_WRITE)
FLUSHED = int(e.IBV_WC_WR_FLUSH_ERR)
NEEDS = {
    WRITE: int(e.IBV_ACCESS_REMOTE_WRITE),
    READ: int(e.IBV_ACCESS_REMOTE_READ),
    SWAP: int(e.IBV_ACCESS_REMOTE_ATOMIC),
    ADD: int(e.IBV_ACCESS_REMOTE_ATOMIC),
}
NAMES = {WRITE: "WRITE", READ: "READ", SWAP: "CMP_SWP", ADD: "FETCH_ADD"}
one_sided = pytest.mark.parametrize("opcode", list(NEEDS), ids=NAMES.get)


def fails_with(pair: Pair, send: Send, status: int) -> None:
    """Post it between two others: it must end with `status`, the one before well, the one after flushed."""
    pair.a.post_send(
        pair.remote(WRITE, 0, wr_id=1, pieces=((0, 8),)), send, pair.remote(WRITE, 128, wr_id=3, pieces=((0, 8),))
    )
    done = pair.a.sent(3)
    assert [(d.wr_id, d.status) for d in done] == [(1, 0), (send.wr_id, status), (3, FLUSHED)]
    assert pair.a.state() == e.IBV_QPS_ERR
    pair.a.post_send(Send(4))
    assert pair.a.sent()[0].status == FLUSHED


def is_flushed(pair: Pair, count: int) -> None:
    """The other side went to ERR, and its receives 1, 2, ... come back flushed."""
    pair.b.wait_state(int(e.IBV_QPS_ERR))
    assert [(d.wr_id, d.status) for d in pair.b.received(count)] == [(i + 1, FLUSHED) for i in range(count)]
    pair.b.post_recv(Recv(99))
    assert [(d.wr_id, d.status) for d in pair.b.received()] == [(99, FLUSHED)]


# ---- the requester's own mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mistake", ["key", "foreign", "before", "behind", "wraps"])
def test_local_protection(pair: Pair, mistake: str) -> None:
    pair.connect()
    foreign = pair.a.register_elsewhere()
    length = pair.to_a.length
    pieces: dict[str, Piece] = {
        "key": (0, 8, 0x12345678),
        "foreign": (foreign.addr - pair.to_a.addr, 8, foreign.lkey),
        "before": (-1, 8),
        "behind": (length - 7, 8),
        "wraps": (2**64 - 4 - pair.to_a.addr, 8),
    }
    fails_with(pair, Send(2, pieces=((0, 1), pieces[mistake])), int(e.IBV_WC_LOC_PROT_ERR))


def test_reads_need_memory_that_may_be_written(pair: Pair) -> None:
    pair.connect()
    read_only = pair.a.register(int(e.IBV_ACCESS_REMOTE_READ))
    piece = (read_only.addr - pair.to_a.addr, 8, read_only.lkey)
    # Sending from it is what it is for.
    pair.b.post_recv(Recv(1))
    pair.a.post_send(Send(1, pieces=(piece,)))
    assert pair.a.sent()[0].ok
    fails_with(pair, pair.remote(READ, 0, wr_id=2, pieces=(piece,)), int(e.IBV_WC_LOC_PROT_ERR))


@pytest.mark.parametrize("opcode", [READ, SWAP, ADD], ids=NAMES.get)
def test_reads_and_atomics_need_depth(pair: Pair, opcode: int) -> None:
    pair.connect(max_rd_atomic=0)
    fails_with(pair, pair.remote(opcode, 0, wr_id=2, pieces=((0, 8),)), int(e.IBV_WC_LOC_QP_OP_ERR))


@pytest.mark.parametrize("length", [0, 4, 16])
def test_atomics_return_eight_bytes(pair: Pair, length: int) -> None:
    pair.connect()
    fails_with(pair, pair.remote(ADD, 0, wr_id=2, pieces=((0, length),)), int(e.IBV_WC_LOC_LEN_ERR))


def test_a_datagram_longer_than_the_mtu(pair: Pair) -> None:
    pair.connect(Options(UD))
    pair.a.post_send(Send(1, pieces=((0, 4097),), to=pair.to_b), Send(2, to=pair.to_b))
    assert [(d.wr_id, d.status) for d in pair.a.sent(2)] == [(1, e.IBV_WC_LOC_LEN_ERR), (2, FLUSHED)]
    assert pair.a.state() == e.IBV_QPS_SQE, "only the send queue of an unreliable QP stops"
    pair.a.modify(int(e.IBV_QPS_RTS))
    pair.b.post_recv(Recv(3))
    pair.a.post_send(Send(3, to=pair.to_b))
    assert pair.a.sent()[0].ok
    assert pair.b.received()[0].wr_id == 3


def test_local_mistakes_of_uc_stop_its_send_queue_only(pair: Pair) -> None:
    pair.connect(Options(UC))
    pair.b.post_recv(Recv(1))
    pair.a.post_send(Send(1, pieces=((0, 8, 0xBAD),)), Send(2))
    assert [d.status for d in pair.a.sent(2)] == [e.IBV_WC_LOC_PROT_ERR, FLUSHED]
    assert pair.a.state() == e.IBV_QPS_SQE
    assert pair.b.poll_now("recv") == []
    pair.a.modify(int(e.IBV_QPS_RTS))
    pair.a.post_send(Send(3))
    assert pair.a.sent()[0].ok
    assert pair.b.received()[0].ok


def test_invalidating_what_is_no_window(pair: Pair) -> None:
    pair.connect()
    fails_with(pair, Send(2, int(e.IBV_WR_LOCAL_INV), (), imm=pair.to_a.rkey), int(e.IBV_WC_LOC_QP_OP_ERR))


# ---- what the responder refuses ------------------------------------------------------------------------------------


def mistaken(pair: Pair, mistake: str, opcode: int) -> Address:
    """Memory of the other side that `opcode` must not reach."""
    if mistake == "foreign":
        return pair.b.register_elsewhere()
    if mistake == "access":
        return pair.b.register(ALL_ACCESS & ~NEEDS[opcode])
    if mistake == "closed":
        memory = pair.b.register(ALL_ACCESS)
        pair.b.deregister()
        return memory
    if mistake == "key":
        return replace(pair.to_b, rkey=pair.to_b.rkey ^ 0x80000000)
    return replace(pair.to_b, addr=pair.to_b.addr + (-8 if mistake == "before" else pair.to_b.length))


@one_sided
@pytest.mark.parametrize("mistake", ["key", "foreign", "before", "behind", "closed", "access"])
def test_remote_access(pair: Pair, opcode: int, mistake: str) -> None:
    pair.connect()
    pair.b.post_recv(Recv(1), Recv(2))
    pair.b.write(b"\x55" * 16, pair.to_b.length - 16)
    target = mistaken(pair, mistake, opcode)
    send = Send(2, opcode, ((0, 8),), remote=target.addr, rkey=target.rkey)
    fails_with(pair, send, int(e.IBV_WC_REM_ACCESS_ERR))
    assert pair.b.async_event() == e.IBV_EVENT_QP_ACCESS_ERR
    is_flushed(pair, 2)
    assert pair.b.read(16, pair.to_b.length - 16) == b"\x55" * 16


@pytest.mark.parametrize("opcode", [WRITE, READ], ids=NAMES.get)
def test_a_range_that_ends_behind_the_memory(pair: Pair, opcode: int) -> None:
    pair.connect()
    before = pair.b.read(8, pair.to_b.length - 8)
    pair.a.write(b"\xff" * 16)
    fails_with(
        pair,
        pair.remote(opcode, pair.to_b.length - 8, wr_id=2, pieces=((0, 9),)),
        int(e.IBV_WC_REM_ACCESS_ERR),
    )
    assert pair.b.read(8, pair.to_b.length - 8) == before, "nothing of it was done"


@one_sided
def test_operations_that_the_queue_pair_does_not_allow(pair: Pair, opcode: int) -> None:
    pair.connect(qp_access_flags=ALL_ACCESS & ~NEEDS[opcode])
    pair.b.post_recv(Recv(1))
    pair.a.post_send(pair.remote(opcode, 0, wr_id=2, pieces=((0, 8),)))
    assert pair.a.sent()[0].status == e.IBV_WC_REM_INV_REQ_ERR
    assert pair.a.state() == e.IBV_QPS_ERR
    is_flushed(pair, 1)


@pytest.mark.parametrize("opcode", [SWAP, ADD], ids=NAMES.get)
def test_an_atomic_at_an_odd_address(pair: Pair, opcode: int) -> None:
    pair.connect()
    fails_with(pair, pair.remote(opcode, 4, wr_id=2, pieces=((0, 8),)), int(e.IBV_WC_REM_INV_REQ_ERR))


@pytest.mark.parametrize("opcode", [READ, SWAP, ADD], ids=NAMES.get)
def test_a_responder_without_depth(pair: Pair, opcode: int) -> None:
    pair.connect(max_dest_rd_atomic=0)
    fails_with(pair, pair.remote(opcode, 0, wr_id=2, pieces=((0, 8),)), int(e.IBV_WC_REM_INV_REQ_ERR))


@pytest.mark.parametrize("srq", [0, 8], ids=["own", "shared"])
@pytest.mark.parametrize("pieces", [(), ((0, 7),), ((0, 3), (8, 4))], ids=["none", "one", "two"])
def test_a_receive_that_is_too_small(pair: Pair, pieces: tuple[tuple[int, int], ...], srq: int) -> None:
    pair.connect(Options(srq_wr=srq))
    pair.b.post_recv(Recv(1, pieces), Recv(2))
    pair.b.write(b"\x11" * 32)
    pair.a.post_send(Send(5), Send(6))
    assert [(d.wr_id, d.status) for d in pair.a.sent(2)] == [(5, e.IBV_WC_REM_INV_REQ_ERR), (6, FLUSHED)]
    assert (first := pair.b.received()[0]).wr_id == 1
    assert first.status == e.IBV_WC_LOC_LEN_ERR
    pair.b.wait_state(int(e.IBV_QPS_ERR))
    if not srq:
        assert [(d.wr_id, d.status) for d in pair.b.received()] == [(2, FLUSHED)]


@pytest.mark.parametrize("srq", [0, 8], ids=["own", "shared"])
@pytest.mark.parametrize("mistake", ["key", "foreign", "behind", "read only"])
def test_a_receive_without_right(pair: Pair, mistake: str, srq: int) -> None:
    pair.connect(Options(srq_wr=srq))
    foreign, read_only = pair.b.register_elsewhere(), pair.b.register(int(e.IBV_ACCESS_REMOTE_READ))
    pieces: dict[str, Piece] = {
        "key": (0, 8, 0x12345678),
        "foreign": (foreign.addr - pair.to_b.addr, 8, foreign.lkey),
        "behind": (pair.to_b.length - 7, 8),
        "read only": (read_only.addr - pair.to_b.addr, 8, read_only.lkey),
    }
    pair.b.post_recv(Recv(1, (pieces[mistake],)), Recv(2))
    pair.a.post_send(Send(5), Send(6))
    assert [(d.wr_id, d.status) for d in pair.a.sent(2)] == [(5, e.IBV_WC_REM_OP_ERR), (6, FLUSHED)]
    assert [(d.wr_id, d.status) for d in pair.b.received()] == [(1, e.IBV_WC_LOC_PROT_ERR)]
    pair.b.wait_state(int(e.IBV_QPS_ERR))


@pytest.mark.parametrize("mistake", ["key", "behind"])
def test_an_unreliable_sender_is_told_nothing(pair: Pair, mistake: str) -> None:
    pair.connect(Options(UC))
    pair.b.write(b"\x22" * 16, pair.to_b.length - 16)
    remote, rkey = pair.to_b.addr + pair.to_b.length - 8, pair.to_b.rkey
    if mistake == "key":
        remote, rkey = pair.to_b.addr, rkey ^ 0x40000000
    pair.a.post_send(Send(1, WRITE, ((0, 16),), remote=remote, rkey=rkey))
    assert pair.a.sent()[0].ok
    assert pair.b.read(16, pair.to_b.length - 16) == b"\x22" * 16
    assert pair.b.state() == e.IBV_QPS_RTS, "what is dropped is no error"
    pair.b.post_recv(Recv(1))
    pair.a.post_send(Send(2))
    assert pair.b.received()[0].ok


@pytest.mark.parametrize("mistake", ["small", "key"])
def test_a_datagram_into_a_bad_receive(apart: Pair, mistake: str) -> None:
    apart.connect(Options(UD))
    piece: Piece = (0, GRH_BYTES + 7) if mistake == "small" else (0, 1024, 0xBAD)
    apart.b.post_recv(Recv(1, (piece,)), Recv(2))
    apart.a.post_send(Send(5, to=apart.to_b))
    assert apart.a.sent()[0].ok, "nobody tells the sender"
    expected = e.IBV_WC_LOC_LEN_ERR if mistake == "small" else e.IBV_WC_LOC_PROT_ERR
    assert [(d.wr_id, d.status) for d in apart.b.received(2)] == [(1, expected), (2, FLUSHED)]
    apart.b.wait_state(int(e.IBV_QPS_ERR))


# ---- after an error -------------------------------------------------------------------------------------------------


def test_everything_is_flushed_in_order(pair: Pair) -> None:
    pair.connect(rnr_retry=7)
    pair.b.post_recv(*(Recv(i + 1, ((0, 64), (64, 64))) for i in range(5)))
    if not pair.is_self:
        # Unsignaled ones are reported too when they are flushed.
        pair.a.post_recv(*(Recv(i) for i in range(3)))
    pair.a.modify(int(e.IBV_QPS_SQD))
    pair.a.post_send(*(Send(i, flags=0) for i in range(4)))
    pair.a.modify(int(e.IBV_QPS_ERR))
    assert [(d.wr_id, d.status) for d in pair.a.sent(4)] == [(i, FLUSHED) for i in range(4)]
    if not pair.is_self:
        assert [(d.wr_id, d.status) for d in pair.a.received(3)] == [(i, FLUSHED) for i in range(3)]
        pair.b.modify(int(e.IBV_QPS_ERR))
    is_flushed(pair, 5)


@pytest.mark.parametrize("qp_type", [RC, UC, UD], ids=["RC", "UC", "UD"])
def test_a_queue_pair_can_be_reset_and_used_again(pair: Pair, qp_type: int) -> None:
    pair.connect(Options(qp_type))
    pair.b.post_recv(Recv(1))
    sides = [pair.a] if pair.is_self else [pair.a, pair.b]
    for side in sides:
        side.modify(int(e.IBV_QPS_ERR))
        side.modify(int(e.IBV_QPS_RESET))
    assert pair.b.poll_now("recv") == [], "completions go with the reset"
    for side, to in zip(sides, (pair.to_b, pair.to_a), strict=False):
        side.connect(to)
    pair.b.post_recv(Recv(7))
    pair.a.post_send(Send(7, to=pair.to_b if qp_type == UD else None))
    assert pair.a.sent()[0].ok
    assert pair.b.received()[0].wr_id == 7


def test_last_wqe_reached(pair: Pair) -> None:
    pair.connect(Options(srq_wr=4))
    pair.b.post_recv(Recv(1))
    pair.b.modify(int(e.IBV_QPS_ERR))
    assert pair.b.async_event() == e.IBV_EVENT_QP_LAST_WQE_REACHED
    assert pair.b.poll_now("recv") == [], "the shared queue keeps its receives"
    assert pair.b.async_event(0) is None
