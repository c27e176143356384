"""Which transports this router offers to others, and why not more."""

import logging
from dataclasses import dataclass, field

from router._data import DataPlane, RouterError

__all__ = ["Carriers", "RdmaSettings"]

log = logging.getLogger("ffverbs.router")


@dataclass(frozen=True)
class RdmaSettings:
    """What the command line says about RDMA: `transport` is auto, tcp or rdma; device "" = the one with the address."""

    transport: str = "auto"
    device: str = ""
    gid_index: int | None = None


@dataclass
class Carriers:
    """The transports of a data plane."""

    data: DataPlane
    host_ip: str
    settings: RdmaSettings
    reason: str = field(default="", init=False)

    def check(self) -> None:
        """RouterError if RDMA is demanded and not there."""
        if self.settings.transport == "rdma":
            self._use_rdma()

    def _use_rdma(self) -> None:
        tcp_allowed = self.settings.transport != "rdma"
        self.data.use_rdma(self.host_ip, self.settings.device, self.settings.gid_index, tcp_allowed=tcp_allowed)

    @property
    def may_come(self) -> bool:
        """Whether RDMA is wanted here, and was not there when it was last looked for."""
        return bool(self.reason) and self.settings.transport == "auto"

    def why_tcp(self, host: str) -> str:
        """Return why nothing better than TCP was agreed on with a host, to be put behind that word."""
        if self.reason:
            return f", for there is no RDMA at this end: {self.reason}"
        return f", for there is no RDMA at the other end: host {host} offers none"

    def offered(self) -> tuple[str, ...]:
        """Return the transports that can be had now, the best first; blocks while devices are looked for."""
        if self.settings.transport == "tcp":
            self.reason = "--transport tcp"
            return ("tcp",)
        if self.settings.transport == "rdma":
            return ("rdma",)
        try:
            self._use_rdma()
        except RouterError as error:
            if str(error) != self.reason:
                log.info("other hosts are reached by TCP: %s", error)
            self.reason = str(error)
            return ("tcp",)
        self.reason = ""
        return ("rdma", "tcp")
