"""The control protocol (native/shm/attach.h) spoken by hand: well-formed messages, and everything else."""

import array
import fcntl
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.fuzz import scribble

__all__ = [
    "ARENA_BYTES", "BYE", "CHANNEL", "HELLO", "MIRROR_BYTES", "OBSERVE", "REFUSE", "WANT_CHANNEL", "WELCOME", "Arena",
    "Message", "connect", "descriptors", "receive", "send", "wait_for_end",
]  # fmt: skip

HELLO, WELCOME, REFUSE, BYE, WANT_CHANNEL, CHANNEL, OBSERVE = range(1, 8)
MAGIC, VERSION = 0x6C74637662766666, 1
MESSAGE = struct.Struct("<QIIQQ16sII")
ARENA_MAGIC, LAYOUT_VERSION = 0x3076666261766666, 1
ARENA = struct.Struct("<QIIQQ16sII")
ARENA_BYTES, MIRROR_BYTES = 1 << 34, 1 << 47
HEADER_BYTES = scribble.HEAP
F_ADD_SEALS, SHRINK, GROW, SEAL = 1033, 2, 4, 1
DEADLINE_S = 60.0


@dataclass(frozen=True)
class Message:
    """A control message as it stands in a packet."""

    kind: int
    context_id: int = 0x1111111122222222
    value: int = 0
    gid: bytes = bytes(10) + b"\xff\xff\x7f\x01\x01\x01"
    qpn_first: int = 16384 * 700
    num_fds: int = 0
    magic: int = MAGIC
    version: int = VERSION

    def pack(self) -> bytes:
        return MESSAGE.pack(
            self.magic, self.version, self.kind, self.context_id, self.value, self.gid, self.qpn_first, self.num_fds
        )


@dataclass(frozen=True)
class Arena:
    """What the header of an arena says, and what its file is like; the defaults are right."""

    magic: int = ARENA_MAGIC
    layout_version: int = LAYOUT_VERSION
    header_bytes: int = HEADER_BYTES
    arena_bytes: int = ARENA_BYTES
    context_id: int = 0x1111111122222222
    qpn_first: int = 16384 * 700
    gid: bytes = bytes(10) + b"\xff\xff\x7f\x01\x01\x01"
    file_bytes: int = ARENA_BYTES
    seals: int = SHRINK | GROW | SEAL

    def create(self) -> int:
        """Return the descriptor of a memory file that says this."""
        descriptor = memory_file(self.file_bytes, 0)
        header = ARENA.pack(
            self.magic, self.layout_version, self.header_bytes, self.arena_bytes, self.context_id, self.gid,
            self.qpn_first, 1,
        )  # fmt: skip
        os.pwrite(descriptor, header[: self.file_bytes], 0)
        fcntl.fcntl(descriptor, F_ADD_SEALS, self.seals)
        return descriptor


def memory_file(length: int, seals: int) -> int:
    """Return a sparse memory file."""
    descriptor = os.memfd_create("alien", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, length)
    if seals:
        fcntl.fcntl(descriptor, F_ADD_SEALS, seals)
    return descriptor


@contextmanager
def descriptors(arena: int | None = None, mirror: int | None = None, bell: int | None = None) -> Iterator[list[int]]:
    """Give the three descriptors of a context, right ones where none is given, and close them."""
    found = [
        Arena().create() if arena is None else arena,
        memory_file(MIRROR_BYTES, SHRINK) if mirror is None else mirror,
        os.eventfd(0, os.EFD_NONBLOCK) if bell is None else bell,
    ]
    try:
        yield found
    finally:
        for descriptor in found:
            os.close(descriptor)


def connect(directory: Path, qpn: int) -> socket.socket:
    """Connect to the context that owns a QP number."""
    (path,) = [entry for entry in directory.iterdir() if entry.name.endswith(f"-{qpn // 16384:03x}")]
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(DEADLINE_S)
    connection.connect(str(path))
    return connection


def send(connection: socket.socket, packet: bytes | Message, fds: Sequence[int] = ()) -> bool:
    """Send one packet, a message with the right count of descriptors; False if the other end has hung up."""
    if isinstance(packet, Message):
        packet = replace(packet, num_fds=len(fds)).pack()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        connection.sendmsg([packet], rights)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def receive(connection: socket.socket) -> tuple[int, int]:
    """Return (kind, value) of the next message, whose descriptors are closed; (0, 0) at the end."""
    try:
        packet, fds, _, _ = socket.recv_fds(connection, 256, 8)
    except ConnectionResetError:
        return 0, 0
    for descriptor in fds:
        os.close(descriptor)
    if not packet:
        return 0, 0
    fields = MESSAGE.unpack(packet)
    return fields[2], fields[4]


def wait_for_end(connection: socket.socket) -> list[tuple[int, int]]:
    """Read until the other end hangs up, and return what it said before."""
    said = []
    while (message := receive(connection)) != (0, 0):
        said.append(message)
    return said
