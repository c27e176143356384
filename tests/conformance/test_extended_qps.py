"""Extended posting: every operation by batches, what a batch is, and the operations that came with it."""

import errno
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs.cq import CQ
from ffverbs.device import Context
from ffverbs.mr import MR, MW, MWBindInfo
from ffverbs.pd import PD
from ffverbs.pyverbs_error import PyverbsError, PyverbsRDMAError, PyverbsUserError
from ffverbs.qp import DataBuffer, QPCap, QPEx, QPInitAttr, QPInitAttrEx
from ffverbs.wr import SGE
from tests.conformance.pair import ALL_ACCESS, GRH_BYTES, UD, Options, Pair, Recv, Send

ALL_OPS = 0x1FFF & ~int(e.IBV_QP_EX_WITH_TSO)
EXTENDED = Options(send_ops=ALL_OPS)
UD_OPS = int(e.IBV_QP_EX_WITH_SEND | e.IBV_QP_EX_WITH_SEND_WITH_IMM)
INLINE = int(e.IBV_SEND_INLINE | e.IBV_SEND_SIGNALED)
FLUSHABLE = ALL_ACCESS | int(e.IBV_ACCESS_FLUSH_GLOBAL)


def test_a_batch_of_every_kind(pair: Pair) -> None:
    pair.connect(EXTENDED)
    pair.a.fill(64, 5)
    pair.b.write((7).to_bytes(8, "little"), 8192)
    pair.b.post_recv(Recv(1, ((20000, 64),)), Recv(2), Recv(3, ((20100, 64),)))
    a, data = pair.remote, pair.a.read(64)
    rc = pair.a.post_batch(
        Send(1, pieces=((0, 16), (16, 16))),
        a(e.IBV_WR_RDMA_WRITE, 4096, wr_id=2, pieces=((0, 64),)),
        a(e.IBV_WR_RDMA_WRITE_WITH_IMM, 4200, wr_id=3, pieces=((0, 8),), imm=0x01020304),
        a(e.IBV_WR_RDMA_READ, 4096, wr_id=4, pieces=((30000, 64),)),
        a(e.IBV_WR_ATOMIC_FETCH_AND_ADD, 8192, wr_id=5, pieces=((31000, 8),), compare_add=3),
        a(e.IBV_WR_ATOMIC_CMP_AND_SWP, 8192, wr_id=6, pieces=((31008, 8),), compare_add=10, swap=99),
        a(e.IBV_WR_ATOMIC_WRITE, 8200, wr_id=7, swap=0x1122334455667788),
        Send(8, int(e.IBV_WR_SEND_WITH_IMM), ((0, 10),), INLINE, imm=0xA0B0C0D0),
        a(e.IBV_WR_RDMA_WRITE, 4300, wr_id=9, pieces=((0, 10), (40, 20)), flags=INLINE),
    )
    assert rc == 0
    sent = pair.a.sent(9)
    assert [d.wr_id for d in sent if d.ok] == list(range(1, 10)), sent
    assert (sent[6].opcode, sent[4].opcode) == (e.IBV_WC_ATOMIC_WRITE, e.IBV_WC_FETCH_ADD)
    got = pair.b.received(3)
    assert [int(d.imm).to_bytes(4, "little").hex() for d in got[1:]] == ["01020304", "a0b0c0d0"]
    assert pair.b.read(32, 20000) == data[:32]
    assert pair.b.read(64, 4096) == pair.a.read(64, 30000) == data
    assert pair.b.read(10, 20100) == data[:10]
    assert pair.b.read(30, 4300) == data[:10] + data[40:60]
    assert pair.a.read(16, 31000) == (7).to_bytes(8, "little") + (10).to_bytes(8, "little")
    assert pair.b.read(16, 8192) == (99).to_bytes(8, "little") + (0x1122334455667788).to_bytes(8, "little")


