"""Receive work queues and receive-side scaling (pyverbs.wq)."""

from typing import Any

from ffverbs._cint import check_u8, check_u32, check_u64
from ffverbs._native import ffi, lib
from ffverbs._post import failed
from ffverbs._struct import NumberEnum, NumberField, new, typed, typed_or_none
from ffverbs.base import Handle, PyverbsObject, check
from ffverbs.cq import CQ, CQEX
from ffverbs.device import Context
from ffverbs.libibverbs_enums import IBV_WQT_RQ, ibv_wq_state, ibv_wq_type
from ffverbs.pd import PD
from ffverbs.pyverbs_error import PyverbsError, PyverbsUserError
from ffverbs.qp import QP
from ffverbs.wr import RecvWR

__all__ = ["WQ", "RwqIndTable", "RwqIndTableInitAttr", "RxHashConf", "WQAttr", "WQInitAttr"]


def _add_child(parent: Handle, obj: object, cls: type[Handle], group: str) -> None:
    if not isinstance(obj, cls):
        raise PyverbsError("Unrecognized object type")
    if parent not in obj._parents:
        parent._attach(obj, group)


class WQInitAttr(PyverbsObject):
    """Attributes of a work queue."""

    __slots__ = ("_comp_mask", "_cq", "_create_flags", "_max_sge", "_max_wr", "_pd", "_wq_context", "_wq_type")

    def __init__(
        self,
        wq_context: object = None,
        wq_pd: PD | None = None,
        wq_cq: CQ | CQEX | None = None,
        wq_type: int = IBV_WQT_RQ,
        max_wr: int = 100,
        max_sge: int = 1,
        comp_mask: int = 0,
        create_flags: int = 0,
    ) -> None:
        self._wq_context = wq_context
        self.pd = wq_pd
        self.cq = wq_cq
        self.wq_type = wq_type
        self._max_wr = check_u32(max_wr)
        self._max_sge = check_u32(max_sge)
        self._comp_mask = check_u32(comp_mask)
        self._create_flags = check_u32(create_flags)

    wq_type = NumberEnum("wq_type", ibv_wq_type, "Receive queues are the only type.")

    @property
    def pd(self) -> PD | None:
        """The protection domain."""
        return self._pd

    @pd.setter
    def pd(self, val: PD | None) -> None:
        self._pd = typed_or_none("val", val, PD)

    @property
    def cq(self) -> CQ | CQEX | None:
        """Where the queue's requests complete."""
        return self._cq

    @cq.setter
    def cq(self, val: CQ | CQEX | None) -> None:
        self._cq = val if isinstance(val, CQEX) else typed_or_none("val", val, CQ)


class WQAttr(PyverbsObject):
    """State of a work queue."""

    __slots__ = ("_attr_mask", "_curr_wq_state", "_flags", "_flags_mask", "_wq_state")

    def __init__(
        self, attr_mask: int = 0, wq_state: int = 0, curr_wq_state: int = 0, flags: int = 0, flags_mask: int = 0
    ) -> None:
        self.attr_mask = attr_mask
        self.wq_state = wq_state
        self.curr_wq_state = curr_wq_state
        self.flags = flags
        self.flags_mask = flags_mask

    wq_state = NumberEnum("wq_state", ibv_wq_state, "The state to go to.")
    curr_wq_state = NumberEnum("curr_wq_state", ibv_wq_state, "The state that the queue is believed to be in.")
    attr_mask = NumberField("attr_mask", check_u32, "Mask of ibv_wq_attr_mask: attributes that are set.")
    flags = NumberField("flags", check_u32, "Mask of ibv_wq_flags.")
    flags_mask = NumberField("flags_mask", check_u32, "Which flags change.")


class WQ(Handle):
    """A receive work queue; it begins in RESET, and receives when modify() brought it to RDY."""

    __slots__ = ("_context",)
    _GROUPS = ("tables",)

    def __init__(self, ctx: Context, attr: WQInitAttr) -> None:
        context, wanted = typed("ctx", ctx, Context), typed("attr", attr, WQInitAttr)
        pd: Any = wanted.pd
        cq: Any = wanted.cq
        fields = {
            "wq_type": int(wanted.wq_type),
            "max_wr": wanted._max_wr,
            "max_sge": wanted._max_sge,
            "comp_mask": wanted._comp_mask,
            "create_flags": wanted._create_flags,
            "pd": ffi.NULL if pd is None else pd._live(),
            "cq": ffi.NULL if cq is None else cq._live(),
        }
        out = ffi.new("struct ffv_wq **")
        check(lib.ffv_create_wq(context._live(), new("wq_init_attr", **fields), out), "Failed to create WQ")
        self._open(out[0])
        self._context = context
        context._attach(self, "wqs")
        for parent in (pd, cq):
            if parent is not None:
                parent._attach(self, "wqs")

    def modify(self, wq_attr: WQAttr) -> None:
        """Change what wq_attr.attr_mask names."""
        attr = typed("wq_attr", wq_attr, WQAttr)
        names = ("attr_mask", "wq_state", "curr_wq_state", "flags", "flags_mask")
        wanted = new("wq_attr", **{name: int(getattr(attr, name)) for name in names})
        check(lib.ffv_modify_wq(self._live(), wanted), "Failed to modify WQ")

    def post_recv(self, wr: RecvWR, bad_wr: RecvWR | None = None) -> None:
        """Post a chain of receive requests; on an error `bad_wr` becomes a copy of the first that was not posted."""
        first = typed("wr", wr, RecvWR)
        if bad_wr is not None:
            typed("bad_wr", bad_wr, RecvWR)
        cell = ffi.new("struct ffv_recv_wr **")
        rc = lib.ffv_post_wq_recv(self._live(), first._c, cell)
        if rc:
            failed(rc, "Failed to post recv", cell, first, bad_wr)

    def add_ref(self, obj: object) -> None:
        """Close the indirection table `obj` before this queue."""
        _add_child(self, obj, RwqIndTable, "tables")

    @property
    def wqn(self) -> int:
        """Its number: qp_num of its completions."""
        return int(lib.ffv_wq_num(self._live()))

    def _destroy(self, handle: Any) -> None:
        self._context._ack_events(handle)
        check(lib.ffv_destroy_wq(handle), "Failed to destroy WQ")


