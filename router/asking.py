"""Questions of containers as packets (native/verbs/ask.h): about queue pairs, addresses, listeners. No I/O."""

import struct
from dataclasses import dataclass

__all__ = [
    "MOST_BYTES",
    "PACKET_BYTES",
    "Call",
    "Claim",
    "Host",
    "Question",
    "QuestionError",
    "Segment",
    "Status",
    "Where",
    "answer",
    "parse",
]

_LAYOUT = struct.Struct("<QII16sII16sII")
_MAGIC = int.from_bytes(b"ffvbrask", "little")
_VERSION = 1
_WHERE, _ANSWER, _HOST, _CALL, _STATUS, _SEGMENT, _CLAIM = 1, 2, 3, 4, 5, 6, 7
_MOST_TEXT_BYTES = 255
_MOST_MESSAGE_BYTES = 512
PACKET_BYTES = _LAYOUT.size
MOST_BYTES = PACKET_BYTES + _MOST_MESSAGE_BYTES


class QuestionError(ValueError):
    """A packet that is no question of ours."""


@dataclass(frozen=True)
class Question:
    """Who is looked for, and who asks."""

    gid: bytes
    asker_gid: bytes
    asker_qpn_first: int


@dataclass(frozen=True)
class Where(Question):
    """Who has this queue pair number?"""

    qpn: int


@dataclass(frozen=True)
class Host(Question):
    """Has some container this address?"""


@dataclass(frozen=True)
class Segment(Question):
    """Tell the other hosts that I want something else of the segment now, or am on it."""


@dataclass(frozen=True)
class Call(Question):
    """Let me talk to whoever listens there; `message` is what I say first."""

    port_space: int
    port: int
    message: bytes


@dataclass(frozen=True)
class Claim(Question):
    """May I have this address (all zero: which one of the pool)? The numbers of namespaces tell containers apart."""

    mount_ns: int
    network_ns: int


@dataclass(frozen=True)
class Status:
    """How is the router? The answer is JSON, in as many packets as it takes."""


def parse(packet: bytes) -> Where | Host | Segment | Call | Claim | Status:
    """Read a packet; QuestionError says what is wrong with it."""
    if len(packet) < PACKET_BYTES or len(packet) > MOST_BYTES:
        raise QuestionError(f"a packet of {len(packet)} bytes, not {PACKET_BYTES} to {MOST_BYTES}")
    magic, version, kind, gid, qpn, _, asker_gid, asker_first, port_space = _LAYOUT.unpack_from(packet)
    message = packet[PACKET_BYTES:]
    if magic != _MAGIC:
        raise QuestionError("a packet that does not come from ffverbs")
    if version != _VERSION:
        raise QuestionError(f"version {version} of the question; this router knows version {_VERSION}")
    if kind == _WHERE and qpn <= 0xFFFFFF and not message:
        return Where(gid, asker_gid, asker_first, qpn)
    if kind == _HOST and not message:
        return Host(gid, asker_gid, asker_first)
    if kind == _SEGMENT and not message:
        return Segment(gid, asker_gid, asker_first)
    if kind == _CALL and qpn <= 0xFFFF and message:
        return Call(gid, asker_gid, asker_first, port_space, qpn, message)
    if kind == _CLAIM and not qpn and not message:
        return Claim(gid, asker_gid, 0, asker_first, port_space)
    if kind == _STATUS and not message:
        return Status()
    raise QuestionError(f"kind {kind}, number {qpn:#x}, {len(message)} bytes behind it: no question")


def answer(question: Question, error: int, text: str = "", *, gid: bytes | None = None) -> bytes:
    """Return the answer: error 0 = yes, or look again; else an errno, and why. `gid` is what a CLAIM got."""
    qpn = question.qpn if isinstance(question, Where) else 0
    packet = _LAYOUT.pack(
        _MAGIC, _VERSION, _ANSWER, gid or question.gid, qpn, error, question.asker_gid, question.asker_qpn_first, 0
    )
    return packet if isinstance(question, Call) else packet + text.encode()[:_MOST_TEXT_BYTES]
