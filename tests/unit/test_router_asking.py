"""Questions of containers as packets: what the engine writes is read, and nothing else is."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import asking

GID = bytes(10) + b"\xff\xff\x0a\x00\x00\x01"
QUESTION = asking.Where(GID, bytes(16), 0, 0x4011)


def packet(message: bytes = b"", **changes: int) -> bytes:
    fields = {"magic": int.from_bytes(b"ffvbrask", "little"), "version": 1, "kind": 1, "qpn": QUESTION.qpn,
              "port_space": 0} | changes  # fmt: skip
    return b"".join([
        fields["magic"].to_bytes(8, "little"), fields["version"].to_bytes(4, "little"),
        fields["kind"].to_bytes(4, "little"), GID, fields["qpn"].to_bytes(4, "little"), bytes(4 + 16 + 4),
        fields["port_space"].to_bytes(4, "little"), message,
    ])  # fmt: skip


def test_a_question_is_read() -> None:
    assert asking.parse(packet()) == QUESTION
    assert asking.parse(packet(kind=3, qpn=0)) == asking.Host(GID, bytes(16), 0)
    assert asking.parse(packet(kind=6, qpn=0)) == asking.Segment(GID, bytes(16), 0)
    assert asking.parse(packet(kind=7, qpn=0, port_space=9)) == asking.Claim(GID, bytes(16), 0, 0, 9)
    call = asking.parse(packet(b"hello", kind=4, qpn=7471, port_space=0x106))
    assert call == asking.Call(GID, bytes(16), 0, 0x106, 7471, b"hello")


def test_a_question_how_the_router_is() -> None:
    assert asking.parse(packet(kind=5)) == asking.Status()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"magic": 7}, "ffverbs"),
        ({"version": 2}, "version 2"),
        ({"kind": 2}, "kind 2"),
        ({"qpn": 1 << 24}, "no question"),
        ({"message": b"more"}, "4 bytes behind it"),
        ({"kind": 3, "message": b"more"}, "no question"),
        ({"kind": 4, "qpn": 7471}, "no question"),
        ({"kind": 6, "qpn": 0, "message": b"more"}, "no question"),
        ({"kind": 7, "qpn": 7}, "no question"),
        ({"kind": 7, "qpn": 0, "message": b"more"}, "no question"),
        ({"kind": 8}, "kind 8"),
        ({"kind": 4, "qpn": 1 << 16, "message": b"hello"}, "no question"),
        ({"kind": 4, "qpn": 7471, "message": bytes(513)}, "of 577 bytes"),
    ],
)
def test_what_is_none_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(asking.QuestionError, match=text):
        asking.parse(packet(**change))


@given(st.binary(max_size=100))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(asking.QuestionError):
        asking.parse(noise)


def test_an_answer_names_what_was_asked() -> None:
    told = asking.answer(QUESTION, 2, "nobody is there")
    assert told[asking.PACKET_BYTES :] == b"nobody is there"
    assert told[16:32] == QUESTION.gid
    assert int.from_bytes(told[32:36], "little") == QUESTION.qpn
    assert int.from_bytes(told[36:40], "little") == 2
