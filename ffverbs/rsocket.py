"""Python's `socket` module on verbs: `from ffverbs import rsocket as socket`, or `python -m ffverbs.rsocket PROGRAM`.

A socket of AF_INET or AF_INET6, of streams or of datagrams, that meets another one of these, in this program or
another, on this host or another one, goes over verbs; with every other peer it speaks ordinary TCP or UDP, both ways,
and nothing has to be chosen.
Everything else is the `socket` module's own. See docs/sockets.md for what is different.
"""

import errno
import importlib
import operator
import os
import select
import socket as _kernel
import sys
import time
import warnings
from collections.abc import Iterable
from socket import *  # noqa: F403
from types import FunctionType
from typing import IO, Any, NoReturn, Self

from ffverbs._native import ffi, lib
from ffverbs._rsocket_calls import Address, check, pack, retried, set_timeout, sockaddr, with_address
from ffverbs._rsocket_datagrams import DatagramSocket
from ffverbs._run import run_code, run_module, run_path

_USAGE = """\
usage: python -m ffverbs.rsocket PROGRAM [ARGS...]
       python -m ffverbs.rsocket -m MODULE [ARGS...]
       python -m ffverbs.rsocket -c CODE [ARGS...]

Runs a Python program with its TCP and UDP sockets on verbs wherever its peer has them too.
"""

_KernelSocket = _kernel.socket
# How long a peer that has verbs, perhaps on another host, may take to say so before it is asked by TCP.
_PATIENCE_S = 5.0
_LITTLE_PATIENCE_S = 2.0  # of sockets that do not block


class _Listener:
    """What a listening socket stands for: the kernel's, the engine's, and a descriptor that is readable for either."""

    def __init__(self, kernel: _kernel.socket, engine: int) -> None:
        self.kernel = kernel
        self.engine = engine
        kernel.setblocking(False)
        check(lib.ffv_socket_set_flags(engine, os.O_NONBLOCK))
        self.both = select.epoll()
        self.both.register(kernel.fileno(), select.EPOLLIN)
        self.both.register(engine, select.EPOLLIN)

    def close(self) -> None:
        self.both.close()
        self.kernel.close()
        lib.ffv_close_socket(self.engine)


