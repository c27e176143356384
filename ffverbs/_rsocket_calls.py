"""The engine's stream sockets with Python's values, for `ffverbs.rsocket`: addresses as tuples, errors as OSError."""

import errno
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from ffverbs._native import ffi, lib

Address = tuple[Any, ...]

_V4_BYTES = 16
_V6_BYTES = 28
_STORAGE_BYTES = 128


def check(result: int) -> int:
    """Return a result that is no failure; OSError (of the class for its errno) for one that is."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def pack(family: int, address: Address) -> bytes:
    """Return `(host, port[, flow info, scope])` as a sockaddr; the host is numeric, or a name that is looked up."""
    host, port = str(address[0]), int(address[1])
    if not 0 <= port <= 0xFFFF:
        raise OverflowError("port must be 0-65535.")
    try:
        packed = socket.inet_pton(family, host or ("0.0.0.0" if family == socket.AF_INET else "::"))
    except OSError:
        found = socket.getaddrinfo(host, None, family, socket.SOCK_STREAM)
        packed = socket.inet_pton(family, str(found[0][4][0]).partition("%")[0])
    if family == socket.AF_INET:
        return struct.pack("=H", family) + struct.pack("!H", port) + packed + bytes(8)
    flow, scope = (*address[2:4], 0, 0)[:2]
    return struct.pack("=H", family) + struct.pack("!HI", port, flow) + packed + struct.pack("=I", scope)


def unpack(data: bytes) -> Address:
    """Return a sockaddr as the tuple that Python's sockets give."""
    (family,) = struct.unpack_from("=H", data)
    (port,) = struct.unpack_from("!H", data, 2)
    if family == socket.AF_INET:
        return socket.inet_ntop(family, data[4:8]), port
    (flow,) = struct.unpack_from("!I", data, 4)
    (scope,) = struct.unpack_from("=I", data, 24)
    return socket.inet_ntop(family, data[8:24]), port, flow, scope


def with_address(call: Callable[[Any, Any], int]) -> tuple[int, Address]:
    """Make a call that fills in an address; return its result and the address."""
    data = ffi.new(f"uint8_t[{_STORAGE_BYTES}]")
    length = ffi.new("uint32_t *", _STORAGE_BYTES)
    result = check(call(ffi.cast("struct sockaddr *", data), length))
    return result, unpack(bytes(ffi.buffer(data, _V6_BYTES)))


def sockaddr(packed: bytes) -> tuple[Any, int]:
    """Return what a call of the engine takes for an address: a pointer into `packed`, and its length."""
    return ffi.cast("struct sockaddr *", ffi.from_buffer(packed)), len(packed)


def retried(call: Callable[[], int], timeout: float | None) -> int:
    """Make a call that may wait, again when a signal handler interrupted it; TimeoutError after `timeout` seconds.

    The call itself ends with EAGAIN or EINPROGRESS after that time, or at once if the timeout is 0.
    """
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        result = call()
        if result == -errno.EINTR and (end is None or time.monotonic() < end):
            continue
        if result in {-errno.EAGAIN, -errno.EINPROGRESS, -errno.EINTR} and timeout:
            raise TimeoutError("timed out")
        return check(result)


def set_timeout(fd: int, timeout: float | None) -> None:
    """Let calls on a socket wait for so long: None without end, 0 not at all."""
    check(lib.ffv_socket_set_flags(fd, os.O_NONBLOCK if timeout == 0 else 0))
    whole = int(timeout or 0)
    micros = int(((timeout or 0) - whole) * 1e6)
    if timeout and not whole and not micros:
        micros = 1
    value = struct.pack("@ll", whole, micros)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        check(lib.ffv_setsockopt(fd, socket.SOL_SOCKET, option, value, len(value)))
