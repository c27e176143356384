"""The registry of a cluster: who is where, under leases, with a cache that outlives its source.

One Registry a router. What the router wants registered stands under its lease; the keeper (a task) refreshes the lease,
and makes the store agree with what is wanted whenever it has doubt: after an outage, a lost lease, a wiped store. The
watcher (another task) feeds the directory. Neither ends because the store is away; both end with `close`.

A key is claimed by compare-and-swap, and the nonce of this registry's life stands in every value (`owner`).
"""

import abc
import asyncio
import contextlib
import ipaddress
import logging
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Self

from .directory import Directory, Location
from .errors import (
    AddressInUseError,
    AlienRecordError,
    LeaseLostError,
    PoolError,
    RegistryDeniedError,
    RegistryError,
    RegistryUnavailableError,
)
from .records import (
    CONTAINERS,
    HOSTS,
    MARKER,
    PREFIX,
    ContainerRecord,
    HostRecord,
    Record,
    canonical_gid,
    decode,
    encode,
    gid_of,
    key_of,
)
from .store import Changes, Cut, KeyValue, Resumed, Snapshot, Store, WatchItem

__all__ = ["Network", "Registry", "StoreRegistry", "parse_pool"]

log = logging.getLogger("etcd_registry")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Lost = Callable[[Record, str], None]

RETRY_MAX_S = 1.0
CANCEL_S = 0.2
CLAIM_TRIES = 16
NAMED_HOLDERS = 4


def parse_pool(text: str) -> Network:
    """Return the network that `--pool CIDR` names; PoolError says what is wrong with it."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise PoolError(f"pool {text!r}: {error}; write it as 10.1.0.0/16") from None
    if network.is_multicast or network.is_loopback or network.is_unspecified:
        raise PoolError(f"pool {text!r}: containers need unicast addresses other than loopback; take a private network")
    return network


class Registry(abc.ABC):
    """What a router needs of a registry, whatever keeps it. Use it as an asynchronous context manager."""

    def __init__(self) -> None:
        self.directory = Directory()

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        await self.close()

    @abc.abstractmethod
    async def start(self) -> None:
        """Begin to read the map. It need not be there yet: `directory.wait_synced` waits for it."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Withdraw what was registered, as far as the store can be reached, and stop."""

    @abc.abstractmethod
    async def register_host(self, record: HostRecord) -> None:
        """Register this router's host. AddressInUseError if a router of another machine has the name."""

    @abc.abstractmethod
    async def register_container(self, record: ContainerRecord) -> None:
        """Register a container of this host. AddressInUseError if another live container has its GID."""

    @abc.abstractmethod
    async def unregister_container(self, gid: str) -> None:
        """Withdraw a container of this host; when the store is away, the keeper does it later."""

    @abc.abstractmethod
    async def claim_address(self, pool: Network, host: str, tenant: str, generation: int) -> ContainerRecord:
        """Register a container under a free address of the pool. PoolError if there is none."""

    @abc.abstractmethod
    async def find_container(self, gid: str) -> ContainerRecord | None:
        """Return the container from the directory, else from the store itself: a push may still be on its way."""

    @abc.abstractmethod
    async def find_host(self, name: str) -> HostRecord | None:
        """Return the host from the directory, else from the store itself."""

    async def find(self, gid: str) -> Location | None:
        """Return where the container is, as `directory.locate` does, but ask the store for what is not known yet."""
        container = await self.find_container(gid)
        host = await self.find_host(container.host) if container else None
        return Location(container, host) if container and host else None


