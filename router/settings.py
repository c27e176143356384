"""What the command line says."""

from dataclasses import dataclass, field
from pathlib import Path

from etcd_registry.registry import Network
from router.carriers import RdmaSettings

__all__ = ["DEFAULT_PORT", "Settings"]

DEFAULT_PORT = 7471


@dataclass(frozen=True)
class Settings:
    """What one router is for."""

    directory: Path
    host: str
    host_ip: str
    port: int = DEFAULT_PORT
    tenant: str = "default"
    secret: bytes = b""
    rdma: RdmaSettings = field(default_factory=RdmaSettings)
    faults: str = ""
    rate_bytes_per_s: int = 0  # to other hosts; 0 = unlimited
    pool: Network | None = None
    allowed_tenants: tuple[str, ...] = ()
    drain_s: float = 5.0
    http: tuple[str, int] | None = None
    http_required: bool = True  # else it may be taken

    @property
    def tenants(self) -> tuple[str, ...]:
        """Whose containers those of this host may talk to: their own tenant first."""
        return (self.tenant, *self.allowed_tenants)
