"""Completion counters (pyverbs.comp_cntr)."""

from typing import Any

from ffverbs._cint import check_u32, check_u64
from ffverbs._native import ffi, lib
from ffverbs._struct import NumberField, new, typed
from ffverbs.base import Handle, PyverbsObject, check
from ffverbs.device import Context

__all__ = ["CompCntr", "CompCntrInitAttr"]


class CompCntrInitAttr(PyverbsObject):
    """Attributes of a completion counter; there are none that are not 0 (EINVAL)."""

    __slots__ = ("_cntr_type", "_comp_mask", "_flags")

    def __init__(self, comp_mask: int = 0, cntr_type: int = 0, flags: int = 0) -> None:
        self._comp_mask = check_u32(comp_mask)
        self._cntr_type = check_u32(cntr_type)
        self._flags = check_u32(flags)

    comp_mask = NumberField("comp_mask", check_u32, "Attributes that are set.", readonly=True)
    cntr_type = NumberField("cntr_type", check_u32, "What is counted.", readonly=True)
    flags = NumberField("flags", check_u32, "Flags of the counter.", readonly=True)


class CompCntr(Handle):
    """Two numbers, of 64 bits: completions that succeeded and others, of operations of QPs (`QP.attach_comp_cntr()`).

    A completion is counted before it can be polled, whether it is signaled or not. While a QP counts with it, closing
    it closes the QP first.
    """

    __slots__ = ()
    _GROUPS = ("qps",)

    def __init__(self, ctx: Context, attr: CompCntrInitAttr) -> None:
        context, attr = typed("ctx", ctx, Context), typed("attr", attr, CompCntrInitAttr)
        request = new("comp_cntr_init_attr", comp_mask=attr.comp_mask, type=attr.cntr_type, flags=attr.flags)
        out = ffi.new("struct ffv_comp_cntr **")
        check(lib.ffv_create_comp_cntr(context._live(), request, out), "Failed to create completion counter")
        self._open(out[0])
        context._attach(self, "comp_cntrs")

    def set(self, value: int) -> None:
        """Set the number of successful completions."""
        check(lib.ffv_set_comp_cntr(self._live(), check_u64(value)), "Failed to set completion counter")

    def set_err(self, value: int) -> None:
        """Set the number of completions with errors."""
        check(lib.ffv_set_err_comp_cntr(self._live(), check_u64(value)), "Failed to set error counter")

    def inc(self, amount: int) -> None:
        """Add to the number of successful completions."""
        check(lib.ffv_inc_comp_cntr(self._live(), check_u64(amount)), "Failed to increment completion counter")

    def inc_err(self, amount: int) -> None:
        """Add to the number of completions with errors."""
        check(lib.ffv_inc_err_comp_cntr(self._live(), check_u64(amount)), "Failed to increment error counter")

    def read(self) -> int:
        """Return the number of successful completions."""
        value = ffi.new("uint64_t *")
        check(lib.ffv_read_comp_cntr(self._live(), value), "Failed to read completion counter")
        return int(value[0])

    def read_err(self) -> int:
        """Return the number of completions with errors."""
        value = ffi.new("uint64_t *")
        check(lib.ffv_read_err_comp_cntr(self._live(), value), "Failed to read error counter")
        return int(value[0])

    def _destroy(self, handle: Any) -> None:
        check(lib.ffv_destroy_comp_cntr(handle), "Failed to destroy completion counter")
