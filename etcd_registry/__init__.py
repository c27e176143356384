"""Who is where: the registry of hosts and containers that routers share, in etcd or in a file.

`open_registry("etcd://10.0.0.1:2379,10.0.0.2:2379")` or `open_registry("static:cluster.json")` gives a Registry:

    async with open_registry(url) as registry:
        await registry.register_host(HostRecord(...))
        await registry.register_container(ContainerRecord(...))
        registry.directory.locate(gid)              # a plain call: a cache that is kept by pushes

For etcd the extra `ffverbs[router]` is needed; the rest works without.
"""

from .directory import Change, Directory, Location, Subscription
from .errors import (
    AddressInUseError,
    AlienRecordError,
    LeaseLostError,
    PoolError,
    RegistryDeniedError,
    RegistryError,
    RegistryUnavailableError,
    RegistryUrlError,
    StaticFileError,
)
from .records import ContainerRecord, HostRecord, Record, address_of, canonical_gid, gid_of, this_machine
from .registry import Registry, StoreRegistry, parse_pool
from .static import StaticRegistry
from .url import open_registry, parse_url

__all__ = [
    "AddressInUseError",
    "AlienRecordError",
    "Change",
    "ContainerRecord",
    "Directory",
    "HostRecord",
    "LeaseLostError",
    "Location",
    "PoolError",
    "Record",
    "Registry",
    "RegistryDeniedError",
    "RegistryError",
    "RegistryUnavailableError",
    "RegistryUrlError",
    "StaticFileError",
    "StaticRegistry",
    "StoreRegistry",
    "Subscription",
    "address_of",
    "canonical_gid",
    "gid_of",
    "open_registry",
    "parse_pool",
    "parse_url",
    "this_machine",
]
