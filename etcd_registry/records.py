"""What stands in the registry: keys, records, and their JSON.

A value is a JSON object with its schema's version in `schema`. It is read strictly: whatever is missing, unknown,
mistyped or does not fit its key makes it alien, so that a newer or foreign writer is ignored and never half understood.
"""

import ipaddress
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .errors import AlienRecordError

__all__ = [
    "CONTAINERS",
    "HOSTS",
    "MARKER",
    "PREFIX",
    "SCHEMA",
    "ContainerRecord",
    "HostRecord",
    "Record",
    "address_of",
    "as_integer",
    "as_object",
    "as_text",
    "as_texts",
    "canonical_gid",
    "decode",
    "encode",
    "gid_of",
    "key_of",
    "parse_endpoint",
    "read_object",
    "this_machine",
]

SCHEMA = 1
PREFIX = "/ffverbs/v1/"
HOSTS = PREFIX + "hosts/"
CONTAINERS = PREFIX + "containers/"
MARKER = PREFIX + "cluster"  # no record: tells one life of the store from the next (EtcdClient)

_MAX_VALUE = 16 * 1024
_MAX_ENDPOINTS = 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class HostRecord:
    """A host's router: where other routers reach it, and by what.

    `machine` is the same for two routers only if they run on the same machine: it tells a restarted router, which
    takes its old record over, from a second host of the same name. `owner` is the nonce of the writer.
    """

    host: str
    endpoints: tuple[str, ...]
    transports: tuple[str, ...]
    machine: str
    owner: str = ""

    def __post_init__(self) -> None:
        """Refuse what could not be read back."""
        _name(self.host, "host")
        if not 1 <= len(self.endpoints) <= _MAX_ENDPOINTS:
            raise AlienRecordError(f"host {self.host}: a host has 1 to {_MAX_ENDPOINTS} endpoints")
        for endpoint in self.endpoints:
            parse_endpoint(endpoint)
        if not 1 <= len(self.transports) <= _MAX_ENDPOINTS:
            raise AlienRecordError(f"host {self.host}: a host has 1 to {_MAX_ENDPOINTS} transports")
        for transport in self.transports:
            _name(transport, "transport")
        _name(self.machine, "machine")
        _nonce(self.owner)

    def __str__(self) -> str:
        """Say who this is, for messages."""
        return f"host {self.host} (router at {', '.join(self.endpoints)}, machine {self.machine})"


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """Where a container is: `gid` in full (canonical_gid), its host and tenant.

    `generation` (positive) differs from start to start of a container, so that peers see that it was restarted.
    """

    gid: str
    host: str
    tenant: str
    generation: int
    owner: str = ""

    def __post_init__(self) -> None:
        """Refuse what could not be read back."""
        if self.gid != canonical_gid(self.gid):
            raise AlienRecordError(f"GID {self.gid!r} is not written in full: {canonical_gid(self.gid)}")
        _name(self.host, "host")
        _name(self.tenant, "tenant")
        if not 0 < self.generation < 2**63:
            raise AlienRecordError(f"container {self.gid}: generation {self.generation} is not in 1 to 2^63-1")
        _nonce(self.owner)

    def __str__(self) -> str:
        """Say who this is, for messages."""
        address = address_of(self.gid)
        return (
            f"the container with {f'address {address}' if address else f'GID {self.gid}'} on host {self.host}"
            f" (tenant {self.tenant}, generation {self.generation})"
        )


Record = HostRecord | ContainerRecord


def _name(text: str, what: str) -> None:
    if not _NAME.fullmatch(text):
        raise AlienRecordError(
            f"{what} {text!r} is no name: up to 63 letters, digits, dots, dashes, underscores, a letter or digit first"
        )


def _nonce(text: str) -> None:
    if text and not _TOKEN.fullmatch(text):
        raise AlienRecordError(f"owner {text!r} is no nonce of 1 to 64 letters, digits, dashes, underscores")


def parse_endpoint(text: str) -> tuple[str, int]:
    """Split `host:port`, IPv6 addresses in brackets; AlienRecordError says what is wrong with it."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise AlienRecordError(f"endpoint {text!r} has no port: write HOST:PORT, PORT from 1 to 65535")
    if bracketed:
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise AlienRecordError(f"endpoint {text!r} has no IPv6 address in its brackets") from None
        return host[1:-1], int(port)
    if ":" in host:
        raise AlienRecordError(f"endpoint {text!r}: write an IPv6 address in brackets, [ADDRESS]:PORT")
    _name(host, "host of an endpoint")
    return host, int(port)


def canonical_gid(text: str) -> str:
    """Return a GID as ffverbs prints it, eight groups of four digits; AlienRecordError if it is none."""
    try:
        packed = ipaddress.IPv6Address(text).packed.hex()
    except ValueError:
        raise AlienRecordError(f"{text!r} is no GID (an IPv6 address)") from None
    return ":".join(packed[start : start + 4] for start in range(0, 32, 4))


def gid_of(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Return the GID of an address: IPv4 addresses are mapped into IPv6."""
    if isinstance(address, ipaddress.IPv4Address):
        address = ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)
    return canonical_gid(str(address))


