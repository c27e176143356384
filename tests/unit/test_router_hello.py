"""The hello of two routers, without sockets: whom it admits, and what it says to the others."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router._data import WIRE_VERSION
from router.hello import Hello, HelloError, pack, unpack_length

SECRET = b"the same on all hosts of one cluster"


def body(message: bytes) -> bytes:
    assert unpack_length(message[:4]) == len(message) - 4
    return message[4:]


def pair(secret: bytes = SECRET, versions: tuple[int, ...] = (1,), host: str = "b") -> tuple[Hello, Hello]:
    return Hello("a", SECRET, (1,), connected=True), Hello(host, secret, versions, connected=False)


def greet(one: Hello, other: Hello) -> None:
    one.read_first(body(other.first()))
    other.read_first(body(one.first()))
    other.read_second(body(one.second()))
    one.read_second(body(other.second()))


def test_two_that_know_the_secret_agree() -> None:
    one, other = pair(versions=(1, 2))
    greet(one, other)
    assert (one.peer, other.peer, one.version, other.version) == ("b", "a", 1, 1)


def test_both_sides_agree_on_what_to_resume() -> None:
    one, other = pair()
    greet(one, other)
    assert one.session == other.session and not one.resumed and not other.resumed
    known = one.session
    for theirs, resumed in ((known, True), ("", False)):
        one, other = pair()
        one.resume = known
        other.resume = theirs  # who accepts decides
        greet(one, other)
        assert one.resumed == other.resumed == resumed
        assert one.session != known


@pytest.mark.parametrize("resume", ["ab", 7, None, "X" * 32])
def test_what_to_resume_is_checked(resume: object) -> None:
    one, other = pair()
    one.read_first(body(other.first()))
    other.read_first(body(one.first()))
    fields = json.loads(body(one.second())) | {"resume": resume}
    with pytest.raises(HelloError, match="resume is malformed"):
        other.read_second(json.dumps(fields).encode())


def test_what_to_resume_is_proven() -> None:
    one, other = pair()
    one.read_first(body(other.first()))
    other.read_first(body(one.first()))
    fields = json.loads(body(one.second())) | {"resume": "0" * 32}
    with pytest.raises(HelloError, match="differ"):
        other.read_second(json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("ours", "theirs", "common"),
    [
        (("rdma", "tcp"), ("rdma", "tcp"), "rdma"),
        (("rdma", "tcp"), ("tcp",), "tcp"),
        (("tcp",), ("rdma", "tcp"), "tcp"),
        (("tcp", "rdma"), ("quantum", "rdma"), "rdma"),
    ],
)
def test_the_best_transport_of_both_is_taken(ours: tuple[str, ...], theirs: tuple[str, ...], common: str) -> None:
    one = Hello("a", SECRET, (1,), connected=True, transports=ours)
    other = Hello("b", SECRET, (1,), connected=False, transports=theirs)
    greet(one, other)
    assert (one.transport, other.transport) == (common, common)


def test_a_router_that_names_no_transports_has_tcp() -> None:
    one, other = pair()
    first = json.loads(body(other.first()))
    del first["transports"]
    one.read_first(json.dumps(first).encode())
    assert one.transport == "tcp"


def test_without_a_common_transport_both_offers_are_named() -> None:
    one = Hello("a", SECRET, (1,), connected=True, transports=("rdma",))
    other = Hello("b", SECRET, (1,), connected=False)
    with pytest.raises(HelloError, match="router of b offers tcp, the one of a rdma: see --transport"):
        greet(one, other)


@pytest.mark.parametrize("transports", ["rdma", [1], {"tcp": 1}])
def test_malformed_transports_are_refused(transports: object) -> None:
    one, other = pair()
    first = json.loads(body(other.first())) | {"transports": transports}
    with pytest.raises(HelloError, match="transports are malformed"):
        one.read_first(json.dumps(first).encode())


@pytest.mark.parametrize("secret", [b"", b"another secret of another cluster"])
def test_another_secret_is_refused(secret: bytes) -> None:
    with pytest.raises(HelloError, match="cluster secrets of b and a differ"):
        greet(*pair(secret))


@pytest.mark.parametrize("theirs", [(2, 3), (0,)], ids=["newer", "older"])
def test_a_router_without_our_version_is_refused_with_both_lists(theirs: tuple[int, ...]) -> None:
    named = re.escape(str(list(theirs)))
    with pytest.raises(HelloError, match=rf"router of b speaks versions {named}.* the one of a \[1\]: update"):
        greet(*pair(versions=theirs))


def test_the_version_that_is_offered_is_the_documented_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "wire.md").read_text(encoding="utf-8")
    assert f"Version {WIRE_VERSION} of the frames" in page
    assert f'"versions": [{WIRE_VERSION}]' in page


def test_a_router_of_our_own_name_is_refused() -> None:
    with pytest.raises(HelloError, match="both routers say that they are host a"):
        greet(*pair(host="a"))


@pytest.mark.parametrize(
    ("ours", "theirs", "text"),
    [
        (("blue",), ("green",), "of b is of tenant green, the one of a of blue"),
        (("blue",), ("green", "blue"), "of b is of tenant green, the one of a of blue"),
        (("blue", "green"), ("green",), "of a is of tenant blue, the one of b of green"),
        (("blue", "green"), ("green", "blue"), None),
    ],
)
def test_tenants_talk_only_if_both_sides_allow_it(
    ours: tuple[str, ...], theirs: tuple[str, ...], text: str | None
) -> None:
    one = Hello("a", SECRET, (1,), connected=True, tenants=ours)
    other = Hello("b", SECRET, (1,), connected=False, tenants=theirs)
    if text is None:
        greet(one, other)
        assert (one.tenant, other.tenant) == ("green", "blue")
        return
    with pytest.raises(HelloError, match=text):
        greet(one, other)


def test_a_tenant_is_in_the_proof() -> None:
    one, other = pair()
    fields = json.loads(body(other.first())) | {"tenant": "green"}
    one = Hello("a", SECRET, (1,), connected=True, tenants=("default", "green"))
    one.read_first(body(pack(fields)))
    other.read_first(body(one.first()))
    with pytest.raises(HelloError, match="differ"):
        other.read_second(body(one.second()))


def test_a_proof_cannot_be_sent_back_to_its_maker() -> None:
    one, other = pair()
    one.read_first(body(other.first()))
    with pytest.raises(HelloError, match="differ"):
        one.read_second(body(one.second()))


def test_a_nonce_cannot_be_sent_back_to_its_maker() -> None:
    one, _ = pair()
    fields = json.loads(body(one.first())) | {"host": "b"}
    with pytest.raises(HelloError, match="its nonce is ours"):
        one.read_first(body(pack(fields)))


def test_a_proof_is_of_one_hello_only() -> None:
    one, other = pair()
    one.read_first(body(other.first()))
    other.read_first(body(one.first()))
    recorded = body(one.second())
    again, victim = pair()
    again.read_first(body(victim.first()))
    victim.read_first(body(one.first()))
    with pytest.raises(HelloError, match="differ"):
        victim.read_second(recorded)


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    one, _ = pair()
    with pytest.raises(HelloError):
        one.read_first(noise)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)


@given(st.sampled_from(["ffverbs", "versions", "host", "nonce", "tenant"]), VALUES)
def test_each_field_is_checked(name: str, value: object) -> None:
    one, other = pair()
    fields = json.loads(body(other.first()))
    if fields[name] == value or (name == "versions" and isinstance(value, list) and 1 in value):
        return
    fields[name] = value
    try:
        one.read_first(json.dumps(fields).encode())
    except HelloError:
        return
    assert name == "host"
    assert isinstance(value, str) and value.isprintable()


@pytest.mark.parametrize("length", [0, 1, 4097, 2**32 - 1])
def test_a_length_that_cannot_be_is_refused(length: int) -> None:
    with pytest.raises(HelloError):
        unpack_length(length.to_bytes(4, "big"))
