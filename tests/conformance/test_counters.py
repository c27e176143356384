"""Completion counters count what completes, on every path, signaled or not, before it can be polled."""

import errno
from collections.abc import Iterator

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs.comp_cntr import CompCntr, CompCntrInitAttr
from ffverbs.cq import CQ
from ffverbs.device import Context
from ffverbs.pd import PD
from ffverbs.pyverbs_error import PyverbsError, PyverbsRDMAError
from ffverbs.qp import QP, QPAttachCompCntrAttr, QPCap, QPInitAttr
from tests.conformance.pair import UC, UD, Options, Pair, Recv, Send

SEND, RECV = int(e.IBV_QP_ATTACH_COMP_CNTR_OP_SEND), int(e.IBV_QP_ATTACH_COMP_CNTR_OP_RECV)
READ, REMOTE_READ = int(e.IBV_QP_ATTACH_COMP_CNTR_OP_RDMA_READ), int(e.IBV_QP_ATTACH_COMP_CNTR_OP_REMOTE_RDMA_READ)
WRITE, REMOTE_WRITE = int(e.IBV_QP_ATTACH_COMP_CNTR_OP_RDMA_WRITE), int(e.IBV_QP_ATTACH_COMP_CNTR_OP_REMOTE_RDMA_WRITE)
ALL = (SEND, RECV, READ, REMOTE_READ, WRITE, REMOTE_WRITE)


def test_every_operation_is_counted_on_its_side(apart: Pair) -> None:
    apart.connect()
    a, b = apart.a, apart.b
    of_a, of_b = [a.count(op) for op in ALL], [b.count(op) for op in ALL]
    b.post_recv(*(Recv(i) for i in range(4)))
    a.post_send(
        Send(flags=0),
        Send(opcode=int(e.IBV_WR_SEND_WITH_IMM)),
        apart.remote(int(e.IBV_WR_RDMA_WRITE_WITH_IMM)),
        apart.remote(int(e.IBV_WR_RDMA_WRITE), flags=0),
        apart.remote(int(e.IBV_WR_RDMA_READ)),
        apart.remote(int(e.IBV_WR_ATOMIC_FETCH_AND_ADD)),
        apart.remote(int(e.IBV_WR_RDMA_READ)),
    )
    assert all(done.ok for done in a.sent(5))
    assert all(done.ok for done in b.received(3))
    assert [a.counted(which) for which in of_a] == [(2, 0), (0, 0), (2, 0), (0, 0), (2, 0), (0, 0)]
    assert [b.counted(which) for which in of_b] == [(0, 0), (3, 0), (0, 0), (2, 0), (0, 0), (2, 0)]


def test_atomic_writes_are_writes(apart: Pair) -> None:
    apart.connect()
    writes, remote = apart.a.count(WRITE), apart.b.count(REMOTE_WRITE)
    apart.a.post_send(apart.remote(int(e.IBV_WR_ATOMIC_WRITE), 64, pieces=((0, 8),)))
    assert apart.a.sent()[0].ok
    assert (apart.a.counted(writes), apart.b.counted(remote)) == ((1, 0), (1, 0))


@pytest.mark.parametrize("qp_type", [UC, UD])
def test_unreliable_types(apart: Pair, qp_type: int) -> None:
    apart.connect(Options(qp_type=qp_type))
    sends, receives = apart.a.count(SEND), apart.b.count(RECV)
    apart.b.post_recv(Recv(1))
    apart.a.post_send(Send(to=apart.to_b if qp_type == UD else None))
    assert apart.a.sent()[0].ok and apart.b.received()[0].ok
    assert (apart.a.counted(sends), apart.b.counted(receives)) == ((1, 0), (1, 0))


def test_shared_receive_queue(apart: Pair) -> None:
    apart.connect(None, Options(srq_wr=4))
    receives = apart.b.count(RECV)
    apart.b.post_recv(Recv(1))
    apart.a.post_send(Send())
    assert apart.b.received()[0].ok
    assert apart.b.counted(receives) == (1, 0)


