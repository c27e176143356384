"""The node directory as the router sees it: its socket there, and which containers are alive in it."""

import contextlib
import errno
import os
import re
import socket
import stat
from collections.abc import Iterator

__all__ = ["NodeError", "contexts", "is_alive", "listen", "names", "on_segment", "withdraw"]

_NAME = re.compile(r"([0-9a-f]{32})-([0-9a-f]{3})")
_MARK = "-segment"
_QPN_BLOCK = 16384
_BACKLOG = 256
_SOCKET = "router.sock"


class NodeError(Exception):
    """The node directory cannot be used; the text says what to do."""


def _address(folder: int, name: str) -> str:
    return f"/proc/self/fd/{folder}/{name}"  # short, whatever the path


def is_alive(folder: int, name: str) -> bool:
    """Whether somebody is bound to the name: a socket of another type is refused in another way then."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(_address(folder, name))
        except OSError as error:
            return error.errno == errno.EPROTOTYPE
    return False


def contexts(folder: int) -> Iterator[tuple[bytes, int]]:
    """Yield GID and first QP number of every living context (and proxy) in the folder."""
    for name in os.listdir(folder):
        if (match := _NAME.fullmatch(name)) and is_alive(folder, name):
            yield bytes.fromhex(match[1]), int(match[2], 16) * _QPN_BLOCK


def on_segment(folder: int) -> frozenset[str]:
    """Return the names of those who have joined the segment, proxies included."""
    return frozenset(name.removesuffix(_MARK) for name in os.listdir(folder) if name.endswith(_MARK))


def names(folder: int) -> Iterator[tuple[bytes, int]]:
    """Yield GID and first QP number of every name in the folder, alive or not."""
    for name in os.listdir(folder):
        if match := _NAME.fullmatch(name):
            yield bytes.fromhex(match[1]), int(match[2], 16) * _QPN_BLOCK


def listen(folder: int) -> socket.socket:
    """Bind router.sock, over one that a dead router left; NodeError if another router lives."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.setblocking(False)
    try:
        try:
            listener.bind(_address(folder, _SOCKET))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            if is_alive(folder, _SOCKET):
                raise NodeError("another router runs in this node directory: stop it first") from None
            os.unlink(_SOCKET, dir_fd=folder)
            listener.bind(_address(folder, _SOCKET))
        # Whoever may put names into the folder may ask.
        mode = stat.S_IMODE(os.fstat(folder).st_mode)
        os.chmod(_address(folder, _SOCKET), 0o666 if mode & 0o002 else 0o660 if mode & 0o020 else 0o600)
        listener.listen(_BACKLOG)
    except BaseException as error:
        listener.close()
        if isinstance(error, OSError):
            raise NodeError(f"router.sock cannot be made in the node directory: {error.strerror}") from error
        raise
    return listener


def withdraw(folder: int, listener: socket.socket) -> None:
    """Remove router.sock, once: a later one may be another router's. Nobody asks any more."""
    if listener.fileno() < 0:
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_SOCKET, dir_fd=folder)
    listener.close()
