"""The objects of the package on the engine: how they are made, used, owned and closed, and what errors say."""

import errno
import gc
import os
import select
import signal
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs.addr import AH, GID, GRH, AHAttr, GlobalRoute
from ffverbs.base import inc_rkey
from ffverbs.cq import CQ, CQEX, WC, CompChannel, CqInitAttrEx
from ffverbs.device import DM, AllocDmAttr, Context, get_device_list
from ffverbs.dmabuf import DmaBuf
from ffverbs.mem_alloc import free, posix_memalign
from ffverbs.mem_alloc import read as read_at
from ffverbs.mr import DMMR, MR, MW, DmaBufMR, MREx, MWBind, MWBindInfo
from ffverbs.pd import PD
from ffverbs.pyverbs_error import PyverbsError, PyverbsRDMAError, PyverbsUserError
from ffverbs.qp import ECE, QP, QPAttr, QPCap, QPInitAttr, QPInitAttrEx
from ffverbs.srq import SRQ, OpsWr, SrqAttr, SrqInitAttr, SrqInitAttrEx
from ffverbs.wr import SGE, RecvWR, SendWR

GID_INDEX = 1
QKEY = 0x11111111
ACCESS = e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ | e.IBV_ACCESS_REMOTE_ATOMIC
GRH_BYTES = 40


@pytest.fixture
def ctx() -> Iterator[Context]:
    context = Context(name="ffv0")
    yield context
    context.close()


@pytest.fixture
def pd(ctx: Context) -> PD:
    return PD(ctx)


def address(ctx: Context) -> AHAttr:
    """The address of `ctx` itself."""
    route = GlobalRoute(dgid=ctx.query_gid(1, GID_INDEX), sgid_index=GID_INDEX)
    return AHAttr(port_num=1, is_global=1, gr=route)


def connected_attr(ctx: Context, dest_qp_num: int) -> QPAttr:
    attr = QPAttr(port_num=1)
    attr.qp_access_flags = ACCESS
    attr.dest_qp_num = dest_qp_num
    attr.ah_attr = address(ctx)
    attr.max_rd_atomic = attr.max_dest_rd_atomic = 1
    attr.min_rnr_timer, attr.timeout, attr.retry_cnt, attr.rnr_retry = 12, 14, 7, 7
    return attr


class Loop:
    """An RC QP connected to itself, with its CQ and a buffer of 4 KiB."""

    def __init__(self, pd: PD, ctx: Context, depth: int = 4, channel: CompChannel | None = None) -> None:
        self.cq = CQ(ctx, 100, None, channel)
        cap = QPCap(max_send_wr=depth, max_recv_wr=depth, max_send_sge=2, max_recv_sge=2)
        self.qp = QP(pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=self.cq, rcq=self.cq, cap=cap))
        self.qp.to_rts(connected_attr(ctx, self.qp.qp_num))
        self.mr = MR(pd, 4096, ACCESS)

    def sge(self, offset: int, length: int) -> SGE:
        return SGE(self.mr.buf + offset, length, self.mr.lkey)

    def send_wr(self, wr_id: int = 1, length: int = 8, **kwargs: Any) -> SendWR:
        return SendWR(wr_id, num_sge=1, sg=[self.sge(0, length)], **kwargs)

    def recv_wr(self, wr_id: int = 1, offset: int = 2048, **kwargs: Any) -> RecvWR:
        return RecvWR(wr_id, 1, [self.sge(offset, 1024)], **kwargs)

    def completions(self, count: int) -> list[WC]:
        """Poll until `count` completions are there; the test's time limit is the deadline."""
        found: list[WC] = []
        while len(found) < count:
            found += self.cq.poll(count - len(found))[1]
        return found


@pytest.fixture
def loop(pd: PD, ctx: Context) -> Loop:
    return Loop(pd, ctx)


# ---- making and closing -----------------------------------------------------------------------------------------


def test_device_list() -> None:
    (device,) = get_device_list()
    assert device.name == b"ffv0"
    assert device.node_type == e.IBV_NODE_CA
    assert str(device).startswith("Device ffv0, node type CA, transport type IB, guid ")


def test_unknown_devices_are_named() -> None:
    with pytest.raises(PyverbsRDMAError, match=r"Failed to find device mlx5_0: there is ffv0") as caught:
        Context(name="mlx5_0")
    assert caught.value.error_code == -1
    with pytest.raises(PyverbsUserError, match="Device name must be provided"):
        Context()
    with pytest.raises(TypeError):
        Context(name=b"ffv0")


