"""The containers of this host: which are here, what they ask, and that the registry knows them.

A container that opens the device claims its address here, so that others find it from its first moment on; one that
started while there was no router, or that the registry has lost, is found by looking at the node directory.
"""

import asyncio
import contextlib
import errno
import ipaddress
import json
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from etcd_registry import (
    AddressInUseError,
    AlienRecordError,
    ContainerRecord,
    Location,
    PoolError,
    Registry,
    RegistryError,
    canonical_gid,
)
from router import asking, node
from router._data import DataPlane, RouterError
from router.peers import PeerError, Peers
from router.segment import Segment
from router.settings import Settings

__all__ = ["Containers", "gid_text"]

log = logging.getLogger("ffverbs.router")

_LOOK_S = 0.25
_ASK_S = 30.0
_UNSEEN_S = 1.0  # how long an address is kept for somebody who has claimed it and does not appear
_UNSEEN_POOL_S = 10.0  # the same if it is of the pool: nobody else may get it meanwhile
_HELD_S = 3.0  # how long an address that another one holds is tried for: that one may be about to end
_CLAIM_S = 4.0
_STATUS_PART = 32 * 1024


def gid_text(gid: bytes) -> str:
    """Return a GID as the registry writes it."""
    return canonical_gid(str(ipaddress.IPv6Address(gid)))


def _address(gid: bytes) -> str:
    """Return the address of a GID, for people."""
    mapped = ipaddress.IPv6Address(gid).ipv4_mapped
    return str(mapped or gid_text(gid))


def _is_loopback(gid: bytes) -> bool:
    address = ipaddress.IPv6Address(gid)
    return (address.ipv4_mapped or address).is_loopback


@dataclass
class _Claim:
    """Who claimed an address here: its namespaces, and until when it need not have appeared (0: it has)."""

    mount_ns: int
    network_ns: int
    until: float