def test_errors_and_flushes(apart: Pair) -> None:
    apart.connect()
    sends, writes = apart.a.count(SEND), apart.a.count(WRITE)
    receives, remote = apart.b.count(RECV), apart.b.count(REMOTE_WRITE)
    apart.b.post_recv(Recv(1), Recv(2))
    bad = apart.remote(int(e.IBV_WR_RDMA_WRITE), offset=1 << 30)
    apart.a.post_send(Send(), bad, Send(flags=0), Send(flags=0))
    assert [done.status for done in apart.a.sent(4)] == [0, e.IBV_WC_REM_ACCESS_ERR, *[e.IBV_WC_WR_FLUSH_ERR] * 2]
    assert [done.status for done in apart.b.received(2)] == [0, e.IBV_WC_WR_FLUSH_ERR]
    assert (apart.a.counted(sends), apart.a.counted(writes)) == ((1, 2), (0, 1))
    assert (apart.b.counted(receives), apart.b.counted(remote)) == ((1, 1), (0, 0))


def test_one_counter_for_several_operations(here: Pair) -> None:
    here.connect(Options(qps=2))
    both = here.a.count(SEND | WRITE)
    here.b.post_recv(Recv(1))
    here.a.post_send(Send(), here.remote(int(e.IBV_WR_RDMA_WRITE)))
    assert all(done.ok for done in here.a.sent(2))
    here.b.post_recv(Recv(1), qp=1)
    here.a.post_send(Send(), qp=1)  # this queue pair has no counter
    assert here.a.sent()[0].ok
    assert here.a.counted(both) == (2, 0)


# ---- the objects --------------------------------------------------------------------------------------------------


@pytest.fixture
def ctx() -> Iterator[Context]:
    with Context(name="ffv0") as context:
        yield context


def code(call: object) -> int:
    assert callable(call)
    with pytest.raises(PyverbsRDMAError) as caught:
        call()
    return caught.value.error_code


def test_the_application_sets_and_adds(ctx: Context) -> None:
    caps = ctx.query_comp_cntr_caps()
    assert (caps.max_counters > 0, caps.max_value, caps.supported_qp_attach_ops) == (True, (1 << 64) - 1, sum(ALL))
    counter = CompCntr(ctx, CompCntrInitAttr())
    assert (counter.read(), counter.read_err()) == (0, 0)
    counter.set(7)
    counter.set_err((1 << 64) - 1)
    counter.inc(3)
    assert (counter.read(), counter.read_err()) == (10, (1 << 64) - 1)
    counter.inc_err(2)
    assert counter.read_err() == 1
    with pytest.raises(OverflowError):
        counter.set(-1)
    counter.close()
    with pytest.raises(PyverbsError, match="closed"):
        counter.read()


def test_bad_attributes_and_attachments(ctx: Context) -> None:
    for attr in (CompCntrInitAttr(1), CompCntrInitAttr(0, 1), CompCntrInitAttr(0, 0, 1)):
        assert code(lambda attr=attr: CompCntr(ctx, attr)) == errno.EINVAL
    cq, pd = CQ(ctx, 5), PD(ctx)
    qp = QP(pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=cq, rcq=cq, cap=QPCap(1, 1)))
    counter = CompCntr(ctx, CompCntrInitAttr())
    for mask in (0, 64, SEND | 1 << 31):
        assert code(lambda mask=mask: qp.attach_comp_cntr(counter, QPAttachCompCntrAttr(mask))) == errno.EINVAL
    qp.attach_comp_cntr(counter, QPAttachCompCntrAttr(SEND))
    assert code(lambda: qp.attach_comp_cntr(counter, QPAttachCompCntrAttr(SEND | RECV))) == errno.EBUSY
    qp.attach_comp_cntr(counter, QPAttachCompCntrAttr(RECV))  # nothing of the refused one was done
    assert code(lambda: counter._destroy(counter._handle)) == errno.EBUSY
    with Context(name="ffv0") as other, CompCntr(other, CompCntrInitAttr()) as foreign:
        assert code(lambda: qp.attach_comp_cntr(foreign, QPAttachCompCntrAttr(READ))) == errno.EINVAL
    with pytest.raises(TypeError):
        qp.attach_comp_cntr(None, QPAttachCompCntrAttr(SEND))  # type: ignore[arg-type]
    qp.close()
    counter.close()
