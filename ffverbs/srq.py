"""Shared receive queues (pyverbs.srq)."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ffverbs._cint import check_u32
from ffverbs._native import calls, ffi, lib
from ffverbs._post import cell_for, explain, failed
from ffverbs._struct import EnumField, IntField, new, typed, typed_or_none
from ffverbs.base import Handle, PyverbsCM, PyverbsObject, check
from ffverbs.cq import CQ, CQEX
from ffverbs.device import Context
from ffverbs.libibverbs_enums import (
    IBV_OPS_SIGNALED,
    IBV_SRQ_INIT_ATTR_CQ,
    IBV_SRQ_INIT_ATTR_XRCD,
    IBV_WR_TAG_ADD,
    ibv_ops_wr_opcode,
    ibv_srq_type,
)
from ffverbs.pd import PD
from ffverbs.pyverbs_error import PyverbsRDMAError
from ffverbs.wr import SGE, RecvWR

if TYPE_CHECKING:
    from ffverbs.xrcd import XRCD

__all__ = ["SRQ", "OpsWr", "SrqAttr", "SrqInitAttr", "SrqInitAttrEx"]

_post_srq_recv: Final = calls.post_srq_recv


class SrqAttr(PyverbsObject):
    """Size and limit of an SRQ."""

    __slots__ = ("_c",)

    def __init__(self, max_wr: int = 100, max_sge: int = 1, srq_limit: int = 0) -> None:
        self._c = new("srq_attr", max_wr=max_wr, max_sge=max_sge, srq_limit=srq_limit)

    max_wr = IntField("max_wr", "Work requests.")
    max_sge = IntField("max_sge", "Scatter/gather elements of a work request.")
    srq_limit = IntField("srq_limit", "When fewer work requests than this wait, there is one event; 0 is never.")


class SrqInitAttr(PyverbsObject):
    """Attributes of an SRQ that is to be made from a PD; making it writes what was granted back."""

    __slots__ = ("_c",)

    def __init__(self, attr: SrqAttr | None = None) -> None:
        given = typed_or_none("attr", attr, SrqAttr)
        self._c = new("srq_init_attr")
        if given is not None:
            self._c.attr = given._c[0]

    max_wr = IntField("attr.max_wr", "Work requests.", readonly=True)
    max_sge = IntField("attr.max_sge", "Scatter/gather elements of a work request.", readonly=True)
    srq_limit = IntField("attr.srq_limit", "Limit for the event.", readonly=True)


class SrqInitAttrEx(PyverbsObject):
    """Attributes of an SRQ that is to be made from a Context; making it writes what was granted back."""

    __slots__ = ("_c", "_cq", "_pd", "_xrcd")

    def __init__(self, max_wr: int = 100, max_sge: int = 1, srq_limit: int = 0) -> None:
        self._c = new("srq_init_attr_ex")
        self._c.attr = SrqAttr(max_wr, max_sge, srq_limit)._c[0]
        self._pd: PD | None = None
        self._xrcd: XRCD | None = None
        self._cq: CQ | CQEX | None = None

    max_wr = IntField("attr.max_wr", "Work requests.", readonly=True)
    max_sge = IntField("attr.max_sge", "Scatter/gather elements of a work request.", readonly=True)
    srq_limit = IntField("attr.srq_limit", "Limit for the event.", readonly=True)
    comp_mask = IntField("comp_mask", "Mask of ibv_srq_init_attr_mask: attributes that are set.")
    srq_type = EnumField("srq_type", ibv_srq_type, "Basic, XRC or tag matching.")
    max_num_tags = IntField("tm_cap.max_num_tags", "Tags to match.")
    max_ops = IntField("tm_cap.max_ops", "Tag operations under way.")

    @property
    def pd(self) -> PD | None:
        """The protection domain."""
        return self._pd

    @pd.setter
    def pd(self, val: PD | None) -> None:
        self._pd = typed_or_none("val", val, PD)

    @property
    def xrcd(self) -> "XRCD | None":
        """The XRC domain."""
        return self._xrcd

    @xrcd.setter
    def xrcd(self, val: "XRCD | None") -> None:
        from ffverbs.xrcd import XRCD  # noqa: PLC0415 - only programs with XRC need it

        self._xrcd = typed_or_none("val", val, XRCD)

    @property
    def cq(self) -> CQ | CQEX | None:
        """The CQ of an XRC or tag-matching SRQ."""
        return self._cq

    @cq.setter
    def cq(self, val: CQ | CQEX | None) -> None:
        self._cq = val if isinstance(val, CQEX) else typed_or_none("val", val, CQ)

    def _linked(self) -> Any:
        """Return the struct with the addresses of the engine's objects filled in."""
        self._c.pd = ffi.NULL if self._pd is None else self._pd._live()
        self._c.xrcd = ffi.NULL if self._xrcd is None else self._xrcd._live()
        self._c.cq = self._cq._live() if isinstance(self._cq, Handle) else ffi.NULL
        return self._c