class socket(DatagramSocket):  # type: ignore[no-redef]  # noqa: N801
    """A socket as the `socket` module's, which is on verbs when its peer is.

    It begins as the kernel's. Connecting and accepting make it the engine's (`is_on_verbs`), under the same number; the
    kernel can poll that number, and nothing else.
    """

    _listener: _Listener | None = None
    is_on_verbs = False

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        if fileno is not None and lib.ffv_is_socket(fileno):
            self.give_back(fileno)
        if fileno is not None and lib.ffv_is_socket(fileno):
            _, name = with_address(lambda addr, length: lib.ffv_getsockname(fileno, addr, length))
            known = _kernel.AF_INET if len(name) == 2 else _kernel.AF_INET6
            super().__init__(known, _kernel.SOCK_STREAM, 0 if proto == -1 else proto, fileno)
            self.is_on_verbs = True
            self.settimeout(_kernel.getdefaulttimeout())
            return
        super().__init__(family, type, proto, fileno)

    # ---- connecting ----------------------------------------

    def _may_be_on_verbs(self) -> bool:
        return (
            not self.is_on_verbs
            and self._listener is None
            and self.family in {_kernel.AF_INET, _kernel.AF_INET6}
            and self.type & 0xF == _kernel.SOCK_STREAM
            and self.proto in {0, _kernel.IPPROTO_TCP}
        )

    def _adopt(self, engine: int) -> None:
        """Give our number to the engine's socket, which was made under another one."""
        number = self.fileno()
        os.dup2(engine, number, inheritable=os.get_inheritable(number))
        check(lib.ffv_socket_dup(engine, number))
        lib.ffv_close_socket(engine)
        self.is_on_verbs = True

    def _new_engine_socket(self) -> int:
        engine = check(lib.ffv_socket(int(self.family), int(_kernel.SOCK_STREAM | _kernel.SOCK_CLOEXEC), 0))
        for level, option in _CARRIED_OVER:
            try:
                value = self.getsockopt(level, option)
            except OSError:
                continue  # of the other family
            lib.ffv_setsockopt(engine, level, option, ffi.new("int *", value), 4)
        try:
            check(lib.ffv_socket_watch(engine))
        except OSError:
            lib.ffv_close_socket(engine)
            raise
        return engine

    def _connect_on_verbs(self, address: Address) -> int:
        """Connect to a peer that has verbs: 0. ECONNREFUSED if there is none, or it does not answer soon."""
        packed, own = pack(self.family, address), super().getsockname()
        engine = self._new_engine_socket()
        timeout = self.gettimeout()
        set_timeout(engine, 0)
        try:
            if own[1] and lib.ffv_bind(engine, *sockaddr(pack(self.family, own))):
                return errno.ECONNREFUSED  # the program wants to come from an address that is not the container's
            result = lib.ffv_connect(engine, *sockaddr(packed))
            if result == -errno.EINPROGRESS:
                result = self._wait_connected(engine, timeout)
            if result == 0:
                set_timeout(engine, timeout)
                self._adopt(engine)
        finally:
            if not self.is_on_verbs:
                lib.ffv_close_socket(engine)
        return int(-result)

    @staticmethod
    def _wait_connected(engine: int, timeout: float | None) -> int:
        """Wait for the peer, whose program need not do anything; TimeoutError if the program's timeout is shorter.

        Also if the program does not want to wait: its number cannot become TCP's any more once it is being polled.
        """
        patience = _PATIENCE_S if timeout is None or timeout > _PATIENCE_S else timeout or _LITTLE_PATIENCE_S
        poll = select.poll()
        poll.register(engine, select.POLLOUT)
        if not poll.poll(patience * 1000):
            if patience == timeout:
                raise TimeoutError("timed out")
            return -errno.ECONNREFUSED
        error = ffi.new("int *")
        check(lib.ffv_getsockopt(engine, _kernel.SOL_SOCKET, _kernel.SO_ERROR, error, ffi.new("uint32_t *", 4)))
        return -int(error[0])

    def connect(self, address: Any) -> None:
        """Connect as the `socket` module's does: by verbs if the peer has them, else by TCP."""
        result = self.connect_ex(address)
        if result:
            raise TimeoutError("timed out") if result == errno.EAGAIN else OSError(result, os.strerror(result))

    def connect_ex(self, address: Any) -> int:
        """As connect; returns the errno."""
        if self.is_on_verbs:
            return int(-lib.ffv_connect(self.fileno(), *sockaddr(pack(self.family, address))))
        if self._may_be_on_verbs() and isinstance(address, tuple) and len(address) >= 2:
            try:
                result = self._connect_on_verbs(address)
            except TimeoutError:
                return errno.EAGAIN
            if result == 0:
                return result
        return super().connect_ex(address)

    # ---- listening ----------------------------------------

    def listen(self, backlog: int = 128, /) -> None:
        """Listen for both kinds of peers."""
        if self._listener is not None:
            self._listener.kernel.listen(backlog)
            check(lib.ffv_listen(self._listener.engine, backlog))
            return
        super().listen(backlog)
        if not self._may_be_on_verbs():
            return
        packed = pack(self.family, super().getsockname())
        engine = self._new_engine_socket()
        if lib.ffv_bind(engine, *sockaddr(packed)) or lib.ffv_listen(engine, backlog):
            lib.ffv_close_socket(engine)  # no address of the container, or another's: the kernel's alone
            return
        timeout, number = self.gettimeout(), self.fileno()
        inner = _KernelSocket(self.family, self.type, self.proto, fileno=os.dup(number))
        self._listener = _Listener(inner, engine)
        os.dup2(self._listener.both.fileno(), number, inheritable=os.get_inheritable(number))
        super().settimeout(timeout)

    def _accept_now(self, listener: _Listener) -> tuple["socket", Any] | None:
        try:
            fd, address = with_address(
                lambda addr, length: lib.ffv_accept4(listener.engine, addr, length, int(_kernel.SOCK_CLOEXEC))
            )
            return self.__class__(self.family, self.type, self.proto, fileno=fd), address
        except BlockingIOError:
            pass
        try:
            inner, address = listener.kernel.accept()
        except BlockingIOError:
            return None
        return self.__class__(self.family, self.type, self.proto, fileno=inner.detach()), address

    def accept(self) -> tuple["socket", Any]:
        """Wait for a connection of either kind."""
        listener, timeout = self._listener, self.gettimeout()
        if listener is None:
            inner, address = super().accept()
            return self.__class__(self.family, self.type, self.proto, fileno=inner.detach()), address
        end = None if timeout is None else time.monotonic() + timeout
        while (accepted := self._accept_now(listener)) is None:
            if timeout == 0:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            poll = select.poll()
            poll.register(self.fileno(), select.POLLIN)
            left = None if end is None else end - time.monotonic()
            if left is not None and (left <= 0 or not poll.poll(left * 1000)):
                raise TimeoutError("timed out")
            if left is None:
                poll.poll()
        if _kernel.getdefaulttimeout() is None and timeout:
            accepted[0].setblocking(True)
        return accepted

    # ---- data ----------------------------------------

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Send some of the bytes; return how many."""
        if not self.is_on_verbs:
            return super().send(data, flags)
        fd = self.fileno()
        with ffi.from_buffer(data) as source:
            return retried(lambda: lib.ffv_send(fd, source, len(source), flags), self.gettimeout())

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Send all of the bytes, within the timeout."""
        if not self.is_on_verbs:
            super().sendall(data, flags)
            return
        timeout = self.gettimeout()
        end = None if timeout is None else time.monotonic() + timeout
        left = memoryview(data).cast("B")
        done = self.send(left, flags)
        while done < left.nbytes:
            if end is not None and timeout and time.monotonic() >= end:
                raise TimeoutError("timed out")
            done += self.send(left[done:], flags)

    def sendto(self, *arguments: Any) -> int:
        """As send: a stream has one peer."""
        if not self.is_on_verbs or len(arguments) not in {2, 3}:
            return super().sendto(*arguments)
        return self.send(*arguments[:-1])

    def sendmsg(
        self, buffers: Iterable[Any], ancdata: Iterable[Any] = (), flags: int = 0, address: Any = None, /
    ) -> int:
        """Send the buffers one after the other; there is no ancillary data."""
        if not self.is_on_verbs:
            return super().sendmsg(buffers, ancdata, flags, address)
        if address is not None and not isinstance(address, tuple):
            raise TypeError(f"an address is a tuple, not {address!r}")
        if _count_ancillary(ancdata):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return self.send(b"".join(bytes(memoryview(part)) for part in buffers), flags)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive into a buffer; return how many bytes, 0 at the end of the stream."""
        if not self.is_on_verbs:
            return super().recv_into(buffer, nbytes, flags)
        fd = self.fileno()
        with ffi.from_buffer(buffer, require_writable=True) as target:
            if nbytes < 0:
                raise ValueError("negative buffersize in recv_into")
            if nbytes > len(target):
                raise ValueError("buffer too small for requested bytes")
            return retried(lambda: lib.ffv_recv(fd, target, nbytes or len(target), flags), self.gettimeout())

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive at most so many bytes; none at the end of the stream."""
        if not self.is_on_verbs:
            return super().recv(bufsize, flags)
        if bufsize < 0:
            raise ValueError("negative buffersize in recv")
        if not bufsize:
            return b""
        data = bytearray(bufsize)
        length = self.recv_into(data, 0, flags)
        return bytes(memoryview(data)[:length])

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """As recv; a stream names no sender."""
        return (self.recv(bufsize, flags), None) if self.is_on_verbs else super().recvfrom(bufsize, flags)

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """As recv_into; a stream names no sender."""
        if not self.is_on_verbs:
            return super().recvfrom_into(buffer, nbytes, flags)
        if nbytes < 0:
            raise ValueError("negative buffersize in recvfrom_into")
        if nbytes > memoryview(buffer).nbytes:
            raise ValueError("nbytes is greater than the length of the buffer")
        return self.recv_into(buffer, nbytes, flags), None

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> tuple[bytes, list[Any], int, Any]:
        """As recv, without ancillary data."""
        if not self.is_on_verbs:
            return super().recvmsg(bufsize, ancbufsize, flags)
        if bufsize < 0 or ancbufsize < 0:
            raise ValueError("negative buffer size in recvmsg")
        return self.recv(bufsize, flags), [], 0, None

    def recvmsg_into(
        self, buffers: Iterable[Any], ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[int, list[Any], int, Any]:
        """Receive into the buffers one after the other."""
        if not self.is_on_verbs:
            return super().recvmsg_into(buffers, ancbufsize, flags)
        views = [memoryview(part).cast("B") for part in buffers]
        if any(view.readonly for view in views):
            raise TypeError("recvmsg_into() needs buffers that can be written")
        if ancbufsize < 0:
            raise ValueError("invalid ancillary data buffer length")
        data = self.recv(sum(view.nbytes for view in views), flags)
        at = 0
        for view in views:
            part = data[at : at + view.nbytes]
            view[: len(part)] = part
            at += len(part)
        return len(data), [], 0, None

    def sendfile(self, file: IO[bytes], offset: int = 0, count: int | None = None) -> int:  # type: ignore[override]
        """Send a file's bytes, read and sent in turn."""
        if self.is_on_verbs:
            return int(self._sendfile_use_send(file, offset, count))  # type: ignore[attr-defined]
        return super().sendfile(file, offset, count)

    # ---- names, options, ends ----------------------------------------

    def getsockname(self) -> Any:
        """Return our address."""
        if self.is_on_verbs:
            return with_address(lambda addr, length: lib.ffv_getsockname(self.fileno(), addr, length))[1]
        return self._listener.kernel.getsockname() if self._listener else super().getsockname()

    def getpeername(self) -> Any:
        """Return the peer's address."""
        if self.is_on_verbs:
            return with_address(lambda addr, length: lib.ffv_getpeername(self.fileno(), addr, length))[1]
        return self._listener.kernel.getpeername() if self._listener else super().getpeername()

    def getsockopt(self, level: int, optname: int, buflen: int | None = None, /) -> Any:
        """Return an option: a number, or as many bytes as asked for."""
        if not self.is_on_verbs:
            get = self._listener.kernel.getsockopt if self._listener else super().getsockopt
            return get(level, optname) if buflen is None else get(level, optname, buflen)
        if buflen is not None and not 0 < buflen <= 1024:
            raise OSError(errno.EINVAL, "getsockopt buflen out of range")
        value = ffi.new("uint8_t[]", buflen or 4)
        length = ffi.new("uint32_t *", buflen or 4)
        check(lib.ffv_getsockopt(self.fileno(), level, optname, value, length))
        data = bytes(ffi.buffer(value, length[0]))
        return int.from_bytes(data, sys.byteorder, signed=True) if buflen is None else data

    def setsockopt(self, level: int, optname: int, value: Any, optlen: int | None = None, /) -> None:
        """Set an option, to a number or to bytes."""
        if not self.is_on_verbs:
            put = self._listener.kernel.setsockopt if self._listener else super().setsockopt
            if optlen is None:
                put(level, optname, value)
            else:
                put(level, optname, value, optlen)
            return
        data = value.to_bytes(4, sys.byteorder, signed=True) if isinstance(value, int) else bytes(value or b"")
        check(lib.ffv_setsockopt(self.fileno(), level, optname, data, len(data)))

    def settimeout(self, value: float | None, /) -> None:
        """Set for how many seconds calls wait: None for ever, 0 not at all."""
        super().settimeout(value)
        if self.is_on_verbs:
            set_timeout(self.fileno(), self.gettimeout())

    def setblocking(self, flag: bool, /) -> None:
        """As settimeout with None or 0."""
        self.settimeout(None if flag else 0)

    def shutdown(self, how: int, /) -> None:
        """End one direction or both."""
        if self.is_on_verbs:
            check(lib.ffv_shutdown(self.fileno(), how))
        elif self._listener:
            self._listener.kernel.shutdown(how)
            check(lib.ffv_shutdown(self._listener.engine, how))
        else:
            super().shutdown(how)

    def dup(self) -> Self:
        """Return a socket with another number of the same connection."""
        if self._udp is not None:
            return super().dup()
        if self._listener:
            raise OSError(errno.EOPNOTSUPP, "a socket that listens on verbs cannot be duplicated")
        fd = os.dup(self.fileno())
        if self.is_on_verbs:
            check(lib.ffv_socket_dup(self.fileno(), fd))
        other = self.__class__(self.family, self.type, self.proto, fileno=fd)
        other.settimeout(self.gettimeout())
        return other

    def detach(self) -> int:
        """Give up the number, which stays open."""
        if self._listener:
            raise OSError(errno.EOPNOTSUPP, "a socket that listens on verbs cannot be detached")
        self.is_on_verbs = False
        return super().detach()

    def _real_close(self, _ss: type[_KernelSocket] = _KernelSocket) -> None:
        listener, number, on_verbs = self._listener, self.fileno(), self.is_on_verbs
        self._listener = None
        self.is_on_verbs = False
        if on_verbs:
            _ss.detach(self)
            lib.ffv_close_socket(number)
            return
        if listener:
            listener.close()
        super()._real_close()

    def __del__(self) -> None:
        if self.is_on_verbs or self._listener or self._udp is not None:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self._real_close()
        else:
            super().__del__()  # type: ignore[misc]


# What a program may have set on a socket before it is connected, and verbs have a use for.
_CARRIED_OVER = [
    (_kernel.SOL_SOCKET, _kernel.SO_REUSEADDR),
    (_kernel.SOL_SOCKET, _kernel.SO_KEEPALIVE),
    (_kernel.IPPROTO_TCP, _kernel.TCP_NODELAY),
    (_kernel.IPPROTO_TCP, _kernel.TCP_USER_TIMEOUT),
    (_kernel.IPPROTO_IPV6, _kernel.IPV6_V6ONLY),
]


def _count_ancillary(items: Iterable[Any]) -> int:
    """Return how many pieces of ancillary data there are; TypeError if one is none."""
    count = 0
    for item in items:
        if not isinstance(item, tuple) or len(item) != 3:
            raise TypeError("[sendmsg() ancillary data items] must be (level, type, data)")
        operator.index(item[0]), operator.index(item[1]), memoryview(item[2])
        count += 1
    return count


def _with_our_socket(function: Any) -> Any:
    """Return a function of the `socket` module that makes sockets of our class."""
    ours = FunctionType(function.__code__, globals(), function.__name__, function.__defaults__, function.__closure__)
    ours.__kwdefaults__ = function.__kwdefaults__
    ours.__doc__ = function.__doc__
    return ours


_GLOBAL_DEFAULT_TIMEOUT = _kernel._GLOBAL_DEFAULT_TIMEOUT  # type: ignore[attr-defined]
_socket = _kernel._socket  # type: ignore[attr-defined]
create_connection = _with_our_socket(_kernel.create_connection)
create_server = _with_our_socket(_kernel.create_server)


def fromfd(fd: int, family: int, type: int, proto: int = 0) -> socket:  # type: ignore[no-redef]
    """Return a socket with another number of what `fd` is."""
    DatagramSocket.give_back(fd)
    other = os.dup(fd)
    if lib.ffv_is_socket(fd):
        check(lib.ffv_socket_dup(fd, other))
    return socket(family, type, proto, fileno=other)


_end_at_once = os._exit


def _exit(status: int) -> NoReturn:
    """As os._exit; what was sent to other hosts is delivered before."""
    lib.ffv_socket_deliver()
    _end_at_once(status)


def install() -> None:
    """Let the `socket` module itself make sockets of our class, for the whole process."""
    os._exit = _exit
    _kernel.socket = socket  # type: ignore[misc]
    _kernel.fromfd = fromfd


def main(arguments: list[str]) -> None:
    """Run what the command line says."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        (sys.stdout if arguments else sys.stderr).write(_USAGE)
        raise SystemExit(0 if arguments else 2)
    first, rest = arguments[0], arguments[1:]
    if first in {"-m", "-c"} and not rest:
        sys.stderr.write(f"python -m ffverbs.rsocket: argument expected for the {first} option\n{_USAGE}")
        raise SystemExit(2)
    if first.startswith("-") and first not in {"-m", "-c"}:
        sys.stderr.write(f"python -m ffverbs.rsocket: unknown option {first}\n{_USAGE}")
        raise SystemExit(2)
    install()
    if first == "-m":
        run_module(rest[0], rest[1:])
    elif first == "-c":
        run_code(rest[0], rest[1:])
    else:
        run_path(first, rest)


if __name__ == "__main__":
    importlib.import_module("ffverbs.rsocket").main(sys.argv[1:])