def test_closing_the_context_closes_everything(loop: Loop, pd: PD, ctx: Context) -> None:
    srq = SRQ(pd, SrqInitAttr(SrqAttr()))
    handle = AH(pd, attr=address(ctx))
    channel = CompChannel(ctx)
    other = CQ(ctx, 1, None, channel)
    ctx.close()
    for child in (loop.qp, loop.cq, loop.mr, pd, srq, handle, channel, other, ctx):
        assert child._handle is None
        child.close()


@pytest.mark.parametrize(
    "use",
    [
        lambda loop, pd, ctx: loop.qp.post_send(loop.wr),
        lambda loop, pd, ctx: loop.qp.post_recv(loop.rwr),
        lambda loop, pd, ctx: loop.qp.qp_num,
        lambda loop, pd, ctx: loop.qp.qp_state,
        lambda loop, pd, ctx: loop.qp.query(1),
        lambda loop, pd, ctx: loop.qp.to_init(QPAttr()),
        lambda loop, pd, ctx: loop.qp.modify(QPAttr(), 1),
        lambda loop, pd, ctx: str(loop.qp),
        lambda loop, pd, ctx: loop.cq.poll(),
        lambda loop, pd, ctx: loop.cq.poll(10),
        lambda loop, pd, ctx: loop.cq.req_notify(),
        lambda loop, pd, ctx: loop.cq.resize(5),
        lambda loop, pd, ctx: loop.cq.cqe,
        lambda loop, pd, ctx: loop.mr.lkey,
        lambda loop, pd, ctx: loop.mr.buf,
        lambda loop, pd, ctx: loop.mr.read(1, 0),
        lambda loop, pd, ctx: loop.mr.write("a", 1),
        lambda loop, pd, ctx: MR(pd, 10, 1),
        lambda loop, pd, ctx: pd.handle,
        lambda loop, pd, ctx: PD(ctx),
        lambda loop, pd, ctx: CQ(ctx, 10),
        lambda loop, pd, ctx: ctx.query_device(),
        lambda loop, pd, ctx: ctx.query_port(1),
        lambda loop, pd, ctx: ctx.num_comp_vectors,
    ],
)
def test_use_after_close_is_an_error(use: Callable[..., Any], loop: Any, pd: PD, ctx: Context) -> None:
    loop.wr, loop.rwr = loop.send_wr(), loop.recv_wr()
    ctx.close()
    with pytest.raises(PyverbsError, match="is closed"):
        use(loop, pd, ctx)


def test_children_keep_their_parents_alive() -> None:
    context = Context(name="ffv0")
    alive = weakref.ref(context)
    mr = MR(PD(context), 100, e.IBV_ACCESS_LOCAL_WRITE)
    del context
    gc.collect()
    assert alive() is not None
    mr.write(b"x", 1)
    assert mr.read(1, 0) == b"x"
    del mr
    gc.collect()
    assert alive() is None


def test_everything_collected_leaves_no_descriptor() -> None:
    def use() -> None:
        context = Context(name="ffv0")
        Loop(PD(context), context, channel=CompChannel(context)).qp.close()

    use()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        use()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_closing_a_cq_closes_its_qps(loop: Loop) -> None:
    loop.cq.close()
    with pytest.raises(PyverbsError, match="QP is closed"):
        _ = loop.qp.qp_num


# ---- queries ----------------------------------------------------------------------------------------------------


