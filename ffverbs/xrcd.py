"""XRC domains (pyverbs.xrcd)."""

from typing import Any

from ffverbs._cint import check_int, check_u32
from ffverbs._native import ffi, lib
from ffverbs._struct import IntField, new, typed
from ffverbs.base import Handle, PyverbsObject, check
from ffverbs.device import Context

__all__ = ["XRCD", "XRCDInitAttr"]


class XRCDInitAttr(PyverbsObject):
    """Attributes of an XRC domain: the file that processes share it by, and how it is opened."""

    __slots__ = ("_c",)

    def __init__(self, comp_mask: int, oflags: int, fd: int) -> None:
        mask, flags, descriptor = check_u32(comp_mask), check_int(oflags), check_int(fd)
        self._c = new("xrcd_init_attr", comp_mask=mask, oflags=flags, fd=descriptor)

    comp_mask = IntField("comp_mask", "Mask of ibv_xrcd_init_attr_mask: attributes that are set; both must be.")
    oflags = IntField("oflags", "O_CREAT: make the domain if nobody has it open; with O_EXCL: fail if somebody has.")
    fd = IntField("fd", "Descriptor of the file whose inode names the domain; -1 for one that nobody else shares.")


class XRCD(Handle):
    """An XRC domain: XRC_RECV QPs and XRC SRQs of one domain work together, also those of different processes."""

    __slots__ = ()
    _GROUPS = ("qps", "srqs")

    def __init__(self, context: Context, init_attr: XRCDInitAttr) -> None:
        ctx = typed("context", context, Context)._live()
        attr = typed("init_attr", init_attr, XRCDInitAttr)._c
        out = ffi.new("struct ffv_xrcd **")
        check(lib.ffv_open_xrcd(ctx, attr, out), "Failed to allocate XRC domain")
        self._open(out[0])
        context._attach(self, "xrcds")

    def _destroy(self, handle: Any) -> None:
        check(lib.ffv_close_xrcd(handle), "Failed to dealloc XRC domain")