class StoreRegistry(Registry):
    """A registry in a Store.

    `ttl_s` is how long records outlive a router that died. `lost` is called with a record of ours, and words for who
    has it, when another owner took it over: it is no longer registered here.
    """

    def __init__(self, store: Store, *, ttl_s: int = 10, lost: Lost | None = None) -> None:
        super().__init__()
        self.owner = secrets.token_hex(8)
        self._store = store
        self._ttl_s = ttl_s
        self._lost = lost
        self._lease = 0
        self._wanted: dict[str, Record] = {}
        self._placed: dict[str, KeyValue] = {}  # what stands under our lease, as far as we know
        self._withdrawn: set[str] = set()  # keys that may hold a record of ours that is no longer wanted
        self._next_address = 0
        self._was_cut = False  # by the watcher: it has to doubt what it sees next
        self._failing = False  # by the keeper: the store does not answer, whatever the watcher sees
        self._writing = asyncio.Lock()  # lease, placing and withdrawing: one at a time
        self._nudge = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to read the map and to keep the lease."""
        self._tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._keep())]

    async def close(self) -> None:
        """Withdraw everything by ending the lease, and stop."""
        for task in self._tasks:
            while not task.done():  # a store that fails at the moment of cancelling tells of that instead
                task.cancel()
                await asyncio.wait({task}, timeout=CANCEL_S)
        self._tasks = []
        if self._lease:
            try:
                await self._store.revoke_lease(self._lease)
            except RegistryError as error:
                log.warning("the registry keeps this host's records for up to %d s more: %s", self._ttl_s, error)
            self._lease = 0
        self.directory.close()
        await self._store.close()

    # registering

    async def register_host(self, record: HostRecord) -> None:
        """Register this router's host (Registry.register_host)."""
        await self._register(record)

    async def register_container(self, record: ContainerRecord) -> None:
        """Register a container of this host (Registry.register_container)."""
        ours = self._wanted.get(key_of(record))
        if isinstance(ours, ContainerRecord) and ours.tenant != record.tenant:
            raise AddressInUseError(
                f"container {record.gid} cannot be registered for tenant {record.tenant}", str(ours),
                "give each container an address of its own",
            )  # fmt: skip
        await self._register(record)

    async def _register(self, record: Record, *, new: bool = False) -> None:
        """Register a record; with `new` not in place of another one of ours, nor of an earlier life of ours."""
        record = replace(record, owner=self.owner)
        key = key_of(record)
        async with self._writing:
            if new and key in self._wanted:
                raise AddressInUseError(f"{key} cannot be registered", str(self._wanted[key]), "take another one")
            try:
                await self._place(record, inherit=not new and key not in self._wanted)
            except RegistryUnavailableError:
                # It may have been written all the same: then it has to go, unless a later call wants it.
                self._doubt(key)
                raise
            self._wanted[key] = record
            self._withdrawn.discard(key)

    def _doubt(self, key: str) -> None:
        self._placed.pop(key, None)
        if key not in self._wanted:
            self._withdrawn.add(key)
        self._nudge.set()

    async def unregister_container(self, gid: str) -> None:
        """Withdraw a container of this host (Registry.unregister_container)."""
        key = CONTAINERS + canonical_gid(gid)
        async with self._writing:
            if self._wanted.pop(key, None) is None:
                return
            self._withdrawn.add(key)
            try:
                await self._withdraw(key)
            except RegistryError as error:
                log.warning("container %s is withdrawn from the registry later: %s", gid, error)
                self._nudge.set()

    async def claim_address(self, pool: Network, host: str, tenant: str, generation: int) -> ContainerRecord:
        """Register a container under a free address of the pool (Registry.claim_address)."""
        for address in self._candidates(pool):
            gid = gid_of(address)
            if self.directory.container(gid):
                continue
            record = ContainerRecord(gid, host, tenant, generation)
            try:
                await self._register(record, new=True)
            except AddressInUseError:
                continue  # the directory has not been told yet
            self._next_address = int(address) + 1
            return record
        raise PoolError(self._exhausted(pool))

    def _candidates(self, pool: Network) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
        """Go once round the usable addresses of a pool, from the one after the last that was taken here.

        An address that was just given back rests for as long as the pool allows. Routers begin at different places,
        so that they seldom try the same one.
        """
        first, last = _usable(pool)
        size = last - first + 1
        start = self._next_address - first if first < self._next_address <= last + 1 else int(self.owner, 16) % size
        make = type(pool.network_address)
        for step in range(size):
            yield make(first + (start + step) % size)

    def _exhausted(self, pool: Network) -> str:
        first, last = _usable(pool)
        make = type(pool.network_address)
        known = (self.directory.container(gid_of(make(number))) for number in range(first, last + 1))
        holders = [str(container) for container in known if container]
        named = "; ".join(holders[:NAMED_HOLDERS]) + ("; ..." if len(holders) > NAMED_HOLDERS else "")
        return (
            f"pool {pool} is too small: all of its {last - first + 1} addresses are in use ({named});"
            " give the router a larger one, or stop a container"
        )

    async def find_container(self, gid: str) -> ContainerRecord | None:
        """Return the container from the directory, else from the store (Registry.find_container)."""
        record = await self._find(CONTAINERS + canonical_gid(gid))
        return record if isinstance(record, ContainerRecord) else None

    async def find_host(self, name: str) -> HostRecord | None:
        """Return the host from the directory, else from the store (Registry.find_host)."""
        record = await self._find(HOSTS + name)
        return record if isinstance(record, HostRecord) else None

    async def _find(self, key: str) -> Record | None:
        record = self.directory.record(key)
        if record is None:
            kv = await self._store.get(key)
            record = _read(kv) if kv else None
        return record

    # placing; `_writing` is held

    async def _ensure_lease(self) -> int:
        if not self._lease:
            self._lease = await self._store.lease(self._ttl_s)
        return self._lease

    def _forget_lease(self) -> None:
        self._lease = 0
        self._placed.clear()

    async def _place(self, record: Record, *, inherit: bool) -> None:
        """Make the store hold the record under our lease.

        What an earlier life of this router left there is taken over (`inherit`) only at first: whoever writes to a key
        of ours later is a later life, and has taken it over from us.
        """
        key, value = key_of(record), encode(record)
        for _ in range(CLAIM_TRIES):
            lease = await self._ensure_lease()
            try:
                swap = await self._store.put_if_not_exists(key, value, lease)
                if not swap.applied and swap.current:
                    self._check_ours(record, swap.current, inherit)
                    swap = await self._store.replace(swap.current, value, lease)
            except LeaseLostError:
                self._forget_lease()
                continue
            if swap.applied and swap.current:
                self._placed[key] = swap.current
                return
        raise RegistryUnavailableError(f"{key} changed {CLAIM_TRIES} times while it was to be registered; try again")

    def _check_ours(self, record: Record, kv: KeyValue, inherit: bool) -> None:
        """Raise AddressInUseError unless what stands there was written by us, or may be inherited."""
        what = f"{kv.key.removeprefix(PREFIX)} cannot be registered"
        holder = _read(kv)
        if holder is None:
            raise AddressInUseError(what, "a record that this version cannot read", "look at it with etcdctl")
        if holder.owner == self.owner:
            return
        if isinstance(record, HostRecord):
            if not inherit or not isinstance(holder, HostRecord) or holder.machine != record.machine:
                raise AddressInUseError(what, str(holder), "give each router a host name of its own (--host)")
        elif not inherit or holder.host != record.host:
            raise AddressInUseError(what, str(holder), "stop that container first, or take another address")

    async def _withdraw(self, key: str) -> None:
        """Delete a key if it is ours."""
        kv = await self._store.get(key)
        holder = _read(kv) if kv else None
        if kv and holder and holder.owner == self.owner:
            await self._store.replace(kv, None)
        self._placed.pop(key, None)
        self._withdrawn.discard(key)

    # the keeper

    async def _keep(self) -> None:
        """Refresh the lease, and make the store agree with what is wanted, for as long as the registry is open."""
        pause_s = 0.05
        while True:
            self._nudge.clear()
            try:
                async with self._writing:
                    await self._agree()
            except Exception as error:
                self._failing = True
                if isinstance(error, RegistryError):
                    log.info("the registry is not up to date: %s", error)
                else:
                    log.exception("the registry's keeper goes on after a mistake of ours")
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_MAX_S)
                continue
            pause_s = 0.05
            self._failing = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._ttl_s / 3):
                    await self._nudge.wait()

    async def _agree(self) -> None:
        if self._lease:
            try:
                await self._store.refresh_lease(self._lease)
            except LeaseLostError:
                log.warning("the lease of this host's records has ended: registering again")
                self._forget_lease()
        for key, record in list(self._wanted.items()):
            if key in self._placed:
                continue
            try:
                await self._place(record, inherit=False)
            except AddressInUseError as error:
                self._give_up(key, error.holder)
        for key in list(self._withdrawn):
            await self._withdraw(key)

    def _give_up(self, key: str, holder: str) -> None:
        """Another owner has the key: it is no longer ours to want."""
        record = self._wanted.pop(key)
        self._placed.pop(key, None)
        log.error("%s has lost its place in the registry to %s", record, holder)
        if self._lost:
            self._lost(record, holder)

    # the watcher

    async def _watch(self) -> None:
        """Feed the directory, for as long as the registry is open."""
        while True:
            reason = "the watch has ended"
            try:
                async with contextlib.aclosing(self._store.watch_prefix(PREFIX)) as watch:
                    async for item in watch:
                        self._take(item)
            except RegistryError as error:
                reason = str(error)
                log.log(logging.ERROR if isinstance(error, RegistryDeniedError) else logging.WARNING, "%s", reason)
            except Exception:
                log.exception("the registry's watcher goes on after a mistake of ours")
            self._disconnected(reason)
            await asyncio.sleep(RETRY_MAX_S)

    def _disconnected(self, reason: str) -> None:
        if self.directory.connected:
            log.warning("the registry is away, what is known stays in use: %s", reason)
        self.directory.disconnect(reason)
        self._was_cut = True

    def _take(self, item: WatchItem) -> None:
        if isinstance(item, Cut):
            self._disconnected(item.reason)
            return
        if self._was_cut and not isinstance(item, Changes):
            self.directory.doubt()
        if isinstance(item, Snapshot):
            self.directory.replace(kv for kv in item.items if _is_record(kv.key))
            self._compare({kv.key: kv for kv in item.items})
        elif isinstance(item, Resumed):
            self._was_cut = False
            self.directory.connect()
            self._nudge.set()
        else:
            for event in item.events:
                self._take_event(event)

    def _take_event(self, event: KeyValue | str) -> None:
        if isinstance(event, str):
            if self._failing:  # leases of others end as ours may have: not because their owners went
                self.directory.doubt()
            self.directory.drop(event)
            self._missed(event)
        elif _is_record(event.key):
            self.directory.put(event)
            self._taken(event)

    def _compare(self, items: dict[str, KeyValue]) -> None:
        """Note what of ours is not where it should be."""
        for key in self._wanted.keys() - items.keys():
            self._missed(key)
        for kv in items.values():
            self._taken(kv)

    def _missed(self, key: str) -> None:
        """Notice that a key of ours is gone."""
        if self._placed.pop(key, None):
            self._nudge.set()

    def _taken(self, kv: KeyValue) -> None:
        """Look at what was written: is it something of ours that somebody took, or that should not be there?"""
        placed = self._placed.get(kv.key)
        wanted = kv.key in self._wanted
        if wanted and (placed is None or kv.mod_revision <= placed.mod_revision):
            return  # it is news from before our own claim
        holder = _read(kv)
        ours = holder is not None and holder.owner == self.owner
        if wanted and not ours:  # taken over: we do not fight for it
            self._give_up(kv.key, str(holder) if holder else "somebody whose record this version cannot read")
        elif ours and not wanted:  # a claim that failed here, and was carried out late
            self._withdrawn.add(kv.key)
            self._nudge.set()


def _is_record(key: str) -> bool:
    return key != MARKER


def _read(kv: KeyValue) -> Record | None:
    """Return the record, None if it is alien."""
    try:
        return decode(kv.key, kv.value)
    except AlienRecordError:
        return None


def _usable(pool: Network) -> tuple[int, int]:
    """Return the first and the last address that containers may have."""
    first, last = int(pool.network_address), int(pool.broadcast_address)
    if isinstance(pool, ipaddress.IPv4Network) and pool.prefixlen < 31:
        return first + 1, last - 1  # neither the network's own nor its broadcast address
    if isinstance(pool, ipaddress.IPv6Network) and pool.prefixlen < 127:
        return first + 1, last  # the first is the routers' anycast address
    return first, last