def test_context_queries(ctx: Context) -> None:
    assert ctx.name == "ffv0"
    assert ctx.context != 0
    assert ctx.cmd_fd >= 0
    attr, extended = ctx.query_device(), ctx.query_device_ex()
    assert attr.fw_version
    assert extended.orig_attr.max_qp == attr.max_qp > 0
    assert extended.phys_port_cnt_ex == attr.phys_port_cnt == 1
    port = ctx.query_port(1)
    assert port.state is e.IBV_PORT_ACTIVE
    assert port.link_layer == e.IBV_LINK_LAYER_ETHERNET
    pkey = ctx.query_pkey(1, 0)
    assert ctx.get_pkey_index(1, pkey) == 0
    entries = ctx.query_gid_table(100)
    assert {entry.port_num for entry in entries} == {1}
    for entry in entries:
        assert ctx.query_gid(1, entry.gid_index).gid == entry.gid_str()
        assert ctx.query_gid_ex(1, entry.gid_index).gid_str() == entry.gid_str()
        assert ctx.query_gid_type(1, entry.gid_index) == (entry.gid_type == e.IBV_GID_TYPE_ROCE_V2)
    first, second = ctx.query_rt_values_ex(), ctx.query_rt_values_ex()
    assert second[1] >= first[1] > 0
    assert "Max QP" in str(attr) and "Active" in str(port)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        (lambda ctx: ctx.query_port(2), errno.EINVAL),
        (lambda ctx: ctx.query_port(257), errno.EINVAL),
        (lambda ctx: ctx.query_gid_table(0), -errno.EINVAL),
        (lambda ctx: ctx.query_gid_ex(1, ctx.query_port(1).gid_tbl_len - 1), errno.ENODATA),
        (lambda ctx: ctx.query_gid_ex(2, 0), errno.EINVAL),
        (lambda ctx: ctx.query_gid(1, 10_000), -1),
        (lambda ctx: ctx.query_pkey(1, 10_000), -1),
        (lambda ctx: ctx.get_pkey_index(1, 0x1234), -1),
        (lambda ctx: ctx.query_port_speed(1), errno.EOPNOTSUPP),
        (lambda ctx: ctx.query_rt_values_ex(2), errno.EOPNOTSUPP),
    ],
)
def test_errors_of_queries_have_pyverbs_codes(query: Callable[[Context], Any], code: int, ctx: Context) -> None:
    with pytest.raises(PyverbsRDMAError, match="Failed to") as caught:
        query(ctx)
    assert caught.value.error_code == code


# ---- memory -----------------------------------------------------------------------------------------------------


def test_device_memory(pd: PD, ctx: Context) -> None:
    limit = ctx.query_device_ex().max_dm_size
    with pytest.raises(PyverbsRDMAError, match=f"memory of size {limit + 1}. Max available size {limit}"):
        DM(ctx, AllocDmAttr(limit + 1))
    with pytest.raises(PyverbsUserError):
        DM(ctx)
    dm = DM(ctx, AllocDmAttr(100, log_align_req=6))
    dm.copy_to_dm(4, b"abcdefgh", 8)
    assert dm.copy_from_dm(0, 16) == b"\0\0\0\0abcdefgh\0\0\0\0"
    with pytest.raises(PyverbsUserError, match="only 3"):
        dm.copy_to_dm(0, b"abc", 4)
    for offset, length, code in ((2, 4, errno.EINVAL), (4, 2, errno.EINVAL), (100, 4, errno.EFAULT)):
        with pytest.raises(PyverbsRDMAError, match="Failed to copy from dm") as caught:
            dm.copy_from_dm(offset, length)
        assert caught.value.error_code == code
    access = e.IBV_ACCESS_ZERO_BASED | e.IBV_ACCESS_LOCAL_WRITE
    with pytest.raises(PyverbsRDMAError, match="Failed to register a device MR. length: 104"):
        DMMR(pd, 104, access, dm, 0)
    mr = DMMR(pd, 96, access, dm, 4)
    assert (mr.buf, mr.length) == (0, 96)
    assert mr.read(8, 0) == b"abcdefgh"
    mr.write("ABCD", 4, 4)
    assert dm.copy_from_dm(8, 4) == b"ABCD"
    dm.close()  # with its MRs
    dm.close()
    with pytest.raises(PyverbsError, match="closed"):
        mr.read(4, 0)


def test_on_demand_memory(pd: PD, ctx: Context) -> None:
    caps = ctx.query_device_ex().odp_caps
    if not caps.general_caps:
        pytest.skip("the kernel refuses process_vm_readv of a process's own memory")
    everything = MR(pd, 4096, e.IBV_ACCESS_ON_DEMAND | e.IBV_ACCESS_LOCAL_WRITE, implicit=True)
    assert everything.length == (1 << 64) - 1
    everything.write(b"there", 5)
    assert everything.read(5, 0) == b"there"
    flush = int(e._IBV_ADVISE_MR_FLAG_FLUSH)
    pd.advise_mr(e._IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, flush, [SGE(everything.buf, 4096, everything.lkey)])
    with pytest.raises(PyverbsRDMAError, match="Failed to advise MR") as caught:
        pd.advise_mr(e._IBV_ADVISE_MR_ADVICE_PREFETCH, flush, [SGE(0, 4096, everything.lkey)])
    assert caught.value.error_code == errno.EFAULT
    with pytest.raises(PyverbsRDMAError) as caught:
        pd.advise_mr(e._IBV_ADVISE_MR_ADVICE_PREFETCH, 0, [])
    assert caught.value.error_code == errno.EINVAL
    with pytest.raises(TypeError):
        pd.advise_mr(0, 0, None)  # type: ignore[arg-type]