def test_datagrams(pair: Pair) -> None:
    pair.connect(Options(qp_type=UD, send_ops=UD_OPS))
    pair.a.fill(64, 6)
    pair.b.post_recv(Recv(1, ((4096, 200),)), Recv(2, ((8192, 200),)))
    assert pair.a.post_batch(Send(1, to=pair.to_b), Send(2, pieces=((0, 64),), flags=INLINE, to=pair.to_b)) == 0
    assert all(d.ok for d in pair.a.sent(2))
    assert [d.byte_len for d in pair.b.received(2)] == [GRH_BYTES + 8, GRH_BYTES + 64]
    assert pair.b.read(64, 8192 + GRH_BYTES) == pair.a.read(64)


def test_a_batch_with_a_mistake_posts_nothing(pair: Pair) -> None:
    pair.connect(replace(EXTENDED, send_ops=ALL_OPS & ~int(e.IBV_QP_EX_WITH_RDMA_READ)))
    good = pair.remote(e.IBV_WR_RDMA_WRITE, wr_id=1)
    assert pair.a.post_batch(good, pair.remote(e.IBV_WR_RDMA_READ, wr_id=2)) == errno.EINVAL
    assert pair.a.post_batch(good, Send(2, pieces=((0, 4000),), flags=INLINE)) == errno.EINVAL
    assert pair.a.post_batch(*(replace(good, wr_id=i) for i in range(17))) == errno.ENOMEM
    assert pair.a.poll_now("send") == []
    assert pair.a.post_batch(good) == 0
    assert [d.wr_id for d in pair.a.sent()] == [1]


def test_atomic_writes_are_checked(pair: Pair) -> None:
    pair.connect(EXTENDED)
    write = pair.remote(e.IBV_WR_ATOMIC_WRITE, 4, swap=1)
    assert pair.a.post_batch(write) == 0
    assert pair.a.sent()[0].status == e.IBV_WC_REM_INV_REQ_ERR


def test_atomic_writes_by_work_requests(pair: Pair) -> None:
    pair.connect(EXTENDED)
    pair.a.write(b"8 bytes!", 64)
    pair.a.post_send(pair.remote(e.IBV_WR_ATOMIC_WRITE, 80, pieces=((64, 8),)))
    assert (pair.a.sent()[0].opcode, pair.b.read(8, 80)) == (e.IBV_WC_ATOMIC_WRITE, b"8 bytes!")
    pair.a.post_send(pair.remote(e.IBV_WR_ATOMIC_WRITE, 88, pieces=((64, 8),), flags=INLINE))
    assert pair.a.sent()[0].ok
    assert pair.b.read(8, 88) == b"8 bytes!"
    assert pair.a.refused_send(pair.remote(e.IBV_WR_FLUSH)) == (errno.EOPNOTSUPP, 1)
    pair.a.post_send(pair.remote(e.IBV_WR_ATOMIC_WRITE, 96, pieces=((64, 16),)))
    assert pair.a.sent()[0].status == e.IBV_WC_LOC_LEN_ERR


def test_atomic_writes_need_remote_write(pair: Pair) -> None:
    pair.connect(EXTENDED)
    readable = pair.b.register(int(e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_READ))
    assert pair.a.post_batch(Send(1, int(e.IBV_WR_ATOMIC_WRITE), rkey=readable.rkey, remote=readable.addr)) == 0
    assert pair.a.sent()[0].status == e.IBV_WC_REM_ACCESS_ERR


@pytest.mark.parametrize("level", [int(e.IBV_FLUSH_RANGE), int(e.IBV_FLUSH_MR)])
def test_flush(pair: Pair, level: int) -> None:
    pair.connect(replace(EXTENDED, access=FLUSHABLE))
    pair.b.modify(mask=int(e.IBV_QP_ACCESS_FLAGS), qp_access_flags=FLUSHABLE)
    pair.a.fill(64, 9)
    write = pair.remote(e.IBV_WR_RDMA_WRITE, 4096, wr_id=1, pieces=((0, 64),))
    flush = pair.remote(e.IBV_WR_FLUSH, 4096, wr_id=2, compare_add=64, swap=level)
    assert pair.a.post_batch(write, flush) == 0
    done = pair.a.sent(2)
    assert [(d.wr_id, d.status) for d in done] == [(1, 0), (2, 0)]
    assert done[1].opcode == e.IBV_WC_FLUSH
    assert pair.b.read(64, 4096) == pair.a.read(64)
    # Beyond the memory: only a range can be.
    pair.a.post_batch(pair.remote(e.IBV_WR_FLUSH, 65536 - 8, compare_add=16, swap=level))
    assert pair.a.sent()[0].status == (e.IBV_WC_SUCCESS if level else e.IBV_WC_REM_ACCESS_ERR)


