"""Devices and contexts, and what can be asked of them (pyverbs.device)."""

import weakref
from errno import EINTR, EINVAL, ENODEV, EOPNOTSUPP
from typing import Any, Final

from ffverbs._cint import check_int, check_u32, check_u64
from ffverbs._device_attr import (
    CompCntrCaps,
    CQModerationCaps,
    DeviceAttr,
    DeviceAttrEx,
    GIDEntry,
    ODPCaps,
    PacketPacingCaps,
    PCIAtomicCaps,
    PortAttr,
    RSSCaps,
    TMCaps,
    TSOCaps,
)
from ffverbs._device_text import (
    guid_format,
    guid_to_hex,
    phys_state_to_str,
    port_state_to_str,
    speed_to_str,
    translate_device_caps,
    translate_event_type,
    translate_gid_type,
    translate_link_layer,
    translate_mtu,
    translate_node_type,
    translate_port_cap_flags,
    translate_port_cap_flags2,
    translate_transport_type,
    width_to_str,
)
from ffverbs._native import ffi, lib
from ffverbs._struct import EnumField, NumberField, new, row, typed, typed_or_none
from ffverbs._text import str_from_flags
from ffverbs.addr import GID
from ffverbs.base import Handle, PyverbsCM, PyverbsObject, check, raise_errno
from ffverbs.libibverbs_enums import (
    IBV_GID_TYPE_ROCE_V2,
    IBV_GID_TYPE_SYSFS_IB_ROCE_V1,
    IBV_GID_TYPE_SYSFS_ROCE_V2,
    IBV_VALUES_MASK_RAW_CLOCK,
    ibv_event_type,
)
from ffverbs.pyverbs_error import PyverbsRDMAError, PyverbsUserError

__all__ = [
    "DM",
    "AllocDmAttr",
    "AsyncEvent",
    "CQModerationCaps",
    "CompCntrCaps",
    "Context",
    "Device",
    "DeviceAttr",
    "DeviceAttrEx",
    "FdArr",
    "GIDEntry",
    "ODPCaps",
    "PCIAtomicCaps",
    "PacketPacingCaps",
    "PortAttr",
    "QueryDeviceExInput",
    "RSSCaps",
    "TMCaps",
    "TSOCaps",
    "get_device_list",
    "guid_format",
    "guid_to_hex",
    "phys_state_to_str",
    "port_state_to_str",
    "rdma_get_devices",
    "speed_to_str",
    "str_from_flags",
    "translate_device_caps",
    "translate_event_type",
    "translate_gid_type",
    "translate_link_layer",
    "translate_mtu",
    "translate_node_type",
    "translate_port_cap_flags",
    "translate_port_cap_flags2",
    "translate_transport_type",
    "width_to_str",
]

_MAX_PORT_NUM: Final = 0xFF


class Device(PyverbsObject):
    """An entry of the device list; `name` is bytes, `guid` a raw network-order word."""

    __slots__ = ("_guid", "_index", "_name", "_node_type", "_transport_type")

    def __init__(self, name: bytes, guid: int, node_type: int, transport_type: int, index: int) -> None:
        self._name = typed("name", name, bytes)
        self._guid = guid
        self._node_type = node_type
        self._transport_type = transport_type
        self._index = index

    @property
    def name(self) -> bytes:
        """The device's name, to be decoded for Context()."""
        return self._name

    @property
    def node_type(self) -> int:
        """An ibv_node_type."""
        return self._node_type

    @property
    def transport_type(self) -> int:
        """An ibv_transport_type."""
        return self._transport_type

    @property
    def guid(self) -> int:
        """The device's GUID: a raw network-order word."""
        return self._guid

    @property
    def index(self) -> int:
        """Place in the list."""
        return self._index

    def __str__(self) -> str:
        return (
            f"Device {self.name.decode()}, node type {translate_node_type(self.node_type)}, "
            f"transport type {translate_transport_type(self.transport_type)}, "
            f"guid {guid_to_hex(self.guid)}, index {self.index}"
        )


def get_device_list() -> list[Device]:
    """Return the devices of the engine."""
    devices: list[Device] = []
    info = new("device_info")
    while (rc := lib.ffv_query_device_info(len(devices), info)) != -ENODEV:
        check(rc, "Failed to get device list")
        name: bytes = ffi.string(info.name)
        devices.append(Device(name, info.guid_be, info.node_type, info.transport_type, info.index))
    return devices


def rdma_get_devices() -> list[Device]:
    """Return the devices that the connection manager knows: those of get_device_list()."""
    return get_device_list()


