"""Queue pairs (pyverbs.qp)."""

from collections.abc import Sequence
from errno import EOPNOTSUPP
from socket import htonl
from typing import TYPE_CHECKING, Any, Final, NoReturn

from ffverbs._cint import check_int, check_u8, check_u16, check_u32, check_u64
from ffverbs._native import calls, ffi, lib
from ffverbs._post import cell_for, explain, failed
from ffverbs._qp_attr import (
    ECE,
    QPAttachCompCntrAttr,
    QPAttr,
    QPCap,
    QPInitAttr,
    QPInitAttrEx,
    QPRateLimitAttr,
    copy_caps,
)
from ffverbs._struct import EnumMembers, new, row, typed
from ffverbs.addr import AH, GID
from ffverbs.base import Handle, PyverbsCM, check
from ffverbs.cq import CQ, CQEX
from ffverbs.device import Context
from ffverbs.libibverbs_enums import (
    IBV_QPS_INIT,
    IBV_QPS_RTR,
    IBV_QPS_RTS,
    IBV_QPT_RAW_PACKET,
    IBV_QPT_RC,
    IBV_QPT_UC,
    IBV_QPT_UD,
    IBV_QPT_XRC_RECV,
    IBV_QPT_XRC_SEND,
    ibv_qp_state,
    ibv_qp_type,
)
from ffverbs.libibverbs_enums import ibv_qp_attr_mask as m
from ffverbs.mr import MW, MWBind, MWBindInfo
from ffverbs.pd import PD
from ffverbs.pyverbs_error import PyverbsError, PyverbsRDMAError, PyverbsUserError
from ffverbs.srq import SRQ
from ffverbs.utils import qp_state_to_str, qp_type_to_str
from ffverbs.wr import SGE, RecvWR, SendWR

if TYPE_CHECKING:
    from ffverbs.comp_cntr import CompCntr
    from ffverbs.wq import RwqIndTable

__all__ = [
    "ECE",
    "QP",
    "DataBuffer",
    "QPAttachCompCntrAttr",
    "QPAttr",
    "QPCap",
    "QPEx",
    "QPInitAttr",
    "QPInitAttrEx",
    "QPRateLimitAttr",
]

_copy_caps = copy_caps

_QP_TYPES: Final = EnumMembers(ibv_qp_type)
_QP_STATES: Final = EnumMembers(ibv_qp_state)

# Which attributes to_init(), to_rtr() and to_rts() take from a QPAttr, by type: what libibverbs requires for the
# transition, and nothing that it does not allow.
_CONNECTED_INIT: Final = m.IBV_QP_PKEY_INDEX | m.IBV_QP_PORT | m.IBV_QP_ACCESS_FLAGS
_UC_RTR: Final = m.IBV_QP_AV | m.IBV_QP_PATH_MTU | m.IBV_QP_DEST_QPN | m.IBV_QP_RQ_PSN
_RC_RTR: Final = _UC_RTR | m.IBV_QP_MAX_DEST_RD_ATOMIC | m.IBV_QP_MIN_RNR_TIMER
_TIMERS: Final = m.IBV_QP_TIMEOUT | m.IBV_QP_SQ_PSN
_RC_RTS: Final = _TIMERS | m.IBV_QP_RETRY_CNT | m.IBV_QP_RNR_RETRY | m.IBV_QP_MAX_QP_RD_ATOMIC
_MASKS: Final[dict[int, dict[str, int]]] = {
    IBV_QPT_RC: {"INIT": _CONNECTED_INIT, "RTR": _RC_RTR, "RTS": _RC_RTS},
    IBV_QPT_UC: {"INIT": _CONNECTED_INIT, "RTR": _UC_RTR, "RTS": m.IBV_QP_SQ_PSN},
    IBV_QPT_UD: {
        "INIT": m.IBV_QP_PKEY_INDEX | m.IBV_QP_PORT | m.IBV_QP_QKEY,
        "RTR": 0,
        "RTS": m.IBV_QP_SQ_PSN,
    },
    IBV_QPT_RAW_PACKET: {"INIT": m.IBV_QP_PORT, "RTR": 0, "RTS": 0},
    IBV_QPT_XRC_RECV: {"INIT": _CONNECTED_INIT, "RTR": _RC_RTR, "RTS": _TIMERS},
    IBV_QPT_XRC_SEND: {"INIT": _CONNECTED_INIT, "RTR": _UC_RTR, "RTS": _RC_RTS},
}
_CONNECTIONLESS: Final = (IBV_QPT_UD, IBV_QPT_RAW_PACKET)

