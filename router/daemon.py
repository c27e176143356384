"""The router: what it consists of, how it starts, and how it ends."""

import asyncio
import contextlib
import logging
import os
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etcd_registry import ContainerRecord, HostRecord, Record, Registry, RegistryError
from router import monitoring, node
from router._data import ChannelClosed, ChannelLost, ContextClaimed, DataPlane, ProxyClosed, RouterError
from router.carriers import Carriers
from router.containers import Containers, gid_text
from router.owners import Owners
from router.peers import Peers
from router.segment import Segment
from router.settings import Settings

__all__ = ["Router"]

log = logging.getLogger("ffverbs.router")

_DRAIN_LOOK_S = 0.02


def _machine() -> str:
    """Return a name of this machine that survives restarts."""
    try:
        return Path("/etc/machine-id").read_text(encoding="ascii").strip() or socket.gethostname()
    except OSError:
        return socket.gethostname()


def _tell_manager(state: str) -> None:
    """Tell systemd, if it has started us (Type=notify)."""
    where = os.environ.get("NOTIFY_SOCKET", "")
    if where.startswith(("/", "@")):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.connect(where.replace("@", "\0", 1) if where.startswith("@") else where)
            sock.send(state.encode())


@dataclass
class _Parts:
    """What is there while the router runs."""

    data: DataPlane
    peers: Peers
    containers: Containers
    carriers: Carriers


