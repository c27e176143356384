"""Memory files that are not what they should be are refused, and nothing of them is kept."""

import errno
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.fuzz import wire
from tests.fuzz.actor import Remote, holds, talk
from tests.fuzz.wire import Arena, Message

Pair = tuple[Remote, Remote]
EIGHT_PAGES = 32768


def _ordinary_file() -> int:
    return os.open("/proc/self/exe", os.O_RDONLY)


def _pipe() -> int:
    """The end of a pipe that nobody reads: writing there raises SIGPIPE."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def _socket() -> int:
    one, other = socket.socketpair()
    one.close()
    return other.detach()


def _read_only_mirror() -> int:
    descriptor = wire.memory_file(wire.MIRROR_BYTES, wire.SHRINK)
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
    finally:
        os.close(descriptor)


ARENAS: dict[str, Callable[[], int]] = {
    "wrong magic": Arena(magic=wire.ARENA_MAGIC ^ 1).create,
    "newer layout": Arena(layout_version=wire.LAYOUT_VERSION + 1).create,
    "older layout": Arena(layout_version=0).create,
    "another header": Arena(header_bytes=wire.HEADER_BYTES + 64).create,
    "another stated size": Arena(arena_bytes=wire.ARENA_BYTES // 2).create,
    "another size": Arena(file_bytes=wire.ARENA_BYTES * 2).create,
    "truncated": Arena(file_bytes=EIGHT_PAGES).create,
    "truncated within the header": Arena(file_bytes=20).create,
    "empty": Arena(file_bytes=0).create,
    "not sealed": Arena(seals=0).create,
    "may shrink": Arena(seals=wire.GROW | wire.SEAL).create,
    "may grow": Arena(seals=wire.SHRINK | wire.SEAL).create,
    "seals not sealed": Arena(seals=wire.SHRINK | wire.GROW).create,
    "no context id": Arena(context_id=0).create,
    "half a context id": Arena(context_id=1 << 32).create,
    "another context id": Arena(context_id=0x3333333344444444).create,
    "other QP numbers": Arena(qpn_first=16384 * 701).create,
    "another GID": Arena(gid=bytes(16)).create,
    "a file": _ordinary_file,
    "a pipe": _pipe,
    "a socket": _socket,
    "an eventfd": lambda: os.eventfd(0),
}
MIRRORS: dict[str, Callable[[], int]] = {
    "too small": lambda: wire.memory_file(EIGHT_PAGES, wire.SHRINK),
    "empty": lambda: wire.memory_file(0, wire.SHRINK),
    "of an arena's size": Arena().create,
    "not sealed": lambda: wire.memory_file(wire.MIRROR_BYTES, 0),
    "read-only": _read_only_mirror,
    "a file": _ordinary_file,
    "a pipe": _pipe,
}
BELLS: dict[str, Callable[[], int]] = {
    "a pipe": _pipe,
    "a socket": _socket,
    "a file": _ordinary_file,
    "a memory file": lambda: wire.memory_file(EIGHT_PAGES, 0),
}


def _refused(directory: Path, qpn: int, hello: Message, part: str = "", alien: int | None = None) -> bool:
    """Say hello with something alien; whether the answer was a refusal and a hang-up, and nothing else."""
    with wire.descriptors(**{part: alien} if part else {}) as fds, wire.connect(directory, qpn) as connection:
        assert wire.send(connection, hello, fds)
        return wire.wait_for_end(connection) == [(wire.REFUSE, errno.EPROTO)]


def test_what_is_right_is_welcome(pair: Pair, node_directory: Path) -> None:
    """The other tests of this file differ from this one in one thing each."""
    victim, _ = pair
    before, qpn = (victim.descriptors(), victim.arenas()), victim.address().qpn
    with wire.descriptors() as fds, wire.connect(node_directory, qpn) as connection:
        wire.send(connection, Message(wire.HELLO), fds)
        assert wire.receive(connection)[0] == wire.WELCOME
        assert victim.arenas() == before[1] + 1
    holds(victim, *before)


def test_alien_memory_is_refused(pair: Pair, node_directory: Path) -> None:
    victim, honest = pair
    before, qpn = (victim.descriptors(), victim.arenas()), victim.address().qpn
    accepted = []
    for part, aliens in (("arena", ARENAS), ("mirror", MIRRORS), ("bell", BELLS)):
        for name, make in aliens.items():
            if not _refused(node_directory, qpn, Message(wire.HELLO), part, make()):
                accepted.append(f"{part}: {name}")
        talk(victim, honest, len(part))
    assert not accepted
    holds(victim, *before)


def test_a_hello_that_does_not_match_its_arena_is_refused(pair: Pair, node_directory: Path) -> None:
    victim, _ = pair
    before, qpn = (victim.descriptors(), victim.arenas()), victim.address().qpn
    hello = Message(wire.HELLO)
    for wrong in (
        replace(hello, context_id=hello.context_id + 1), replace(hello, gid=bytes(16)), replace(hello, qpn_first=0),
    ):  # fmt: skip
        assert _refused(node_directory, qpn, wrong), wrong
    holds(victim, *before)


def test_alien_memory_in_the_answer(pair: Pair, node_directory: Path) -> None:
    """The victim connects, and what answers in the other's name has alien memory: it connects to somebody else."""
    victim, honest = pair
    before, arenas = victim.descriptors(), victim.arenas()
    victim_gid = victim.address()
    gid = next(entry.name for entry in node_directory.iterdir() if entry.is_socket() and "-" in entry.name)[:32]
    block = 700
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.settimeout(wire.DEADLINE_S)
        listening.bind(str(node_directory / f"{gid}-{block:03x}"))
        listening.listen()
        for make in (*ARENAS.values(), None):
            victim.modify(0, 1, qp=1)
            victim.begin("connect", replace(victim_gid, qpns=(block * 16384,) * 2), 1)
            connection, _ = listening.accept()
            with connection, wire.descriptors(arena=make() if make else None) as fds:
                connection.settimeout(wire.DEADLINE_S)
                assert wire.receive(connection)[0] == wire.HELLO
                wire.send(connection, Message(wire.WELCOME, gid=bytes.fromhex(gid)), fds)
                if make:
                    wire.wait_for_end(connection)
                victim.finish()
                talk(victim, honest, 5)
    victim.modify(0, 1, qp=1)
    holds(victim, before, arenas)