def test_allocated_memory_is_zero_aligned_and_bounded(pd: PD) -> None:
    mr = MR(pd, 5000, e.IBV_ACCESS_LOCAL_WRITE)
    assert mr.buf % 4096 == 0
    assert mr.length == 5000
    assert mr.read(5000, 0) == bytes(5000)
    mr.write("häh", 4, 4996)
    assert mr.read(4, 4996) == "häh".encode()
    for length, offset in ((1, 5000), (5001, 0), (-1, 0), (1, -1)):
        with pytest.raises(PyverbsUserError):
            mr.read(length, offset)
        with pytest.raises(PyverbsUserError):
            mr.write(bytes(6000), length, offset)
    with pytest.raises(PyverbsUserError, match="the data has only 2"):
        mr.write(b"ab", 3)
    assert "lkey" in str(mr)


def test_memory_of_the_caller_stays_the_callers(pd: PD) -> None:
    buffer = posix_memalign(8192, 4096)
    try:
        with MR(pd, 100, e.IBV_ACCESS_LOCAL_WRITE, address=buffer + 10) as mr:
            assert mr.buf == buffer + 10
            mr.write(b"hello", 5, 95)
        assert read_at(buffer + 105, 5) == b"hello"
    finally:
        free(buffer)


def test_iova_is_the_address_that_peers_use(pd: PD, ctx: Context, loop: Loop) -> None:
    target = MREx(pd, 4096, ACCESS, iova=0x10000)
    target.write(b"there", 5)
    wr = SendWR(1, e.IBV_WR_RDMA_READ, 1, 0, [loop.sge(0, 5)])
    wr.set_wr_rdma(target.rkey, 0x10000)
    loop.qp.post_send(wr)
    (wc,) = loop.completions(1)
    assert wc.status is e.IBV_WC_SUCCESS
    assert loop.mr.read(5, 0) == b"there"


def test_bad_registrations_are_refused(pd: PD) -> None:
    with pytest.raises(PyverbsRDMAError, match="Failed to register a MR. length: 10, access flags: 2") as caught:
        MR(pd, 10, e.IBV_ACCESS_REMOTE_WRITE)
    assert caught.value.error_code == errno.EINVAL
    with pytest.raises(TypeError):
        MR(None, 10, 1)  # type: ignore[arg-type]
    with pytest.raises(PyverbsUserError, match="Cannot create MR from"):
        MR(5, 10, 1)  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        MR(pd, -1, 1)


def test_reregistering_keeps_the_keys(pd: PD, ctx: Context) -> None:
    mr = MR(pd, 4096, e.IBV_ACCESS_LOCAL_WRITE)
    keys = mr.lkey, mr.rkey
    mr.rereg(e.IBV_REREG_MR_CHANGE_ACCESS, access=ACCESS)
    buffer = posix_memalign(8192, 4096)
    try:
        mr.rereg(e.IBV_REREG_MR_CHANGE_TRANSLATION, addr=buffer, length=5000)
        assert (mr.buf, mr.length) == (buffer, 5000)
        mr.write(b"end", 3, 4997)
        other = PD(ctx)
        mr.rereg(e.IBV_REREG_MR_CHANGE_PD, pd=other)
        assert (mr.lkey, mr.rkey) == keys
        with pytest.raises(PyverbsRDMAError, match="Failed to rereg MR: IBV_REREG_MR_ERR_INPUT") as caught:
            mr.rereg(e.IBV_REREG_MR_CHANGE_PD)
        assert caught.value.error_code == errno.EINVAL
        pd.close()
        assert mr.read(3, 4997) == b"end"
        other.close()
        with pytest.raises(PyverbsError, match="MR is closed"):
            mr.read(3, 4997)
        assert read_at(buffer + 4997, 3) == b"end"
    finally:
        mr.close()
        free(buffer)