class Context(Handle):
    """An open device: `Context(name="ffv0")`. Closing it closes everything made from it.

    `Context(cmd_fd=fd)` imports the context whose `cmd_fd` was copied, by os.dup() or by sending it to another process;
    the copy belongs to the new object. What has a `handle` there can be imported by it here.
    """

    __slots__ = ("_events", "_name")
    _GROUPS = ("qps", "rwq_ind_tbls", "wqs", "ccs", "cqs", "comp_cntrs", "dms", "pds", "xrcds")

    def __init__(self, **kwargs: Any) -> None:
        self._events: weakref.WeakSet[AsyncEvent] = weakref.WeakSet()
        if kwargs.get("cmd_fd") is not None:
            self._import(check_int(kwargs["cmd_fd"]))
            return
        if kwargs.get("cmid") is not None:
            self._share(kwargs["cmid"])
            return
        name = kwargs.get("name")
        if name is None:
            raise PyverbsUserError("Device name must be provided")
        self._name = typed("name", name, str)
        known = [device.name.decode() for device in get_device_list()]
        if name not in known:
            raise PyverbsRDMAError(f"Failed to find device {name}: there is {', '.join(known) or 'none'}")
        out = ffi.new("struct ffv_context **")
        check(lib.ffv_open_device(name.encode(), out), f"Failed to open device {name}")
        self._open(out[0])

    def _import(self, cmd_fd: int) -> None:
        out, info = ffi.new("struct ffv_context **"), new("device_info")
        check(lib.ffv_query_device_info(0, info), "Failed to import device")
        check(lib.ffv_import_device(cmd_fd, out), "Failed to import device")
        self._name = ffi.string(info.name).decode()
        self._open(out[0])

    def _share(self, cmid: Any) -> None:
        """Stand for the context of a CMID, which is the id's and goes with it."""
        handle = typed("cmid", cmid, PyverbsCM)._live().verbs  # type: ignore[attr-defined]
        if handle == ffi.NULL:
            raise PyverbsUserError("The CMID has no device yet: bind it or resolve an address first")
        self._name = get_device_list()[0].name.decode()
        self._open(handle, owned=False)

    @property
    def name(self) -> str:
        """The device's name."""
        return self._name

    @property
    def context(self) -> int:
        """Address of the engine's object."""
        return int(ffi.cast("uintptr_t", self._live()))

    @property
    def cmd_fd(self) -> int:
        """Descriptor of the context's control socket."""
        return int(lib.ffv_cmd_fd(self._live()))

    @property
    def num_comp_vectors(self) -> int:
        """How many completion vectors a CQ may choose from."""
        return int(lib.ffv_num_comp_vectors(self._live()))

    def query_device(self) -> DeviceAttr:
        """Return the device's attributes."""
        attr = DeviceAttr()
        check(lib.ffv_query_device(self._live(), attr._c), f"Failed to query device {self.name}")
        return attr

    def query_device_ex(self, ex_input: "QueryDeviceExInput | None" = None) -> DeviceAttrEx:
        """Return the device's extended attributes."""
        question = typed_or_none("ex_input", ex_input, QueryDeviceExInput)
        comp_mask, attr = question._comp_mask if question is not None else 0, DeviceAttrEx()
        rc = lib.ffv_query_device_ex(self._live(), comp_mask, attr._c)
        check(rc, f"Failed to query EX device {self.name}")
        return attr

    def query_comp_cntr_caps(self) -> CompCntrCaps:
        """Return what completion counters offer."""
        caps = CompCntrCaps()
        check(lib.ffv_query_comp_cntr_caps(self._live(), caps._c), "Failed to query completion counter capabilities")
        return caps

    def query_pkey(self, port_num: int, index: int) -> int:
        """Return a partition key: a raw network-order word."""
        pkey = ffi.new("uint16_t *")
        port, index = check_u32(port_num), check_int(index)
        if lib.ffv_query_pkey(self._live(), min(port, _MAX_PORT_NUM), index, pkey) < 0:
            raise PyverbsRDMAError(f"Failed to query pkey {index} of port {port}")
        return int(pkey[0])

    def get_pkey_index(self, port_num: int, pkey: int) -> int:
        """Return the index of a partition key, given as the raw word that query_pkey() returns."""
        for index in range(self.query_port(port_num).pkey_tbl_len):
            if self.query_pkey(port_num, index) == pkey:
                return index
        raise PyverbsRDMAError(f"Failed to get the index of pkey {pkey} of port {port_num}")

    def query_gid(self, port_num: int, index: int) -> GID:
        """Return a GID; an empty entry is all zero."""
        gid = GID()
        port, index = check_u32(port_num), check_int(index)
        if lib.ffv_query_gid(self._live(), min(port, _MAX_PORT_NUM), index, gid._c) < 0:
            raise PyverbsRDMAError(f"Failed to query gid {index} of port {port}")
        return gid

    def query_gid_type(self, port_num: int, index: int) -> int:
        """Return a GID's type in sysfs' numbering: 0 InfiniBand or RoCE v1, 1 RoCE v2."""
        entry, port, index = new("gid_entry"), check_u32(port_num), check_u32(index)
        rc = lib.ffv_query_gid_ex(self._live(), port, index, entry, 0)
        check(rc, f"Failed to query gid type of port {port} and gid index {index}")
        is_v2 = entry.gid_type == IBV_GID_TYPE_ROCE_V2
        return int(IBV_GID_TYPE_SYSFS_ROCE_V2 if is_v2 else IBV_GID_TYPE_SYSFS_IB_ROCE_V1)

    def query_port(self, port_num: int) -> PortAttr:
        """Return a port's attributes."""
        attr, port = PortAttr(), check_u32(port_num)
        # The engine's parameter is a byte: a larger number is as unknown to it, and must not wrap to a valid one.
        check(lib.ffv_query_port(self._live(), min(port, _MAX_PORT_NUM), attr._c), f"Failed to query port {port}")
        return attr

    def query_port_speed(self, port_num: int) -> int:
        """Raise EOPNOTSUPP: the speed of shared memory is not that of a link."""
        raise PyverbsRDMAError(f"Failed to query the speed of port {check_u32(port_num)}", EOPNOTSUPP)

    def query_gid_table(self, max_entries: int, flags: int = 0) -> list[GIDEntry]:
        """Return the non-empty GIDs of all ports; error code -EINVAL (negative) if there are more than max_entries."""
        max_entries = check_u64(max_entries)
        entries = ffi.new("struct ffv_gid_entry[]", min(max_entries, 1 << 16))
        count = lib.ffv_query_gid_table(self._live(), entries, len(entries), check_u32(flags))
        if count < 0:
            raise PyverbsRDMAError("Failed to query gid tables of the device", count)
        return [GIDEntry._of(entries[i]) for i in range(count)]

    def query_gid_ex(self, port_num: int, gid_index: int, flags: int = 0) -> GIDEntry:
        """Return an entry of a port's GID table; ENODATA if it is empty."""
        entry, port, index = GIDEntry(), check_u32(port_num), check_u32(gid_index)
        rc = lib.ffv_query_gid_ex(self._live(), port, index, entry._c, check_u32(flags))
        check(rc, f"Failed to query gid table of port {port} at index {index}")
        return entry

    def query_rt_values_ex(self, comp_mask: int = IBV_VALUES_MASK_RAW_CLOCK) -> tuple[int, int]:
        """Return (seconds, nanoseconds) of the device's clock: seconds are 0 and all ticks are in the second number."""
        if check_u32(comp_mask) != IBV_VALUES_MASK_RAW_CLOCK:
            raise PyverbsRDMAError(
                f"Failed to query real time values with requested comp_mask {comp_mask}: there is only the raw clock",
                EOPNOTSUPP,
            )
        return 0, int(lib.ffv_query_clock_ns(self._live()))

    def get_async_event(self) -> "AsyncEvent":
        """Wait for an asynchronous event; signal handlers run meanwhile. `ack()` it before its object is destroyed."""
        context, event = self._live(), AsyncEvent()
        while (rc := lib.ffv_get_async_event(context, event._c)) == -EINTR:
            pass
        check(rc, "Failed to get async event")
        event._context = self
        self._events.add(event)
        return event

    def _ack_events(self, element: Any = None) -> None:
        """Acknowledge the events of an engine object that is to be destroyed (None: all), which would wait for it."""
        for event in list(self._events):
            if element is None or event._c.element == element:
                event.ack()

    def _destroy(self, handle: Any) -> None:
        self._ack_events()
        check(lib.ffv_close_device(handle), f"Failed to close device {self.name}")