def test_flush_must_be_allowed(pair: Pair) -> None:
    pair.connect(replace(EXTENDED, access=FLUSHABLE))
    assert pair.a.post_batch(pair.remote(e.IBV_WR_FLUSH, compare_add=8)) == 0
    assert pair.a.sent()[0].status == e.IBV_WC_REM_INV_REQ_ERR, "the queue pair does not"


# ---- one side ----------------------------------------------------------------------------------------------------


class Side:
    """Whatever a queue pair needs, and memory."""

    def __init__(self) -> None:
        self.ctx = Context(name="ffv0")
        self.pd = PD(self.ctx)
        self.cq = CQ(self.ctx, 64)
        self.mr = MR(self.pd, 4096, ALL_ACCESS | int(e.IBV_ACCESS_MW_BIND))

    def init(self, ops: int = ALL_OPS, **values: Any) -> QPInitAttrEx:
        mask = int(e.IBV_QP_INIT_ATTR_PD | e.IBV_QP_INIT_ATTR_SEND_OPS_FLAGS)
        values = {"qp_type": int(e.IBV_QPT_RC), "comp_mask": mask} | values
        cap = QPCap(16, 16, 2, 2, 64)
        return QPInitAttrEx(scq=self.cq, rcq=self.cq, pd=self.pd, cap=cap, send_ops_flags=ops, **values)


@pytest.fixture
def side(node_directory: object) -> Side:
    """A context with queues and memory."""
    return Side()


def test_what_an_extended_queue_pair_needs(side: Side) -> None:
    makes: tuple[Callable[[], QPEx], ...] = (
        lambda: QPEx(side.ctx, side.init(comp_mask=int(e.IBV_QP_INIT_ATTR_PD))),
        lambda: QPEx(side.pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=side.cq, rcq=side.cq, cap=QPCap())),
        lambda: QPEx(side.ctx, side.init(int(e.IBV_QP_EX_WITH_TSO))),
        lambda: QPEx(side.ctx, side.init(ALL_OPS | 1 << 40)),
        lambda: QPEx(side.ctx, side.init(ALL_OPS, qp_type=int(e.IBV_QPT_UD))),
    )
    for make in makes:
        with pytest.raises(PyverbsRDMAError, match="Failed to create extended QP") as caught:
            make()
        assert caught.value.error_code == errno.EOPNOTSUPP


def test_arguments(side: Side) -> None:
    qp = QPEx(side.ctx, side.init())
    qp.wr_id, qp.wr_flags, qp.comp_mask = 2**64 - 1, e.IBV_SEND_SIGNALED, 1
    assert (qp.wr_id, qp.wr_flags, qp.comp_mask, qp.ind_table) == (2**64 - 1, 2, 1, None)
    with pytest.raises(OverflowError):
        qp.wr_id = -1
    qp.wr_start()
    qp.wr_send()
    with pytest.raises(PyverbsError, match="has 1 elements"):
        qp.wr_set_sge_list(2, [SGE(0, 0, 0)])
    with pytest.raises(PyverbsError, match="has 1 elements"):
        qp.wr_set_inline_data_list(2, [DataBuffer(0, 0)])
    with pytest.raises(PyverbsUserError, match="8 bytes"):
        qp.wr_atomic_write(1, 2, b"short")
    with pytest.raises(TypeError):
        qp.wr_set_sge(5)  # type: ignore[arg-type]
    qp.wr_abort()
    with pytest.raises(PyverbsRDMAError, match="Failed to complete WR.*no batch") as caught:
        qp.wr_complete()
    assert caught.value.error_code == errno.EINVAL
    qp.close()
    with pytest.raises(PyverbsError, match="closed"):
        qp.wr_start()