def test_windows_of_type_1(pd: PD, ctx: Context, loop: Loop) -> None:
    mr = MR(pd, 4096, ACCESS | e.IBV_ACCESS_MW_BIND)
    window = MW(pd, e.IBV_MW_TYPE_1)
    before = window.rkey
    info = MWBindInfo(mr, mr.buf, 100, e.IBV_ACCESS_REMOTE_WRITE)
    loop.qp.bind_mw(window, MWBind(info, e.IBV_SEND_SIGNALED, 5))
    (wc,) = loop.completions(1)
    assert (wc.wr_id, wc.status, wc.opcode) == (5, e.IBV_WC_SUCCESS, e.IBV_WC_BIND_MW)
    assert window.rkey == inc_rkey(before)
    assert window.type is e.IBV_MW_TYPE_1
    assert "IBV_MW_TYPE_1" in str(window)
    loop.mr.write(b"window", 6)
    wr = SendWR(6, e.IBV_WR_RDMA_WRITE, 1, 0, [loop.sge(0, 6)])
    wr.set_wr_rdma(window.rkey, mr.buf + 10)
    loop.qp.post_send(wr)
    assert loop.completions(1)[0].status is e.IBV_WC_SUCCESS
    assert mr.read(6, 10) == b"window"
    with pytest.raises(PyverbsRDMAError, match="Failed to dereg MR"):
        mr.close()
    loop.qp.close()
    with pytest.raises(PyverbsError, match="MW is closed"):
        _ = window.rkey
    mr.close()


# ---- queues -----------------------------------------------------------------------------------------------------


def test_send_to_oneself(loop: Loop) -> None:
    loop.mr.write(b"12345678", 8)
    loop.qp.post_recv(loop.recv_wr(7))
    loop.qp.post_send(loop.send_wr(8, opcode=e.IBV_WR_SEND_WITH_IMM, imm_data=0x01020304))
    by_id = {wc.wr_id: wc for wc in loop.completions(2)}
    received = by_id[7]
    assert received.status is e.IBV_WC_SUCCESS
    assert received.opcode is e.IBV_WC_RECV
    assert (received.byte_len, received.imm_data) == (8, 0x01020304)
    assert received.wc_flags & e.IBV_WC_WITH_IMM
    assert received.qp_num == loop.qp.qp_num
    assert by_id[8].opcode is e.IBV_WC_SEND
    assert loop.mr.read(8, 2048) == b"12345678"
    assert loop.cq.poll() == (0, [])
    assert loop.cq.poll(7) == (0, [])


def test_polling_takes_what_is_there(loop: Loop) -> None:
    for i in range(4):
        loop.qp.post_recv(loop.recv_wr(i, offset=2048 + i))
        loop.qp.post_send(loop.send_wr(100 + i, length=1, send_flags=0 if i % 2 else e.IBV_SEND_SIGNALED))
    found = loop.completions(8)
    assert [wc.wr_id for wc in found if wc.wr_id < 100] == [0, 1, 2, 3]
    assert loop.cq.poll(1000) == (0, [])


def test_a_refused_request_is_copied_to_bad_wr(loop: Loop) -> None:
    last = loop.recv_wr(99)
    chain = last
    for wr_id in range(98, 89, -1):
        chain = loop.recv_wr(wr_id, next_wr=chain)
    granted = loop.qp.query(e.IBV_QP_CAP)[1].max_recv_wr
    refused, posted = loop.recv_wr(0), 0
    with pytest.raises(PyverbsRDMAError, match="Failed to post recv") as caught:
        while True:
            loop.qp.post_recv(chain, refused)
            posted += 10
    assert caught.value.error_code == errno.ENOMEM
    assert refused.wr_id == 90 + (granted - posted)
    assert refused.next_wr is None or refused.next_wr.wr_id == refused.wr_id + 1
    plain = loop.send_wr(5, opcode=100)
    bad = loop.send_wr(0)
    with pytest.raises(PyverbsRDMAError, match="Failed to post send"):
        loop.qp.post_send(plain, bad)
    assert (bad.wr_id, bad.opcode) == (5, 100)


def test_posting_checks_its_arguments(loop: Loop) -> None:
    wr, rwr = loop.send_wr(), loop.recv_wr()
    wrong: list[Callable[[], None]] = [
        lambda: loop.qp.post_send(None),  # type: ignore[arg-type]
        lambda: loop.qp.post_send(rwr),  # type: ignore[arg-type]
        lambda: loop.qp.post_recv(wr),  # type: ignore[arg-type]
        lambda: loop.qp.post_send(wr, 5),  # type: ignore[arg-type]
        lambda: loop.qp.post_recv(rwr, wr),  # type: ignore[arg-type]
    ]
    for call in wrong:
        with pytest.raises(TypeError):
            call()
    wr.close()
    with pytest.raises(PyverbsError, match="SendWR is closed"):
        loop.qp.post_send(wr)


