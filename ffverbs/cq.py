"""Completion queues, completion channels and work completions (pyverbs.cq)."""

from errno import EINTR, EOPNOTSUPP
from typing import TYPE_CHECKING, Any, Final

from ffverbs._cint import check_int, check_u8, check_u16, check_u32, check_u64
from ffverbs._native import calls, ffi, lib
from ffverbs._struct import EnumMembers, NumberField, row, typed, typed_or_none
from ffverbs._text import flags_to_str, names_of
from ffverbs.base import Handle, PyverbsObject, check, raise_errno
from ffverbs.device import Context
from ffverbs.libibverbs_enums import ibv_create_cq_wc_flags, ibv_wc_flags, ibv_wc_opcode, ibv_wc_status
from ffverbs.pyverbs_error import PyverbsRDMAError

if TYPE_CHECKING:
    from ffverbs.pd import PD

__all__ = [
    "CQ",
    "CQEX",
    "WC",
    "CompChannel",
    "CqInitAttrEx",
    "PollCqAttr",
    "WcTmInfo",
    "cqe_flags_to_str",
    "cqe_opcode_to_str",
    "cqe_status_to_str",
    "create_wc_flags_to_str",
    "flags_to_str",
]

_WITH: Final = ibv_create_cq_wc_flags
_STATUSES: Final = EnumMembers(ibv_wc_status)
_OPCODES: Final = EnumMembers(ibv_wc_opcode)

_poll: Final = calls.poll
_new: Final = ffi.new


class CompChannel(Handle):
    """A descriptor that becomes readable when an armed CQ gets a completion; usable with poll, epoll and asyncio."""

    __slots__ = ()
    _GROUPS = ("cqs",)

    def __init__(self, context: Context) -> None:
        ctx = typed("context", context, Context)
        out = _new("struct ffv_comp_channel **")
        check(lib.ffv_create_comp_channel(ctx._live(), out), "Failed to create a completion channel")
        self._open(out[0])
        ctx._attach(self, "ccs")

    @property
    def fd(self) -> int:
        """The descriptor, for poll, epoll, select and asyncio; reading events is get_cq_event's business."""
        return int(lib.ffv_comp_channel_fd(self._live()))

    def get_cq_event(self, expected_cq: "CQ | CQEX") -> None:
        """Wait for an event of `expected_cq` and count it; events must be acknowledged (`CQ.close()` does).

        An event of another CQ of the channel counts for that one and raises PyverbsRDMAError. Signal handlers run
        while this waits.
        """
        expected = typed("expected_cq", expected_cq, _Queue)
        channel, cq, cq_context = self._live(), _new("struct ffv_cq **"), _new("void **")
        while (rc := lib.ffv_get_cq_event(channel, cq, cq_context)) == -EINTR:
            pass
        check(rc, "Failed to get CQ event")
        for ref in list(self._children.get("cqs", {}).values()):
            child = ref()
            if isinstance(child, _Queue) and child._handle == cq[0]:
                child._num_events += 1
        if expected._handle != cq[0]:
            raise PyverbsRDMAError("Received event on an unexpected CQ")

    def _destroy(self, handle: Any) -> None:
        check(lib.ffv_destroy_comp_channel(handle), "Failed to destroy a completion channel")


class WC(calls.Completion, PyverbsObject):
    """A work completion. Only `status`, `wr_id`, `vendor_err` and `qp_num` mean anything unless status is success."""

    __slots__ = ()

    def __init__(
        self,
        wr_id: int = 0,
        status: int = 0,
        opcode: int = 0,
        vendor_err: int = 0,
        byte_len: int = 0,
        qp_num: int = 0,
        src_qp: int = 0,
        imm_data: int = 0,
        wc_flags: int = 0,
        pkey_index: int = 0,
        slid: int = 0,
        sl: int = 0,
        dlid_path_bits: int = 0,
    ) -> None:
        self.wr_id, self.status, self.opcode, self.vendor_err = wr_id, status, opcode, vendor_err
        self.byte_len, self.qp_num, self.src_qp, self.imm_data = byte_len, qp_num, src_qp, imm_data
        self.wc_flags, self.pkey_index = wc_flags, pkey_index
        self.slid, self.sl, self.dlid_path_bits = slid, sl, dlid_path_bits

    @classmethod
    def _of(cls, struct: Any) -> "WC":
        """Return a copy of the engine's struct."""
        self = cls.__new__(cls)
        self._copy_from(ffi.buffer(struct))
        return self

    def _struct(self) -> Any:
        """Return the completion as the engine's struct."""
        wc = _new("struct ffv_wc *")
        ffi.buffer(wc)[:] = self._memory()
        return wc

    def __str__(self) -> str:
        return "".join(
            (
                row("WR ID", self.wr_id),
                row("status", cqe_status_to_str(self.status)),
                row("opcode", cqe_opcode_to_str(self.opcode)),
                row("vendor error", self.vendor_err),
                row("byte length", self.byte_len),
                row("QP num", self.qp_num),
                row("source QP", self.src_qp),
                row("WC flags", cqe_flags_to_str(self.wc_flags)),
                row("pkey index", self.pkey_index),
                row("slid", self.slid),
                row("sl", self.sl),
                row("imm_data", self.imm_data),
                row("dlid path bits", self.dlid_path_bits),
            )
        )