def address_of(gid: str) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that is mapped into the GID, None if there is none."""
    return ipaddress.IPv6Address(gid).ipv4_mapped


def key_of(record: Record) -> str:
    """Return the key under which the record stands."""
    return HOSTS + record.host if isinstance(record, HostRecord) else CONTAINERS + record.gid


def this_machine() -> str:
    """Return a word that is the same for everything that runs on this machine until it starts anew."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def encode(record: Record) -> bytes:
    """Return the record's value."""
    fields: dict[str, object] = {"schema": SCHEMA}
    fields |= {name: getattr(record, name) for name in record.__slots__}
    return json.dumps(fields, separators=(",", ":")).encode()


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise AlienRecordError("a field stands there twice")
    return fields


def _number(text: str) -> int:
    raise AlienRecordError(f"{text} is no whole number")


def as_text(value: object, name: str) -> str:
    """Return a field that must be a text."""
    if not isinstance(value, str):
        raise AlienRecordError(f"field {name!r} is no text")
    return value


def as_integer(value: object, name: str) -> int:
    """Return a field that must be a whole number."""
    if type(value) is not int:  # bool is an int to isinstance
        raise AlienRecordError(f"field {name!r} is no whole number")
    return value


def as_texts(value: object, name: str) -> tuple[str, ...]:
    """Return a field that must be a list of texts."""
    if not isinstance(value, list):
        raise AlienRecordError(f"field {name!r} is no list")
    return tuple(as_text(item, name) for item in value)


def as_object(value: object, name: str, expected: set[str] | None = None) -> dict[str, object]:
    """Return a field that must be an object, with exactly the fields `expected` (None: any)."""
    if not isinstance(value, dict):
        raise AlienRecordError(f"{name} is no object")
    if expected is not None and value.keys() != expected:
        different = ", ".join(sorted(map(repr, value.keys() ^ expected)))
        raise AlienRecordError(f"{name} has missing or unknown fields: {different:.200}")
    return value


def read_object(value: bytes, expected: set[str], max_bytes: int = _MAX_VALUE) -> dict[str, object]:
    """Return the fields of a JSON object that has the known schema and exactly `expected` besides."""
    if len(value) > max_bytes:
        raise AlienRecordError(f"it is longer than {max_bytes} bytes")
    try:
        fields = json.loads(value.decode(), object_pairs_hook=_pairs, parse_float=_number, parse_constant=_number)
    except (ValueError, RecursionError) as error:
        raise AlienRecordError(f"no JSON: {error}") from None
    fields = as_object(fields, "the value")
    schema = as_integer(fields.pop("schema", None), "schema")
    if schema != SCHEMA:
        raise AlienRecordError(f"schema {schema} is not {SCHEMA}, which is known here: did a newer ffverbs write it?")
    return as_object(fields, "the value", expected)


def _host(fields: dict[str, object]) -> HostRecord:
    return HostRecord(
        host=as_text(fields["host"], "host"),
        endpoints=as_texts(fields["endpoints"], "endpoints"),
        transports=as_texts(fields["transports"], "transports"),
        machine=as_text(fields["machine"], "machine"),
        owner=as_text(fields["owner"], "owner"),
    )


def _container(fields: dict[str, object]) -> ContainerRecord:
    return ContainerRecord(
        gid=as_text(fields["gid"], "gid"),
        host=as_text(fields["host"], "host"),
        tenant=as_text(fields["tenant"], "tenant"),
        generation=as_integer(fields["generation"], "generation"),
        owner=as_text(fields["owner"], "owner"),
    )


_READERS: dict[str, tuple[type[Record], Callable[[dict[str, object]], Record]]] = {
    HOSTS: (HostRecord, _host),
    CONTAINERS: (ContainerRecord, _container),
}


def decode(key: str, value: bytes) -> Record:
    """Return the record that stands at `key`; AlienRecordError says why it is none."""
    for prefix, (kind, reader) in _READERS.items():
        if key.startswith(prefix):
            record = reader(read_object(value, set(kind.__slots__)))
            if key_of(record) != key:
                raise AlienRecordError(f"it says that it belongs to {key_of(record)}")
            return record
    raise AlienRecordError("keys of this kind are not known here")
