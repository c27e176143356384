"""Addresses, events and parameters of the connection manager (the classes of pyverbs.cmid but CMID)."""

import weakref
from errno import EINTR
from typing import Any, Final

from ffverbs._cint import check_int, check_u8
from ffverbs._native import ffi, lib
from ffverbs._struct import EnumMembers, IntField, new, typed
from ffverbs.addr import AHAttr
from ffverbs.base import Handle, PyverbsObject, check
from ffverbs.librdmacm_enums import RAI_PASSIVE, rdma_cm_event_type
from ffverbs.pyverbs_error import PyverbsError

__all__ = ["AddrInfo", "CMEvent", "CMEventChannel", "ConnParam", "JoinMCAttrEx", "UDParam"]

_EVENT_TYPES: Final = EnumMembers(rdma_cm_event_type)


def encoded(name: str, value: object) -> Any:
    """Return `value`, a str or bytes, as a C string; None is NULL."""
    if value is None:
        return ffi.NULL
    if not isinstance(value, str | bytes):
        raise TypeError(f"Argument '{name}' has incorrect type (expected str, got {type(value).__name__})")
    return ffi.new("char[]", value.encode() if isinstance(value, str) else value)


class ConnParam(PyverbsObject):
    """Parameters of a connection; `data_len` is the room for private data (TCP 56 bytes and 196, UDP 180 and 136)."""

    __slots__ = ("_c", "_data")

    def __init__(
        self,
        resources: int = 1,
        depth: int = 1,
        flow_control: int = 0,
        retry: int = 5,
        rnr_retry: int = 5,
        srq: int = 0,
        qp_num: int = 0,
        data_len: int = 0,
    ) -> None:
        self._c = new(
            "cm_conn_param",
            responder_resources=resources,
            initiator_depth=depth,
            flow_control=flow_control,
            retry_count=retry,
            rnr_retry_count=rnr_retry,
            srq=srq,
            qp_num=qp_num,
        )
        self._c.private_data_len = check_u8(data_len)
        self._data = ffi.new("uint8_t[]", max(self._c.private_data_len, 1))
        if self._c.private_data_len:
            self._c.private_data = self._data

    qpn = IntField("qp_num", "Number of an external QP.")

    @property
    def private_data(self) -> bytes:
        """The bytes that go along, without the zeros that fill the room up."""
        return bytes(ffi.buffer(self._data, self._c.private_data_len)).rstrip(b"\0")

    def set_private_data(self, data: "bytes | bytearray | memoryview") -> None:
        """Copy as much of `data` as there is room for (`data_len` of the constructor)."""
        room = int(self._c.private_data_len)
        ffi.memmove(self._data, memoryview(data).tobytes()[:room].ljust(room, b"\0"), room)

    def __str__(self) -> str:
        c = self._c
        rows = (
            ("responder resources", c.responder_resources),
            ("initiator depth", c.initiator_depth),
            ("flow control", c.flow_control),
            ("retry count", c.retry_count),
            ("rnr retry count", c.rnr_retry_count),
            ("srq ", c.srq),
            ("qp number", c.qp_num),
        )
        return "Connection parameters: \n" + "".join(f"{label}: {value!s:<4}\n" for label, value in rows)


class AddrInfo(PyverbsObject):
    """Names and services resolved to addresses, as getaddrinfo does.

    With RAI_PASSIVE in `flags` the source is what to listen at; else the destination is what to connect to, from the
    source if one is given.
    """

    __slots__ = ("_c",)

    _c: Any

    def __init__(
        self,
        src: str | None = None,
        dst: str | None = None,
        src_service: str | None = None,
        dst_service: str | None = None,
        port_space: int = 0,
        flags: int = 0,
    ) -> None:
        self._c = None
        self.get_addrinfo(src, dst, src_service, dst_service, port_space, flags)

    def get_addrinfo(
        self,
        src: str | None = None,
        dst: str | None = None,
        src_service: str | None = None,
        dst_service: str | None = None,
        port_space: int = 0,
        flags: int = 0,
    ) -> None:
        """Resolve anew; the former addresses go."""
        source, source_service = encoded("src", src), encoded("src_service", src_service)
        target, target_service = encoded("dst", dst), encoded("dst_service", dst_service)
        hints = new("cm_addrinfo", port_space=check_int(port_space), flags=check_int(flags))
        failure = "Failed to get Address Info"
        out, passive = ffi.new("struct ffv_cm_addrinfo **"), bool(hints.flags & RAI_PASSIVE)
        if passive:
            check(lib.ffv_cm_getaddrinfo(source, source_service, hints, out), failure)
        else:
            local = ffi.new("struct ffv_cm_addrinfo **")
            if src is not None:
                hints.flags |= RAI_PASSIVE
                check(lib.ffv_cm_getaddrinfo(source, source_service, hints, local), failure)
                hints.flags &= ~RAI_PASSIVE
                hints.src_addr, hints.src_len = local[0].src_addr, local[0].src_len
            try:
                check(lib.ffv_cm_getaddrinfo(target, target_service, hints, out), failure)
            finally:
                lib.ffv_cm_freeaddrinfo(local[0])
        self._take(out[0])

    @classmethod
    def _of(cls, struct: Any) -> "AddrInfo":
        self = cls.__new__(cls)
        self._c = None
        self._take(struct)
        return self

    def _take(self, struct: Any) -> None:
        self.close()
        self._c = struct

    def _live(self) -> Any:
        if self._c is None:
            raise PyverbsError("AddrInfo is closed: create a new one instead of using it after close()")
        return self._c

    def close(self) -> None:
        """Free the addresses; a second call does nothing."""
        struct, self._c = self._c, None
        if struct is not None:
            lib.ffv_cm_freeaddrinfo(struct)

    def __del__(self) -> None:
        if getattr(self, "_c", None) is not None:
            self.close()


