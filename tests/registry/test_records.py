"""Records and their JSON: what was written is read back, and nothing else is."""

import ipaddress
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcd_registry import AlienRecordError, ContainerRecord, HostRecord, address_of, canonical_gid, gid_of
from etcd_registry.records import CONTAINERS, HOSTS, decode, encode, key_of, parse_endpoint

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True)
NONCES = st.from_regex(r"[A-Za-z0-9_-]{0,64}", fullmatch=True)
GIDS = st.ip_addresses().map(gid_of)
HOST = HostRecord("a", ("10.0.0.1:7471",), ("tcp",), "m", "nonce")
CONTAINER = ContainerRecord(gid_of(ipaddress.ip_address("10.1.0.1")), "a", "blue", 3, "nonce")


@settings(max_examples=40, deadline=None)
@given(
    NAMES, st.lists(st.tuples(NAMES, st.integers(1, 65535)), min_size=1, max_size=16),
    st.lists(NAMES, min_size=1, max_size=4), NAMES, NONCES,
)  # fmt: skip
def test_hosts_come_back(
    name: str, endpoints: list[tuple[str, int]], transports: list[str], machine: str, owner: str
) -> None:
    texts = tuple(f"{host}:{port}" for host, port in endpoints)
    record = HostRecord(name, texts, tuple(transports), machine, owner)
    assert decode(key_of(record), encode(record)) == record


@settings(max_examples=40, deadline=None)
@given(GIDS, NAMES, NAMES, st.integers(1, 2**63 - 1), NONCES)
def test_containers_come_back(gid: str, host: str, tenant: str, generation: int, owner: str) -> None:
    record = ContainerRecord(gid, host, tenant, generation, owner)
    assert decode(key_of(record), encode(record)) == record


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200) | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(
    lambda value: json.dumps(value).encode()
))  # fmt: skip
def test_anything_else_is_alien(value: bytes) -> None:
    for key in (key_of(HOST), key_of(CONTAINER), "/ffverbs/v1/else"):
        with pytest.raises(AlienRecordError):
            decode(key, value)


def changed(**fields: object) -> bytes:
    return json.dumps({**json.loads(encode(CONTAINER)), **fields}).encode()


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        (changed(schema=2), "newer ffverbs"),
        (changed(schema=True), "'schema' is no whole number"),
        (changed(schema="1"), "'schema' is no whole number"),
        (changed(more=1), "unknown fields: 'more'"),
        (changed(generation=0), "generation 0"),
        (changed(generation=2**63), "generation"),
        (changed(generation=True), "'generation' is no whole number"),
        (changed(generation=1.0), "no whole number"),
        (changed(host="a/b"), "no name"),
        (changed(host=""), "no name"),
        (changed(tenant="x" * 64), "no name"),
        (changed(owner="a b"), "no nonce"),
        (changed(gid="::ffff:10.1.0.1"), "not written in full"),
        (changed(gid="10.1.0.1"), "no GID"),
        (changed(gid=gid_of(ipaddress.ip_address("10.1.0.2"))), "it says that it belongs to"),
        (encode(CONTAINER).replace(b'"host":"a"', b'"host":"a","host":"b"'), "twice"),
        (encode(CONTAINER).replace(b'"generation":3', b'"generation":NaN'), "no whole number"),
        (encode(CONTAINER)[:-1], "no JSON"),
        (b"[" * 10_000, "no JSON"),
        (b"[]", "no object"),
        (b" " * 20_000, "longer than"),
    ],
)
def test_what_is_wrong_is_said(value: bytes, wrong: str) -> None:
    with pytest.raises(AlienRecordError, match=wrong):
        decode(key_of(CONTAINER), value)


def test_a_record_is_read_only_under_its_own_kind() -> None:
    with pytest.raises(AlienRecordError):
        decode(HOSTS + "a", encode(CONTAINER))
    with pytest.raises(AlienRecordError):
        decode(CONTAINERS + "a", encode(HOST))


@pytest.mark.parametrize(
    "endpoints", [(), ("a",), ("a:0",), ("a:65536",), ("a:-1",), ("::1:5",), ("[::1:5",), ("a:5",) * 17]
)
def test_hosts_need_endpoints(endpoints: tuple[str, ...]) -> None:
    with pytest.raises(AlienRecordError):
        HostRecord("a", endpoints, ("tcp",), "m")


def test_endpoints_are_split() -> None:
    assert parse_endpoint("a.example:7471") == ("a.example", 7471)
    assert parse_endpoint("[fd00::1]:7471") == ("fd00::1", 7471)


def test_gids_have_one_notation() -> None:
    address = ipaddress.ip_address("10.1.2.3")
    gid = gid_of(address)
    assert (
        gid
        == "0000:0000:0000:0000:0000:ffff:0a01:0203"
        == canonical_gid("::ffff:10.1.2.3")
        == canonical_gid("::FFFF:A01:203")
    )
    assert address_of(gid) == address
    assert address_of(canonical_gid("fe80::1")) is None