calls.configure(
    check_u8=check_u8,
    check_u16=check_u16,
    check_u32=check_u32,
    check_u64=check_u64,
    statuses=_STATUSES,
    opcodes=_OPCODES,
    wc_class=WC,
    raise_errno=raise_errno,
)


class _Queue(Handle):
    """What ordinary and extended completion queues have in common."""

    __slots__ = ("_channel", "_context", "_cq_context", "_num_events")
    _GROUPS = ("qps", "srqs", "wqs")
    _CLOSING = "Failed to close CQ"

    _context: Context
    _num_events: int  # taken from the channel, not acknowledged yet
    _channel: CompChannel | None

    def _belong(self, context: Context, channel: CompChannel | None, cq_context: object) -> Any:
        """Note what the queue belongs to, and return the engine's channel, or NULL."""
        self._context = context
        self._channel = channel
        self._cq_context = cq_context
        self._num_events = 0
        return ffi.NULL if channel is None else channel._live()

    def _opened(self, handle: Any) -> None:
        self._open(handle)
        if self._channel is not None:
            self._channel._attach(self, "cqs")
        self._context._attach(self, "cqs")

    def req_notify(self, solicited_only: bool = False) -> None:
        """Ask for one event at the next completion, or the next solicited or failed one."""
        check(lib.ffv_req_notify_cq(self._live(), bool(solicited_only)), "Request notify CQ returned an error")

    def ack_events(self, num_events: int) -> None:
        """Acknowledge events that `CompChannel.get_cq_event()` has taken; never more than those."""
        count = min(check_u32(num_events), self._num_events)
        self._num_events -= count
        lib.ffv_ack_cq_events(self._live(), count)

    def resize(self, cqe: int) -> None:
        """Change the capacity to at least `cqe`; EINVAL if more completions than that wait."""
        check(lib.ffv_resize_cq(self._live(), check_int(cqe)), "Failed to resize CQ")

    @property
    def comp_channel(self) -> CompChannel | None:
        """The channel that events go to."""
        return self._channel

    @property
    def cqe(self) -> int:
        """The capacity granted, in entries."""
        return int(lib.ffv_cq_cqe(self._live()))

    @property
    def cq(self) -> int:
        """Address of the engine's object."""
        return int(ffi.cast("uintptr_t", self._live()))

    def _destroy(self, handle: Any) -> None:
        # Destroying waits for unacknowledged events; those that were taken through this object are its to acknowledge.
        count, self._num_events = self._num_events, 0
        if count:
            lib.ffv_ack_cq_events(handle, count)
        self._context._ack_events(handle)
        check(lib.ffv_destroy_cq(handle), self._CLOSING)


class CQ(_Queue):
    """A completion queue of at least `cqe` entries, whose events go to `channel`, if any."""

    __slots__ = ()

    def __init__(
        self,
        context: Context,
        cqe: int,
        cq_context: object = None,
        channel: CompChannel | None = None,
        comp_vector: int = 0,
    ) -> None:
        ctx = typed("context", context, Context)
        handle = self._belong(ctx, typed_or_none("channel", channel, CompChannel), cq_context)
        out = _new("struct ffv_cq **")
        rc = lib.ffv_create_cq(ctx._live(), check_int(cqe), ffi.NULL, handle, check_int(comp_vector), out)
        check(rc, "Failed to create a CQ")
        self._opened(out[0])

    def poll(self, num_entries: int = 1) -> tuple[int, list[WC]]:
        """Take up to `num_entries` completions off the queue, without waiting: (how many, [WC, ...])."""
        try:
            return _poll(self._handle, num_entries)
        except (TypeError, OverflowError):
            pass  # closed, or no number, or one of another type
        return _poll(self._live(), check_int(num_entries))

    def __str__(self) -> str:
        return "CQ\n" + row("Handle", lib.ffv_cq_handle(self._live())) + row("CQEs", self.cqe)