class JoinMCAttrEx(PyverbsObject):
    """Attributes of joining a multicast group: its address (the source of `addr`) and flags."""

    __slots__ = ("_addr", "_c")

    def __init__(self, addr: AddrInfo, comp_mask: int = 0, join_flags: int = 0) -> None:
        self._addr = typed("addr", addr, AddrInfo)
        self._c = new("cm_join_attr", comp_mask=comp_mask, join_flags=join_flags)
        self._c.addr = self._addr._live().src_addr

    comp_mask = IntField("comp_mask", "Which attributes are valid: a mask of rdma_cm_join_mc_attr_mask.")
    join_flags = IntField("join_flags", "An rdma_cm_mc_join_flags.")


class CMEventChannel(Handle):
    """Where events of asynchronous ids arrive. Closing it closes its ids."""

    __slots__ = ("_events",)
    _GROUPS = ("ids",)

    def __init__(self) -> None:
        self._events: weakref.WeakSet[CMEvent] = weakref.WeakSet()
        out = ffi.new("struct ffv_cm_channel **")
        check(lib.ffv_cm_create_channel(out), "Failed to create CMEventChannel")
        self._open(out[0])

    @property
    def fd(self) -> int:
        """A descriptor that is readable while an event waits: for select, poll, epoll and asyncio."""
        return int(self._live().fd)

    def _ack_events(self, cm_id: Any) -> None:
        """Acknowledge the events of an id that is to be destroyed, which would wait for that."""
        for event in list(self._events):
            if event._c is not None and cm_id in (event._c.id, event._c.listen_id):
                event.close()

    def _destroy(self, handle: Any) -> None:
        for event in list(self._events):
            event.close()
        check(lib.ffv_cm_destroy_channel(handle), "Failed to destroy CMEventChannel")


class CMEvent(PyverbsObject):
    """The next event of a channel; making it waits for one, while signal handlers run. `ack_cm_event()` it."""

    __slots__ = ("_c", "_channel", "_private_data", "_taken", "_type", "_ud")

    _c: Any  # the engine's event until it is acknowledged

    def __init__(self, channel: CMEventChannel) -> None:
        self._c = None
        self._channel = typed("channel", channel, CMEventChannel)
        handle, out = channel._live(), ffi.new("struct ffv_cm_event **")
        while (rc := lib.ffv_cm_get_event(handle, out)) == -EINTR:
            pass
        check(rc, "Failed to create CMEvent")
        event = self._c = out[0]
        self._type = int(event.event)
        self._taken = False
        conn = event.param.conn
        is_data = self._type != rdma_cm_event_type.RDMA_CM_EVENT_MULTICAST_JOIN and conn.private_data != ffi.NULL
        self._private_data = bytes(ffi.buffer(conn.private_data, conn.private_data_len)) if is_data else b""
        ud = event.param.ud
        self._ud = (AHAttr._of(ud.ah_attr), int(ud.qp_num), int(ud.qkey))
        channel._events.add(self)

    @property
    def event_type(self) -> rdma_cm_event_type:
        """What happened."""
        return _EVENT_TYPES[self._type]

    @property
    def private_data(self) -> bytes:
        """What the peer sent along, filled up with zeros to what such a message has room for; else empty."""
        return self._private_data

    def event_str(self) -> str:
        """Return the name of what happened."""
        name: bytes = ffi.string(lib.ffv_cm_event_str(self._type))
        return name.decode()

    def _live(self) -> Any:
        if self._c is None:
            raise PyverbsError("CMEvent was acknowledged: use it before ack_cm_event()")
        return self._c

    def ack_cm_event(self) -> None:
        """Acknowledge the event. A connect request that no CMID was made from is rejected with that."""
        event, self._c = self._live(), None
        is_orphan = self._type == rdma_cm_event_type.RDMA_CM_EVENT_CONNECT_REQUEST and not self._taken
        orphan = event.id if is_orphan else ffi.NULL
        check(lib.ffv_cm_ack_event(event), f"Failed to Acknowledge Event - {self._type}")
        self._channel._events.discard(self)
        if is_orphan:
            lib.ffv_cm_destroy_id(orphan)

    def close(self) -> None:
        """Acknowledge the event if it was not."""
        if self._c is not None:
            self.ack_cm_event()

    def __del__(self) -> None:
        if getattr(self, "_c", None) is not None:
            self.close()


class UDParam(PyverbsObject):
    """What an event tells about a UD peer, or about a multicast group: its QP number, Q_Key and address."""

    __slots__ = ("_ah_attr", "_qkey", "_qp_num")

    def __init__(self, cm_event: CMEvent) -> None:
        self._ah_attr, self._qp_num, self._qkey = typed("cm_event", cm_event, CMEvent)._ud

    @property
    def qp_num(self) -> int:
        """Number of the peer's QP."""
        return self._qp_num

    @property
    def qkey(self) -> int:
        """The peer's Q_Key."""
        return self._qkey

    @property
    def ah_attr(self) -> AHAttr:
        """The peer's address."""
        return AHAttr._of(self._ah_attr._c[0])
