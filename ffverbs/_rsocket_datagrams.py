"""UDP sockets of `ffverbs.rsocket`: the kernel's, with one of the engine's beside it where that pays.

Who binds a socket, or sends to an address that has such a socket, gets one. From then on the program's number is the
engine's, which can be polled for what comes either way; names and options are the kernel's still. What cannot go by
verbs goes by UDP, datagram by datagram, and the engine sees to that.
"""

import contextlib
import errno
import os
import socket as _kernel
import time
import weakref
from collections.abc import Iterable
from typing import Any, Self

from ffverbs._native import ffi, lib
from ffverbs._rsocket_calls import check, pack, retried, set_timeout, sockaddr, with_address

_KernelSocket = _kernel.socket
_PATIENCE_S = 0.05  # for an answer whether an address has verbs, perhaps of another host; others come at once
_MOST_BYTES = 65535
_live: "weakref.WeakSet[DatagramSocket]" = weakref.WeakSet()


def is_in_an_epoll_set(number: int) -> bool:
    """Whether a set of epoll in this process has what the number means, and so would not see it change."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[eventpoll]":
                with open(f"/proc/self/fdinfo/{name}", encoding="ascii") as lines:
                    if any(line.startswith("tfd:") and int(line.split()[1]) == number for line in lines):
                        return True
    return False


class DatagramSocket(_KernelSocket):
    """A socket of the `socket` module, which has one of the engine's beside it if it is of datagrams."""

    _udp: _KernelSocket | None = None  # the kernel's, once the number is the engine's
    _is_left_to_udp = False
    _sends = 0

    # ---- the engine's socket ----------------------------------------

    @staticmethod
    def give_back(number: int) -> None:
        """Let a number be the kernel's again, if it is the engine's and of datagrams: another object is to have it."""
        for one in [one for one in _live if _KernelSocket.fileno(one) == number]:
            one._leave()

    def _may_be_joined(self) -> bool:
        return (
            self._udp is None
            and not self._is_left_to_udp
            and self.family in {_kernel.AF_INET, _kernel.AF_INET6}
            and self.type & 0xF == _kernel.SOCK_DGRAM
            and self.proto in {0, _kernel.IPPROTO_UDP}
        )

    def _join(self) -> None:
        """Let the engine have a socket with our addresses, if it can."""
        number = _KernelSocket.fileno(self)
        if not self._may_be_joined() or is_in_an_epoll_set(number):
            return
        own = pack(self.family, _KernelSocket.getsockname(self))
        engine = check(lib.ffv_socket(int(self.family), int(_kernel.SOCK_DGRAM | _kernel.SOCK_CLOEXEC), 0))
        try:
            room = max(_KernelSocket.getsockopt(self, _kernel.SOL_SOCKET, _kernel.SO_RCVBUF), 1 << 18)
            for option, value in ((_kernel.SO_REUSEADDR, 1), (_kernel.SO_RCVBUF, room)):
                check(lib.ffv_setsockopt(engine, _kernel.SOL_SOCKET, option, ffi.new("int *", value), 4))
            check(lib.ffv_socket_watch(engine))
            check(lib.ffv_bind(engine, *sockaddr(own)))
            with contextlib.suppress(OSError):
                peer = pack(self.family, _KernelSocket.getpeername(self))
                check(lib.ffv_connect(engine, *sockaddr(peer)))
            check(lib.ffv_socket_beside(engine, number))
            set_timeout(engine, self.gettimeout())
            kernel = _KernelSocket(self.family, self.type, self.proto, fileno=os.dup(number))
            os.dup2(engine, number, inheritable=os.get_inheritable(number))
            check(lib.ffv_socket_dup(engine, number))
        except OSError:
            return  # no address of the container, or another process has it here
        finally:
            lib.ffv_close_socket(engine)
        self._udp = kernel
        _live.add(self)

    def _join_if_it_pays(self, address: Any) -> None:
        """The same, if somebody answers for the address; of those that do not, fewer and fewer are asked."""
        if not self._may_be_joined() or not isinstance(address, tuple) or len(address) < 2:
            return
        self._sends += 1
        if self._sends & (self._sends - 1):
            return
        with contextlib.suppress(OSError, OverflowError, TypeError, ValueError):
            peer = pack(self.family, address)
            if not _KernelSocket.getsockname(self)[1]:
                _KernelSocket.bind(self, ("", 0))
            own = pack(self.family, _KernelSocket.getsockname(self))
            end = time.monotonic() + _PATIENCE_S
            while (result := lib.ffv_datagrams_reach(*sockaddr(own), *sockaddr(peer))) == -errno.EINPROGRESS:
                if time.monotonic() > end:
                    break
                time.sleep(0.0002)
            if result == 0:
                self._join()

    def _leave(self) -> None:
        """Be the kernel's socket again, for good."""
        self._is_left_to_udp = True
        if self._udp is None:
            return
        number = _KernelSocket.fileno(self)
        if is_in_an_epoll_set(number):
            raise OSError(errno.EOPNOTSUPP, "what is in a set of epoll cannot be left to UDP alone")
        self._become(self._udp, number)

    def _become(self, kernel: _KernelSocket, number: int) -> None:
        spare = os.dup(number)  # under which the engine closes it, so that nobody else gets the number meanwhile
        inheritable = os.get_inheritable(number)
        if lib.ffv_socket_dup(number, spare) == 0:
            lib.ffv_close_socket(number)
        os.dup2(kernel.fileno(), number, inheritable=inheritable)
        if lib.ffv_close_socket(spare):
            os.close(spare)
        kernel.close()
        self._udp = None
        _live.discard(self)

    def datagrams_on_verbs(self) -> tuple[int, int]:
        """How many datagrams were sent and received by verbs."""
        counts = ffi.new("uint64_t[2]")
        if self._udp is not None:
            check(lib.ffv_socket_datagrams(_KernelSocket.fileno(self), counts))
        return int(counts[0]), int(counts[1])

    # ---- names ----------------------------------------

    def bind(self, address: Any, /) -> None:
        """Bind as the `socket` module's does."""
        if self._udp is not None:
            self._udp.bind(address)  # which says why it cannot be
            return
        super().bind(address)
        if self._may_be_joined():
            self._join()

    def connect_ex(self, address: Any, /) -> int:
        """Connect as the `socket` module's does; returns the errno."""
        if self._udp is None:
            result = super().connect_ex(address)
            if result == 0 and self._may_be_joined():
                self._join_if_it_pays(self.getpeername())
            return result
        result = self._udp.connect_ex(address)
        if result == 0:
            packed = pack(self.family, self._udp.getpeername())
            check(lib.ffv_connect(_KernelSocket.fileno(self), *sockaddr(packed)))
        return result

    def getsockname(self) -> Any:
        """Return our address."""
        return super().getsockname() if self._udp is None else self._udp.getsockname()

    def getpeername(self) -> Any:
        """Return the peer's address."""
        return super().getpeername() if self._udp is None else self._udp.getpeername()

    # ---- sending ----------------------------------------

    def _send_to(self, data: Any, flags: int, address: Any) -> int:
        number = _KernelSocket.fileno(self)
        where = (ffi.NULL, 0)
        if address is not None:
            packed = pack(self.family, address)
            where = sockaddr(packed)
        with ffi.from_buffer(data) as source:
            return retried(lambda: lib.ffv_sendto(number, source, len(source), flags, *where), self.gettimeout())

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Send a datagram to the peer that we are connected to."""
        return super().send(data, flags) if self._udp is None else self._send_to(data, flags, None)

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """As send: a datagram goes as a whole."""
        if self._udp is None:
            super().sendall(data, flags)
        else:
            self._send_to(data, flags, None)

    def sendto(self, *arguments: Any) -> int:
        """Send a datagram: data, flags if there are any, address."""
        if self._udp is None and len(arguments) in {2, 3}:
            self._join_if_it_pays(arguments[-1])
        if self._udp is None:
            return super().sendto(*arguments)
        match arguments:
            case (bytes() | bytearray() | memoryview() as data, (str() as host, int() as port, *rest)):
                return self._send_to(data, 0, (host, port, *rest))
            case (bytes() | bytearray() | memoryview() as data, int() as flags, (str() as host, int() as port, *rest)):
                return self._send_to(data, flags, (host, port, *rest))
            case _:
                return self._udp.sendto(*arguments)  # by UDP, or it says what is wrong

    def sendmsg(
        self, buffers: Iterable[Any], ancdata: Iterable[Any] = (), flags: int = 0, address: Any = None, /
    ) -> int:
        """Send the buffers as one datagram."""
        if self._udp is None:
            if address is not None:
                self._join_if_it_pays(address)
            if self._udp is None:
                return super().sendmsg(buffers, ancdata, flags, address)
        parts, control = list(buffers), list(ancdata)
        if control or (address is not None and not isinstance(address, tuple)):
            return self._udp.sendmsg(parts, control, flags, address)
        return self._send_to(b"".join(bytes(memoryview(part)) for part in parts), flags, address)

    # ---- receiving ----------------------------------------

    def _receive(self, target: Any, flags: int) -> tuple[int, Any, bool]:
        """Receive into a buffer: how many bytes, where from, and whether there were more."""
        number = _KernelSocket.fileno(self)
        timeout = self.gettimeout()
        with ffi.from_buffer(target, require_writable=True) as room:
            size = len(room)
            length, address = with_address(
                lambda addr, addr_length: retried(
                    lambda: lib.ffv_recvfrom(number, room, size, flags | _kernel.MSG_TRUNC, addr, addr_length), timeout
                )
            )
        return min(length, size), address, length > size

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive a datagram into a buffer; return how many bytes."""
        if self._udp is None:
            return super().recv_into(buffer, nbytes, flags)
        return self.recvfrom_into(buffer, nbytes, flags)[0]

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """As recv_into; return where it came from, too."""
        if self._udp is None:
            return super().recvfrom_into(buffer, nbytes, flags)
        if nbytes < 0:
            raise ValueError("negative buffersize in recvfrom_into")
        view = memoryview(buffer).cast("B")
        if nbytes > view.nbytes:
            raise ValueError("nbytes is greater than the length of the buffer")
        length, address, _ = self._receive(view[: nbytes or view.nbytes], flags)
        return length, address

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive a datagram, of which what does not fit is lost."""
        return super().recv(bufsize, flags) if self._udp is None else self.recvfrom(bufsize, flags)[0]

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """As recv; return where it came from, too."""
        if self._udp is None:
            return super().recvfrom(bufsize, flags)
        if bufsize < 0:
            raise ValueError("negative buffersize in recvfrom")
        data = bytearray(min(bufsize, _MOST_BYTES))
        length, address, _ = self._receive(data, flags)
        return bytes(memoryview(data)[:length]), address

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> tuple[bytes, list[Any], int, Any]:
        """As recvfrom; return the flags of the datagram, too. Ancillary data, who asks for it has from UDP alone."""
        if self._udp is None:
            return super().recvmsg(bufsize, ancbufsize, flags)
        if bufsize < 0 or ancbufsize < 0:
            raise ValueError("negative buffer size in recvmsg")
        data = bytearray(min(bufsize, _MOST_BYTES))
        length, address, more = self._receive(data, flags)
        return bytes(memoryview(data)[:length]), [], int(_kernel.MSG_TRUNC) if more else 0, address

    def recvmsg_into(
        self, buffers: Iterable[Any], ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[int, list[Any], int, Any]:
        """Receive a datagram into the buffers one after the other."""
        if self._udp is None:
            return super().recvmsg_into(buffers, ancbufsize, flags)
        views = [memoryview(part).cast("B") for part in buffers]
        if any(view.readonly for view in views):
            raise TypeError("recvmsg_into() needs buffers that can be written")
        data, control, told, address = self.recvmsg(sum(view.nbytes for view in views), ancbufsize, flags)
        at = 0
        for view in views:
            part = data[at : at + view.nbytes]
            view[: len(part)] = part
            at += len(part)
        return len(data), control, told, address

    # ---- options, ends ----------------------------------------

    def getsockopt(self, level: int, optname: int, buflen: int | None = None, /) -> Any:
        """Return an option of the kernel's socket."""
        get = super().getsockopt if self._udp is None else self._udp.getsockopt
        return get(level, optname) if buflen is None else get(level, optname, buflen)

    def setsockopt(self, level: int, optname: int, value: Any, optlen: int | None = None, /) -> None:
        """Set an option of the kernel's socket. One that asks for more than datagrams leaves it to UDP."""
        if (self._udp is not None or self._may_be_joined()) and value and not lib.ffv_datagrams_allow(level, optname):
            self._leave()
        put = super().setsockopt if self._udp is None else self._udp.setsockopt
        if optlen is None:
            put(level, optname, value)
        else:
            put(level, optname, value, optlen)

    def settimeout(self, value: float | None, /) -> None:
        """Set for how many seconds calls wait: None for ever, 0 not at all."""
        super().settimeout(value)
        if self._udp is not None:
            set_timeout(_KernelSocket.fileno(self), self.gettimeout())

    def setblocking(self, flag: bool, /) -> None:
        """As settimeout with None or 0."""
        self.settimeout(None if flag else 0)

    def shutdown(self, how: int, /) -> None:
        """End one direction or both; what is shut down is the kernel's alone."""
        if self._udp is not None:
            self._udp.getpeername()  # else it is not connected, and that is all
            self._leave()
        super().shutdown(how)

    def dup(self) -> Self:
        """Return a socket with another number."""
        if self._udp is None:
            return super().dup()
        other = self.__class__(self.family, self.type, self.proto, fileno=os.dup(self._udp.fileno()))
        number, copy = _KernelSocket.fileno(self), _KernelSocket.fileno(other)
        os.dup2(number, copy, inheritable=False)
        check(lib.ffv_socket_dup(number, copy))
        other._udp = self._udp.dup()
        _live.add(other)
        other.settimeout(self.gettimeout())
        return other

    def detach(self) -> int:
        """Give up the number, which is the kernel's again."""
        self._leave()
        return super().detach()

    def _real_close(self, _ss: type[_KernelSocket] = _KernelSocket) -> None:
        kernel, number = self._udp, _KernelSocket.fileno(self)
        self._udp = None
        if kernel is None:
            super()._real_close()  # type: ignore[misc]
            return
        _live.discard(self)
        _KernelSocket.detach(self)
        lib.ffv_close_socket(number)
        kernel.close()


def _leave_all_in_child() -> None:
    """In a child of fork the engine's sockets are nobody's: it has the kernel's."""
    for one in list(_live):
        kernel = one._udp
        if kernel is not None:
            one._become(kernel, _KernelSocket.fileno(one))


os.register_at_fork(after_in_child=_leave_all_in_child)
