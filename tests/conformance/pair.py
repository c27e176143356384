"""One side of a conversation over verbs, driven by commands, and two of them connected.

Every test of verbs behaviour is written once against `Pair`; which process, thread or container each side lives in is
the business of `paths`. Commands and their results can therefore be pickled: sides name each other's memory and queue
pairs by `Address`, requests are `Send` and `Recv`, completions are `Done`.
"""

import ctypes
import errno
import itertools
import os
import random
import select
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import ffverbs.libibverbs_enums as e
from ffverbs import spec
from ffverbs._native import ffi, lib
from ffverbs._struct import new
from ffverbs.addr import AH, GID, AHAttr, GlobalRoute
from ffverbs.base import check
from ffverbs.comp_cntr import CompCntr, CompCntrInitAttr
from ffverbs.cq import CQ, CQEX, WC, CompChannel, CqInitAttrEx, PollCqAttr, WcTmInfo
from ffverbs.device import Context
from ffverbs.flow import Flow, FlowAttr
from ffverbs.mr import MR, MW, MWBind, MWBindInfo
from ffverbs.pd import PD
from ffverbs.pyverbs_error import PyverbsRDMAError
from ffverbs.qp import (
    QP,
    DataBuffer,
    QPAttachCompCntrAttr,
    QPAttr,
    QPCap,
    QPEx,
    QPInitAttr,
    QPInitAttrEx,
    QPRateLimitAttr,
)
from ffverbs.srq import SRQ, OpsWr, SrqAttr, SrqInitAttr, SrqInitAttrEx
from ffverbs.wq import WQ, RwqIndTable, RwqIndTableInitAttr, RxHashConf, WQAttr, WQInitAttr
from ffverbs.wr import SGE, RecvWR, SendWR
from ffverbs.xrcd import XRCD, XRCDInitAttr

__all__ = ["ALL_ACCESS", "Address", "Done", "Options", "Pair", "Peer", "Piece", "Recv", "Send", "pattern"]

RC, UC, UD = int(e.IBV_QPT_RC), int(e.IBV_QPT_UC), int(e.IBV_QPT_UD)
XRC = int(e.IBV_QPT_XRC_SEND)
ALL_ACCESS = int(
    e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ | e.IBV_ACCESS_REMOTE_ATOMIC
)
GID_INDEX = 1
QKEY = 0x11111111
GRH_BYTES = 40
# How long anything that must happen may take: only there to turn a hang into a failure.
DEADLINE_S = 20.0

Piece = tuple[int, int] | tuple[int, int, int]  # offset in the side's memory, bytes, another key than the memory's


@dataclass(frozen=True)
class Options:
    """What a side makes for itself: sizes, queues, access."""

    qp_type: int = RC
    send_wr: int = 16
    recv_wr: int = 16
    send_sge: int = 4
    recv_sge: int = 4
    inline: int = 64
    sig_all: bool = False
    send_cqe: int = 64
    recv_cqe: int = 64
    channel: bool = False
    cq_fields: int | None = None  # extended completion queues with these fields (ibv_create_cq_wc_flags)
    send_ops: int = 0  # extended queue pairs with these operations (ibv_qp_create_send_ops_flags)
    cq_flags: int = 0  # of extended completion queues (ibv_create_cq_attr_flags)
    srq_wr: int = 0  # more than 0: receive through a shared queue of this size
    tags: int = 0  # more than 0: which matches this many tags
    length: int = 65536
    access: int = ALL_ACCESS  # of the memory
    qps: int = 1
    domain: str = ""  # XRC: path of the file that names the domain, inside FFVERBS_DIR; "" is an anonymous one


@dataclass(frozen=True)
class Address:
    """What the other side has to know: GID, QP numbers, and the memory by its first address, bytes and key."""

    gid: str
    qpns: tuple[int, ...]
    addr: int
    length: int
    rkey: int
    lkey: int
    targets: tuple[int, ...] = ()  # XRC: the queue pairs that receive; `qpns` are those that send
    srqn: int = 0

    @property
    def qpn(self) -> int:
        return self.qpns[0]


@dataclass(frozen=True)
class Send:
    """A send request; `to` and `qkey` for UD, `remote` and the operands for RDMA and atomics."""

    wr_id: int = 1
    opcode: int = int(e.IBV_WR_SEND)
    pieces: tuple[Piece, ...] = ((0, 8),)
    flags: int = int(e.IBV_SEND_SIGNALED)
    imm: int = 0
    remote: int = 0
    rkey: int = 0
    compare_add: int = 0
    swap: int = 0
    to: Address | None = None
    qkey: int = QKEY
    srqn: int | None = None  # XRC: another queue than the one of the side that it is connected to


@dataclass(frozen=True)
class Recv:
    """A receive request."""

    wr_id: int = 1
    pieces: tuple[Piece, ...] = ((0, 1024),)


@dataclass(frozen=True)
class Done:
    """A completion."""

    wr_id: int
    status: int
    opcode: int
    byte_len: int
    imm: int
    qp_num: int
    src_qp: int
    flags: int

    @classmethod
    def of(cls, wc: WC) -> "Done":
        numbers = (wc.wr_id, wc.status, wc.opcode, wc.byte_len, wc.imm_data, wc.qp_num, wc.src_qp, wc.wc_flags)
        return cls(*(int(number) for number in numbers))

    @property
    def ok(self) -> bool:
        return self.status == e.IBV_WC_SUCCESS


