"""Whatever a stranger says to the router: to its port, and at router.sock. FFVERBS_FUZZ_ROUNDS makes it longer."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router import asking
from router.hello import MAX_BYTES, Hello, HelloError, pack, unpack_length
from tests.fuzz.conftest import ROUNDS

SECRET = b"the same on all hosts of one cluster"
EXAMPLES = settings(
    max_examples=50 * ROUNDS, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=70),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["ffverbs", "versions", "host", "nonce", "tenant", "transports", "version", "proof", "resume", "error", "busy"]
)


@st.composite
def spoilt(draw: st.DrawFn, message: bytes) -> bytes:
    """Draw what comes instead of a message: other fields, other bytes, or noise."""
    how = draw(st.sampled_from(["fields", "bytes", "cut", "noise", "as it is"]))
    if how == "fields":
        fields: dict[str, Any] = json.loads(message[4:])
        fields |= draw(st.dictionaries(FIELDS, VALUES, max_size=3))
        for name in draw(st.lists(FIELDS, max_size=2)):
            fields.pop(name, None)
        return pack(fields)
    if how == "bytes":
        at = draw(st.integers(0, len(message) - 1))
        return message[:at] + draw(st.binary(max_size=8)) + message[at + draw(st.integers(0, 8)) :]
    if how == "cut":
        return message[: draw(st.integers(0, len(message)))]
    return draw(st.binary(max_size=MAX_BYTES + 8)) if how == "noise" else message


def hear(message: bytes) -> bytes:
    """Take a message as a router takes it from a stream."""
    length = unpack_length(message[:4])
    if len(message) < 4 + length:
        raise HelloError("it closed the connection")
    return message[4 : 4 + length]


@EXAMPLES
@given(st.data())
def test_a_hello_is_believed_only_as_it_was_meant(data: st.DataObject) -> None:
    tenants = ("blue", "green")
    one = Hello("a", SECRET, (1, 2), connected=True, tenants=tenants)
    other = Hello("b", SECRET, (1, 3), connected=False, tenants=("green", "blue"))
    try:
        one.read_first(hear(data.draw(spoilt(other.first()))))
        other.read_first(hear(data.draw(spoilt(one.first()))))
        other.read_second(hear(data.draw(spoilt(one.second()))))
        one.read_second(hear(data.draw(spoilt(other.second()))))
    except HelloError as error:
        assert len(str(error)) < 1000
        return
    assert (one.peer, other.peer, one.version, other.version) == ("b", "a", 1, 1)
    assert (one.tenant, other.tenant) == ("green", "blue")
    assert one.session == other.session


@EXAMPLES
@given(st.data())
def test_who_does_not_know_the_secret_is_never_believed(data: st.DataObject) -> None:
    victim = Hello("a", SECRET, (1,), connected=data.draw(st.booleans()))
    stranger = Hello("b", b"", (1,), connected=not victim._connected)
    try:
        victim.read_first(hear(data.draw(spoilt(stranger.first()))))
        stranger.read_first(hear(victim.first()))
    except HelloError:
        return
    for said in (victim.second(), data.draw(spoilt(stranger.second())), data.draw(spoilt(victim.second()))):
        try:
            victim.read_second(hear(said))
        except HelloError:
            continue
        raise AssertionError("it was believed")


@EXAMPLES
@given(st.binary(max_size=asking.MOST_BYTES + 8), st.data())
def test_a_question_is_read_or_refused(noise: bytes, data: st.DataObject) -> None:
    kind, number = data.draw(st.integers(0, 9)), data.draw(st.integers(0, 2**32 - 1) | st.integers(0, 70000))
    head = b"ffvbrask" + (1).to_bytes(4, "little") + kind.to_bytes(4, "little")
    packet = head + noise[:16].ljust(16, b"\0") + number.to_bytes(4, "little") + noise[16:]
    for candidate in (noise, packet, packet.ljust(asking.PACKET_BYTES, b"\0")):
        try:
            question = asking.parse(candidate)
        except asking.QuestionError as error:
            assert len(str(error)) < 200
            continue
        if isinstance(question, asking.Question):
            told = asking.answer(question, 2, "why not " * 100)
            assert len(told) <= asking.PACKET_BYTES + 255