@dataclass
class Containers:
    """What is known of the containers of this host. `folder` is the open node directory."""

    settings: Settings
    registry: Registry
    data: DataPlane
    peers: Peers
    folder: int
    segment: Segment
    status: Callable[[], dict[str, object]]
    registered: set[bytes] = field(default_factory=set)
    _claims: dict[bytes, _Claim] = field(default_factory=dict)
    _said: dict[str, str] = field(default_factory=dict)  # what was said of whom, so that it is said once
    _claiming: asyncio.Lock = field(default_factory=asyncio.Lock)

    def _say(self, whom: str, text: str, level: int = logging.WARNING) -> None:
        if self._said.get(whom) != text:
            log.log(level, "%s: %s", whom, text)
            self._said[whom] = text

    # ---- questions ----------------------------------------------------------------------------------------------

    async def serve(self, sock: socket.socket) -> None:
        """Answer one question."""
        with sock:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            try:
                packet = await asyncio.wait_for(loop.sock_recv(sock, asking.MOST_BYTES + 1), _ASK_S)
                question = asking.parse(packet)
            except (TimeoutError, OSError, asking.QuestionError) as error:
                log.debug("a container asked nothing that can be answered: %s", error)
                return
            with contextlib.suppress(OSError, TimeoutError):  # it may not have waited
                for part in await self._answer(question, sock):
                    await asyncio.wait_for(loop.sock_sendall(sock, part), _ASK_S)

    async def _answer(
        self,
        question: asking.Where | asking.Host | asking.Segment | asking.Call | asking.Claim | asking.Status,
        sock: socket.socket,
    ) -> list[bytes]:
        if isinstance(question, asking.Status):
            told = json.dumps(self.status()).encode()
            return [told[start : start + _STATUS_PART] for start in range(0, len(told), _STATUS_PART)]
        if isinstance(question, asking.Claim):
            error, text, gid = await self._claim(question)
            return [asking.answer(question, error, text, gid=gid)]
        if isinstance(question, asking.Segment):
            return [asking.answer(question, *await self.segment.announce())]
        error, text = await self._find(question, sock)
        if sock.fileno() < 0:
            return []  # the data plane goes on with it
        if text:
            self._say(f"{_address(question.gid)} cannot be reached", text)
        else:
            self._said.pop(f"{_address(question.gid)} cannot be reached", None)
        return [asking.answer(question, error, text)]

    # ---- who is elsewhere ---------------------------------------------------------------------------------------

    async def _locate(self, gid: str) -> Location | None:
        return self.registry.directory.locate(gid) or await self.registry.find(gid)

    async def _find(self, question: asking.Where | asking.Host | asking.Call, sock: socket.socket) -> tuple[int, str]:
        """Have the remote context stand in the node directory, or the connection carried there.

        Return 0, or an errno and why not.
        """
        gid = gid_text(question.gid)
        try:
            found = await self._locate(gid)
        except RegistryError as error:
            return errno.EAGAIN, f"it cannot be looked up: {error}"
        if found is None or found.host.host == self.settings.host:
            return errno.ENOENT, ""  # nobody, or it should be in the node directory
        if found.container.tenant not in self.settings.tenants:
            return errno.EACCES, (
                f"it belongs to tenant {found.container.tenant}: containers of tenant {self.settings.tenant} may not"
                " talk to it (--allow-tenant, on both sides)"
            )
        try:
            channel = await self.peers.channel(found.host.host, found.host.endpoints)
            if isinstance(question, asking.Where):
                await asyncio.to_thread(self.data.reach, question.gid, question.qpn, channel)
            elif isinstance(question, asking.Call):
                self.data.call(
                    sock.fileno(), channel, question.gid, question.port_space, question.port, question.message
                )
                sock.detach()
        except PeerError as error:
            return errno.EHOSTUNREACH, str(error)
        except RouterError as error:
            return error.code, str(error)
        return 0, ""

    # ---- addresses ----------------------------------------------------------------------------------------------

    async def _claim(self, question: asking.Claim) -> tuple[int, str, bytes]:
        """Whether a container may have an address, and which."""
        gid = question.gid
        if not any(gid):
            return await self._claim_from_pool(question)
        if _is_loopback(gid):
            return 0, "", gid  # never asked for by other hosts
        claim = self._claims.get(gid)
        if claim and claim.network_ns and question.network_ns and claim.network_ns != question.network_ns:
            text = f"address {_address(gid)} is held by another container of this host: give each one of its own"
            self._say(_address(gid), text)
            return errno.EADDRINUSE, text, gid
        try:
            async with asyncio.timeout(_CLAIM_S):
                held = await self._register_patiently(gid)
        except TimeoutError:
            held = ""  # the registry is away: the address is registered when it returns
        if held:
            return errno.EADDRINUSE, held, gid
        self._hold(gid, question, _UNSEEN_S)
        return 0, "", gid

    def _hold(self, gid: bytes, question: asking.Claim, unseen_s: float) -> None:
        until = time.monotonic() + unseen_s
        self._claims[gid] = _Claim(question.mount_ns, question.network_ns, until)

    async def _register_patiently(self, gid: bytes) -> str:
        """Register a container, waiting a little for another one to let go of its address; "" or who has it."""
        deadline = time.monotonic() + _HELD_S
        while gid not in self.registered:
            try:
                await self._register(gid)
            except AddressInUseError as error:
                if time.monotonic() > deadline:
                    self._say(_address(gid), str(error))
                    return str(error)
                await asyncio.sleep(0.1)
                continue
            except RegistryError as error:
                self._say(f"{_address(gid)} is not reachable from other hosts", str(error))
                return ""
        return ""

    async def _claim_from_pool(self, question: asking.Claim) -> tuple[int, str, bytes]:
        """Give the container an address: the one that it has already, or a free one."""
        none = bytes(16)
        if self.settings.pool is None:
            return errno.EADDRNOTAVAIL, "it has no pool of addresses: start it with --pool, or set FFVERBS_IP", none
        async with self._claiming:
            for gid, claim in self._claims.items():
                if question.mount_ns and claim.mount_ns == question.mount_ns:
                    self._hold(gid, question, _UNSEEN_POOL_S)
                    return 0, "", gid
            try:
                record = await self.registry.claim_address(
                    self.settings.pool, self.settings.host, self.settings.tenant, _generation()
                )
            except PoolError as error:
                self._say("a container gets no address", str(error))
                return errno.ENOSPC, str(error), none
            except RegistryError as error:
                return errno.EAGAIN, str(error), none
            gid = ipaddress.IPv6Address(record.gid).packed
            self.registered.add(gid)
            self._hold(gid, question, _UNSEEN_POOL_S)
            return 0, "", gid

    # ---- the registry -------------------------------------------------------------------------------------------

    async def _register(self, gid: bytes) -> None:
        record = ContainerRecord(gid_text(gid), self.settings.host, self.settings.tenant, _generation())
        await self.registry.register_container(record)
        self._said.pop(f"{_address(gid)} is not reachable from other hosts", None)
        self.registered.add(gid)

    def proxies(self) -> dict[bytes, int]:
        """Return the contexts of other hosts that have a proxy here, and the channel that each is reached by."""
        found = ((gid, self.data.proxy_channel(gid, first)) for gid, first in node.names(self.folder))
        return {gid: channel for gid, channel in found if channel is not None}

    def no_place(self, gid: bytes, why: str) -> None:
        """Take note that what stands in for a context of another host could not be made."""
        self._say(f"{_address(gid)} of another host is not to be reached from here", why)

    def lost(self, gid: str) -> None:
        """Take note that somebody else has the address now."""
        with contextlib.suppress(AlienRecordError):
            self.registered.discard(ipaddress.IPv6Address(gid).packed)

    async def follow(self) -> None:
        """Keep the registry saying which containers are here."""
        what = "the containers of this host"
        while True:
            try:
                await self.look()
            except OSError as error:  # no descriptor is free, most likely: who is new is found when one is
                remedy = "raise the limit of open files (ulimit -n)"
                self._say(what, f"they cannot be looked at: {error.strerror}; {remedy}")
            else:
                self._said.pop(what, None)
            await asyncio.sleep(_LOOK_S)

    async def look(self) -> None:
        """Compare the node directory with what is registered, once."""
        here = {gid for gid, first in node.contexts(self.folder) if not self.data.is_proxy(gid, first)}
        now = time.monotonic()
        for gid, claim in list(self._claims.items()):
            if gid in here:
                claim.until = 0.0
            elif now > claim.until:
                del self._claims[gid]
        for gid in here - self.registered:
            if _is_loopback(gid):
                self._say(_address(gid), "not reachable from other hosts: set FFVERBS_IP in the container",
                          logging.INFO)  # fmt: skip
                continue
            try:
                await self._register(gid)
            except RegistryError as error:
                self._say(f"{_address(gid)} is not reachable from other hosts", str(error))
        for gid in self.registered - here - self._claims.keys():
            self.registered.discard(gid)
            with contextlib.suppress(RegistryError):
                await self.registry.unregister_container(gid_text(gid))


def _generation() -> int:
    return max(1, time.time_ns() // 1000)
