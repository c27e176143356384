"""A Store in the memory of one process, for tests and for programs of one process that want no etcd.

It keeps the contract of store.py with etcd's semantics: revisions, leases that end, watches that resume, compaction.
MemoryEtcd is the server, with switches for everything that can happen to one; MemoryStore is a client of it. All of it
belongs to one event loop. A list or a transaction is one step of that loop, which is what makes it atomic.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Iterator

from .errors import LeaseLostError, RegistryDeniedError, RegistryError, RegistryUnavailableError
from .store import Changes, Cut, KeyValue, Resumed, Snapshot, Swap, WatchItem

__all__ = ["MemoryEtcd", "MemoryStore"]


class MemoryEtcd:
    """The server. `stop` and `start` are a kill and a restart: what was stored stays, watches are cut."""

    def __init__(self) -> None:
        self.lease_ids = itertools.count(1)
        self._forbidden = False
        self._running = asyncio.Event()
        self._running.set()
        self._changed: set[asyncio.Event] = set()
        self.cuts = 0  # how often watches were cut
        self._begin_life()

    def _begin_life(self) -> None:
        self.life = object()
        self.revision = 1
        self.compacted = 0
        self.keys: dict[str, KeyValue] = {}
        self.history: list[tuple[int, KeyValue | str]] = []
        self.lease_ends: dict[int, tuple[float, int]] = {}  # lease: when it ends, for how long it was granted

    # switches

    def stop(self) -> None:
        """Answer nobody, until `start`."""
        self._running.clear()
        self.cuts += 1
        self.wake()

    def start(self) -> None:
        """Answer again. As with etcd, every lease begins anew."""
        now = asyncio.get_running_loop().time()
        self.lease_ends = {lease: (now + ttl_s, ttl_s) for lease, (_, ttl_s) in self.lease_ends.items()}
        self._running.set()
        self.wake()

    def resume(self) -> None:
        """Answer again after a `stop` in which time did not stand still for leases, as in a stopped process."""
        self._running.set()
        self.wake()

    def wipe(self) -> None:
        """Forget everything, as an etcd does whose data folder was removed."""
        self._begin_life()
        self.cuts += 1
        self.wake()

    def forbid(self, forbidden: bool) -> None:
        """Refuse everybody's calls, or accept them again."""
        self._forbidden = forbidden
        self.cuts += 1
        self.wake()

    def compact(self, revision: int) -> None:
        """Forget what was before `revision`."""
        self.compacted = revision
        self.history = [entry for entry in self.history if entry[0] >= revision]

    def end_lease(self, lease: int) -> None:
        """End a lease, as if nobody had refreshed it."""
        self.lease_ends.pop(lease, None)
        for key in [key for key, kv in self.keys.items() if kv.lease == lease]:
            self.write(key, None, 0)

    # what clients do

    @property
    def running(self) -> bool:
        """Whether it answers."""
        return self._running.is_set()

    async def reach(self, timeout_s: float) -> None:
        """Wait until it answers, for as long as a call may take. Others run meanwhile, as during a real call."""
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(timeout_s):
                await self._running.wait()
        except TimeoutError:
            raise RegistryUnavailableError(f"the store did not answer within {timeout_s:g} s: it is stopped") from None
        self.attend()

    def attend(self) -> None:
        """Do what comes before any call: end the leases whose time has come, and fail while calls are forbidden."""
        if self._forbidden:
            raise RegistryDeniedError("the store refuses this client; check the user, its password and its role")
        now = asyncio.get_running_loop().time()
        for lease in [lease for lease, (end, _) in self.lease_ends.items() if end <= now]:
            self.end_lease(lease)

    def write(self, key: str, value: bytes | None, lease: int) -> KeyValue | None:
        """Put (`value`) or delete (None) a key under a new revision."""
        if lease and lease not in self.lease_ends:
            raise LeaseLostError(f"there is no lease {lease:x}: it has ended")
        old = self.keys.get(key)
        if value is None and old is None:
            return None
        self.revision += 1
        if value is None:
            del self.keys[key]
            self.history.append((self.revision, key))
            self.wake()
            return None
        created = old.create_revision if old else self.revision
        self.keys[key] = KeyValue(key, value, self.revision, created, lease)
        self.history.append((self.revision, self.keys[key]))
        self.wake()
        return self.keys[key]

    def wake(self) -> None:
        """Let the watches look again."""
        for event in self._changed:
            event.set()

    @contextlib.contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """Give an event that is set with every change."""
        event = asyncio.Event()
        self._changed.add(event)
        try:
            yield event
        finally:
            self._changed.discard(event)

    def next_end_s(self) -> float | None:
        """Return how long it is until the next lease ends, None without leases."""
        ends = [end for end, _ in self.lease_ends.values()]
        return max(min(ends) - asyncio.get_running_loop().time(), 0) if ends else None


