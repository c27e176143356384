"""The contract between the registry and what keeps its keys: etcd (client.py) or a process's own memory (memory.py).

Both pass the same tests (tests/registry). Methods have etcd3's names where they do the same. All are coroutines of one
event loop, end within the store's deadline, and raise RegistryUnavailableError or RegistryDeniedError where the store
does not answer or refuses. A write that raised RegistryUnavailableError may have been carried out.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

__all__ = [
    "Changes",
    "Cut",
    "KeyValue",
    "Resumed",
    "Snapshot",
    "Store",
    "Swap",
    "WatchItem",
    "prefix_end",
    "prefix_start",
]


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A key as it stood at `mod_revision`; `lease` is 0 where it has none."""

    key: str
    value: bytes
    mod_revision: int
    create_revision: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Swap:
    """What became of a compare-and-swap: whether it was applied, and the key as it is now (None: absent)."""

    applied: bool
    current: KeyValue | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every key of a prefix at one revision: what was known before is void."""

    revision: int
    items: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened since the last item of the watch, in order: keys put, and names of keys that went."""

    revision: int
    events: tuple[KeyValue | str, ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """The watch has lost the store; it goes on by itself. `reason` is for people."""

    reason: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """The watch stands, and has reported everything up to `revision`, at the start and after every row of Cuts."""

    revision: int


WatchItem = Snapshot | Changes | Cut | Resumed


class Store(Protocol):
    """A key-value store with revisions, leases and watches."""

    async def get(self, key: str) -> KeyValue | None:
        """Return the key, or None if it is absent."""

    async def get_prefix(self, prefix: str) -> Snapshot:
        """Return every key that begins with `prefix`, all at one revision."""

    async def put(self, key: str, value: bytes, lease: int = 0) -> int:
        """Write the key and return its new revision; LeaseLostError if the lease has ended."""

    async def put_if_not_exists(self, key: str, value: bytes, lease: int = 0) -> Swap:
        """Write the key if it is absent.

        `value` must hold a nonce of its writer: after a cut the store takes a key with just this value as its own
        work, which it could not report then. LeaseLostError if the lease has ended.
        """

    async def replace(self, expected: KeyValue, value: bytes | None, lease: int = 0) -> Swap:
        """Write (`value`) or delete (None) the key if it stands as `expected`; the rule of put_if_not_exists holds."""

    async def delete(self, key: str) -> bool:
        """Delete the key and return whether it was there."""

    async def lease(self, ttl_s: int) -> int:
        """Grant a lease of at least `ttl_s` seconds and return its id."""

    async def refresh_lease(self, lease: int) -> int:
        """Let the lease begin anew and return its seconds; LeaseLostError if it has ended."""

    async def revoke_lease(self, lease: int) -> None:
        """End the lease and delete its keys; nothing happens if it has ended."""

    async def compact(self, revision: int) -> None:
        """Forget what was before `revision`."""

    def watch_prefix(self, prefix: str) -> AsyncGenerator[WatchItem, None]:
        """Yield a Snapshot of the prefix and then its Changes, none left out and none twice, until it is closed.

        It survives cuts: it resumes where it was, or yields a new Snapshot where the store no longer knows what
        happened since (after a compaction, or when it has been wiped). RegistryDeniedError ends it.
        """

    async def close(self) -> None:
        """Let go of everything that is open; watches end."""


def prefix_start(prefix: bytes) -> bytes:
    """Return the first key that begins with `prefix`: etcd takes no empty key, and none is before a zero byte."""
    return prefix or b"\0"


def prefix_end(prefix: bytes) -> bytes:
    """Return the first key after every key that begins with `prefix`: incremented with carry.

    A prefix of nothing but 0xff has no such key; etcd's word for "to the end" is a zero byte.
    """
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"