def pattern(length: int, seed: int) -> bytes:
    """Return `length` bytes that depend on the seed; no two 1 MiB pieces of one pattern are the same at one offset."""
    block = random.Random(seed).randbytes(min(length, (1 << 20) + 7))
    return (block * (length // len(block) + 1))[:length] if block else b""


_RDMA_OPCODES = (e.IBV_WR_RDMA_WRITE, e.IBV_WR_RDMA_WRITE_WITH_IMM, e.IBV_WR_RDMA_READ, e.IBV_WR_ATOMIC_WRITE)
# Fields of an extended completion, and how they are read: those that Done has, in its order, and the others.
_DONE_FIELDS = (
    (e.IBV_WC_EX_WITH_BYTE_LEN, "read_byte_len"),
    (e.IBV_WC_EX_WITH_IMM, "read_imm_data"),
    (e.IBV_WC_EX_WITH_QP_NUM, "read_qp_num"),
    (e.IBV_WC_EX_WITH_SRC_QP, "read_src_qp"),
)
_OTHER_FIELDS = (
    (e.IBV_WC_EX_WITH_SLID, "read_slid"),
    (e.IBV_WC_EX_WITH_SL, "read_sl"),
    (e.IBV_WC_EX_WITH_DLID_PATH_BITS, "read_dlid_path_bits"),
    (e.IBV_WC_EX_WITH_COMPLETION_TIMESTAMP, "read_timestamp"),
    (e.IBV_WC_EX_WITH_FLOW_TAG, "read_flow_tag"),
    (e.IBV_WC_EX_WITH_TM_INFO, "read_tm_info"),
    (e.IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK, "read_completion_wallclock_ns"),
)


@dataclass
class _Objects:
    """The verbs objects of one side; a twin shares all of the first one's but the memory."""

    ctx: Context
    pd: PD
    channel: CompChannel | None
    send_cq: CQ | CQEX
    recv_cq: CQ | CQEX
    srq: SRQ | None
    qps: list[QP]
    handles: dict[tuple[str, int], AH] = field(default_factory=dict)
    windows: list[MW] = field(default_factory=list)
    extra: list[MR] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)
    counters: list[CompCntr] = field(default_factory=list)
    wqs: list[WQ] = field(default_factory=list)
    targets: list[QP] = field(default_factory=list)


class Peer:
    """One side. Offsets count from the first byte of its memory; `qp` is the place of the QP among its QPs.

    A `twin` uses the other's context and queue pairs with memory of its own: a QP that is connected to itself.
    """

    def __init__(self, twin: "Peer | None" = None) -> None:
        self._twin = twin
        self._o: _Objects | None = None
        self._mr: MR | None = None
        self._srqn = 0
        self._options = Options()

    # ---- making and ending ------------------------------------------------------------------------------------

    def create(self, options: Options, directory: str | None = None) -> Address:
        """Open the device and make everything; the queue pairs stay in RESET."""
        if directory is not None:
            os.environ["FFVERBS_DIR"] = directory
        self._options = options
        self._o = self._twin._objects if self._twin is not None else self._make(options)
        self._mr = MR(self._o.pd, options.length, options.access)
        return self.address()

    def _make(self, options: Options) -> _Objects:
        ctx = Context(name="ffv0")
        pd = PD(ctx)
        channel = CompChannel(ctx) if options.channel else None
        send_cq = _make_queue(ctx, options.send_cqe, channel, options)
        recv_cq = _make_queue(ctx, options.recv_cqe, channel, options)
        if options.qp_type == XRC:
            return self._make_xrc(options, _Objects(ctx, pd, channel, send_cq, recv_cq, None, []))
        srq = SRQ(pd, SrqInitAttr(SrqAttr(max_wr=options.srq_wr, max_sge=4))) if options.srq_wr else None
        if options.tags:
            srq = self._make_matching(options, ctx, pd, recv_cq)
        objects = _Objects(ctx, pd, channel, send_cq, recv_cq, srq, [])
        for _ in range(options.qps):
            cap = QPCap(options.send_wr, options.recv_wr, options.send_sge, options.recv_sge, options.inline)
            values: dict[str, Any] = {"qp_type": options.qp_type, "sq_sig_all": options.sig_all, "cap": cap}
            values |= {"scq": send_cq, "rcq": recv_cq, "srq": srq}
            if options.send_ops:
                mask = int(e.IBV_QP_INIT_ATTR_PD | e.IBV_QP_INIT_ATTR_SEND_OPS_FLAGS)
                extended = QPInitAttrEx(**values, pd=pd, comp_mask=mask, send_ops_flags=options.send_ops)
                objects.qps.append(QPEx(ctx, extended))
            else:
                objects.qps.append(QP(pd, QPInitAttr(**values)))
        return objects

    @staticmethod
    def _make_matching(options: Options, ctx: Context, pd: PD, cq: CQ | CQEX) -> SRQ:
        """Make a shared queue that matches tags."""
        attr = SrqInitAttrEx(max_wr=options.recv_wr, max_sge=4)
        attr.comp_mask = int(
            e.IBV_SRQ_INIT_ATTR_TYPE | e.IBV_SRQ_INIT_ATTR_PD | e.IBV_SRQ_INIT_ATTR_CQ | e.IBV_SRQ_INIT_ATTR_TM
        )
        attr.srq_type, attr.pd, attr.cq = e.IBV_SRQT_TM, pd, cq
        attr.max_num_tags, attr.max_ops = options.tags, 8
        return SRQ(ctx, attr)

    @staticmethod
    def _make_xrc(options: Options, o: _Objects) -> _Objects:
        """Make pairs of queue pairs, one to send and one to receive, and a shared queue that all receive through."""
        fd = os.open(os.path.join(os.environ["FFVERBS_DIR"], options.domain), os.O_RDONLY) if options.domain else -1
        try:
            xrcd = XRCD(o.ctx, XRCDInitAttr(e.IBV_XRCD_INIT_ATTR_FD | e.IBV_XRCD_INIT_ATTR_OFLAGS, os.O_CREAT, fd))
        finally:
            if fd >= 0:
                os.close(fd)
        attr = SrqInitAttrEx(max_wr=options.srq_wr or options.recv_wr, max_sge=4)
        attr.comp_mask = int(
            e.IBV_SRQ_INIT_ATTR_TYPE | e.IBV_SRQ_INIT_ATTR_PD | e.IBV_SRQ_INIT_ATTR_XRCD | e.IBV_SRQ_INIT_ATTR_CQ
        )
        attr.srq_type, attr.pd, attr.xrcd, attr.cq = e.IBV_SRQT_XRC, o.pd, xrcd, o.recv_cq
        o.srq = SRQ(o.ctx, attr)
        cap = QPCap(options.send_wr, 0, options.send_sge, 0, options.inline)
        sends = QPInitAttrEx(qp_type=XRC, comp_mask=e.IBV_QP_INIT_ATTR_PD, pd=o.pd, scq=o.send_cq, cap=cap)
        sends.sq_sig_all = int(options.sig_all)
        receives = QPInitAttrEx(qp_type=e.IBV_QPT_XRC_RECV, comp_mask=e.IBV_QP_INIT_ATTR_XRCD, xrcd=xrcd)
        for _ in range(options.qps):
            o.qps.append(QP(o.ctx, sends))
            o.targets.append(QP(o.ctx, receives))
        return o

    @property
    def _objects(self) -> _Objects:
        assert self._o is not None, "create() comes first"
        return self._o

    @property
    def _memory(self) -> MR:
        assert self._mr is not None, "create() comes first"
        return self._mr

    def address(self) -> Address:
        o, mr = self._objects, self._memory
        gid = str(o.ctx.query_gid(1, GID_INDEX))
        qpns = tuple(qp.qp_num for qp in o.qps if qp._handle is not None)
        targets = tuple(qp.qp_num for qp in o.targets if qp._handle is not None)
        srqn = o.srq.get_srq_num() if o.srq is not None else 0
        return Address(gid, qpns, mr.buf, mr.length, mr.rkey, mr.lkey, targets, srqn)

    def address_of(self, qp: int) -> Address:
        """Return an address in which the queue pair at `qp` stands at its place, too."""
        queue_pair = self._objects.qps[qp]
        return replace(self.address(), qpns=(queue_pair.qp_num,) * (qp + 1))

    def attributes(self, to: Address | None, qp: int = 0, **changes: int) -> QPAttr:
        """Return all attributes for the way to RTS; `changes` replaces the usual values."""
        attr = QPAttr(port_num=1)
        attr.qp_access_flags = ALL_ACCESS
        attr.path_mtu = int(e.IBV_MTU_4096)
        attr.max_rd_atomic = attr.max_dest_rd_atomic = 4
        # 0.64 ms for the receiver to get ready, 16.8 ms for an answer.
        attr.min_rnr_timer, attr.timeout, attr.retry_cnt, attr.rnr_retry = 12, 12, 7, 7
        attr.qkey = QKEY
        if to is not None:
            attr.dest_qp_num = to.qpns[qp]
            route = GlobalRoute(dgid=GID(to.gid), sgid_index=GID_INDEX)
            attr.ah_attr = AHAttr(port_num=1, is_global=1, gr=route)
        for name, value in changes.items():
            setattr(attr, name, value)
        return attr

    def connect(self, to: Address, qp: int = 0, state: int = int(e.IBV_QPS_RTS), **changes: int) -> None:
        """Bring a queue pair to INIT, RTR or RTS, towards the same queue pair of the other side."""
        queue_pair = self._objects.qps[qp]
        if self._twin is not None and queue_pair.qp_state != e.IBV_QPS_RESET:
            return
        attr = self.attributes(to, qp, **changes)
        if self._objects.targets:
            self._go(self._objects.targets[qp], state, attr)
            attr.dest_qp_num = to.targets[qp]
            self._srqn = to.srqn
        self._go(queue_pair, state, attr)

    @staticmethod
    def _go(qp: QP, state: int, attr: QPAttr) -> None:
        step = {e.IBV_QPS_INIT: qp.to_init, e.IBV_QPS_RTR: qp.to_rtr, e.IBV_QPS_RTS: qp.to_rts}
        step[e.ibv_qp_state(state)](attr)

    def modify(self, state: int | None = None, mask: int = 0, qp: int = 0, **values: int) -> None:
        attr = QPAttr(port_num=1)
        if state is not None:
            attr.qp_state = state
            mask |= e.IBV_QP_STATE
        for name, value in values.items():
            setattr(attr, name, value)
        self._objects.qps[qp].modify(attr, int(mask))

    def state(self, qp: int = 0) -> int:
        return int(self._objects.qps[qp].qp_state)

    def is_draining(self, qp: int = 0) -> bool:
        return bool(self._objects.qps[qp].query(int(e.IBV_QP_STATE))[0].sq_draining)

    def wait_state(self, state: int, qp: int = 0) -> None:
        """Wait until the queue pair is in `state`."""
        deadline = time.monotonic() + DEADLINE_S
        while self.state(qp) != state:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the QP is in state {self.state(qp)}, not {state}, after {DEADLINE_S} s")
            os.sched_yield()

    def join(self, group: str, qp: int = 0) -> None:
        """Attach the queue pair to a multicast group."""
        self._objects.qps[qp].attach_mcast(group)

    def leave(self, group: str, qp: int = 0) -> None:
        self._objects.qps[qp].detach_mcast(group)

    def steer(
        self, specs: list[tuple[str, dict[str, Any]]], qp: int = 0, flow_type: int = 0, priority: int = 0
    ) -> None:
        """Make a flow to the queue pair; a specification is the name of its class and its arguments."""
        attr = FlowAttr(len(specs), flow_type, priority)
        attr.specs.extend(getattr(spec, name)(**arguments) for name, arguments in specs)
        self._objects.flows.append(Flow(self._objects.qps[qp], attr))

    def spread(self, log_size: int, key: list[int], fields: int) -> tuple[int, ...]:
        """Steer everything to a queue pair over 2^log_size work queues, whose numbers are returned; their receives
        complete in the "recv" queue."""
        o = self._objects
        for _ in range(1 << log_size):
            wq = WQ(o.ctx, WQInitAttr(wq_pd=o.pd, wq_cq=o.recv_cq, max_wr=16, max_sge=2))
            wq.modify(WQAttr(attr_mask=e.IBV_WQ_ATTR_STATE, wq_state=e.IBV_WQS_RDY))
            o.wqs.append(wq)
        table = RwqIndTable(o.ctx, RwqIndTableInitAttr(log_size, o.wqs))
        conf = RxHashConf(e.IBV_RX_HASH_FUNC_TOEPLITZ, len(key), key, fields)
        mask = e.IBV_QP_INIT_ATTR_PD | e.IBV_QP_INIT_ATTR_RX_HASH | e.IBV_QP_INIT_ATTR_IND_TABLE
        init = QPInitAttrEx(e.IBV_QPT_RAW_PACKET, comp_mask=mask, pd=o.pd, hash_conf=conf, ind_table=table)
        o.qps.append(QP(o.ctx, init))
        self.steer([], len(o.qps) - 1)
        return tuple(wq.wqn for wq in o.wqs)

    def post_to_queue(self, which: int, *recvs: Recv) -> None:
        """Post receives to one of the work queues of spread()."""
        self._objects.wqs[which].post_recv(_chain([self._recv_wr(recv) for recv in recvs]))

    def reset_queue(self, which: int, state: int) -> None:
        """Bring one of the work queues of spread() from `state` to RESET."""
        mask = e.IBV_WQ_ATTR_STATE | e.IBV_WQ_ATTR_CURR_STATE
        self._objects.wqs[which].modify(WQAttr(attr_mask=mask, wq_state=e.IBV_WQS_RESET, curr_wq_state=state))

    def close_queue(self, which: int) -> None:
        """Close one of the work queues of spread(), and with it all that leads to it."""
        self._objects.wqs[which].close()

    def stop_steering(self, which: int = -1) -> None:
        self._objects.flows.pop(which).close()

    def destroy_qp(self, qp: int = 0) -> None:
        self._objects.qps[qp].close()

    def target_state(self, qp: int = 0) -> int:
        return int(self._objects.targets[qp].qp_state)

    def destroy_target(self, qp: int = 0) -> None:
        self._objects.targets[qp].close()

    def destroy_srq(self) -> None:
        srq = self._objects.srq
        assert srq is not None
        srq.close()

    def new_qp(self, options: Options) -> int:
        """Make one more queue pair on the same queues and return its number."""
        o = self._objects
        cap = QPCap(options.send_wr, options.recv_wr, options.send_sge, options.recv_sge, options.inline)
        o.qps.append(QP(o.pd, QPInitAttr(qp_type=options.qp_type, scq=o.send_cq, rcq=o.recv_cq, srq=o.srq, cap=cap)))
        return o.qps[-1].qp_num

    def close(self) -> None:
        """Close the device with all that was made from it."""
        # A twin's part goes with the first one's. Memory outlives the windows over it, which the context closes first.
        if self._o is not None and self._twin is None:
            self._o.ctx.close()
            self._o = self._mr = None

    def max_inline(self, qp: int = 0) -> int:
        return self._objects.qps[qp].query(int(e.IBV_QP_CAP))[1].cap.max_inline_data

    def counters(self, qp: int = 0) -> tuple[int, int]:
        """Return how often the queue pair had to wait: (for a receive of the other side, for its answer)."""
        monitor, context, info = ffi.new("struct ffv_monitor **"), new("context_info"), new("qp_info")
        check(lib.ffv_monitor_open(ffi.NULL, monitor), "cannot look at the node directory")
        try:
            while check(lib.ffv_monitor_next_context(monitor[0], context), "no context"):
                while check(lib.ffv_monitor_next_qp(monitor[0], info), "no QP"):
                    if info.qp_num == self._objects.qps[qp].qp_num:
                        return int(info.rnr_waits), int(info.retries)
        finally:
            lib.ffv_monitor_close(monitor[0])
        raise LookupError("the monitor does not show the QP")

    def wait_until_tried(self, times: int, qp: int = 0) -> None:
        """Wait until the queue pair has tried this often, for whichever reason."""
        deadline = time.monotonic() + DEADLINE_S
        while sum(self.counters(qp)) < times:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.counters(qp)} tries after {DEADLINE_S} s, not {times}")
            os.sched_yield()

    def pid(self) -> int:
        return os.getpid()

    # ---- memory -----------------------------------------------------------------------------------------------

    def _bytes(self, offset: int, length: int) -> Any:
        return (ctypes.c_char * length).from_address(self._memory.buf + offset)

    def write(self, data: bytes, offset: int = 0) -> None:
        self._memory.write(data, len(data), offset)

    def read(self, length: int, offset: int = 0) -> bytes:
        return self._memory.read(length, offset)

    def fill(self, length: int, seed: int, offset: int = 0) -> int:
        """Write a pattern and return its checksum."""
        target = memoryview(self._bytes(offset, length)).cast("B")
        block = pattern(min(length, 1 << 26), seed)
        for first in range(0, length, len(block) or 1):
            size = min(len(block), length - first)
            target[first : first + size] = block[:size]
        return self.checksum(length, offset)

    def checksum(self, length: int, offset: int = 0) -> int:
        return zlib.crc32(self._bytes(offset, length)) if length else 0

    def register(self, access: int, length: int = 4096) -> Address:
        """Register more memory in the same protection domain; the address names it."""
        mr = MR(self._objects.pd, length, access)
        self._objects.extra.append(mr)
        return replace(self.address(), addr=mr.buf, length=length, rkey=mr.rkey, lkey=mr.lkey)

    def register_elsewhere(self, access: int = ALL_ACCESS, length: int = 4096) -> Address:
        """Register memory in a protection domain of its own."""
        mr = MR(PD(self._objects.ctx), length, access)
        self._objects.extra.append(mr)
        return replace(self.address(), addr=mr.buf, length=length, rkey=mr.rkey, lkey=mr.lkey)

    def deregister(self, which: int = -1) -> None:
        """Deregister one of the memories that register() made."""
        self._objects.extra.pop(which).close()

    def read_extra(self, length: int, which: int = -1, offset: int = 0) -> bytes:
        return self._objects.extra[which].read(length, offset)

    # ---- posting ----------------------------------------------------------------------------------------------

    def _sges(self, pieces: tuple[Piece, ...]) -> list[SGE]:
        mr = self._memory
        return [SGE(mr.buf + piece[0], piece[1], piece[2] if len(piece) > 2 else mr.lkey) for piece in pieces]

    def _send_wr(self, send: Send) -> SendWR:
        # A request without elements is given one and then says that it has none: SendWR wants a list.
        sges = self._sges(send.pieces) or [SGE(0, 0, 0)]
        wr = SendWR(send.wr_id, send.opcode, len(sges), send.imm, sges, send.flags)
        wr.num_sge = len(send.pieces)
        if self._objects.targets:
            wr.set_qp_type_xrc(self._srqn if send.srqn is None else send.srqn)
        if send.to is not None:
            wr.set_wr_ud(self._handle_for(send.to), send.to.qpn, send.qkey)
        elif send.opcode in (e.IBV_WR_ATOMIC_CMP_AND_SWP, e.IBV_WR_ATOMIC_FETCH_AND_ADD):
            wr.set_wr_atomic(send.rkey, send.remote, send.compare_add, send.swap)
        elif send.opcode in _RDMA_OPCODES:
            wr.set_wr_rdma(send.rkey, send.remote)
        return wr

    def post_batch(self, *sends: Send, qp: int = 0) -> int:
        """Post requests as a batch of an extended queue pair: errno of the whole, 0 if it was posted."""
        queue_pair = self._objects.qps[qp]
        assert isinstance(queue_pair, QPEx)
        queue_pair.wr_start()
        for send in sends:
            self._build(queue_pair, send)
        try:
            queue_pair.wr_complete()
        except PyverbsRDMAError as error:
            return error.error_code
        return 0

    def _build(self, qp: QPEx, send: Send) -> None:
        qp.wr_id, qp.wr_flags = send.wr_id, send.flags & ~int(e.IBV_SEND_INLINE)
        begin: dict[int, Callable[[], None]] = {
            int(e.IBV_WR_SEND): qp.wr_send,
            int(e.IBV_WR_SEND_WITH_IMM): lambda: qp.wr_send_imm(send.imm),
            int(e.IBV_WR_SEND_WITH_INV): lambda: qp.wr_send_inv(send.imm),
            int(e.IBV_WR_LOCAL_INV): lambda: qp.wr_local_inv(send.imm),
            int(e.IBV_WR_RDMA_WRITE): lambda: qp.wr_rdma_write(send.rkey, send.remote),
            int(e.IBV_WR_RDMA_WRITE_WITH_IMM): lambda: qp.wr_rdma_write_imm(send.rkey, send.remote, send.imm),
            int(e.IBV_WR_RDMA_READ): lambda: qp.wr_rdma_read(send.rkey, send.remote),
            int(e.IBV_WR_ATOMIC_CMP_AND_SWP): lambda: qp.wr_atomic_cmp_swp(
                send.rkey, send.remote, send.compare_add, send.swap
            ),
            int(e.IBV_WR_ATOMIC_FETCH_AND_ADD): lambda: qp.wr_atomic_fetch_add(
                send.rkey, send.remote, send.compare_add
            ),
            int(e.IBV_WR_ATOMIC_WRITE): lambda: qp.wr_atomic_write(
                send.rkey, send.remote, send.swap.to_bytes(8, "little")
            ),
            int(e.IBV_WR_FLUSH): lambda: qp.wr_flush(send.rkey, send.remote, send.compare_add, 1, send.swap),
        }
        begin[send.opcode]()
        if send.to is not None:
            qp.wr_set_ud_addr(self._handle_for(send.to), send.to.qpn, send.qkey)
        if send.flags & e.IBV_SEND_INLINE:
            buffers = [DataBuffer(sge.addr, sge.length) for sge in self._sges(send.pieces)]
            if len(buffers) == 1:
                qp.wr_set_inline_data(buffers[0]._addr, buffers[0]._length)
            else:
                qp.wr_set_inline_data_list(len(buffers), buffers)
        elif send.opcode not in (e.IBV_WR_ATOMIC_WRITE, e.IBV_WR_FLUSH, e.IBV_WR_LOCAL_INV):
            sges = self._sges(send.pieces)
            if len(sges) == 1:
                qp.wr_set_sge(sges[0])
            else:
                qp.wr_set_sge_list(len(sges), sges)

    def _handle_for(self, to: Address) -> AH:
        o = self._objects
        if (to.gid, to.qpn) not in o.handles:
            route = GlobalRoute(dgid=GID(to.gid), sgid_index=GID_INDEX)
            o.handles[to.gid, to.qpn] = AH(o.pd, attr=AHAttr(port_num=1, is_global=1, gr=route))
        return o.handles[to.gid, to.qpn]

    def _recv_wr(self, recv: Recv) -> RecvWR:
        sges = self._sges(recv.pieces) or [SGE(0, 0, 0)]
        wr = RecvWR(recv.wr_id, len(sges), sges)
        wr.num_sge = len(recv.pieces)
        return wr

    def post_send(self, *sends: Send, qp: int = 0) -> None:
        """Post requests as one list."""
        self._objects.qps[qp].post_send(_chain([self._send_wr(send) for send in sends]))

    def post_recv(self, *recvs: Recv, qp: int = 0) -> None:
        """Post receive requests as one list, to the shared queue if there is one."""
        chain = _chain([self._recv_wr(recv) for recv in recvs])
        (self._objects.srq or self._objects.qps[qp]).post_recv(chain)

    def refused_modify(self, state: int | None = None, mask: int = 0, qp: int = 0, **values: int) -> tuple[int, str]:
        """Return errno and text of a modify() that is refused; (0, "") if it is not."""
        try:
            self.modify(state, mask, qp, **values)
        except PyverbsRDMAError as error:
            return error.error_code, str(error)
        return 0, ""

    def refused_send(self, *sends: Send, qp: int = 0) -> tuple[int, int]:
        """Post a list that is refused: errno and the wr_id of the first request that was not posted; (0, 0) if none."""
        wrs = [self._send_wr(send) for send in sends]
        bad = SendWR(sg=[SGE(0, 0, 0)], num_sge=1)
        try:
            self._objects.qps[qp].post_send(_chain(wrs), bad)
        except PyverbsRDMAError as error:
            return error.error_code, bad.wr_id
        return 0, 0

    def refused_recv(self, *recvs: Recv, qp: int = 0) -> tuple[int, int]:
        """The same for receive requests."""
        wrs = [self._recv_wr(recv) for recv in recvs]
        bad = RecvWR(0, 1, [SGE(0, 0, 0)])
        try:
            (self._objects.srq or self._objects.qps[qp]).post_recv(_chain(wrs), bad)
        except PyverbsRDMAError as error:
            return error.error_code, bad.wr_id
        return 0, 0

    def write_until_refused(self, send: Send) -> tuple[int, int]:
        """Post the request again and again until it fails: its status, and how many went well before."""
        deadline, count = time.monotonic() + DEADLINE_S, 0
        while time.monotonic() < deadline:
            self.post_send(send)
            status = self.sent()[0].status
            if status:
                return status, count
            count += 1
        return 0, count

    def add_often(self, to: Address, count: int, qp: int) -> None:
        """Add 1 to the first word of `to`, so often."""
        add = Send(1, int(e.IBV_WR_ATOMIC_FETCH_AND_ADD), ((64, 8),), remote=to.addr, rkey=to.rkey, compare_add=1)
        for _ in range(count):
            self.post_send(add, qp=qp)
            assert self.sent()[0].ok

    # ---- completions ------------------------------------------------------------------------------------------

    def _queue(self, which: str) -> CQ | CQEX:
        return self._objects.send_cq if which == "send" else self._objects.recv_cq

    def poll(self, which: str, count: int = 1, deadline_s: float = DEADLINE_S) -> list[Done]:
        """Poll the "send" or "recv" queue until `count` completions came."""
        found: list[Done] = []
        deadline = time.monotonic() + deadline_s
        while len(found) < count:
            polled = self.poll_now(which, count - len(found))
            found += polled
            if not polled:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{len(found)} of {count} completions within {deadline_s} s: {found}")
                os.sched_yield()
        return found

    def sent(self, count: int = 1) -> list[Done]:
        return self.poll("send", count)

    def received(self, count: int = 1) -> list[Done]:
        return self.poll("recv", count)

    def poll_now(self, which: str, count: int = 64) -> list[Done]:
        """What is there now."""
        queue = self._queue(which)
        if isinstance(queue, CQEX):
            return [done for done, _ in self._batch(queue, count)]
        return [Done.of(wc) for wc in queue.poll(count)[1]]

    def poll_fields(self, which: str, count: int = 1) -> list[tuple[Done, dict[str, Any]]]:
        """Poll the extended queue until `count` completions came, each with what its other fields say."""
        found: list[tuple[Done, dict[str, Any]]] = []
        queue, deadline = self._queue(which), time.monotonic() + DEADLINE_S
        assert isinstance(queue, CQEX)
        while len(found) < count:
            found += self._batch(queue, count - len(found))
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(found)} of {count} completions within {DEADLINE_S} s: {found}")
        return found

    def _batch(self, queue: CQEX, count: int) -> list[tuple[Done, dict[str, Any]]]:
        """Poll an extended queue as one batch, of at most `count` completions."""
        asked = self._options.cq_fields or 0
        found: list[tuple[Done, dict[str, Any]]] = []
        rc = queue.start_poll(PollCqAttr())
        while rc == 0:
            numbers = [int(getattr(queue, read)()) if asked & flag else 0 for flag, read in _DONE_FIELDS]
            fields = {}
            for flag, read in _OTHER_FIELDS:
                if asked & flag:
                    value = getattr(queue, read)()
                    fields[read] = (value.tag, value.priv) if isinstance(value, WcTmInfo) else int(value)
            end = (int(queue.wr_id), int(queue.status), int(queue.read_opcode()))
            found.append((Done(*end, *numbers, queue.read_wc_flags()), fields))  # type: ignore[call-arg]
            if len(found) == count:
                break
            rc = queue.poll_next()
        if found:
            queue.end_poll()
        if rc not in (0, errno.ENOENT):
            raise PyverbsRDMAError("cannot poll", rc)
        return found

    def resize(self, which: str, cqe: int) -> int:
        """Resize a completion queue and return what it has then."""
        self._queue(which).resize(cqe)
        return self._queue(which).cqe

    def moderate(self, which: str, count: int, period_us: int) -> None:
        """Hold events back until so many completions, or so long after the first one."""
        attr = new("modify_cq_attr", attr_mask=1)
        attr.moderate.cq_count, attr.moderate.cq_period = count, period_us
        check(lib.ffv_modify_cq(self._queue(which)._live(), attr), "cannot moderate")

    def clock_ns(self) -> int:
        """The device's clock, as the engine tells it."""
        return int(lib.ffv_query_clock_ns(self._objects.ctx._live()))

    def poll_error(self, which: str) -> int:
        """Poll until that fails, and return the errno."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            try:
                self.poll_now(which)
            except PyverbsRDMAError as error:
                return error.error_code
        return 0

    def arm(self, which: str, solicited_only: bool = False) -> None:
        self._queue(which).req_notify(solicited_only)

    def wait_event(self, which: str) -> list[Done]:
        """Sleep until the completion channel has an event of the queue, acknowledge it, and poll what is there."""
        channel, cq = self._objects.channel, self._queue(which)
        assert channel is not None
        channel.get_cq_event(cq)
        cq.ack_events(1)
        return self.poll_now(which)

    def event_waits(self, timeout_s: float = 0.0) -> bool:
        """Whether the channel's descriptor is readable (within the time)."""
        channel = self._objects.channel
        assert channel is not None
        return bool(select.select([channel.fd], [], [], timeout_s)[0])

    def receive_by_events(self, count: int) -> list[int]:
        """Arm, poll, sleep, until `count` receives completed; post each again. Return their wr_ids in order."""
        channel, cq = self._objects.channel, self._objects.recv_cq
        assert channel is not None
        seen: list[int] = []
        while True:
            cq.req_notify()
            done = self.poll_now("recv")
            seen += [d.wr_id for d in done if d.ok]
            assert all(d.ok for d in done), done
            if done:
                self.post_recv(*(Recv(d.wr_id) for d in done))
            if len(seen) >= count:
                return seen
            if not select.select([channel.fd], [], [], DEADLINE_S)[0]:
                late = self.poll_now("recv")
                raise TimeoutError(f"no event within {DEADLINE_S} s; {len(seen)} of {count} seen, then {late}")
            channel.get_cq_event(cq)
            cq.ack_events(1)

    def limit_rate(self, kbps: int, burst: int = 0, qp: int = 0) -> None:
        self._objects.qps[qp].modify_rate_limit(QPRateLimitAttr(kbps, burst))

    # ---- completion counters ------------------------------------------------------------------------------------

    def count(self, op_mask: int, qp: int = 0) -> int:
        """Count these operations with a counter of their own, and return its number."""
        counter = CompCntr(self._objects.ctx, CompCntrInitAttr())
        self._objects.counters.append(counter)
        self._objects.qps[qp].attach_comp_cntr(counter, QPAttachCompCntrAttr(op_mask))
        return len(self._objects.counters) - 1

    def counted(self, which: int) -> tuple[int, int]:
        """Return how many completions, and how many with errors."""
        counter = self._objects.counters[which]
        return counter.read(), counter.read_err()

    # ---- tags -------------------------------------------------------------------------------------------------

    def tag_op(self, opcode: int, **fields: Any) -> int:
        """Add (`pieces`, `tag`, `mask`, `recv_wr_id`), delete (`handle`) or synchronise (`unexpected`); the handle."""
        srq = self._objects.srq
        assert srq is not None
        sges = self._sges(fields.get("pieces", ()))
        wr = OpsWr(
            fields.get("wr_id", 0), opcode, fields.get("flags", int(e.IBV_OPS_SIGNALED)), None,
            fields.get("unexpected", 0), fields.get("recv_wr_id", 0), len(sges), fields.get("tag", 0),
            fields.get("mask", (1 << 64) - 1), sges,
        )  # fmt: skip
        wr.handle = fields.get("handle", 0)
        srq.post_srq_ops(wr)
        return wr.handle

    def refused_tag_op(self, opcode: int, **fields: Any) -> int:
        """Return the errno of an operation that is refused; 0 if it is not."""
        try:
            self.tag_op(opcode, **fields)
        except PyverbsRDMAError as error:
            return error.error_code
        return 0

    # ---- events, shared queues, windows -------------------------------------------------------------------------

    def async_event(self, timeout_s: float = DEADLINE_S) -> int | None:
        """Return the type of the next async event, acknowledged; None if there is none within the time."""
        ctx = self._objects.ctx
        if not select.select([_async_fd(ctx)], [], [], timeout_s)[0]:
            return None
        event = ctx.get_async_event()
        event.ack()
        return int(event.event_type)

    def set_srq_limit(self, limit: int) -> None:
        srq = self._objects.srq
        assert srq is not None
        srq.modify(SrqAttr(srq_limit=limit), e.IBV_SRQ_LIMIT)

    def resize_srq(self, max_wr: int) -> int:
        """Resize the shared queue; errno if that is refused, else 0."""
        srq = self._objects.srq
        assert srq is not None
        try:
            srq.modify(SrqAttr(max_wr=max_wr), e.IBV_SRQ_MAX_WR)
        except PyverbsRDMAError as error:
            return error.error_code
        return 0

    def srq_size(self) -> int:
        srq = self._objects.srq
        assert srq is not None
        return srq.query().max_wr

    def srq_limit(self) -> int:
        srq = self._objects.srq
        assert srq is not None
        return srq.query().srq_limit

    def bind_window(
        self, mw_type: int, offset: int, length: int, access: int, which: int | None = None, qp: int = 0
    ) -> int:
        """Bind a new window (or the one at `which`) to a part of the memory, wait for it, and return its key."""
        o = self._objects
        if which is None:
            o.windows.append(MW(o.pd, mw_type))
            which = -1
        window, info = o.windows[which], MWBindInfo(self._memory, self._memory.buf + offset, length, access)
        if mw_type == e.IBV_MW_TYPE_1:
            o.qps[qp].bind_mw(window, MWBind(info, e.IBV_SEND_SIGNALED, 77))
            key = window.rkey
        else:
            wr = SendWR(77, e.IBV_WR_BIND_MW)
            wr.set_bind_wr(window, info)
            o.qps[qp].post_send(wr)
            key = wr.rkey
        done = self.sent()[0]
        if not done.ok:
            raise PyverbsRDMAError("the bind failed", -done.status)
        return key

    def free_window(self, which: int = -1) -> None:
        self._objects.windows.pop(which).close()