class MemoryStore:
    """A client of a MemoryEtcd."""

    def __init__(self, server: MemoryEtcd, *, timeout_s: float = 3.0) -> None:
        self._server = server
        self._timeout_s = timeout_s
        self._closed = False

    async def _reach(self) -> MemoryEtcd:
        if self._closed:
            raise RegistryError("this client has been closed")
        await self._server.reach(self._timeout_s)
        return self._server

    async def get(self, key: str) -> KeyValue | None:
        """Return the key, or None if it is absent."""
        return (await self._reach()).keys.get(key)

    async def get_prefix(self, prefix: str) -> Snapshot:
        """Return every key that begins with `prefix`."""
        return self._snapshot(await self._reach(), prefix)

    @staticmethod
    def _snapshot(server: MemoryEtcd, prefix: str) -> Snapshot:
        items = tuple(server.keys[key] for key in sorted(server.keys) if key.startswith(prefix))
        return Snapshot(server.revision, items)

    async def put(self, key: str, value: bytes, lease: int = 0) -> int:
        """Write the key and return its new revision."""
        server = await self._reach()
        server.write(key, value, lease)
        return server.revision

    async def put_if_not_exists(self, key: str, value: bytes, lease: int = 0) -> Swap:
        """Write the key if it is absent (Store.put_if_not_exists)."""
        server = await self._reach()
        current = server.keys.get(key)
        if current is None:
            return Swap(True, server.write(key, value, lease))
        return Swap(current.value == value and current.lease == lease, current)

    async def replace(self, expected: KeyValue, value: bytes | None, lease: int = 0) -> Swap:
        """Write or delete the key if it stands as `expected` (Store.replace)."""
        server = await self._reach()
        current = server.keys.get(expected.key)
        if current is not None and current.mod_revision == expected.mod_revision:
            return Swap(True, server.write(expected.key, value, lease))
        if current is None:
            return Swap(value is None, None)
        return Swap(current.value == value and current.lease == lease, current)

    async def delete(self, key: str) -> bool:
        """Delete the key and return whether it was there."""
        server = await self._reach()
        was_there = key in server.keys
        server.write(key, None, 0)
        return was_there

    async def lease(self, ttl_s: int) -> int:
        """Grant a lease and return its id."""
        server = await self._reach()
        lease = next(server.lease_ids)
        server.lease_ends[lease] = (asyncio.get_running_loop().time() + ttl_s, ttl_s)
        server.wake()
        return lease

    async def refresh_lease(self, lease: int) -> int:
        """Let the lease begin anew and return its seconds."""
        server = await self._reach()
        if lease not in server.lease_ends:
            raise LeaseLostError(f"there is no lease {lease:x}: it has ended")
        _, ttl_s = server.lease_ends[lease]
        server.lease_ends[lease] = (asyncio.get_running_loop().time() + ttl_s, ttl_s)
        return ttl_s

    async def revoke_lease(self, lease: int) -> None:
        """End the lease and delete its keys."""
        (await self._reach()).end_lease(lease)

    async def compact(self, revision: int) -> None:
        """Forget what was before `revision`."""
        (await self._reach()).compact(revision)

    async def watch_prefix(self, prefix: str) -> AsyncGenerator[WatchItem, None]:
        """Yield a Snapshot of the prefix and then its Changes (Store.watch_prefix)."""
        server = self._server
        position, life = 0, None
        cuts: int | None = None  # of the server, when the watch last stood; None while it does not
        told = False
        with server.listening() as changed:
            while not self._closed:
                changed.clear()
                if (cuts is not None and cuts != server.cuts) or not (server.running or told):
                    cuts, told = None, True
                    yield Cut("the store has cut the watch")
                if not server.running:
                    await changed.wait()
                    continue
                server.attend()
                if life is not server.life or position + 1 < server.compacted:
                    life, position = server.life, server.revision
                    yield self._snapshot(server, prefix)
                if cuts is None:
                    cuts, told = server.cuts, False
                    yield Resumed(position)
                    continue
                events = tuple(event for revision, event in server.history if revision > position)
                events = tuple(
                    event for event in events if (event if isinstance(event, str) else event.key).startswith(prefix)
                )
                position = server.revision
                if events:
                    yield Changes(position, events)
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(server.next_end_s()):
                        await changed.wait()

    async def close(self) -> None:
        """End the watches."""
        self._closed = True
        self._server.wake()
