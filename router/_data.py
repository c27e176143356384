"""The only module that loads the data plane (`router._wire`, native/include/ffverbs/ffv_router.h)."""

import hashlib
from dataclasses import dataclass
from types import TracebackType
from typing import Any

try:
    from router._wire import ffi, lib
except ImportError as error:
    raise ImportError(
        f"the router's data plane cannot be loaded ({error}): build it with `pip install .` in the source tree",
        name="router._wire",
    ) from error

__all__ = [
    "WIRE_VERSION", "ChannelClosed", "ChannelLost", "ContextClaimed", "DataPlane", "ProxyClosed", "RouterError",
]  # fmt: skip

WIRE_VERSION = int(lib.FFV_WIRE_VERSION)


class RouterError(Exception):
    """The data plane refused; `code` is an errno."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class ChannelClosed:
    """A connection to another router ended."""

    channel: int
    why: str


@dataclass(frozen=True)
class ChannelLost:
    """The connection under a channel ended; the channel waits for another one."""

    channel: int
    why: str


@dataclass(frozen=True)
class ProxyClosed:
    """A remote context is gone, and its proxy here; or why that could not be made."""

    gid: bytes
    qpn_first: int
    why: str


@dataclass(frozen=True)
class ContextClaimed:
    """The host at the other end of the channel speaks for the address, and waits for `owner`."""

    channel: int
    gid: bytes


def _check(rc: int, what: str) -> int:
    if rc < 0:
        text = ffi.string(lib.ffv_error_text()).decode("utf-8", "replace")
        raise RouterError(f"{what}: {text}", -rc)
    return rc


def _tenant_number(tenant: str) -> int:
    return int.from_bytes(hashlib.sha256(tenant.encode()).digest()[:8], "little") or 1


class DataPlane:
    """The data plane of one node directory; a context manager. `reach` may block, everything else returns at once."""

    def __init__(self, directory: str) -> None:
        out = ffi.new("struct ffv_router **")
        _check(lib.ffv_router_create(directory.encode(), out), f"cannot route for {directory}")
        self._handle: Any = out[0]
        lib.ffv_router_check_owners(self._handle)
        self._faulty = False

    def __enter__(self) -> "DataPlane":
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close every channel and proxy; blocks until the data plane's threads have ended."""
        handle, self._handle = self._handle, ffi.NULL
        lib.ffv_router_destroy(handle)

    def use_rdma(self, host_address: str, device: str, gid_index: int | None, *, tcp_allowed: bool) -> None:
        """Say what the transport `rdma` is to use; RouterError says why there is no such device now."""
        options = ffi.new("struct ffv_rdma_options *")
        options.host_address, options.device = host_address.encode(), device.encode()
        options.gid_index, options.tcp_allowed = -1 if gid_index is None else gid_index, tcp_allowed
        _check(lib.ffv_router_use_rdma(self._handle, options), "no RDMA")

    def set_faults(self, text: str) -> None:
        """Have everything that is sent from now on suffer from them; RouterError if they make no sense."""
        _check(lib.ffv_router_set_faults(text.encode()), "cannot make faults")
        self._faulty = True

    def set_rate(self, bytes_per_s: int) -> None:
        """Have payload sent to other hosts at no more than this on average, in B/s; 0 = as fast as it goes."""
        _check(lib.ffv_router_set_rate(self._handle, bytes_per_s), "cannot limit the rate")

    def _carrier(self, transport: str) -> Any:
        return ("fault" if self._faulty and transport == "tcp" else transport).encode()

    def add_channel(self, transport: str, fd: int) -> int:
        """Take over a connected socket to an authenticated router, and return the channel's number."""
        number = ffi.new("uint32_t *")
        _check(
            lib.ffv_router_add_channel(self._handle, self._carrier(transport), fd, number), "cannot use the connection"
        )
        return int(number[0])

    def describe_channel(self, channel: int) -> str:
        """Return one line: what carries the channel, and why."""
        text = ffi.new("char[]", 512)
        _check(lib.ffv_router_describe_channel(self._handle, channel, text, len(text)), "cannot describe a channel")
        return str(ffi.string(text).decode("utf-8", "replace"))

    def resume_channel(self, channel: int, transport: str, fd: int) -> None:
        """Go on with a channel over another socket to the same router, which resumes it, too."""
        _check(
            lib.ffv_router_resume_channel(self._handle, channel, self._carrier(transport), fd),
            "cannot go on with a channel",
        )

    def close_channel(self, channel: int) -> None:
        """End a channel; an event tells when it is closed."""
        lib.ffv_router_close_channel(self._handle, channel)

    def reach(self, gid: bytes, qpn: int, channel: int) -> None:
        """Make sure that the remote context has a proxy here. Blocks, at most for seconds."""
        _check(lib.ffv_router_reach(self._handle, gid, qpn, channel), "cannot stand in for the remote context")

    def owner(self, gid: bytes, channel: int | None, *, owns: bool) -> None:
        """Say that the address is of the host at the other end of the channel, and of no other, or that it is not.

        channel None: of a host that is not connected, or of this one.
        """
        number = 0xFFFFFFFF if channel is None else channel
        _check(lib.ffv_router_owner(self._handle, gid, number, owns), "cannot say whose an address is")

    def call(self, fd: int, channel: int, gid: bytes, port_space: int, port: int, message: bytes) -> None:
        """Have a container's connection carried to a listener of another host; the descriptor is taken over."""
        service = ffi.new("struct ffv_router_service *", {"address": gid, "port_space": port_space, "port": port})
        rc = lib.ffv_router_call(self._handle, fd, channel, service, message, len(message))
        _check(rc, "cannot carry the connection")

    def set_tenant(self, channel: int, tenant: str) -> None:
        """Say of which tenant the host at the other end of the channel has proven to be."""
        _check(
            lib.ffv_router_set_tenant(self._handle, channel, _tenant_number(tenant)), "cannot say whose a channel is"
        )

    def announce(self, tenant: str, timeout_ms: int) -> None:
        """Tell all connected hosts what this one wants of the segment, and wait until they know. Blocks."""
        rc = lib.ffv_router_announce(self._handle, _tenant_number(tenant), timeout_ms)
        _check(rc, "cannot reach everybody on the segment")

    def is_proxy(self, gid: bytes, qpn: int) -> bool:
        """Whether that name of the node directory is one of our proxies."""
        return self.proxy_channel(gid, qpn) is not None

    def proxy_channel(self, gid: bytes, qpn: int) -> int | None:
        """Return the channel that a name of the node directory leads to; None if it is not one of our proxies."""
        channel = ffi.new("uint32_t *")
        return int(channel[0]) if lib.ffv_router_is_proxy(self._handle, gid, qpn, channel) else None

    def event_fd(self) -> int:
        """Return a descriptor that is readable while events wait."""
        return int(lib.ffv_router_event_fd(self._handle))

    def next_event(self) -> ChannelClosed | ChannelLost | ContextClaimed | ProxyClosed | None:
        """Return the next event, None if there is none."""
        event = ffi.new("struct ffv_router_event *")
        if not lib.ffv_router_next_event(self._handle, event):
            return None
        if event.kind == lib.FFV_ROUTER_CHANNEL_CLOSED:
            return ChannelClosed(int(event.channel), ffi.string(event.text).decode("utf-8", "replace"))
        if event.kind == lib.FFV_ROUTER_CHANNEL_LOST:
            return ChannelLost(int(event.channel), ffi.string(event.text).decode("utf-8", "replace"))
        if event.kind == lib.FFV_ROUTER_CLAIMED:
            return ContextClaimed(int(event.channel), bytes(event.gid))
        why = ffi.string(event.text).decode("utf-8", "replace")
        return ProxyClosed(bytes(event.gid), int(event.qpn_first), why)

    def channel_counters(self, channel: int) -> dict[str, int]:
        """Return what a channel carried since it was opened, and what it leads to; RouterError if it is closed."""
        counters = ffi.new("struct ffv_channel_counters *")
        _check(lib.ffv_router_query_channel(self._handle, channel, counters), "cannot ask the data plane")
        return {name: int(getattr(counters, name)) for name, _ in ffi.typeof("struct ffv_channel_counters").fields}

    def counters(self) -> dict[str, int]:
        """Return what was sent, received and dropped since the start, and what is open now."""
        counters = ffi.new("struct ffv_router_counters *")
        _check(lib.ffv_router_query(self._handle, counters), "cannot ask the data plane")
        return {name: int(getattr(counters, name)) for name, _ in ffi.typeof("struct ffv_router_counters").fields}