# The fast path: one engine call with structs that exist already.
_post_send: Final = calls.post_send
_post_recv: Final = calls.post_recv
_new: Final = ffi.new


class QP(Handle):
    """A queue pair: QP(PD, QPInitAttr) or QP(Context, QPInitAttrEx).

    With `qp_attr` it is brought as far as that can go without knowing the other side: UD and raw packet QPs to RTS,
    others to INIT. The granted sizes are written back into `init_attr`.
    """

    __slots__ = ("_context", "_groups", "_ind_table", "_qp_type", "_recv_cq", "_send_cq", "_srq")
    _GROUPS = ("mws", "flows")

    _context: Context
    _groups: set[str]  # multicast groups that it is attached to
    _ind_table: "RwqIndTable | None"
    _qp_type: ibv_qp_type
    _send_cq: CQ | CQEX | None
    _recv_cq: CQ | CQEX | None
    _srq: SRQ | None

    def __init__(
        self, creator: PD | Context, init_attr: QPInitAttr | QPInitAttrEx, qp_attr: QPAttr | None = None
    ) -> None:
        if creator is None or init_attr is None:
            raise TypeError(f"Argument '{'creator' if creator is None else 'init_attr'}' must not be None")
        if qp_attr is not None:
            typed("qp_attr", qp_attr, QPAttr)
        if isinstance(creator, Context):
            self._create_qp_ex(creator, typed("attr", init_attr, QPInitAttrEx))
        else:
            self._create_qp(typed("pd", creator, PD), typed("attr", init_attr, QPInitAttr))
        if qp_attr is None:
            return
        try:
            if self._qp_type in _CONNECTIONLESS:
                self.to_rts(qp_attr)
            else:
                self.to_init(qp_attr)
        except BaseException:
            self.close()
            raise

    def _create_qp(self, pd: PD, attr: QPInitAttr) -> None:
        out = _new("struct ffv_qp **")
        check(lib.ffv_create_qp(pd._live(), attr._linked(), out), "Failed to create QP")
        self._adopt(out[0], pd._context, pd, attr)

    def _create_qp_ex(self, ctx: Context, attr: QPInitAttrEx) -> None:
        out = _new("struct ffv_qp **")
        linked = attr._linked_ex()
        check(lib.ffv_create_qp_ex(ctx._live(), linked, out), "Failed to create extended QP")
        attr._c.cap = linked.cap
        self._adopt(out[0], ctx, attr.pd, attr)

    def _adopt(self, handle: Any, ctx: Context, pd: PD | None, attr: QPInitAttr | QPInitAttrEx) -> None:
        """Wrap the engine's new QP; whatever it uses closes it first."""
        self._context = ctx
        self._send_cq, self._recv_cq, self._srq = attr.send_cq, attr.recv_cq, attr.srq
        self._qp_type = attr.qp_type
        self._groups = set()
        self._open(handle)
        ctx._attach(self, "qps")
        xrcd, table = (attr.xrcd, attr.ind_table) if isinstance(attr, QPInitAttrEx) else (None, None)
        self._ind_table = table
        used = (pd, xrcd, self._send_cq, self._recv_cq, self._srq, table)
        for parent in {id(p): p for p in used}.values():
            if isinstance(parent, Handle):
                parent._attach(self, "qps")

    def _get_comp_mask(self, dst: str) -> int:
        """Return the attribute mask of the transition to "INIT", "RTR" or "RTS"."""
        masks = _MASKS.get(self._qp_type)
        if masks is None:
            raise PyverbsRDMAError(f"No transitions are known for QP type {self._qp_type}: use modify()", EOPNOTSUPP)
        return int(masks[dst] | m.IBV_QP_STATE)

    def _transit(self, qp_attr: QPAttr, state: int, dst: str, name: str) -> None:
        mask = self._get_comp_mask(dst)
        qp_attr.qp_state = state
        check(lib.ffv_modify_qp(self._live(), qp_attr._c, mask), f"Failed to modify QP state to {name}")

    def to_init(self, qp_attr: QPAttr) -> None:
        """Go from RESET to INIT."""
        self._transit(typed("qp_attr", qp_attr, QPAttr), IBV_QPS_INIT, "INIT", "init")

    def to_rtr(self, qp_attr: QPAttr) -> None:
        """Go to RTR, through INIT if need be."""
        attr = typed("qp_attr", qp_attr, QPAttr)
        if self.qp_state != IBV_QPS_INIT:
            self.to_init(attr)
        self._transit(attr, IBV_QPS_RTR, "RTR", "RTR")

    def to_rts(self, qp_attr: QPAttr) -> None:
        """Go to RTS, through INIT and RTR if need be."""
        attr = typed("qp_attr", qp_attr, QPAttr)
        if self.qp_state != IBV_QPS_RTR:
            self.to_rtr(attr)
        self._transit(attr, IBV_QPS_RTS, "RTS", "RTS")

    def modify(self, qp_attr: QPAttr, comp_mask: int) -> None:
        """Change the attributes in `comp_mask`, a mask of ibv_qp_attr_mask."""
        attr = typed("qp_attr", qp_attr, QPAttr)
        check(lib.ffv_modify_qp(self._live(), attr._c, check_u32(comp_mask)), "Failed to modify QP")

    def query(self, attr_mask: int) -> tuple[QPAttr, QPInitAttr]:
        """Return at least the attributes in `attr_mask`, and those that the QP was made with."""
        attr, init_attr = QPAttr(), QPInitAttr()
        rc = lib.ffv_query_qp(self._live(), attr._c, check_u32(attr_mask), init_attr._c)
        check(rc, "Failed to query QP")
        init_attr.send_cq, init_attr.recv_cq, init_attr.srq = self._send_cq, self._recv_cq, self._srq
        return attr, init_attr

    def post_send(self, wr: SendWR, bad_wr: SendWR | None = None) -> None:
        """Post a chain of send requests; on an error `bad_wr` becomes a copy of the first that was not posted."""
        cell = None if bad_wr is None else cell_for(bad_wr, SendWR)
        try:
            rc = _post_send(self._handle, wr._c, cell)
        except (TypeError, AttributeError):
            explain(self, wr, SendWR)
            raise
        if rc:
            failed(rc, "Failed to post send", cell, wr, bad_wr)

    def post_recv(self, wr: RecvWR, bad_wr: RecvWR | None = None) -> None:
        """Post a chain of receive requests; on an error `bad_wr` becomes a copy of the first that was not posted."""
        cell = None if bad_wr is None else cell_for(bad_wr, RecvWR)
        try:
            rc = _post_recv(self._handle, wr._c, cell)
        except (TypeError, AttributeError):
            explain(self, wr, RecvWR)
            raise
        if rc:
            failed(rc, "Failed to post recv", cell, wr, bad_wr)

    def bind_mw(self, mw: MW, mw_bind: MWBind) -> None:
        """Bind a memory window of type 1 by a send request of its own; the window gets a new key."""
        window, bind = typed("mw", mw, MW), typed("mw_bind", mw_bind, MWBind)
        rc = lib.ffv_bind_mw(self._live(), window._live(), bind._info._c, bind._send_flags, bind._wr_id)
        check(rc, "Failed to Bind MW")
        if self not in window._parents:
            self._attach(window, "mws")

    @property
    def qp_type(self) -> ibv_qp_type:
        """RC, UC, UD, ..."""
        return self._qp_type

    @property
    def qp_state(self) -> ibv_qp_state:
        """The state the QP is in."""
        return _QP_STATES[lib.ffv_qp_state(self._live())]

    @property
    def qp_num(self) -> int:
        """The number that peers name the QP by."""
        return int(lib.ffv_qp_num(self._live()))

    @property
    def qp(self) -> int:
        """Address of the engine's object."""
        return int(ffi.cast("uintptr_t", self._live()))

    def query_data_in_order(self, op: int, flags: int = 0) -> int:
        """Return 0: that bytes arrive in the order of their addresses is not guaranteed for any operation."""
        check_u32(op)
        check_u32(flags)
        self._live()
        return 0

    def modify_rate_limit(self, attr: QPRateLimitAttr) -> None:
        """Pace what the QP sends and reads to `attr.rate_limit` kbit/s, 0 for not at all, until it is reset.

        Messages begin when those before them would have gone at that rate; after a pause up to `max_burst_sz` bytes
        (0: 64 KiB) go at once. To another host the router fetches ahead: only completions keep to it.
        EOPNOTSUPP for types other than RC, UC and UD, EINVAL for rates beyond the device's.
        """
        given = typed("attr", attr, QPRateLimitAttr)
        request = new("qp_rate_limit_attr", rate_limit=given.rate_limit, max_burst_sz=given.max_burst_sz)
        request.typical_pkt_sz, request.comp_mask = given.typical_pkt_sz, given.comp_mask
        check(lib.ffv_modify_qp_rate_limit(self._live(), request), "Failed to modify rate limit of QP")

    def attach_comp_cntr(self, comp_cntr: "CompCntr", attr: QPAttachCompCntrAttr) -> None:
        """Count the completions of the operations in `attr.op_mask` with `comp_cntr`, until the QP is closed.

        EBUSY if one of the operations has a counter, EINVAL for unknown ones.
        """
        mask, counter = typed("attr", attr, QPAttachCompCntrAttr).op_mask, typed("comp_cntr", comp_cntr, Handle)
        check(lib.ffv_qp_attach_comp_cntr(self._live(), counter._live(), mask), "Failed to attach completion counter")
        if counter not in self._parents:
            counter._attach(self, "qps")

    def set_ece(self, ece: ECE) -> None:
        """Raise EOPNOTSUPP: there are no options to agree on."""
        typed("ece", ece, ECE)
        self._unsupported("Failed to set ECE")

    def query_ece(self) -> ECE:
        """Raise EOPNOTSUPP: there are no options to agree on."""
        self._unsupported("Failed to query ECE")

    def attach_mcast(self, gid: GID | str, lid: int = 0) -> None:
        """Receive what is sent to a multicast group; UD only. ffverbs' own: pyverbs joins groups by CMID only.

        `gid` is ff00::/8, or an IPv4 group as ::ffff:224.0.0.0/4; `lid` counts on InfiniBand only. EINVAL for others,
        ENOMEM beyond the device's limits. close() detaches.
        """
        self._mcast(lib.ffv_attach_mcast, gid, lid, "Failed to attach QP to a multicast group")

    def detach_mcast(self, gid: GID | str, lid: int = 0) -> None:
        """Receive no more of a multicast group; EINVAL if the QP is not in it. ffverbs' own, see attach_mcast()."""
        self._mcast(lib.ffv_detach_mcast, gid, lid, "Failed to detach QP from a multicast group")

    def _mcast(self, call: Any, gid: GID | str, lid: int, what: str) -> None:
        group = gid if isinstance(gid, GID) else GID(typed("gid", gid, str))
        check(call(self._live(), group._c, check_u16(lid)), what)
        (self._groups.add if call == lib.ffv_attach_mcast else self._groups.discard)(str(group))

    def _unsupported(self, what: str) -> NoReturn:
        self._live()
        raise PyverbsRDMAError(what, EOPNOTSUPP)

    def _destroy(self, handle: Any) -> None:
        for group in self._groups:
            lib.ffv_detach_mcast(handle, GID(group)._c, 0)  # if it is refused, so is what follows
        self._context._ack_events(handle)
        check(lib.ffv_destroy_qp(handle), "Failed to destroy QP")

    def __str__(self) -> str:
        return (
            row("QP type", qp_type_to_str(self.qp_type))
            + row("  number", self.qp_num)
            + row("  state", qp_state_to_str(self.qp_state))
        )