@pytest.mark.parametrize(
    ("build", "code"),
    [
        (lambda qp, side: qp.wr_send_tso(side.mr.buf, 14, 1000), errno.EOPNOTSUPP),
        (lambda qp, side: qp.wr_flush(1, 2, 3, e.IBV_FLUSH_PERSISTENT, e.IBV_FLUSH_RANGE), errno.EOPNOTSUPP),
        (lambda qp, side: qp.wr_flush(1, 2, 3, 0, e.IBV_FLUSH_RANGE), errno.EINVAL),
        (lambda qp, side: qp.wr_flush(1, 2, 3, e.IBV_FLUSH_GLOBAL, 7), errno.EINVAL),
        (lambda qp, side: qp.wr_set_sge(SGE(0, 0, 0)), errno.EINVAL),
        (lambda qp, side: qp.wr_set_xrc_srqn(1), errno.EINVAL),
        (lambda qp, side: qp.wr_send(), errno.EINVAL),
    ],
)
def test_mistakes_are_told_at_the_end(side: Side, build: Callable[[QPEx, Side], None], code: int) -> None:
    qp = QPEx(side.ctx, side.init())
    qp.wr_start()
    build(qp, side)
    with pytest.raises(PyverbsRDMAError, match="Failed to complete WR") as caught:
        qp.wr_complete()  # the last one: in the state RESET nothing can be posted
    assert caught.value.error_code == code


def test_windows_by_batches(here: Pair) -> None:
    here.connect(replace(EXTENDED, access=ALL_ACCESS | int(e.IBV_ACCESS_MW_BIND)))
    o, memory = here.b._objects, here.b._memory
    qp, window = o.qps[0], MW(o.pd, e.IBV_MW_TYPE_2)
    assert isinstance(qp, QPEx)
    key = (window.rkey & ~0xFF) | ((window.rkey + 1) & 0xFF)
    qp.wr_start()
    qp.wr_id, qp.wr_flags = 1, e.IBV_SEND_SIGNALED
    qp.wr_bind_mw(window, key, MWBindInfo(memory, memory.buf, 64, int(e.IBV_ACCESS_REMOTE_WRITE)))
    qp.wr_complete()
    assert here.b.sent()[0].opcode == e.IBV_WC_BIND_MW
    inside = Send(2, int(e.IBV_WR_RDMA_WRITE), remote=memory.buf, rkey=key)
    assert here.a.post_batch(inside) == 0
    assert here.a.sent()[0].ok
    assert here.b.post_batch(Send(3, int(e.IBV_WR_LOCAL_INV), imm=key)) == 0
    assert here.b.sent()[0].opcode == e.IBV_WC_LOCAL_INV
    assert here.a.post_batch(inside) == 0
    assert here.a.sent()[0].status == e.IBV_WC_REM_ACCESS_ERR


def test_another_thread_waits_for_the_batch(here: Pair) -> None:
    here.connect(EXTENDED)
    qp = here.a._objects.qps[0]
    assert isinstance(qp, QPEx)
    write = here.remote(e.IBV_WR_RDMA_WRITE, wr_id=2)
    qp.wr_start()
    other = threading.Thread(target=lambda: here.a.post_batch(write))
    other.start()
    qp.wr_id, qp.wr_flags = 1, e.IBV_SEND_SIGNALED
    qp.wr_rdma_write(here.to_b.rkey, here.to_b.addr)
    qp.wr_set_sge(here.a._sges(((0, 8),))[0])
    assert here.a.poll_now("send") == [], "the other one is waiting"
    qp.wr_complete()
    other.join()
    assert [d.wr_id for d in here.a.sent(2)] == [1, 2]


def test_the_device_says_what_it_can(side: Side) -> None:
    flags = side.ctx.query_device_ex().device_cap_flags_ex
    assert flags & 1 << 38, "flush to global visibility"
    assert not flags & 1 << 39, "flush to persistence"
    assert flags & 1 << 40, "atomic write"
    with pytest.raises(PyverbsRDMAError) as caught:
        MR(side.pd, 4096, int(e.IBV_ACCESS_FLUSH_PERSISTENT))
    assert caught.value.error_code == errno.EOPNOTSUPP
