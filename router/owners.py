"""Who may speak for whom: a host only for contexts whose address the registry gives to it (docs/decisions/0034).

The data plane holds back what another host says of an address until it is told whose that is. While the registry is
away, that waits; a push may be late by a moment, so what does not fit is looked at again before it is refused. When an
address has moved to another host, what leads to the old one ends.
"""

import asyncio
import ipaddress
import logging
from dataclasses import dataclass, field
from typing import Any

from etcd_registry import ContainerRecord, HostRecord, Location, Registry, RegistryError, canonical_gid
from router._data import ContextClaimed, DataPlane, RouterError
from router.peers import Peers

__all__ = ["Owners"]

log = logging.getLogger("ffverbs.router")

_AGAIN_S = 0.05
_PATIENCE_S = 1.0  # for a push that is on its way
_MOST_SAID = 20  # addresses of a host of which it is said that it may not speak for them


@dataclass
class Owners:
    """The judge of what other hosts claim."""

    host: str
    registry: Registry
    data: DataPlane
    peers: Peers
    _claims: dict[tuple[int, bytes], "asyncio.Task[None]"] = field(default_factory=dict)
    _said: dict[str, set[bytes]] = field(default_factory=dict)

    def claimed(self, claim: ContextClaimed) -> None:
        """Judge a claim, as soon as that can be done."""
        key = (claim.channel, claim.gid)
        if key not in self._claims:
            task = asyncio.create_task(self._judge(claim))
            self._claims[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))

    def _forget(self, key: tuple[int, bytes], judged: "asyncio.Task[Any] | None") -> None:
        if self._claims.get(key) is judged:
            del self._claims[key]

    async def _judge(self, claim: ContextClaimed) -> None:
        key = (claim.channel, claim.gid)
        gid = canonical_gid(str(ipaddress.IPv6Address(claim.gid)))
        deadline = asyncio.get_running_loop().time() + _PATIENCE_S
        known = False
        while (host := self.peers.host(claim.channel)) is not None:  # else it has gone, and its claims with it
            try:
                found = self.registry.directory.locate(gid) or await self.registry.find(gid)
            except RegistryError:
                found, known = None, False
            else:
                known = True
            if found and self._is_of(found, host):
                self._forget(key, asyncio.current_task())  # what is claimed after our word asks again
                self._say(claim.gid, claim.channel, owns=True)
                return
            if known and asyncio.get_running_loop().time() > deadline:
                self._forget(key, asyncio.current_task())
                self._refuse(claim, host, found)
                return
            await asyncio.sleep(_AGAIN_S)

    def _is_of(self, found: Location, host: str) -> bool:
        return found.host.host == host and found.container.tenant == self.peers.tenant(host)

    def _refuse(self, claim: ContextClaimed, host: str, found: Location | None) -> None:
        said = self._said.setdefault(host, set())
        if claim.gid not in said and len(said) < _MOST_SAID:
            said.add(claim.gid)
            address = ipaddress.IPv6Address(claim.gid)
            whose = f"it is host {found.host.host}'s, of tenant {found.container.tenant}" if found else "nobody has it"
            log.warning("host %s speaks for %s and may not: %s in the registry",
                        host, address.ipv4_mapped or address, whose)  # fmt: skip
        self._say(claim.gid, claim.channel, owns=False)

    def _say(self, gid: bytes, channel: int | None, *, owns: bool) -> None:
        try:
            self.data.owner(gid, channel, owns=owns)
        except RouterError as error:  # no memory for it: the queue pairs' patience ends
            log.warning("%s", error)

    def _tell(self, container: ContainerRecord) -> None:
        if self.registry.directory.host(container.host):  # else nobody knows yet that it is there
            gid = ipaddress.IPv6Address(container.gid).packed
            for said in self._said.values():
                said.discard(gid)
            self._say(gid, self.peers.channels().get(container.host), owns=True)

    async def follow(self) -> None:
        """Have what leads to where an address was end when it is elsewhere."""
        changes = self.registry.directory.subscribe()
        try:
            async for change in changes:
                if isinstance(change.now, ContainerRecord):
                    self._tell(change.now)
                elif isinstance(change.now, HostRecord) and change.before is None:
                    for container in self.registry.directory.containers:
                        if container.host == change.now.host:
                            self._tell(container)
        finally:
            self.registry.directory.unsubscribe(changes)

    async def close(self) -> None:
        """Judge nothing more."""
        tasks = list(self._claims.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