def test_transitions(pd: PD, ctx: Context) -> None:
    cq = CQ(ctx, 10)
    init = QPInitAttr(qp_type=e.IBV_QPT_RC, scq=cq, rcq=cq, cap=QPCap())
    with QP(pd, init, QPAttr()) as qp:
        assert qp.qp_state is e.IBV_QPS_INIT
        attr = connected_attr(ctx, qp.qp_num)
        qp.to_rtr(attr)
        assert attr.qp_state is qp.qp_state is e.IBV_QPS_RTR
        qp.to_rts(attr)
        found, made = qp.query(e.IBV_QP_STATE | e.IBV_QP_AV | e.IBV_QP_DEST_QPN)
        assert found.qp_state is e.IBV_QPS_RTS
        assert found.dest_qp_num == qp.qp_num
        assert found.ah_attr.dgid == attr.ah_attr.dgid
        assert made.send_cq is made.recv_cq is cq
        assert "RTS" in str(qp)
        with pytest.raises(PyverbsRDMAError, match="Failed to modify QP state to init") as caught:
            qp.to_init(attr)
        assert caught.value.error_code == errno.EINVAL
        qp.modify(QPAttr(qp_state=e.IBV_QPS_ERR), e.IBV_QP_STATE)
        assert qp.qp_state is e.IBV_QPS_ERR
    unreliable = QPInitAttr(qp_type=e.IBV_QPT_UD, scq=cq, rcq=cq, cap=QPCap())
    assert QP(pd, unreliable, QPAttr()).qp_state is e.IBV_QPS_RTS


def test_a_qp_that_cannot_go_to_init_is_not_left_behind(pd: PD, ctx: Context) -> None:
    cq = CQ(ctx, 10)
    bad = QPAttr(port_num=9)
    with pytest.raises(PyverbsRDMAError, match="Failed to modify QP state to init"):
        QP(pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=cq, rcq=cq, cap=QPCap()), bad)
    assert not pd._has_children()


def test_granted_sizes_are_written_back(pd: PD, ctx: Context) -> None:
    cq = CQ(ctx, 10)
    init = QPInitAttr(qp_type=e.IBV_QPT_RC, scq=cq, rcq=cq, cap=QPCap(3, 5, 1, 1, 10))
    QP(pd, init)
    assert init.max_send_wr >= 3 and init.max_recv_wr >= 5 and init.max_inline_data >= 10
    shared = SrqInitAttr(SrqAttr(max_wr=7))
    SRQ(pd, shared)
    assert shared.max_wr >= 7


def test_extended_attributes_with_a_pd(pd: PD, ctx: Context) -> None:
    cq = CQ(ctx, 10)
    init = QPInitAttrEx(qp_type=e.IBV_QPT_RC, scq=cq, rcq=cq, cap=QPCap(), comp_mask=e.IBV_QP_INIT_ATTR_PD, pd=pd)
    assert QP(ctx, init, QPAttr()).qp_state is e.IBV_QPS_INIT
    init.comp_mask |= e.IBV_QP_INIT_ATTR_CREATE_FLAGS
    assert QP(ctx, init).qp_state is e.IBV_QPS_RESET
    init.comp_mask = 0
    with pytest.raises(PyverbsRDMAError) as caught:
        QP(ctx, init)
    assert caught.value.error_code == errno.EINVAL
    attr = SrqInitAttrEx()
    attr.comp_mask, attr.pd = e.IBV_SRQ_INIT_ATTR_PD, pd
    assert SRQ(ctx, attr).query().max_wr >= 100


def test_datagrams_and_the_way_back(pd: PD, ctx: Context) -> None:
    cq = CQ(ctx, 10)
    attr = QPAttr()
    attr.qkey = QKEY
    qp = QP(pd, QPInitAttr(scq=cq, rcq=cq, cap=QPCap()), attr)
    mr = MR(pd, 4096, ACCESS)
    qp.post_recv(RecvWR(1, 1, [SGE(mr.buf, 1024, mr.lkey)]))
    wr = SendWR(2, num_sge=1, sg=[SGE(mr.buf + 2048, 5, mr.lkey)])
    handle = AH(pd, attr=address(ctx))
    wr.set_wr_ud(handle, qp.qp_num, QKEY)
    mr.write(b"hello", 5, 2048)
    qp.post_send(wr)
    found: list[WC] = []
    while len(found) < 2:
        found += cq.poll()[1]
    (received,) = (wc for wc in found if wc.wr_id == 1)
    assert received.byte_len == GRH_BYTES + 5
    assert received.src_qp == qp.qp_num
    assert mr.read(5, GRH_BYTES) == b"hello"
    header = GRH(version_tclass_flow=socket.htonl(6 << 28), next_hdr=17)  # IPv6 with UDP
    gid = ctx.query_gid(1, GID_INDEX)
    header.sgid = header.dgid = gid.gid
    with AH(pd, wc=received, grh=header, port_num=1) as back:
        wr.set_wr_ud(back, received.src_qp, QKEY)
        qp.post_recv(RecvWR(3, 1, [SGE(mr.buf, 1024, mr.lkey)]))
        qp.post_send(wr)
        found = []
        while len(found) < 2:
            found += cq.poll()[1]
        assert {wc.status for wc in found} == {e.IBV_WC_SUCCESS}