class QueryDeviceExInput(PyverbsObject):
    """Input of Context.query_device_ex()."""

    __slots__ = ("_comp_mask",)

    def __init__(self, comp_mask: int) -> None:
        self._comp_mask = check_u32(comp_mask)


class AsyncEvent(PyverbsObject):
    """Something that happened to a QP, CQ, SRQ, port or device."""

    __slots__ = ("_c", "_context")

    def __init__(self, event_type: int = 0) -> None:
        self._c = new("async_event", event_type=event_type)
        self._context: Context | None = None

    event_type = EnumField("event_type", ibv_event_type, "What happened.", readonly=True)

    def ack(self) -> None:
        """Say that the event has been dealt with, so that its object can be destroyed. A second time does nothing."""
        context, self._context = self._context, None
        if context is not None:
            context._events.discard(self)
            lib.ffv_ack_async_event(context._live(), self._c)

    def __del__(self) -> None:
        # Nobody can acknowledge it any more, and its object must remain destroyable.
        if self._context is not None and self._context._handle is not None:
            self.ack()

    def __str__(self) -> str:
        return row("Event Type", translate_event_type(self.event_type), 24)


class AllocDmAttr(PyverbsObject):
    """Attributes of device memory: bytes and the logarithm of the alignment."""

    __slots__ = ("_comp_mask", "_length", "_log_align_req")

    def __init__(self, length: int, log_align_req: int = 0, comp_mask: int = 0) -> None:
        self.length = length
        self.log_align_req = log_align_req
        self.comp_mask = comp_mask

    length = NumberField("length", check_u64, "Bytes.")
    log_align_req = NumberField("log_align_req", check_u32, "Logarithm (base 2) of the alignment.")
    comp_mask = NumberField("comp_mask", check_u32, "Attributes that are set.")


