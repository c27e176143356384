"""Connections to other routers: one a host, made when it is needed, proven before anything else.

When two routers connect to each other at once, the connection of the one whose host's name sorts first wins. When a
connection breaks, its channel waits in the data plane, and both sides try to connect again; if both still know the
channel, it goes on over the new connection as if nothing had been. A router that does not know it any more has started
anew: the channel closes, and what was under way on it ends with errors. So does it when nobody listens there any more.
A device that appears after the routers have met is used, too: they meet again, and the channel goes on over another
connection.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterable

from etcd_registry.records import parse_endpoint
from router._data import WIRE_VERSION, DataPlane, RouterError
from router.carriers import Carriers
from router.hello import Hello, HelloBusyError, HelloError, pack, unpack_length
from router.settings import Settings

__all__ = ["PeerError", "Peers"]

log = logging.getLogger("ffverbs.router")

_HELLO_S = 5.0
_CONNECT_S = 3.0
_RECONNECT_S = 1.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_REFUSALS = 2
_FIRST_LOOK_S, _LONGEST_LOOK_S = 1.0, 60.0
_USER_TIMEOUT_MS = 5000


class PeerError(Exception):
    """The router of another host cannot be reached; the text says why."""

    def __init__(self, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused  # its host answers, and nobody listens there


def _watch_for_silence(sock: socket.socket) -> None:
    """Have the kernel notice a host that is gone without a word, within seconds."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)


