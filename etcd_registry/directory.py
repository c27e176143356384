"""The map of hosts and containers that a router looks things up in: a cache, kept by pushes, that never blocks.

It goes on answering while its source is away. A source that returns may at first show less than the truth, because the
leases of others ended while it was away, or because it lost everything, and they are about to register again: for
`GRACE_S` after its return what is gone from the source is still served, and only then dropped.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from .errors import AlienRecordError, RegistryUnavailableError
from .records import CONTAINERS, HOSTS, ContainerRecord, HostRecord, Record, canonical_gid, decode, key_of
from .store import KeyValue

__all__ = ["GRACE_S", "Change", "Directory", "Location", "Subscription"]

log = logging.getLogger("etcd_registry")

GRACE_S = 3.0


@dataclass(frozen=True, slots=True)
class Change:
    """What a record was and is; None where it was or is not there."""

    before: Record | None
    now: Record | None


@dataclass(frozen=True, slots=True)
class Location:
    """A container, and the router that it is reached through."""

    container: ContainerRecord
    host: HostRecord


class Subscription:
    """Changes of a directory, as an asynchronous iterator.

    Changes of one record that nobody has fetched yet become one, so a slow reader never has more than a record a key
    waiting for it.
    """

    def __init__(self) -> None:
        self._changes: dict[str, Change] = {}
        self._filled = asyncio.Event()
        self._closed = False

    def push(self, key: str, change: Change) -> None:
        """Add a change of the record at `key`."""
        waiting = self._changes.pop(key, None)
        before = waiting.before if waiting else change.before
        if before != change.now:
            self._changes[key] = Change(before, change.now)
            self._filled.set()

    def close(self) -> None:
        """End the iteration, after what is waiting."""
        self._closed = True
        self._filled.set()

    def __aiter__(self) -> AsyncIterator[Change]:
        """Iterate over changes, the oldest first."""
        return self

    async def __anext__(self) -> Change:
        """Wait for the next change."""
        while not self._changes:
            if self._closed:
                raise StopAsyncIteration
            self._filled.clear()
            await self._filled.wait()
        return self._changes.pop(next(iter(self._changes)))


class Directory:
    """The map itself. Look-ups are plain calls; whoever owns it feeds it by `put`, `drop`, `replace` and `settle`."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._doubted: dict[str, asyncio.TimerHandle] = {}
        self._settled_at = 0.0
        self._subscriptions: set[Subscription] = set()
        self._aliens: dict[str, int] = {}
        self._synced = asyncio.Event()
        self.connected = False
        self.problem = "it has not been read yet"  # why it is not connected, for people

    # look-ups

    @property
    def hosts(self) -> list[HostRecord]:
        """Every host that is known."""
        return [record for record in self._records.values() if isinstance(record, HostRecord)]

    @property
    def containers(self) -> list[ContainerRecord]:
        """Every container that is known."""
        return [record for record in self._records.values() if isinstance(record, ContainerRecord)]

    def record(self, key: str) -> Record | None:
        """Return the record at a key of the registry."""
        return self._records.get(key)

    def host(self, name: str) -> HostRecord | None:
        """Return the host of that name."""
        record = self._records.get(HOSTS + name)
        return record if isinstance(record, HostRecord) else None

    def container(self, gid: str) -> ContainerRecord | None:
        """Return the container with that GID, in any notation."""
        record = self._records.get(CONTAINERS + canonical_gid(gid))
        return record if isinstance(record, ContainerRecord) else None

    def locate(self, gid: str) -> Location | None:
        """Return where the container with that GID is; None if it, or its host's router, is not known."""
        container = self.container(gid)
        host = self.host(container.host) if container else None
        return Location(container, host) if container and host else None

    def subscribe(self) -> Subscription:
        """Return the changes from now on. `unsubscribe` when done."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription."""
        self._subscriptions.discard(subscription)
        subscription.close()

    async def wait_synced(self, timeout_s: float) -> None:
        """Wait until the map has been read once; RegistryUnavailableError says why it was not."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._synced.wait()
        except TimeoutError:
            raise RegistryUnavailableError(
                f"the registry could not be read within {timeout_s:g} s: {self.problem}"
            ) from None

    # feeding

    def _set(self, key: str, record: Record | None) -> None:
        self._trust(key)
        before = self._records.get(key)
        if record is None:
            self._records.pop(key, None)
        else:
            self._records[key] = record
        if record != before:
            for subscription in self._subscriptions:
                subscription.push(key, Change(before, record))

    def _trust(self, key: str) -> None:
        doubt = self._doubted.pop(key, None)
        if doubt:
            doubt.cancel()

    def put(self, kv: KeyValue) -> None:
        """Take a key of the source over. An alien value is ignored, with a warning: it is as if the key were absent."""
        try:
            record: Record | None = decode(kv.key, kv.value)
        except AlienRecordError as error:
            if self._aliens.get(kv.key) != kv.mod_revision:
                self._aliens[kv.key] = kv.mod_revision
                log.warning("ignored what stands at %r in the registry: %s", kv.key, error)
            record = None
        else:
            self._aliens.pop(kv.key, None)
        if record is not None or kv.key in self._records:
            self._set(kv.key, record)

    def drop(self, key: str) -> None:
        """Take over that a key is gone from the source."""
        self._aliens.pop(key, None)
        if key not in self._records or key in self._doubted:
            return
        loop = asyncio.get_running_loop()
        if loop.time() < self._settled_at:
            self._doubted[key] = loop.call_at(self._settled_at, self._set, key, None)
        else:
            self._set(key, None)

    def replace(self, items: Iterable[KeyValue]) -> None:
        """Take over everything that the source has."""
        items = tuple(items)
        for key in self._records.keys() - {kv.key for kv in items}:
            self.drop(key)
        self._aliens = {kv.key: self._aliens[kv.key] for kv in items if kv.key in self._aliens}
        for kv in items:
            self.put(kv)
        self._synced.set()

    def replace_records(self, records: Iterable[Record]) -> None:
        """Take over everything that a source of records has."""
        wanted = {key_of(record): record for record in records}
        for key in self._records.keys() - wanted.keys():
            self.drop(key)
        for key, record in wanted.items():
            self._set(key, record)
        self._synced.set()

    def disconnect(self, reason: str) -> None:
        """Note that the source is away."""
        self.connected = False
        self.problem = reason

    def connect(self) -> None:
        """Note that the source is there."""
        self.connected = True
        self.problem = ""

    def doubt(self) -> None:
        """Begin the time of grace: the source has returned."""
        if self._synced.is_set():
            self._settled_at = asyncio.get_running_loop().time() + GRACE_S

    def close(self) -> None:
        """End subscriptions and timers."""
        for doubt in self._doubted.values():
            doubt.cancel()
        self._doubted.clear()
        for subscription in list(self._subscriptions):
            self.unsubscribe(subscription)