class RwqIndTableInitAttr(PyverbsObject):
    """Attributes of an indirection table: 2^log_ind_tbl_size work queues."""

    __slots__ = ("_comp_mask", "_log_ind_tbl_size", "_wqs")

    def __init__(self, log_ind_tbl_size: int = 5, wqs_list: list[WQ] | None = None, comp_mask: int = 0) -> None:
        self._log_ind_tbl_size = check_u32(log_ind_tbl_size)
        self._wqs = [typed("wqs_list", wq, WQ) for wq in wqs_list or ()]
        self._comp_mask = check_u32(comp_mask)
        if self._log_ind_tbl_size > 31 or len(self._wqs) != 1 << self._log_ind_tbl_size:
            raise PyverbsUserError(
                f"An indirection table of 2^{log_ind_tbl_size} entries needs as many WQs, not {len(self._wqs)}"
            )


class RwqIndTable(Handle):
    """An indirection table of work queues."""

    __slots__ = ("_wqs",)
    _GROUPS = ("qps",)

    def __init__(self, ctx: Context, attr: RwqIndTableInitAttr) -> None:
        context, wanted = typed("ctx", ctx, Context), typed("attr", attr, RwqIndTableInitAttr)
        entries = ffi.new("struct ffv_wq *[]", [wq._live() for wq in wanted._wqs])
        fields = {
            "log_ind_tbl_size": wanted._log_ind_tbl_size,
            "ind_tbl": entries,
            "comp_mask": wanted._comp_mask,
        }
        out = ffi.new("struct ffv_rwq_ind_table **")
        init = new("rwq_ind_table_init_attr", **fields)
        check(lib.ffv_create_rwq_ind_table(context._live(), init, out), "Failed to create RWQ indirection table")
        self._open(out[0])
        self._wqs = list(wanted._wqs)
        context._attach(self, "rwq_ind_tbls")
        for wq in {id(wq): wq for wq in self._wqs}.values():
            wq._attach(self, "tables")

    def add_ref(self, obj: object) -> None:
        """Close the queue pair `obj` before this table."""
        _add_child(self, obj, QP, "qps")

    @property
    def wqs(self) -> list[WQ]:
        """Its work queues, entry by entry."""
        return self._wqs

    def _destroy(self, handle: Any) -> None:
        check(lib.ffv_destroy_rwq_ind_table(handle), "Failed to destroy RWQ indirection table")


class RxHashConf(PyverbsObject):
    """How packets are spread over the queues of an indirection table."""

    __slots__ = ("_packed_key", "_rx_hash_fields_mask", "_rx_hash_function", "_rx_hash_key", "_rx_hash_key_len")

    def __init__(
        self,
        rx_hash_function: int = 0,
        rx_hash_key_len: int = 0,
        rx_hash_key: Any = None,
        rx_hash_fields_mask: int = 0,
    ) -> None:
        self._rx_hash_key = list(rx_hash_key or ())
        self.rx_hash_function = rx_hash_function
        self.rx_hash_key_len = rx_hash_key_len
        self.rx_hash_fields_mask = rx_hash_fields_mask

    rx_hash_function = NumberField("rx_hash_function", check_u8, "Mask of ibv_rx_hash_function_flags.")
    rx_hash_fields_mask = NumberField("rx_hash_fields_mask", check_u64, "Mask of ibv_rx_hash_fields.")

    @property
    def rx_hash_key_len(self) -> int:
        """Bytes of the key."""
        return self._rx_hash_key_len

    @rx_hash_key_len.setter
    def rx_hash_key_len(self, val: int) -> None:
        length = check_u8(val)
        if self._rx_hash_key and length != len(self._rx_hash_key):
            raise PyverbsUserError(f"The hash key has {len(self._rx_hash_key)} bytes, not {length}")
        self._rx_hash_key_len = length

    @property
    def rx_hash_key(self) -> list[int]:
        """The key, a list of bytes."""
        return list(self._rx_hash_key)

    @rx_hash_key.setter
    def rx_hash_key(self, val: list[int]) -> None:
        self._rx_hash_key = [check_u8(byte) for byte in val]
        self._rx_hash_key_len = len(self._rx_hash_key)

    def _struct(self) -> Any:
        """What the engine takes; the key lives as long as this object."""
        self._packed_key = ffi.new("uint8_t[]", self._rx_hash_key or [0])
        return new(
            "rx_hash_conf",
            rx_hash_function=self.rx_hash_function,
            rx_hash_key_len=self.rx_hash_key_len,
            rx_hash_key=self._packed_key if self._rx_hash_key else ffi.NULL,
            rx_hash_fields_mask=self.rx_hash_fields_mask,
        )