class QPEx(QP):
    """A QP with the newer posting calls: QPEx(Context, QPInitAttrEx), with the operations in send_ops_flags.

    Between `wr_start` and `wr_complete`, each `wr_*` begins a request with the `wr_id` and `wr_flags` set before, and
    each `wr_set_*` completes the one begun last. `wr_complete` posts all of them or, after a mistake, none, and raises
    the first mistake's error. Another thread's `wr_start` waits meanwhile::

        qp.wr_start()
        qp.wr_id, qp.wr_flags = 7, IBV_SEND_SIGNALED
        qp.wr_rdma_write(rkey, remote_addr)
        qp.wr_set_sge(sge)
        qp.wr_complete()
    """

    __slots__ = ("_ex", "_keep")

    def __init__(
        self, creator: PD | Context, init_attr: QPInitAttr | QPInitAttrEx, qp_attr: QPAttr | None = None
    ) -> None:
        super().__init__(creator, init_attr, qp_attr)
        self._keep: list[object] = []  # what the requests of an open batch name
        self._ex = lib.ffv_qp_to_qp_ex(self._live())
        if not self._ex and self._ind_table is None:
            self.close()
            raise PyverbsRDMAError(
                "Failed to create extended QP: use QPInitAttrEx with IBV_QP_INIT_ATTR_SEND_OPS_FLAGS in comp_mask",
                EOPNOTSUPP,
            )

    def _open_ex(self) -> Any:
        self._live()
        if not self._ex:
            raise PyverbsRDMAError("A QP with an indirection table only receives", EOPNOTSUPP)
        return self._ex

    @property
    def comp_mask(self) -> int:
        """Mask of additional fields; there are none."""
        return int(self._open_ex().comp_mask)

    @comp_mask.setter
    def comp_mask(self, val: int) -> None:
        self._open_ex().comp_mask = check_u64(val)

    @property
    def wr_id(self) -> int:
        """The number that the next requests carry."""
        return int(self._open_ex().wr_id)

    @wr_id.setter
    def wr_id(self, val: int) -> None:
        self._open_ex().wr_id = check_u64(val)

    @property
    def wr_flags(self) -> int:
        """Mask of ibv_send_flags of the next requests."""
        return int(self._open_ex().wr_flags)

    @wr_flags.setter
    def wr_flags(self, val: int) -> None:
        self._open_ex().wr_flags = check_u32(val)

    @property
    def ind_table(self) -> "RwqIndTable | None":
        """The table of receive work queues that the QP was made with."""
        return self._ind_table

    def wr_start(self) -> None:
        """Begin a batch of requests."""
        lib.ffv_wr_start(self._open_ex())

    def wr_complete(self) -> None:
        """Post the batch; raise the first mistake's error if there was one, with nothing posted."""
        rc = lib.ffv_wr_complete(self._open_ex())
        self._keep.clear()
        check(rc, "Failed to complete WR")

    def wr_abort(self) -> None:
        """Forget the batch."""
        lib.ffv_wr_abort(self._open_ex())
        self._keep.clear()

    def wr_send(self) -> None:
        """Begin a SEND."""
        lib.ffv_wr_send(self._open_ex())

    def wr_send_imm(self, data: int) -> None:
        """Begin a SEND with immediate data, in host order."""
        lib.ffv_wr_send_imm(self._open_ex(), htonl(check_u32(data)))

    def wr_send_inv(self, invalidate_rkey: int) -> None:
        """Begin a SEND that invalidates a key at the other side."""
        lib.ffv_wr_send_inv(self._open_ex(), check_u32(invalidate_rkey))

    def wr_send_tso(self, hdr: int, hdr_sz: int, mss: int) -> None:
        """Begin a segmented SEND: not supported, `wr_complete` raises EOPNOTSUPP."""
        address = ffi.cast("void *", check_u64(hdr))
        lib.ffv_wr_send_tso(self._open_ex(), address, check_u16(hdr_sz), check_u16(mss))

    def wr_local_inv(self, invalidate_rkey: int) -> None:
        """Begin the invalidation of a key of one's own."""
        lib.ffv_wr_local_inv(self._open_ex(), check_u32(invalidate_rkey))

    def wr_bind_mw(self, mw: MW, rkey: int, bind_info: MWBindInfo) -> None:
        """Begin to bind a memory window of type 2, which then has the key `rkey`."""
        window, info = typed("mw", mw, MW), typed("bind_info", bind_info, MWBindInfo)
        lib.ffv_wr_bind_mw(self._open_ex(), window._live(), check_u32(rkey), info._c)
        self._keep.append((window, info))

    def wr_rdma_read(self, rkey: int, remote_addr: int) -> None:
        """Begin an RDMA READ."""
        lib.ffv_wr_rdma_read(self._open_ex(), check_u32(rkey), check_u64(remote_addr))

    def wr_rdma_write(self, rkey: int, remote_addr: int) -> None:
        """Begin an RDMA WRITE."""
        lib.ffv_wr_rdma_write(self._open_ex(), check_u32(rkey), check_u64(remote_addr))

    def wr_rdma_write_imm(self, rkey: int, remote_addr: int, data: int) -> None:
        """Begin an RDMA WRITE with immediate data, in host order."""
        imm = htonl(check_u32(data))
        lib.ffv_wr_rdma_write_imm(self._open_ex(), check_u32(rkey), check_u64(remote_addr), imm)

    def wr_atomic_cmp_swp(self, rkey: int, remote_addr: int, compare: int, swap: int) -> None:
        """Begin an atomic: the 8 bytes become `swap` if they are `compare`."""
        where = (check_u32(rkey), check_u64(remote_addr))
        lib.ffv_wr_atomic_cmp_swp(self._open_ex(), *where, check_u64(compare), check_u64(swap))

    def wr_atomic_fetch_add(self, rkey: int, remote_addr: int, add: int) -> None:
        """Begin an atomic: `add` is added to the 8 bytes."""
        lib.ffv_wr_atomic_fetch_add(self._open_ex(), check_u32(rkey), check_u64(remote_addr), check_u64(add))

    def wr_atomic_write(self, rkey: int, remote_addr: int, atomic_wr: bytes) -> None:
        """Begin a write of 8 bytes, which whoever reads sees whole."""
        value = ffi.from_buffer(atomic_wr)
        if len(value) < 8:
            raise PyverbsUserError(f"An atomic write takes 8 bytes, not {len(value)}")
        lib.ffv_wr_atomic_write(self._open_ex(), check_u32(rkey), check_u64(remote_addr), value)

    def wr_flush(self, rkey: int, remote_addr: int, length: int, ptype: int, level: int) -> None:
        """Begin a flush of memory at the other side: `ptype` ibv_placement_type, `level` ibv_selectivity_level.

        Only global visibility is supported; for persistence `wr_complete` raises EOPNOTSUPP.
        """
        where = (check_u32(rkey), check_u64(remote_addr), check_u64(length))
        lib.ffv_wr_flush(self._open_ex(), *where, check_u8(ptype), check_u8(level))

    def wr_set_ud_addr(self, ah: AH, remote_qpn: int, remote_rkey: int) -> None:
        """Address a UD request: the handle, the number of the other QP, and its Q_Key."""
        handle = typed("ah", ah, AH)._live()
        lib.ffv_wr_set_ud_addr(self._open_ex(), handle, check_u32(remote_qpn), check_u32(remote_rkey))
        self._keep.append(ah)

    def wr_set_xrc_srqn(self, remote_srqn: int) -> None:
        """Name the SRQ at the other side that an XRC request goes to."""
        lib.ffv_wr_set_xrc_srqn(self._open_ex(), check_u32(remote_srqn))

    def wr_set_inline_data(self, addr: int, length: int) -> None:
        """Take `length` bytes at `addr` along, at once."""
        lib.ffv_wr_set_inline_data(self._open_ex(), ffi.cast("void *", check_u64(addr)), check_u64(length))

    def wr_set_inline_data_list(self, num_buf: int, buf_list: "Sequence[DataBuffer]") -> None:
        """Take the first `num_buf` pieces of memory along, at once, one after the other."""
        _enough("buf_list", num_buf, buf_list)
        bufs = _new("struct ffv_data_buf[]", num_buf)
        for i in range(num_buf):
            buf = typed("buf_list", buf_list[i], DataBuffer)
            bufs[i].addr, bufs[i].length = ffi.cast("void *", buf._addr), buf._length
        lib.ffv_wr_set_inline_data_list(self._open_ex(), num_buf, bufs)

    def wr_set_sge(self, sge: SGE) -> None:
        """Let the request's memory be this one element."""
        c = typed("sge", sge, SGE)._c
        lib.ffv_wr_set_sge(self._open_ex(), c.lkey, c.addr, c.length)

    def wr_set_sge_list(self, num_sge: int, sg_list: Sequence[SGE]) -> None:
        """Let the request's memory be the first `num_sge` elements of the list."""
        _enough("sg_list", num_sge, sg_list)
        sges = _new("struct ffv_sge[]", num_sge)
        for i in range(num_sge):
            sges[i] = typed("sg_list", sg_list[i], SGE)._c[0]
        lib.ffv_wr_set_sge_list(self._open_ex(), num_sge, sges)


def _enough(name: str, count: int, items: Sequence[object]) -> None:
    """Raise PyverbsError unless `items` has `count` elements."""
    if check_int(count) < 0 or count > len(items):
        raise PyverbsError(f"{name} has {len(items)} elements, not {count}")


class DataBuffer(PyverbsCM):
    """A piece of memory for QPEx.wr_set_inline_data_list()."""

    __slots__ = ("_addr", "_length")

    def __init__(self, addr: int, length: int) -> None:
        self._addr = check_u64(addr)
        self._length = check_u64(length)