class OpsWr(PyverbsCM):
    """An operation on the tags of a tag-matching SRQ: add, delete or synchronise."""

    __slots__ = ("_c", "_next_wr", "_sges")

    def __init__(
        self,
        wr_id: int = 0,
        opcode: int = IBV_WR_TAG_ADD,
        flags: int = IBV_OPS_SIGNALED,
        next_wr: "OpsWr | None" = None,
        unexpected_cnt: int = 0,
        recv_wr_id: int = 0,
        num_sge: int | None = None,
        tag: int = 0,
        mask: int = 0,
        sg_list: Sequence[SGE] | None = None,
    ) -> None:
        given = [typed("sg_list", sge, SGE) for sge in (sg_list or ())[: num_sge or 0]]
        self._c = new("ops_wr")
        self._sges = ffi.new("struct ffv_sge[]", [sge._c[0] for sge in given])
        self._c.tm.add.sg_list = self._sges
        self._c.tm.add.num_sge = len(given)
        self.wr_id = wr_id
        self.opcode = opcode
        self.flags = flags
        self.unexpected_cnt = unexpected_cnt
        self.recv_wr_id = recv_wr_id
        self.tag = tag
        self.mask = mask
        self._next_wr: OpsWr | None = None
        if next_wr is not None:
            self.next_wr = next_wr

    wr_id = IntField("wr_id", "The caller's number.")
    opcode = EnumField("opcode", ibv_ops_wr_opcode, "Add, delete or synchronise.")
    flags = IntField("flags", "Mask of ibv_ops_flags.")
    unexpected_cnt = IntField("tm.unexpected_cnt", "Unexpected messages that the caller has handled.")
    recv_wr_id = IntField("tm.add.recv_wr_id", "The caller's number of the receive.")
    tag = IntField("tm.add.tag", "The tag to match.")
    mask = IntField("tm.add.mask", "Which of its bits count.")
    handle = IntField("tm.handle", "The tag to delete: what adding it wrote here.")

    @property
    def next_wr(self) -> "OpsWr | None":
        """The operation that is posted after this one."""
        return self._next_wr

    @next_wr.setter
    def next_wr(self, val: "OpsWr") -> None:
        self._next_wr = typed("val", val, OpsWr)
        self._c.next = self._next_wr._c

    def _copy_from(self, struct: Any, first: "OpsWr") -> None:
        """Become a copy of the operation of `first`'s chain whose struct is `struct`."""
        owner: OpsWr | None = first
        while owner is not None and owner._c != struct:
            owner = owner._next_wr
        self._c[0] = struct[0]
        if owner is not None:
            self._sges, self._next_wr = owner._sges, owner._next_wr


