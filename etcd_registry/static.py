"""A registry in a file, for clusters without etcd: the same file on every host, written by people or their tools.

    {"schema": 1, "serial": 7,
     "hosts": {"a": {"endpoints": ["10.0.0.1:7471"], "transports": ["tcp"]}},
     "containers": {"10.1.0.2": {"host": "a", "tenant": "blue"}}}

Containers are named by IPv4 address or GID. `serial` grows with every edit: a copy that went back is stale. The file is
looked at once a second; one that became unreadable or stale changes nothing, and is said once.
"""

import asyncio
import ipaddress
import logging
import os
from pathlib import Path

from .errors import AddressInUseError, AlienRecordError, PoolError, StaticFileError
from .records import (
    ContainerRecord,
    HostRecord,
    Record,
    as_integer,
    as_object,
    as_text,
    as_texts,
    gid_of,
    read_object,
)
from .registry import Network, Registry

__all__ = ["StaticRegistry"]

log = logging.getLogger("etcd_registry")

LOOK_S = 1.0
MAX_BYTES = 64 * 2**20


class StaticRegistry(Registry):
    """A Registry that the file at `path` describes. Registering only checks that the file says the same."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._seen: tuple[int, ...] = ()
        self._serial = 0
        self._content = b""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the file; StaticFileError says what is wrong with it."""
        self._seen = self._look()
        self._read()
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Stop looking at the file."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self.directory.close()

    async def register_host(self, record: HostRecord) -> None:
        """Check that the file names this host with these endpoints and transports."""
        known = self.directory.host(record.host)
        if known is None:
            raise StaticFileError(f"{self._path} has no host {record.host}: add it on every host, and raise the serial")
        if set(known.endpoints) != set(record.endpoints) or not set(known.transports) <= set(record.transports):
            raise StaticFileError(
                f"{self._path} is stale: it has host {record.host} at {', '.join(known.endpoints)} by"
                f" {', '.join(known.transports)}, but its router is at {', '.join(record.endpoints)} by"
                f" {', '.join(record.transports)}"
            )

    async def register_container(self, record: ContainerRecord) -> None:
        """Check that the file has the container on this host, for this tenant."""
        known = self.directory.container(record.gid)
        if known is None:
            raise StaticFileError(f"{self._path} has no container {record.gid}: add it, and raise the serial")
        if known.host != record.host:
            raise AddressInUseError(
                f"container {record.gid} cannot be registered on host {record.host}", str(known),
                f"start it there, or change {self._path} on every host and raise its serial",
            )  # fmt: skip
        if known.tenant != record.tenant:
            raise AddressInUseError(
                f"container {record.gid} cannot be registered for tenant {record.tenant}", str(known),
                f"give it an address of its own, or change {self._path}",
            )  # fmt: skip

    async def unregister_container(self, gid: str) -> None:
        """Do nothing: the file goes on to say where the container belongs."""

    async def claim_address(self, pool: Network, host: str, tenant: str, generation: int) -> ContainerRecord:
        """Raise PoolError: a file cannot tell two hosts apart that claim the same address."""
        raise PoolError(f"addresses of pool {pool} can be claimed only with etcd; {self._path} names every container")

    async def find_container(self, gid: str) -> ContainerRecord | None:
        """Return the container."""
        return self.directory.container(gid)

    async def find_host(self, name: str) -> HostRecord | None:
        """Return the host."""
        return self.directory.host(name)

    # reading

    def _look(self) -> tuple[int, ...]:
        """Return what changes when the file does."""
        try:
            status = os.stat(self._path)
        except OSError as error:
            raise StaticFileError(f"static registry {self._path} cannot be read: {error.strerror}") from None
        return status.st_ino, status.st_mtime_ns, status.st_size

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                seen = self._look()
                if seen == self._seen:
                    continue
                self._seen = seen
                self._read()
            except StaticFileError as error:
                if self.directory.connected:
                    log.error("%s; what was known before stays in use", error)
                self.directory.disconnect(str(error))

    def _read(self) -> None:
        """Take the file over if all of it is well-formed, and not older than what was read before."""
        try:
            with open(self._path, "rb") as file:
                content = file.read(MAX_BYTES + 1)
        except OSError as error:
            self._seen = ()  # it is looked at again, also if it does not change
            raise StaticFileError(f"static registry {self._path} cannot be read: {error.strerror}") from None
        serial, records = self._parse(content)
        if serial < self._serial or (serial == self._serial and content != self._content):
            what = f"went back from serial {self._serial} to {serial}"
            if serial == self._serial:
                what = f"has changed, but not its serial {serial}"
            raise StaticFileError(f"static registry {self._path} is stale: it {what}; raise the serial with every edit")
        self._serial, self._content = serial, content
        self.directory.replace_records(records)
        self.directory.connect()

    def _parse(self, content: bytes) -> tuple[int, list[Record]]:
        try:
            fields = read_object(content, {"serial", "hosts", "containers"}, MAX_BYTES)
            serial = as_integer(fields["serial"], "serial")
            if serial < 1:
                raise AlienRecordError("serials begin at 1")
            hosts = {name: _host(name, entry) for name, entry in as_object(fields["hosts"], "hosts").items()}
            containers: dict[str, ContainerRecord] = {}
            for name, entry in as_object(fields["containers"], "containers").items():
                container = _container(name, entry)
                if container.host not in hosts:
                    raise AlienRecordError(f"container {name} is on {container.host}, which is not among the hosts")
                if container.gid in containers:
                    raise AlienRecordError(f"container {name} is named twice, in two notations")
                containers[container.gid] = container
        except AlienRecordError as error:
            raise StaticFileError(f"static registry {self._path} is malformed: {error}") from None
        return serial, [*hosts.values(), *containers.values()]


def _host(name: str, entry: object) -> HostRecord:
    fields = as_object(entry, f"host {name}", {"endpoints", "transports"})
    endpoints, transports = (as_texts(fields[field], field) for field in ("endpoints", "transports"))
    return HostRecord(name, endpoints, transports, machine="static")


def _container(name: str, entry: object) -> ContainerRecord:
    fields = as_object(entry, f"container {name}", {"host", "tenant"})
    try:
        gid = gid_of(ipaddress.ip_address(name))
    except ValueError:
        raise AlienRecordError(f"container {name!r} is named neither by an IPv4 address nor by a GID") from None
    return ContainerRecord(gid, as_text(fields["host"], "host"), as_text(fields["tenant"], "tenant"), generation=1)