class DM(Handle):
    """Device memory, zeroed: `dm_attr.length` bytes, read and written by copies, and by work requests through a DMMR.

    Offsets and lengths of copies are multiples of 4 (EINVAL) inside the memory (EFAULT). A fork child may make device
    memory of its own with its parent's context. With `handle=` it is memory that another Context has, imported.
    """

    __slots__ = ("_context", "_imported", "_length")
    _GROUPS = ("mrs",)

    def __init__(self, context: Context, dm_attr: AllocDmAttr | None = None, **kwargs: Any) -> None:
        self._context = typed("context", context, Context)
        attr = typed_or_none("dm_attr", dm_attr, AllocDmAttr)
        self._imported = kwargs.get("handle") is not None
        out = ffi.new("struct ffv_dm **")
        if self._imported:
            handle = check_u32(kwargs["handle"])
            check(lib.ffv_import_dm(context._live(), handle, out), f"Failed to import DM with handle {handle}")
            self._length = context.query_device_ex().max_dm_size
            self._open(out[0])
            context._attach(self, "dms")
            return
        if attr is None:
            raise PyverbsUserError("Cannot create DM without attributes: give dm_attr")
        request = new("alloc_dm_attr", length=attr.length, log_align_req=attr.log_align_req, comp_mask=attr.comp_mask)
        self._length = attr.length
        rc = lib.ffv_alloc_dm(context._live(), request, out)
        if rc < 0:
            limit = context.query_device_ex().max_dm_size
            raise_errno(-rc, f"Failed to allocate device memory of size {attr.length}. Max available size {limit}")
        self._open(out[0])
        context._attach(self, "dms")

    @property
    def handle(self) -> int:
        """The engine's number of the memory."""
        return int(lib.ffv_dm_handle(self._live()))

    def copy_to_dm(self, dm_offset: int, data: bytes | bytearray | memoryview, length: int) -> None:
        """Copy the first `length` bytes of `data` to `dm_offset` bytes into the memory."""
        dm, offset, length, view = self._live(), check_u64(dm_offset), check_u64(length), memoryview(data).cast("B")
        if length > len(view):
            raise PyverbsUserError(f"Cannot copy {length} bytes to dm: the data has only {len(view)}")
        check(lib.ffv_memcpy_to_dm(dm, offset, ffi.from_buffer(view), length), "Failed to copy to dm")

    def copy_from_dm(self, dm_offset: int, length: int) -> bytes:
        """Return `length` bytes from `dm_offset` bytes into the memory."""
        dm, offset, length = self._live(), check_u64(dm_offset), check_u64(length)
        # The engine refuses what is too long; no more room than there can be bytes is made for it.
        data = ffi.new("char[]", min(length, self._length))
        check(lib.ffv_memcpy_from_dm(data, dm, offset, length), "Failed to copy from dm")
        return bytes(ffi.buffer(data, length))

    def export_dmabuf_fd(self) -> int:
        """Raise EOPNOTSUPP: the memory is no dma-buf."""
        self._live()
        raise PyverbsRDMAError("Failed to export DM as a dma-buf: it is none", EOPNOTSUPP)

    def unimport(self) -> None:
        """Give imported memory up, with the MRs over it here; one's own is left as it is."""
        if self._imported:
            self.close()

    def _destroy(self, handle: Any) -> None:
        check(lib.ffv_unimport_dm(handle) if self._imported else lib.ffv_free_dm(handle), "Failed to free dm")


class FdArr(PyverbsCM):
    """An array of `count` descriptors."""

    __slots__ = ("_arr",)

    def __init__(self, arr: list[int] = [], count: int = 0) -> None:  # noqa: B006 - pyverbs' default, never changed
        count = check_u32(count)
        if count > len(arr):
            raise PyverbsRDMAError(f"Failed to make an array of {count} descriptors out of {len(arr)}", EINVAL)
        self._arr = [check_int(fd) for fd in arr[:count]]

    @property
    def arr(self) -> list[int]:
        """The descriptors."""
        return list(self._arr)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._arr)

    def __str__(self) -> str:
        return row("Number of FDs", self.count) + row("FDs", self.arr)