def test_addresses_must_be_global(pd: PD) -> None:
    with pytest.raises(PyverbsRDMAError, match="Failed to create AH"):
        AH(pd, attr=AHAttr(is_global=0))
    with pytest.raises(TypeError):
        AH(pd, attr=GID())
    with pytest.raises(TypeError):
        AH(None, attr=AHAttr())  # type: ignore[arg-type]


def test_shared_receive_queue(pd: PD, ctx: Context) -> None:
    srq = SRQ(pd, SrqInitAttr(SrqAttr(max_wr=10)))
    cq = CQ(ctx, 10)
    cap = QPCap(max_send_wr=4)
    qp = QP(pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=cq, rcq=cq, srq=srq, cap=cap))
    qp.to_rts(connected_attr(ctx, qp.qp_num))
    mr = MR(pd, 4096, ACCESS)
    for wr_id in (1, 2):
        srq.post_recv(RecvWR(wr_id, 1, [SGE(mr.buf, 64, mr.lkey)]))
    srq.modify(SrqAttr(srq_limit=2), e.IBV_SRQ_LIMIT)
    assert srq.query().srq_limit == 2
    qp.post_send(SendWR(3, num_sge=1, sg=[SGE(mr.buf + 100, 8, mr.lkey)]))
    event = ctx.get_async_event()
    assert event.event_type is e.IBV_EVENT_SRQ_LIMIT_REACHED
    assert "IBV_EVENT_SRQ_LIMIT_REACHED" in str(event)
    # Not acknowledged: closing does it.
    srq.close()
    with pytest.raises(PyverbsError, match="QP is closed"):
        _ = qp.qp_num
    event.ack()
    event.ack()


# ---- events and signals -----------------------------------------------------------------------------------------


def test_completion_events(pd: PD, ctx: Context) -> None:
    channel = CompChannel(ctx)
    loop = Loop(pd, ctx, channel=channel)
    assert loop.cq.comp_channel is channel
    loop.cq.req_notify()
    poller = select.poll()
    poller.register(channel.fd, select.POLLIN)
    assert poller.poll(0) == []
    loop.qp.post_recv(loop.recv_wr())
    loop.qp.post_send(loop.send_wr())
    channel.get_cq_event(loop.cq)
    assert len(loop.completions(2)) == 2
    loop.cq.ack_events(1)
    loop.cq.req_notify(True)
    loop.qp.post_recv(loop.recv_wr())
    loop.qp.post_send(loop.send_wr(send_flags=e.IBV_SEND_SIGNALED | e.IBV_SEND_SOLICITED))
    assert poller.poll(10_000) != []
    other = CQ(ctx, 1, None, channel)
    with pytest.raises(PyverbsRDMAError, match="unexpected CQ"):
        channel.get_cq_event(other)
    # That event is not acknowledged: closing the CQ it belongs to does it.


def test_waiting_lets_other_threads_run(pd: PD, ctx: Context) -> None:
    channel = CompChannel(ctx)
    loop = Loop(pd, ctx, channel=channel)
    loop.cq.req_notify()
    loop.qp.post_recv(loop.recv_wr())
    waiter = threading.Thread(target=channel.get_cq_event, args=(loop.cq,))
    waiter.start()
    loop.qp.post_send(loop.send_wr())
    waiter.join(30)
    assert not waiter.is_alive()


