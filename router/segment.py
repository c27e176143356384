"""The segment of multicast and raw packets: other hosts have to know who of this host is on it."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass

from etcd_registry import HostRecord, Registry
from router import node
from router._data import DataPlane, RouterError
from router.peers import PeerError, Peers
from router.settings import Settings

__all__ = ["Segment"]

log = logging.getLogger("ffverbs.router")

_LOOK_S = 0.25
_ANNOUNCE_MS = 1000


@dataclass
class Segment:
    """This host's part of the segment. `folder` is the open node directory."""

    settings: Settings
    registry: Registry
    data: DataPlane
    peers: Peers
    folder: int

    async def announce(self) -> tuple[int, str]:
        """Have all hosts know what this one wants of the segment; 0, or an errno and why not."""

        async def reach(host: HostRecord) -> None:
            with contextlib.suppress(PeerError):  # it is told when it is there
                await self.peers.channel(host.host, host.endpoints)

        others = [host for host in self.registry.directory.hosts if host.host != self.settings.host]
        await asyncio.gather(*(reach(host) for host in others))
        try:
            await asyncio.to_thread(self.data.announce, self.settings.tenant, _ANNOUNCE_MS)
        except RouterError as error:
            log.info("%s", error)
            return error.code, str(error)
        return 0, ""

    async def follow(self) -> None:
        """Join the segment with the first container that is on it, also with one that was there before this router."""
        known: frozenset[str] = frozenset()
        while True:
            with contextlib.suppress(OSError):  # no descriptor is free: later (Containers says it)
                here = node.on_segment(self.folder)
                if here - known:
                    await self.announce()
                    here = node.on_segment(self.folder)
                known = here
            await asyncio.sleep(_LOOK_S)