def _chain(wrs: list[Any]) -> Any:
    for wr, following in itertools.pairwise(wrs):
        wr.next_wr = following
    return wrs[0]


def _make_queue(ctx: Context, cqe: int, channel: CompChannel | None, options: Options) -> CQ | CQEX:
    if options.cq_fields is None:
        return CQ(ctx, cqe, None, channel)
    mask = e.IBV_CQ_INIT_ATTR_MASK_FLAGS if options.cq_flags else 0
    return CQEX(ctx, CqInitAttrEx(cqe, channel, 0, options.cq_fields, mask, options.cq_flags))


def _async_fd(ctx: Context) -> int:
    return int(lib.ffv_async_fd(ctx._live()))


class Pair:
    """Two sides, `a` and `b`, and what they know of each other once connected."""

    def __init__(self, a: Peer, b: Peer, path: str, directory: str | None = None) -> None:
        self.a, self.b, self.path, self._directory = a, b, path, directory
        self.to_a: Address
        self.to_b: Address

    @property
    def is_self(self) -> bool:
        """Whether both sides are one queue pair."""
        return self.path == "self"

    @property
    def elsewhere(self) -> bool:
        """Whether the sides are on two hosts."""
        return self.path in ("tcp", "rdma")

    def create(self, options: Options | None = None, b_options: Options | None = None) -> "Pair":
        options = options or Options()
        b_options = b_options or options
        if self.is_self and b_options.srq_wr:
            options = replace(options, srq_wr=b_options.srq_wr)
        self.to_a = self.a.create(options, self._directory)
        self.to_b = self.b.create(b_options, self._directory)
        return self

    def connect(self, options: Options | None = None, b_options: Options | None = None, **changes: int) -> "Pair":
        """Create both sides and bring all their queue pairs to RTS."""
        self.create(options, b_options)
        for qp in range(len(self.to_a.qpns)):
            self.a.connect(self.to_b, qp, **changes)
            self.b.connect(self.to_a, qp, **changes)
        return self

    def remote(self, opcode: int, offset: int = 0, **fields: Any) -> Send:
        """Return a request of `a` on the memory of `b`."""
        return Send(opcode=int(opcode), remote=self.to_b.addr + offset, rkey=self.to_b.rkey, **fields)

    def close(self) -> None:
        try:
            self.b.close()
        finally:
            self.a.close()