def test_threads_poll_one_cq_without_mixing_completions(pd: PD, ctx: Context) -> None:
    loop, rounds, threads = Loop(pd, ctx, depth=64), 400, 4
    posted: list[int] = []
    seen: list[int] = []

    def work(first: int, entries: int) -> None:
        wr = SendWR(0, e.IBV_WR_RDMA_WRITE, 1, 0, [loop.sge(0, 8)])
        wr.set_wr_rdma(loop.mr.rkey, loop.mr.buf + 2048)
        for wr_id in range(first, first + rounds):
            posted.append(wr_id)
            wr.wr_id = wr_id
            loop.qp.post_send(wr)
            # At most half of the queue, so that it never fills; at the end all, whoever posted them.
            while len(posted) - len(seen) > (32 if wr_id < first + rounds - 1 else 0):
                seen.extend(wc.wr_id for wc in loop.cq.poll(entries)[1])

    pool = [threading.Thread(target=work, args=(i * rounds, 1 + i % 2)) for i in range(threads)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    assert sorted(seen) == list(range(rounds * threads))


def test_a_fork_child_owns_nothing(loop: Loop, pd: PD, ctx: Context) -> None:
    wr = loop.send_wr()
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = []
        for use in (ctx.query_device, lambda: loop.qp.post_send(wr), loop.cq.poll, lambda: MR(pd, 10, 1)):
            try:
                use()
                said.append("nothing")
            except PyverbsRDMAError as error:
                said.append(errno.errorcode[error.error_code])
        try:
            ctx.close()
        finally:
            os.write(write_end, " ".join(said).encode())
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        assert pipe.read().decode().split() == ["EOWNERDEAD"] * 4
    assert os.waitpid(pid, 0)[1] == 0
    loop.qp.post_recv(loop.recv_wr())
    loop.qp.post_send(wr)
    assert {wc.status for wc in loop.completions(2)} == {e.IBV_WC_SUCCESS}


class _InterruptError(Exception):
    pass


@pytest.mark.parametrize("kind", ["completion", "async"])
def test_signals_interrupt_waiting(kind: str, pd: PD, ctx: Context) -> None:
    def raise_interrupt(signum: int, frame: object) -> None:
        raise _InterruptError

    channel = CompChannel(ctx)
    cq = CQ(ctx, 1, None, channel)
    before = signal.signal(signal.SIGALRM, raise_interrupt)
    # Repeated, because the first may come before the wait has begun.
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        with pytest.raises(_InterruptError):
            if kind == "completion":
                channel.get_cq_event(cq)
            else:
                ctx.get_async_event()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ---- what is not supported --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "use",
    [
        lambda loop, pd, ctx: pd.advise_mr(3, 0, []),
        lambda loop, pd, ctx: CQEX(ctx, CqInitAttrEx(wc_flags=e.IBV_WC_EX_WITH_CVLAN)),
        lambda loop, pd, ctx: DM(ctx, AllocDmAttr(100)).export_dmabuf_fd(),
        lambda loop, pd, ctx: DmaBufMR(pd, 1, 0),
        lambda loop, pd, ctx: DmaBuf(1),
        lambda loop, pd, ctx: loop.qp.set_ece(ECE()),
        lambda loop, pd, ctx: loop.qp.query_ece(),
        lambda loop, pd, ctx: SRQ(pd, SrqInitAttr(SrqAttr())).post_srq_ops(OpsWr()),
    ],
)
def test_what_is_not_supported_says_so(use: Callable[..., Any], loop: Loop, pd: PD, ctx: Context) -> None:
    with pytest.raises(PyverbsRDMAError) as caught:
        use(loop, pd, ctx)
    assert caught.value.error_code == errno.EOPNOTSUPP


def test_wrong_types_are_type_errors(pd: PD, ctx: Context) -> None:
    for call in (
        lambda: PD(None),  # type: ignore[arg-type]
        lambda: CQ(None, 5),  # type: ignore[arg-type]
        lambda: CQ(ctx, "5"),  # type: ignore[arg-type]
        lambda: CQ(ctx, 5, None, pd),  # type: ignore[arg-type]
        lambda: CompChannel(pd),  # type: ignore[arg-type]
        lambda: QP(None, None),  # type: ignore[arg-type]
        lambda: QP(pd, QPInitAttrEx()),
        lambda: QP(pd, QPInitAttr(), 5),  # type: ignore[arg-type]
        lambda: SRQ(pd, None),  # type: ignore[arg-type]
        lambda: MW(ctx, 1),  # type: ignore[arg-type]
        lambda: DMMR(None, 1, 1, None, 0),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(PyverbsUserError, match="Cannot create PD from"):
        PD(5)  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        CQ(ctx, 1 << 31)