class CqInitAttrEx(PyverbsObject):
    """Attributes of an extended CQ."""

    __slots__ = (
        "_comp_channel",
        "_comp_mask",
        "_comp_vector",
        "_cq_context",
        "_cqe",
        "_flags",
        "_parent_domain",
        "_wc_flags",
    )

    def __init__(
        self,
        cqe: int = 100,
        channel: CompChannel | None = None,
        comp_vector: int = 0,
        wc_flags: int = 0,
        comp_mask: int = 0,
        flags: int = 0,
        parent_domain: "PD | None" = None,
    ) -> None:
        self.cqe = cqe
        self.comp_vector = comp_vector
        self.wc_flags = wc_flags
        self.comp_mask = comp_mask
        self.flags = flags
        self.comp_channel = channel
        self.parent_domain = parent_domain
        self._cq_context: object = None

    cqe = NumberField("cqe", check_u32, "How many entries to ask for.")
    comp_vector = NumberField("comp_vector", check_u32, "Which completion vector signals the events.")
    wc_flags = NumberField("wc_flags", check_u64, "Mask of ibv_create_cq_wc_flags: fields to be readable.")
    comp_mask = NumberField("comp_mask", check_u32, "Mask of ibv_cq_init_attr_mask: attributes that are set.")
    flags = NumberField("flags", check_u32, "Mask of ibv_create_cq_attr_flags.")

    def _set_cq_context(self, val: object) -> None:
        self._cq_context = val

    cq_context = property(None, _set_cq_context, None, "Write-only: an object that goes with the CQ.")

    @property
    def comp_channel(self) -> CompChannel | None:
        """The channel for events."""
        return self._comp_channel

    @comp_channel.setter
    def comp_channel(self, val: CompChannel | None) -> None:
        self._comp_channel = typed_or_none("val", val, CompChannel)

    @property
    def parent_domain(self) -> "PD | None":
        """The parent domain whose allocators serve the CQ."""
        return self._parent_domain

    @parent_domain.setter
    def parent_domain(self, val: "PD | None") -> None:
        from ffverbs.pd import PD  # noqa: PLC0415 - pd's imports lead here

        self._parent_domain = typed_or_none("val", val, PD)

    def __str__(self) -> str:
        return "".join(
            (
                row("Number of CQEs", self.cqe),
                row("WC flags", create_wc_flags_to_str(self.wc_flags)),
                row("comp mask", self.comp_mask),
                row("flags", self.flags),
            )
        )


class PollCqAttr(PyverbsObject):
    """Attributes of CQEX.start_poll()."""

    __slots__ = ("_comp_mask",)

    def __init__(self) -> None:
        self._comp_mask = 0

    comp_mask = NumberField("comp_mask", check_u32, "Attributes that are set; there are none yet.")


class WcTmInfo(PyverbsObject):
    """Tag-matching information of a completion."""

    __slots__ = ("_priv", "_tag")

    def __init__(self) -> None:
        self._tag = 0
        self._priv = 0

    tag = NumberField("tag", check_u64, "The tag that matched.")
    priv = NumberField("priv", check_u32, "The sender's private word.")