async def _read_exactly(sock: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count:
        part = await loop.sock_recv(sock, count - len(data))
        if not part:
            raise HelloError("it closed the connection")
        data += part
    return data


async def _read_message(sock: socket.socket) -> bytes:
    return await _read_exactly(sock, unpack_length(await _read_exactly(sock, 4)))


class Peers:
    """The channels of this router, by the name of the host at their other end."""

    def __init__(
        self,
        data: DataPlane,
        settings: Settings,
        endpoints: Callable[[str], tuple[str, ...]],
        carriers: Carriers,
    ) -> None:
        self._data, self._endpoints, self._tenants = data, endpoints, settings.tenants
        self._host, self._secret = settings.host, settings.secret
        self._carriers = carriers
        self._channels: dict[str, int] = {}
        self._sessions: dict[str, str] = {}
        self._hello_tenants: dict[str, str] = {}
        self._why_tcp: dict[str, str] = {}
        self._looking: asyncio.Task[None] | None = None
        self._lost: dict[str, asyncio.Task[None]] = {}
        self._attempts: dict[str, asyncio.Task[int]] = {}
        self._arrivals: dict[str, asyncio.Event] = {}

    def channels(self) -> dict[str, int]:
        """Return the channels by the names of the hosts that they lead to."""
        return dict(sorted(self._channels.items()))

    def host(self, channel: int) -> str | None:
        """Return the host that a channel leads to; None if it is closed."""
        return next((host for host, number in self._channels.items() if number == channel), None)

    def tenant(self, host: str) -> str | None:
        """Return the tenant that a connected host has proven to be of."""
        return self._hello_tenants.get(host)

    def describe(self) -> dict[str, str]:
        """Return what carries the channel to each host, and why."""
        told = {}
        for host in sorted(self._channels):
            with contextlib.suppress(RouterError):  # it is just being closed
                told[host] = self.carrier(host)
        return told

    def carrier(self, host: str) -> str:
        """Return what carries the channel to a connected host, and why; RouterError if it is just being closed."""
        return self._data.describe_channel(self._channels[host]) + self._why_tcp[host]

    async def channel(self, host: str, endpoints: Iterable[str]) -> int:
        """Return the channel to a host, connecting if there is none; PeerError if that cannot be done."""
        if host in self._channels:
            return self._channels[host]
        attempt = self._attempt(host, tuple(endpoints))
        try:
            return await asyncio.shield(attempt)
        except (PeerError, asyncio.CancelledError):
            if host in self._channels:  # the other side was faster
                return self._channels[host]
            if attempt.cancelled():
                raise PeerError(f"host {host}: the connection was given up") from None
            raise

    def _attempt(self, host: str, endpoints: tuple[str, ...], patience_s: float = _CONNECT_S) -> "asyncio.Task[int]":
        """Return what is connecting to the host: begun now, if nothing does."""
        attempt = self._attempts.get(host)
        if attempt is None:
            attempt = asyncio.create_task(self._connect(host, endpoints, patience_s))
            self._attempts[host] = attempt
            attempt.add_done_callback(lambda done: self._forget(host, done))
        return attempt

    def _forget(self, host: str, attempt: "asyncio.Task[int]") -> None:
        if self._attempts.get(host) is attempt:
            del self._attempts[host]
        if not attempt.cancelled():
            attempt.exception()  # whoever waited was told

    async def _connect(self, host: str, endpoints: tuple[str, ...], patience_s: float) -> int:
        failures, refusals = [], 0
        for endpoint in endpoints:
            try:
                return await self._connect_to(host, endpoint, patience_s)
            except HelloBusyError as error:
                failures.append(f"{endpoint}: {error}")
                if await self._arrives(host):
                    return self._channels[host]
            except (OSError, TimeoutError, HelloError, RouterError) as error:
                failures.append(f"{endpoint}: {error or 'no answer'}")
                refusals += isinstance(error, ConnectionRefusedError)
        refused = bool(endpoints) and refusals == len(endpoints)
        raise PeerError(f"the router of host {host} cannot be reached ({'; '.join(failures)})", refused=refused)

    def _is_up(self, host: str) -> bool:
        return host in self._channels and host not in self._lost

    async def _arrives(self, host: str) -> bool:
        """Wait for the connection of a router that is connecting to us; whether it came."""
        arrived = self._arrivals.setdefault(host, asyncio.Event())
        try:
            if not self._is_up(host):
                await asyncio.wait_for(arrived.wait(), _HELLO_S)
        except TimeoutError:
            return False
        finally:
            self._arrivals.pop(host, None)
        return self._is_up(host)

    async def _connect_to(self, host: str, endpoint: str, patience_s: float) -> int:
        address, port = parse_endpoint(endpoint)
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(address, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, where = found[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            await asyncio.wait_for(loop.sock_connect(sock, where), patience_s)
            hello = await asyncio.wait_for(self._greet(sock, connected=True), _HELLO_S)
            if hello.peer != host:
                raise HelloError(f"the router there is of host {hello.peer}, not {host}: is the registry stale?")
            return self._take_over(sock, hello)
        except BaseException:
            sock.close()
            raise

    async def _greet(self, sock: socket.socket, *, connected: bool) -> Hello:
        """Go through the hello; the other side is told why it fails."""
        loop = asyncio.get_running_loop()
        transports = await asyncio.to_thread(self._carriers.offered)
        hello = Hello(
            self._host, self._secret, (WIRE_VERSION,), connected=connected, transports=transports,
            tenants=self._tenants,
        )  # fmt: skip
        try:
            await loop.sock_sendall(sock, hello.first())
            hello.read_first(await _read_message(sock))
            if not connected:
                self._admit(hello.peer)
                # Who accepts speaks last: the one that connected knows then that it is welcome.
                hello.read_second(await _read_message(sock))
                if hello.their_resume == self._sessions.get(hello.peer):
                    hello.resume = hello.their_resume
                await loop.sock_sendall(sock, hello.second())
            else:
                hello.resume = self._sessions.get(hello.peer, "")
                await loop.sock_sendall(sock, hello.second())
                hello.read_second(await _read_message(sock))
        except HelloError as error:
            with contextlib.suppress(OSError):
                busy = isinstance(error, HelloBusyError)
                await asyncio.wait_for(loop.sock_sendall(sock, pack({"error": str(error), "busy": busy})), 1.0)
            raise
        return hello

    def _admit(self, host: str) -> None:
        if host in self._attempts and self._host < host:
            raise HelloBusyError(f"{self._host} is connecting to {host} itself")

    def _take_over(self, sock: socket.socket, hello: Hello) -> int:
        _watch_for_silence(sock)
        host = hello.peer
        if hello.resumed and host in self._channels:
            channel = self._channels[host]
            self._data.resume_channel(channel, hello.transport, sock.fileno())
            log.info("host %s is connected again by %s (channel %d goes on)", host, hello.transport, channel)
        else:
            if host in self._channels:
                self._data.close_channel(self._channels.pop(host))
            channel = self._data.add_channel(hello.transport, sock.fileno())
            self._channels[host], self._sessions[host] = channel, hello.session
            self._hello_tenants[host] = hello.tenant
            self._data.set_tenant(channel, hello.tenant)
            log.info("host %s is connected by %s (channel %d)", host, hello.transport, channel)
        sock.detach()
        self._why_tcp[host] = self._carriers.why_tcp(host) if hello.transport == "tcp" else ""
        if self._why_tcp[host] and self._carriers.may_come and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look_for_rdma())
        self._stop_reconnecting(host)
        if host in self._arrivals:
            self._arrivals[host].set()
        return channel

    def lost(self, channel: int, why: str) -> None:
        """Take note that a channel has lost its connection, and connect again."""
        for host, number in self._channels.items():
            if number == channel and host not in self._lost:
                log.warning("the connection to host %s is lost (channel %d): %s", host, channel, why)
                self._lost[host] = asyncio.create_task(self._reconnect(host, channel))

    def _stop_reconnecting(self, host: str) -> None:
        task = self._lost.pop(host, None)
        if task is not None:
            task.cancel()

    async def _reconnect(self, host: str, channel: int) -> None:
        """Connect until it works, or nobody listens there any more; the data plane ends it after its own time."""
        pause_s, refusals = _FIRST_PAUSE_S, 0
        while self._channels.get(host) == channel:
            attempt = self._attempt(host, self._endpoints(host), _RECONNECT_S)
            try:
                await asyncio.wait([attempt])
                attempt.result()
                return
            except PeerError as error:
                log.debug("%s", error)
                refusals = refusals + 1 if error.refused else 0
                if refusals == _REFUSALS:
                    self._data.close_channel(channel)
                    return
            except asyncio.CancelledError:
                if not attempt.cancelled():
                    raise
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _by_tcp(self) -> list[str]:
        """Return the hosts with which nothing better than TCP was agreed on."""
        return [host for host in self._channels if self._why_tcp[host]]

    async def _look_for_rdma(self) -> None:
        """Look for a device of this host's as long as others are reached by TCP; when there is one, meet them again."""
        pause_s = _FIRST_LOOK_S
        while self._by_tcp():
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_LOOK_S)
            if "rdma" not in await asyncio.to_thread(self._carriers.offered):
                continue
            for host in self._by_tcp():
                if host not in self._lost:  # else they meet anyway
                    log.info("there is RDMA here by now: host %s is met again", host)
                    await asyncio.wait([self._attempt(host, self._endpoints(host))])
            if not self._carriers.may_come:
                return  # who is reached by TCP still has a reason of its own

    async def accept(self, sock: socket.socket, whence: str) -> None:
        """Go through the hello with a router that connected; what is no router is dropped, with a warning."""
        try:
            sock.setblocking(False)
            hello = await asyncio.wait_for(self._greet(sock, connected=False), _HELLO_S)
            if hello.peer in self._attempts:
                self._attempts[hello.peer].cancel()
            self._take_over(sock, hello)
        except HelloBusyError as error:
            log.debug("a connection from %s is not needed: %s", whence, error)
            sock.close()
        except (OSError, TimeoutError, HelloError, RouterError) as error:
            log.warning("a connection from %s is refused: %s", whence, error or "it says nothing")
            sock.close()
        except BaseException:
            sock.close()
            raise

    def closed(self, channel: int, why: str) -> None:
        """Take note that the data plane has closed a channel."""
        for host, number in list(self._channels.items()):
            if number == channel:
                del self._channels[host]
                self._sessions.pop(host, None)
                self._stop_reconnecting(host)
                log.warning("host %s is disconnected (channel %d): %s", host, channel, why)

    async def close(self) -> None:
        """Stop connecting."""
        attempts: list[asyncio.Task[int] | asyncio.Task[None]] = [*self._lost.values(), *self._attempts.values()]
        if self._looking is not None:
            attempts.append(self._looking)
        for attempt in attempts:
            attempt.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)