@dataclass
class Router:
    """One router; `run` returns when `stop` was called."""

    settings: Settings
    registry: Registry
    _parts: _Parts | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _at_once: asyncio.Event = field(default_factory=asyncio.Event)
    _host_problem: str = "it is not registered yet"
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self) -> None:
        """Have `run` drain and return; a second time: without draining."""
        if self._stopping.is_set():
            self._at_once.set()
        self._stopping.set()

    def lost(self, record: Record, holder: str) -> None:
        """Take note that somebody else took over what was registered here (StoreRegistry)."""
        if isinstance(record, HostRecord):
            self._host_problem = f"{holder} has its name"
            log.error("host %s is not registered any more: %s; give each router a name of its own (--host)",
                      record.host, self._host_problem)  # fmt: skip
        elif isinstance(record, ContainerRecord) and self._parts:
            self._parts.containers.lost(record.gid)

    async def run(self) -> None:
        """Route until stopped. NodeError, RegistryError or OSError if it cannot begin."""
        directory = self.settings.directory
        try:
            folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise node.NodeError(f"the node directory {directory} cannot be opened: {error.strerror}") from error
        try:
            await self._run(folder)
        finally:
            os.close(folder)

    async def _run(self, folder: int) -> None:
        async with contextlib.AsyncExitStack() as stack:
            listener = stack.enter_context(self._listen())
            asked = node.listen(folder)
            stack.callback(node.withdraw, folder, asked)
            data = await asyncio.to_thread(DataPlane, str(self.settings.directory))
            stack.push_async_callback(asyncio.to_thread, data.close)
            if self.settings.faults:
                data.set_faults(self.settings.faults)
                log.warning("faults are made on purpose: %s", self.settings.faults)
            data.set_rate(self.settings.rate_bytes_per_s)
            await stack.enter_async_context(self.registry)
            carriers = Carriers(data, self.settings.host_ip, self.settings.rdma)
            carriers.check()
            peers = Peers(data, self.settings, self._endpoints, carriers)
            stack.push_async_callback(peers.close)
            stack.push_async_callback(self._end_tasks)
            owners = Owners(self.settings.host, self.registry, data, peers)
            stack.push_async_callback(owners.close)
            segment = Segment(self.settings, self.registry, data, peers, folder)
            containers = Containers(self.settings, self.registry, data, peers, folder, segment, self.status)
            self._parts = _Parts(data, peers, containers, carriers)
            asyncio.get_running_loop().add_reader(data.event_fd(), self._on_events, data, peers, owners)
            stack.callback(asyncio.get_running_loop().remove_reader, data.event_fd())
            self._spawn(self._register_host(carriers))
            self._spawn(self._accept_routers(listener, peers))
            questions = self._spawn(self._accept_containers(asked, containers))
            self._spawn(containers.follow())
            self._spawn(segment.follow())
            self._spawn(owners.follow())
            if self.settings.http:
                loop, required = asyncio.get_running_loop(), self.settings.http_required
                stack.enter_context(monitoring.serve(self.settings.http, self.status, loop, required=required))
            log.info("routing %s as host %s", self.settings.directory, self.settings.host)
            self.ready.set()
            _tell_manager("READY=1")
            await self._stopping.wait()
            _tell_manager("STOPPING=1")
            questions.cancel()  # nobody begins anything new
            await asyncio.gather(questions, return_exceptions=True)
            node.withdraw(folder, asked)
            await self._drain(data)

    async def _drain(self, data: DataPlane) -> None:
        """Let what is under way end, for as long as the settings allow."""
        log.info("stopping: %d work requests are under way", data.counters()["under_way"])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain_s):
                while data.counters()["under_way"] and not self._at_once.is_set():
                    await asyncio.sleep(_DRAIN_LOOK_S)
        if left := data.counters()["under_way"]:
            log.warning("%d work requests end with errors: they were not done within %g s", left, self.settings.drain_s)

    def _listen(self) -> socket.socket:
        try:
            return socket.create_server((self.settings.host_ip, self.settings.port), backlog=64)
        except OSError as error:
            where = f"{self.settings.host_ip}:{self.settings.port}"
            raise node.NodeError(f"cannot listen at {where}: {error.strerror}; choose another --listen") from error

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        async def guarded() -> None:
            try:
                await work
            except Exception:
                log.exception("a task of the router failed")

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _end_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- what it does -------------------------------------------------------------------------------------------

    def _endpoints(self, host: str) -> tuple[str, ...]:
        record = self.registry.directory.host(host)
        return tuple(record.endpoints) if record else ()

    async def _register_host(self, carriers: Carriers) -> None:
        where = f"{self.settings.host_ip}:{self.settings.port}"
        transports = await asyncio.to_thread(carriers.offered)
        record = HostRecord(self.settings.host, (where,), transports, _machine())
        await self._insist(lambda: self.registry.register_host(record))

    async def _insist(self, call: Callable[[], Awaitable[None]]) -> None:
        """Register until it is done: a registry that is away comes back. What it refuses is said once."""
        while True:
            try:
                await call()
                self._host_problem = ""
                return
            except RegistryError as error:
                if str(error) != self._host_problem:
                    log.warning("host %s is not registered: %s", self.settings.host, error)
                    self._host_problem = str(error)
            await asyncio.sleep(1.0)

    async def _accept_routers(self, listener: socket.socket, peers: Peers) -> None:
        async def welcome(sock: socket.socket, whence: Any) -> None:
            await peers.accept(sock, f"{whence[0]}:{whence[1]}")

        await self._accept(listener, welcome)

    async def _accept_containers(self, listener: socket.socket, containers: Containers) -> None:
        await self._accept(listener, lambda sock, _: containers.serve(sock))

    async def _accept(self, listener: socket.socket, serve: Callable[[socket.socket, Any], Awaitable[None]]) -> None:
        """Serve whoever connects; while there is no descriptor for it, it waits."""
        listener.setblocking(False)
        said = False
        while True:
            try:
                sock, whence = await asyncio.get_running_loop().sock_accept(listener)
            except OSError as error:
                if not said:
                    log.error("nobody can be served: %s; raise the limit of open files (ulimit -n)", error.strerror)
                said = True
                await asyncio.sleep(0.2)
                continue
            said = False
            self._spawn(serve(sock, whence))

    def _on_events(self, data: DataPlane, peers: Peers, owners: Owners) -> None:
        while event := data.next_event():
            if isinstance(event, ChannelClosed):
                peers.closed(event.channel, event.why)
            elif isinstance(event, ChannelLost):
                peers.lost(event.channel, event.why)
            elif isinstance(event, ContextClaimed):
                owners.claimed(event)
            elif isinstance(event, ProxyClosed) and event.why and self._parts:
                self._parts.containers.no_place(event.gid, event.why)
            elif isinstance(event, ProxyClosed):
                log.debug("%s (queue pairs from %#x) is gone", gid_text(event.gid), event.qpn_first)

    # ---- what it says of itself ---------------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """Return why this router is of less use than it should be; nothing if all is well."""
        found = []
        if self._stopping.is_set():
            found.append("it is stopping")
        if not self.registry.directory.connected:
            found.append(f"the registry is away: {self.registry.directory.problem}")
        if self._host_problem:
            found.append(f"host {self.settings.host} is not registered: {self._host_problem}")
        return found

    def status(self) -> dict[str, object]:
        """Return what it does now, as `ffverbs status` shows it (docs/status.md)."""
        settings, directory = self.settings, self.registry.directory
        found: dict[str, object] = {
            "host": settings.host,
            "tenant": settings.tenant,
            "rate_bytes_per_s": settings.rate_bytes_per_s,
            "endpoint": f"{settings.host_ip}:{settings.port}",
            "transport": settings.rdma.transport,
            "no_rdma": "",
            "draining": self._stopping.is_set(),
            "problems": self.problems(),
            "registry": {"connected": directory.connected, "hosts": len(directory.hosts),
                         "containers": len(directory.containers)},
        }  # fmt: skip
        if self._parts:
            found["no_rdma"] = self._parts.carriers.reason
            found["channels"] = self._parts.peers.describe()
            hosts = {channel: host for host, channel in self._parts.peers.channels().items()}
            proxies = self._parts.containers.proxies()
            found["routes"] = {gid_text(gid): hosts[by] for gid, by in proxies.items() if by in hosts}
            found["containers"] = sorted(map(gid_text, self._parts.containers.registered))
            found["counters"] = self._parts.data.counters()
            found["peers"] = self._peers(self._parts)
        return found

    @staticmethod
    def _peers(parts: _Parts) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        for host, channel in parts.peers.channels().items():
            with contextlib.suppress(RouterError):  # it was closed this very moment
                carrier = parts.peers.carrier(host)
                found.append({
                    "host": host, "transport": re.split(r"\W", carrier)[0], "carrier": carrier,
                    **parts.data.channel_counters(channel),
                })  # fmt: skip
        return found