class SRQ(Handle):
    """A receive queue that several QPs share: SRQ(PD, SrqInitAttr) or SRQ(Context, SrqInitAttrEx)."""

    __slots__ = ("_context",)
    _GROUPS = ("qps",)

    _context: Context

    def __init__(self, creator: PD | Context, attr: SrqInitAttr | SrqInitAttrEx) -> None:
        if creator is None or attr is None:
            raise TypeError(f"Argument '{'creator' if creator is None else 'attr'}' must not be None")
        if isinstance(creator, PD):
            self._create_srq(creator, typed("init_attr", attr, SrqInitAttr))
        elif isinstance(creator, Context):
            self._create_srq_ex(creator, typed("init_attr_ex", attr, SrqInitAttrEx))
        else:
            raise PyverbsRDMAError("Srq needs either Context or PD for creation")

    def _create_srq(self, pd: PD, init_attr: SrqInitAttr) -> None:
        out = ffi.new("struct ffv_srq **")
        check(lib.ffv_create_srq(pd._live(), init_attr._c, out), "Failed to create SRQ")
        self._adopt(out[0], pd._context, (pd,))

    def _create_srq_ex(self, context: Context, init_attr_ex: SrqInitAttrEx) -> None:
        out = ffi.new("struct ffv_srq **")
        check(lib.ffv_create_srq_ex(context._live(), init_attr_ex._linked(), out), "Failed to create SRQ")
        mask = init_attr_ex.comp_mask
        used: list[object] = [init_attr_ex.pd]
        if mask & IBV_SRQ_INIT_ATTR_XRCD:
            used.append(init_attr_ex.xrcd)
        if mask & IBV_SRQ_INIT_ATTR_CQ:
            used.append(init_attr_ex.cq)
        self._adopt(out[0], context, used)

    def _adopt(self, handle: Any, context: Context, used: Iterable[object]) -> None:
        """Wrap the engine's new SRQ; whatever it uses closes it first."""
        self._context = context
        self._open(handle)
        for parent in used:
            if isinstance(parent, Handle):
                parent._attach(self, "srqs")

    @property
    def srq(self) -> int:
        """Address of the engine's object."""
        return int(ffi.cast("uintptr_t", self._live()))

    def get_srq_num(self) -> int:
        """Return the SRQ's number."""
        return int(lib.ffv_srq_num(self._live()))

    def modify(self, attr: SrqAttr, comp_mask: int) -> None:
        """Change what `comp_mask`, a mask of ibv_srq_attr_mask, names: the limit, the size where possible."""
        struct = typed("attr", attr, SrqAttr)._c
        check(lib.ffv_modify_srq(self._live(), struct, check_u32(comp_mask)), "Failed to modify SRQ")

    def query(self) -> SrqAttr:
        """Return size and limit."""
        attr = SrqAttr()
        check(lib.ffv_query_srq(self._live(), attr._c), "Failed to query SRQ")
        return attr

    def post_recv(self, wr: RecvWR, bad_wr: RecvWR | None = None) -> None:
        """Post a chain of receive requests; on an error `bad_wr` becomes a copy of the first that was not posted."""
        cell = None if bad_wr is None else cell_for(bad_wr, RecvWR)
        try:
            rc = _post_srq_recv(self._handle, wr._c, cell)
        except (TypeError, AttributeError):
            explain(self, wr, RecvWR)
            raise
        if rc:
            failed(rc, "Failed to post receive to SRQ", cell, wr, bad_wr)

    def post_srq_ops(self, wr: OpsWr, bad_wr: OpsWr | None = None) -> None:
        """Post a chain of operations on tags; on an error `bad_wr` becomes a copy of the first that was not done.

        Adding a tag writes its `handle`. Each operation with IBV_OPS_SIGNALED completes in the SRQ's CQ.
        """
        typed("wr", wr, OpsWr)
        typed_or_none("bad_wr", bad_wr, OpsWr)
        cell = ffi.new("struct ffv_ops_wr **")
        rc = lib.ffv_post_srq_ops(self._live(), wr._c, cell)
        if rc:
            failed(rc, "post SRQ ops failed", cell, wr, bad_wr)

    def _destroy(self, handle: Any) -> None:
        self._context._ack_events(handle)
        check(lib.ffv_destroy_srq(handle), "Failed to destroy SRQ")
