"""One side of a conversation over verbs, driven by commands, and two of them connected.

Every test of verbs behaviour is written once against `Pair`; which process, thread or container each side lives in is
the business of `paths`. Commands and their results can therefore be pickled: sides name each other's memory and queue
pairs by `Address`, requests are `Send` and `Recv`, completions are `Done`.
"""

import select
from dataclasses import replace
from typing import Any

import ffverbs.libibverbs_enums as e
from ffverbs._native import lib
from ffverbs.comp_cntr import CompCntr, CompCntrInitAttr
from ffverbs.device import Context
from ffverbs.mr import MW, MWBind, MWBindInfo
from ffverbs.pyverbs_error import PyverbsRDMAError
from ffverbs.qp import (
    QPAttachCompCntrAttr,
)
from ffverbs.srq import OpsWr, SrqAttr
from ffverbs.wr import SendWR
from tests.conformance.traffic import Traffic
from tests.conformance.values import (
    ALL_ACCESS,
    DEADLINE_S,
    GID_INDEX,
    GRH_BYTES,
    QKEY,
    RC,
    UC,
    UD,
    XRC,
    Address,
    Done,
    Options,
    Piece,
    Recv,
    Send,
    pattern,
)

__all__ = [
    "ALL_ACCESS",
    "DEADLINE_S",
    "GID_INDEX",
    "GRH_BYTES",
    "QKEY",
    "RC",
    "UC",
    "UD",
    "XRC",
    "Address",
    "Done",
    "Options",
    "Pair",
    "Peer",
    "Piece",
    "Recv",
    "Send",
    "pattern",
]


class Peer(Traffic):
    """A side with everything that tests ask of it."""

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
