"""One side of a conversation over verbs: its objects, states and memory."""

import ctypes
import os
import time
import zlib
from dataclasses import dataclass, field, replace
from typing import Any

import ffverbs.libibverbs_enums as e
from ffverbs import spec
from ffverbs._native import ffi, lib
from ffverbs._struct import new
from ffverbs.addr import AH, GID, AHAttr, GlobalRoute
from ffverbs.base import check
from ffverbs.comp_cntr import CompCntr
from ffverbs.cq import CQ, CQEX, CompChannel, CqInitAttrEx
from ffverbs.device import Context
from ffverbs.flow import Flow, FlowAttr
from ffverbs.mr import MR, MW
from ffverbs.pd import PD
from ffverbs.qp import (
    QP,
    QPAttr,
    QPCap,
    QPEx,
    QPInitAttr,
    QPInitAttrEx,
)
from ffverbs.srq import SRQ, SrqAttr, SrqInitAttr, SrqInitAttrEx
from ffverbs.wq import WQ, RwqIndTable, RwqIndTableInitAttr, RxHashConf, WQAttr, WQInitAttr
from ffverbs.xrcd import XRCD, XRCDInitAttr
from tests.conformance.values import ALL_ACCESS, DEADLINE_S, GID_INDEX, QKEY, XRC, Address, Options, pattern

__all__ = ["Side"]


@dataclass
class Objects:
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


class Side:
    """One side. Offsets count from the first byte of its memory; `qp` is the place of the QP among its QPs.

    A `twin` uses the other's context and queue pairs with memory of its own: a QP that is connected to itself.
    """

    def __init__(self, twin: "Side | None" = None) -> None:
        self._twin = twin
        self._o: Objects | None = None
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

    def _make(self, options: Options) -> Objects:
        ctx = Context(name="ffv0")
        pd = PD(ctx)
        channel = CompChannel(ctx) if options.channel else None
        send_cq = _make_queue(ctx, options.send_cqe, channel, options)
        recv_cq = _make_queue(ctx, options.recv_cqe, channel, options)
        if options.qp_type == XRC:
            return self._make_xrc(options, Objects(ctx, pd, channel, send_cq, recv_cq, None, []))
        srq = SRQ(pd, SrqInitAttr(SrqAttr(max_wr=options.srq_wr, max_sge=4))) if options.srq_wr else None
        if options.tags:
            srq = self._make_matching(options, ctx, pd, recv_cq)
        objects = Objects(ctx, pd, channel, send_cq, recv_cq, srq, [])
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
    def _make_xrc(options: Options, o: Objects) -> Objects:
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
    def _objects(self) -> Objects:
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


def _make_queue(ctx: Context, cqe: int, channel: CompChannel | None, options: Options) -> CQ | CQEX:
    if options.cq_fields is None:
        return CQ(ctx, cqe, None, channel)
    mask = e.IBV_CQ_INIT_ATTR_MASK_FLAGS if options.cq_flags else 0
    return CQEX(ctx, CqInitAttrEx(cqe, channel, 0, options.cq_fields, mask, options.cq_flags))