class CQEX(_Queue):
    """An extended completion queue: completions are taken one by one, their fields read from the queue itself.

    Which `read_*` calls besides opcode, vendor error and flags work says `init_attr.wc_flags`; the others, and flags
    of fields that completions do not have here, raise EOPNOTSUPP. `req_notify()` and `ack_events()` are as in CQ::

        if cq.start_poll(PollCqAttr()) == 0:
            while True:
                print(cq.wr_id, cq.status, cq.read_byte_len())
                if cq.poll_next() != 0:
                    break
            cq.end_poll()
    """

    __slots__ = ("_parent_domain", "_polled", "_wc_flags")
    _CLOSING = "Failed to destroy CQEX"

    def __init__(self, context: Context, init_attr: CqInitAttrEx) -> None:
        ctx = typed("context", context, Context)
        attr = typed("init_attr", init_attr, CqInitAttrEx)
        handle = self._belong(ctx, attr.comp_channel, attr._cq_context)
        self._parent_domain = attr.parent_domain
        self._wc_flags = attr.wc_flags
        c = _new("struct ffv_cq_init_attr_ex *")
        c.cqe, c.channel, c.comp_vector = attr.cqe, handle, attr.comp_vector
        c.wc_flags, c.comp_mask, c.flags = attr.wc_flags, attr.comp_mask, attr.flags
        c.parent_domain = ffi.NULL if attr.parent_domain is None else attr.parent_domain._live()
        out = _new("struct ffv_cq **")
        check(lib.ffv_create_cq_ex(ctx._live(), c, out), "Failed to create extended CQ")
        self._polled = lib.ffv_cq_polled(out[0])
        self._opened(out[0])
        if attr.parent_domain is not None:
            attr.parent_domain._attach(self, "cqs")

    def start_poll(self, attr: PollCqAttr) -> int:
        """Begin to poll and take the first completion: 0, or ENOENT if there is none (then nothing was begun).

        Another thread's start_poll waits until end_poll.
        """
        mask = typed("attr", attr, PollCqAttr).comp_mask
        arg = ffi.NULL if not mask else _new("struct ffv_poll_cq_attr *", (mask,))
        return -int(lib.ffv_start_poll(self._live(), arg))

    def poll_next(self) -> int:
        """Take the next completion: 0, or ENOENT if there is none now."""
        return -int(lib.ffv_next_poll(self._live()))

    def end_poll(self) -> None:
        """End what a successful start_poll has begun."""
        lib.ffv_end_poll(self._live())

    def _read(self, flag: int) -> Any:
        """Return the completion taken last; EOPNOTSUPP if the queue was made without the field that `flag` is for."""
        self._live()
        if not self._wc_flags & flag:
            name = ibv_create_cq_wc_flags(flag).name
            raise PyverbsRDMAError(f"Failed to read from CQEX: it was created without {name} in wc_flags", EOPNOTSUPP)
        return self._polled

    @property
    def status(self) -> ibv_wc_status:
        """How the work request ended."""
        self._live()
        return _STATUSES[self._polled.wc.status]

    @status.setter
    def status(self, val: int) -> None:
        self._live()
        self._polled.wc.status = check_u32(val)

    @property
    def wr_id(self) -> int:
        """The number that the work request carried."""
        self._live()
        return int(self._polled.wc.wr_id)

    @wr_id.setter
    def wr_id(self, val: int) -> None:
        self._live()
        self._polled.wc.wr_id = check_u64(val)

    def read_opcode(self) -> ibv_wc_opcode:
        """Return what kind of work request ended."""
        self._live()
        return _OPCODES[self._polled.wc.opcode]

    def read_vendor_err(self) -> int:
        """Return the device's own error code."""
        self._live()
        return int(self._polled.wc.vendor_err)

    def read_wc_flags(self) -> int:
        """Return the mask of ibv_wc_flags."""
        self._live()
        return int(self._polled.wc.wc_flags)

    def read_byte_len(self) -> int:
        """Return the bytes received or read (with the 40 bytes of GRH space on UD)."""
        return int(self._read(_WITH.IBV_WC_EX_WITH_BYTE_LEN).wc.byte_len)

    def read_imm_data(self) -> int:
        """Return immediate data (raw, network order), or the invalidated key (host order)."""
        return int(self._read(_WITH.IBV_WC_EX_WITH_IMM).wc.imm_data_be)

    def read_qp_num(self) -> int:
        """Return the number of the local QP."""
        return int(self._read(_WITH.IBV_WC_EX_WITH_QP_NUM).wc.qp_num)

    def read_src_qp(self) -> int:
        """Return the number of the sender's QP (UD)."""
        return int(self._read(_WITH.IBV_WC_EX_WITH_SRC_QP).wc.src_qp)

    def read_slid(self) -> int:
        """Return the sender's LID."""
        return int(self._read(_WITH.IBV_WC_EX_WITH_SLID).wc.slid)

    def read_sl(self) -> int:
        """Return the service level."""
        return int(self._read(_WITH.IBV_WC_EX_WITH_SL).wc.sl)

    def read_dlid_path_bits(self) -> int:
        """Return the low bits of the destination LID."""
        return int(self._read(_WITH.IBV_WC_EX_WITH_DLID_PATH_BITS).wc.dlid_path_bits)

    def read_timestamp(self) -> int:
        """Return when the completion was written, by the device's raw clock (`Context.query_rt_values_ex()`), in ns."""
        return int(self._read(_WITH.IBV_WC_EX_WITH_COMPLETION_TIMESTAMP).completion_ts)

    def read_cvlan(self) -> int:
        """Return the VLAN tag that was stripped."""
        return int(self._read(_WITH.IBV_WC_EX_WITH_CVLAN).cvlan)

    def read_flow_tag(self) -> int:
        """Return the tag of the flow that the packet belongs to, 0 = none."""
        return int(self._read(_WITH.IBV_WC_EX_WITH_FLOW_TAG).flow_tag)

    def read_tm_info(self) -> WcTmInfo:
        """Return what tag matching says of the message."""
        polled = self._read(_WITH.IBV_WC_EX_WITH_TM_INFO)
        info = WcTmInfo()
        info.tag, info.priv = polled.tm_tag, polled.tm_priv
        return info

    def read_completion_wallclock_ns(self) -> int:
        """Return when the completion was written, in nanoseconds since 1970."""
        return int(self._read(_WITH.IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK).completion_wallclock_ns)

    def __str__(self) -> str:
        return "Extended CQ:\n" + row("Handle", lib.ffv_cq_handle(self._live())) + row("CQEs", self.cqe)


