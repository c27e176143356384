"""GIDs, global routing headers, address attributes and address handles (pyverbs.addr)."""

from typing import TYPE_CHECKING, Any, Final

from ffverbs._cint import check_u8, check_u32, check_u64
from ffverbs._native import ffi, lib
from ffverbs._struct import IntField, new, row, typed, typed_or_none
from ffverbs.base import Handle, PyverbsObject, check
from ffverbs.pyverbs_error import PyverbsUserError
from ffverbs.utils import gid_str_to_array

if TYPE_CHECKING:
    from ffverbs.cq import WC
    from ffverbs.pd import PD

__all__ = ["AH", "GID", "GRH", "AHAttr", "GlobalRoute"]

_GID_BYTES: Final = 16
_ZERO_GID: Final = bytes(_GID_BYTES)


def gid_text(raw: bytes) -> str:
    """Return the 16 bytes of a GID (network order) as eight groups of four lower-case hex digits."""
    return raw.hex(":", -2)


def gid_bytes(text: str) -> bytes:
    """Return the 16 bytes of a GID given as eight groups of four hex digits; PyverbsUserError for another form."""
    digits = "".join(gid_str_to_array(text))
    raw = int(digits, 16).to_bytes(len(digits) // 2, "big")
    if len(raw) != _GID_BYTES:
        raise PyverbsUserError(f"Invalid GID value ({text}): give eight groups of four hex digits, joined by colons")
    return raw


def _raw_of(gid: "GID | None") -> bytes:
    return _ZERO_GID if gid is None else gid._raw()


class GID(PyverbsObject):
    """A global identifier: 16 bytes in network order, by default all zero."""

    __slots__ = ("_c",)

    def __init__(self, val: str | None = None) -> None:
        self._c = ffi.new("struct ffv_gid *")
        if val is not None:
            self._set_gid(val)

    def _set_gid(self, val: str) -> None:
        ffi.buffer(self._c)[:] = gid_bytes(val)

    def _raw(self) -> bytes:
        return bytes(ffi.buffer(self._c))

    @property
    def gid(self) -> str:
        """The GID's text, eight groups of four lower-case hex digits; the setter takes this form only."""
        return gid_text(self._raw())

    @gid.setter
    def gid(self, val: str) -> None:
        self._set_gid(val)

    def __str__(self) -> str:
        return self.gid


class GRH(PyverbsObject):
    """A global routing header, as it stands in the first 40 bytes of a UD receive buffer.

    `version_tclass_flow` and `paylen` are raw words in network order.
    """

    __slots__ = ("_c",)

    def __init__(
        self,
        sgid: GID | None = None,
        dgid: GID | None = None,
        version_tclass_flow: int = 0,
        paylen: int = 0,
        next_hdr: int = 0,
        hop_limit: int = 1,
    ) -> None:
        self._c = new(
            "grh",
            version_tclass_flow_be=version_tclass_flow,
            paylen_be=paylen,
            next_hdr=next_hdr,
            hop_limit=hop_limit,
        )
        ffi.buffer(self._c.sgid.raw)[:] = _raw_of(typed_or_none("sgid", sgid, GID))
        ffi.buffer(self._c.dgid.raw)[:] = _raw_of(typed_or_none("dgid", dgid, GID))

    version_tclass_flow = IntField("version_tclass_flow_be", "IP version, traffic class and flow label (raw word).")
    paylen = IntField("paylen_be", "Length in bytes of what follows the header (raw word).")
    next_hdr = IntField("next_hdr", "Kind of the next header.")
    hop_limit = IntField("hop_limit", "How many routers the packet may pass.")

    @property
    def dgid(self) -> str:
        """The destination's GID as text."""
        return gid_text(bytes(ffi.buffer(self._c.dgid.raw)))

    @dgid.setter
    def dgid(self, val: str) -> None:
        ffi.buffer(self._c.dgid.raw)[:] = gid_bytes(val)

    @property
    def sgid(self) -> str:
        """The sender's GID as text."""
        return gid_text(bytes(ffi.buffer(self._c.sgid.raw)))

    @sgid.setter
    def sgid(self, val: str) -> None:
        ffi.buffer(self._c.sgid.raw)[:] = gid_bytes(val)

    def __str__(self) -> str:
        return "".join(
            (
                row("DGID", self.dgid),
                row("SGID", self.sgid),
                row("version tclass flow", self.version_tclass_flow),
                row("paylen", self.paylen),
                row("next header", self.next_hdr),
                row("hop limit", self.hop_limit),
            )
        )


def _route_dgid(route: Any) -> Any:
    """Return the buffer of the 16 bytes of the destination GID of a `struct ffv_global_route`."""
    return ffi.buffer(ffi.addressof(route, "dgid_subnet_prefix_be"), _GID_BYTES)


class GlobalRoute(PyverbsObject):
    """The part of an address that only routed and RoCE traffic needs: destination GID and header fields."""

    __slots__ = ("_c",)

    def __init__(
        self,
        dgid: GID | None = None,
        flow_label: int = 0,
        sgid_index: int = 0,
        hop_limit: int = 1,
        traffic_class: int = 0,
    ) -> None:
        raw = _raw_of(typed_or_none("dgid", dgid, GID))
        self._c = new(
            "global_route",
            flow_label=flow_label,
            sgid_index=sgid_index,
            hop_limit=hop_limit,
            traffic_class=traffic_class,
        )
        _route_dgid(self._c[0])[:] = raw

    flow_label = IntField("flow_label", "Label of the packet's flow.")
    sgid_index = IntField("sgid_index", "Index of the sender's GID in the port's table.")
    hop_limit = IntField("hop_limit", "How many routers the packet may pass.")
    traffic_class = IntField("traffic_class", "Traffic class of the packet.")

    @property
    def dgid(self) -> str:
        """The destination's GID as text."""
        return gid_text(bytes(_route_dgid(self._c[0])))

    @dgid.setter
    def dgid(self, val: str) -> None:
        _route_dgid(self._c[0])[:] = gid_bytes(val)

    def __str__(self) -> str:
        return "".join(
            (
                row("DGID", self.dgid),
                row("flow label", self.flow_label),
                row("sgid index", self.sgid_index),
                row("hop limit", self.hop_limit),
                row("traffic class", self.traffic_class),
            )
        )


class AHAttr(PyverbsObject):
    """The address of a peer. On this (Ethernet) device it must be global, that is, have a `GlobalRoute`."""

    __slots__ = ("_c",)

    def __init__(
        self,
        dlid: int = 0,
        sl: int = 0,
        src_path_bits: int = 0,
        static_rate: int = 0,
        is_global: int = 0,
        port_num: int = 1,
        gr: GlobalRoute | None = None,
    ) -> None:
        route = typed_or_none("gr", gr, GlobalRoute)
        self._c = new(
            "ah_attr",
            dlid=dlid,
            sl=sl,
            src_path_bits=src_path_bits,
            static_rate=static_rate,
            is_global=is_global,
            port_num=port_num,
        )
        if route is not None:
            self._c.grh = route._c[0]
        elif self._c.is_global:
            raise PyverbsUserError("Global AH Attr is created but gr parameter is None")

    @classmethod
    def _of(cls, struct: Any) -> "AHAttr":
        """Return a copy of the engine's struct."""
        self = cls()
        self._c[0] = struct
        return self

    port_num = IntField("port_num", "The local port.")
    sl = IntField("sl", "Service level.")
    src_path_bits = IntField("src_path_bits", "Low bits of the source LID.")
    dlid = IntField("dlid", "The destination's LID; unused on Ethernet.")
    static_rate = IntField("static_rate", "Limit of the rate, as an ibv_rate value; 0 is none.")
    is_global = IntField("is_global", "Whether the address has a global route.")

    def _routed(self, field: str) -> int | None:
        return int(getattr(self._c.grh, field)) if self._c.is_global else None

    @property
    def dgid(self) -> str | None:
        """The destination's GID as text; None without a global route."""
        return gid_text(bytes(_route_dgid(self._c.grh))) if self._c.is_global else None

    @dgid.setter
    def dgid(self, val: str) -> None:
        _route_dgid(self._c.grh)[:] = gid_bytes(val)

    @property
    def flow_label(self) -> int | None:
        """The flow label; None without a global route."""
        return self._routed("flow_label")

    @flow_label.setter
    def flow_label(self, val: int) -> None:
        self._c.grh.flow_label = check_u32(val)

    @property
    def sgid_index(self) -> int | None:
        """Index of the sender's GID; None without a global route."""
        return self._routed("sgid_index")

    @sgid_index.setter
    def sgid_index(self, val: int) -> None:
        self._c.grh.sgid_index = check_u8(val)

    @property
    def hop_limit(self) -> int | None:
        """The hop limit; None without a global route."""
        return self._routed("hop_limit")

    @hop_limit.setter
    def hop_limit(self, val: int) -> None:
        self._c.grh.hop_limit = check_u8(val)

    @property
    def traffic_class(self) -> int | None:
        """The traffic class; None without a global route."""
        return self._routed("traffic_class")

    @traffic_class.setter
    def traffic_class(self, val: int) -> None:
        self._c.grh.traffic_class = check_u8(val)

    def _local_rows(self) -> str:
        return "".join(
            (
                row("port num", self.port_num, indent=2),
                row("sl", self.sl, indent=2),
                row("source path bits", self.src_path_bits, indent=2),
                row("dlid", self.dlid, indent=2),
            )
        )

    def _global_rows(self, indent: int) -> str:
        rows = [row("static rate", self.static_rate, indent=2), row("is global", self.is_global, indent=2)]
        if self.is_global:
            rows += [
                row("dgid", self.dgid, indent=indent),
                row("flow label", self.flow_label, indent=indent),
                row("sgid index", self.sgid_index, indent=indent),
                row("hop limit", self.hop_limit, indent=indent),
                row("traffic_class", self.traffic_class, indent=indent),
            ]
        return "".join(rows)

    def __str__(self) -> str:
        return self._local_rows() + self._global_rows(2)


class AH(Handle):
    """An address handle: where UD work requests go.

    Made from `attr` (AHAttr), or from a UD completion `wc` with the `grh` that stands before the received data (or the
    address where it stands) and the `port_num` it came in at: then it leads back to the sender.
    """

    __slots__ = ()

    def __init__(self, pd: "PD", **kwargs: Any) -> None:
        from ffverbs.pd import PD  # noqa: PLC0415 - pd imports device, and device this module

        pd = typed("pd", pd, PD)
        if "attr" in kwargs:
            attr = typed("attr", kwargs["attr"], AHAttr)._c
        else:
            attr = self._attr_from_wc(pd, kwargs["wc"], kwargs.get("grh"), kwargs.get("port_num", 1))
        out = ffi.new("struct ffv_ah **")
        check(lib.ffv_create_ah(pd._live(), attr, out), "Failed to create AH")
        self._open(out[0])
        pd._attach(self, "ahs")

    @staticmethod
    def _attr_from_wc(pd: "PD", wc: "WC", grh: GRH | int | None, port_num: int) -> Any:
        from ffverbs.cq import WC  # noqa: PLC0415 - cq imports device, and device this module

        if isinstance(grh, int):
            raw_header = ffi.cast("struct ffv_grh *", check_u64(grh))
        else:
            header = typed_or_none("grh", grh, GRH)
            raw_header = ffi.NULL if header is None else header._c
        completion, attr = typed("wc", wc, WC)._struct(), new("ah_attr")
        rc = lib.ffv_init_ah_from_wc(pd._context._live(), check_u8(port_num), completion, raw_header, attr)
        check(rc, "Failed to create AH")
        return attr

    def _destroy(self, handle: Any) -> None:
        check(lib.ffv_destroy_ah(handle), "Failed to destroy AH")