_STATUS_TEXT: Final = (
    "success",
    "local length error",
    "local QP op error",
    "local EEC op error",
    "local protection error",
    "WR flush error",
    "memory window bind error",
    "bad response error",
    "local access error",
    "remote invalidate request error",
    "remote access error",
    "remote op error",
    "retry exceeded error",
    "RNR retry exceeded",
    "local RDD violation error",
    "remote invalidate RD request error",
    "remote abort error",
    "invalidate EECN error",
    "invalidate EEC state error",
    "WC fatal error",
    "response timeout error",
    "general error",
)

_OPCODE_TEXT: Final = {
    0: "Send",
    1: "RDMA write",
    2: "RDMA read",
    3: "Compare and swap",
    4: "Fetch and add",
    5: "Bind Memory window",
    6: "Local invalidate",
    7: "TSO",
    128: "Receive",
    129: "Receive RDMA with immediate",
    130: "Tag matching - add",
    131: "Tag matching - delete",
    132: "Tag matching - sync",
    133: "Tag matching - receive",
    134: "Tag matching - no tag",
    135: "Driver WR",
}

_FLAG_TEXT: Final[dict[int, str]] = {
    ibv_wc_flags.IBV_WC_GRH: "GRH",
    ibv_wc_flags.IBV_WC_WITH_IMM: "With immediate",
    ibv_wc_flags.IBV_WC_IP_CSUM_OK: "IP csum OK",
    ibv_wc_flags.IBV_WC_WITH_INV: "With invalidate",
    ibv_wc_flags.IBV_WC_TM_SYNC_REQ: "TM sync request",
    ibv_wc_flags.IBV_WC_TM_MATCH: "TM match",
    ibv_wc_flags.IBV_WC_TM_DATA_VALID: "TM data valid",
}

_CREATE_FLAG_TEXT: Final = names_of(ibv_create_cq_wc_flags)


def cqe_status_to_str(status: int) -> str:
    """Return what a completion status means."""
    return _STATUS_TEXT[status] if 0 <= status < len(_STATUS_TEXT) else "Unknown CQE status"


def cqe_opcode_to_str(opcode: int) -> str:
    """Return what a completion opcode means."""
    return _OPCODE_TEXT.get(opcode, f"Unknown CQE opcode {int(opcode)}")


def cqe_flags_to_str(flags: int) -> str:
    """Return the names of completion flags, each followed by a space."""
    return flags_to_str(flags, _FLAG_TEXT)


def create_wc_flags_to_str(flags: int) -> str:
    """Return the names of the flags that CqInitAttrEx.wc_flags takes, each followed by a space."""
    return flags_to_str(flags, _CREATE_FLAG_TEXT)
