"""Calls to the members of one etcd cluster: endpoints, fail-over, credentials, deadlines.

One channel an endpoint; one endpoint is current, and a call that it does not answer is repeated at the next, so a call
must be one that can be repeated. Every call has a deadline, and waits for its channel to become ready within it: grpcio
up to 1.78 fails fast for 10 s and more after one refused connection.

Belongs to the event loop and the process that made it: channels do not survive a fork (calls on them hang).
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from . import rpc_pb2 as pb
from .errors import LeaseLostError, RegistryDeniedError, RegistryError, RegistryUnavailableError, RegistryUrlError

__all__ = ["AUTHENTICATE", "CompactedError", "Connection", "Credentials", "Endpoint", "Method", "Tls", "serialize"]

log = logging.getLogger("etcd_registry")

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)
C = TypeVar("C", bound=grpc.aio.Call)

OPTIONS: tuple[tuple[str, int], ...] = (
    # A server that hangs with its connections open answers no ping. Without a call nothing is pinged: servers close
    # idle connections that are (too_many_pings), and etcd allows a ping every five seconds at most.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    # By default a server that was away for half a minute is looked for again only ten seconds after its return.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Another user of grpc in this process must not lend us its connections, or its back-off.
    ("grpc.use_local_subchannel_pool", 1),
    # etcd is part of the cluster: never by way of a web proxy that the environment names.
    ("grpc.enable_http_proxy", 0),
)

# A member without a leader refuses such calls at once, and ends such watches when it loses its leader; otherwise a
# member that is cut off from the others would keep us waiting.
NEEDS_LEADER = ("hasleader", "true")

PAUSE_MAX_S = 1.0


@dataclass(frozen=True)
class Method(Generic[Q, R]):
    """A method of etcd's: its path, and the class of its answer."""

    path: str
    answer: type[R]


AUTHENTICATE: Method[pb.AuthenticateRequest, pb.AuthenticateResponse] = Method(
    "/etcdserverpb.Auth/Authenticate", pb.AuthenticateResponse
)


def serialize(message: Message) -> bytes:
    """Return the message's bytes."""
    return message.SerializeToString()


@dataclass(frozen=True)
class Credentials:
    """A user of etcd's, with or without TLS."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Tls:
    """Files in PEM: authorities (None: the system's), and the client's certificate with its key."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        """Refuse half a client certificate."""
        if (self.certificate is None) != (self.key is None):
            raise RegistryUrlError("a client certificate and its key go together: give both cert and key, or neither")

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Read the files."""

        def read(path: Path | None) -> bytes | None:
            try:
                return None if path is None else path.read_bytes()
            except OSError as error:
                raise RegistryUrlError(f"TLS file {path} cannot be read: {error.strerror}") from None

        return grpc.ssl_channel_credentials(read(self.ca), read(self.key), read(self.certificate))


class CompactedError(RegistryError):
    """The revision asked for has been compacted away."""


class _StaleTokenError(RegistryError):
    """etcd does not know our token, or it has none of ours."""


class Endpoint:
    """A member of the cluster, and the channel to it."""

    def __init__(self, address: str, tls: Tls | None) -> None:
        self.address = address
        self.channel = (
            grpc.aio.insecure_channel(address, OPTIONS)
            if tls is None
            else grpc.aio.secure_channel(address, tls.channel_credentials(), OPTIONS)
        )

    async def why_not(self) -> str:
        """Return what keeps the channel from its server, as far as a call that fails fast can tell."""
        try:
            await self.channel.unary_unary(
                AUTHENTICATE.path, request_serializer=serialize, response_deserializer=AUTHENTICATE.answer.FromString
            )(pb.AuthenticateRequest(), timeout=0.3, wait_for_ready=False)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                return f"{self.address}: {error.details()}"
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                return f"{self.address}: it answers, but not what was asked"
        return f"{self.address}: no answer"


def _meaning(error: grpc.aio.AioRpcError, endpoint: Endpoint) -> RegistryError:
    """Return what a failed call means to us."""
    code, details = error.code(), error.details() or ""
    text = f"etcd at {endpoint.address}: {details or code.name}"
    status = grpc.StatusCode
    stale = code is status.UNAUTHENTICATED or (
        code is status.INVALID_ARGUMENT and ("user name is empty" in details or "auth store is old" in details)
    )
    if stale:
        return _StaleTokenError(text)
    if code is status.PERMISSION_DENIED or (code is status.INVALID_ARGUMENT and "authentication failed" in details):
        return RegistryDeniedError(f"{text}; check the user, its password and its role")
    if code is status.NOT_FOUND and "lease" in details:
        return LeaseLostError(text)
    if code is status.OUT_OF_RANGE and "compacted" in details:
        return CompactedError(text)
    if code in (status.UNAVAILABLE, status.DEADLINE_EXCEEDED, status.CANCELLED, status.INTERNAL, status.UNKNOWN):
        return RegistryUnavailableError(text)
    return RegistryError(text)


def is_cancelled() -> bool:
    """Whether somebody wants this task to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Connection:
    """What all calls of a client share."""

    def __init__(
        self, addresses: list[str], *, credentials: Credentials | None, tls: Tls | None, timeout_s: float
    ) -> None:
        self.timeout_s = timeout_s
        # One that hangs must leave the others their time.
        self.attempt_s = timeout_s / (len(addresses) + 1)
        self._credentials = credentials
        self._token: str | None = None
        self._renewing = asyncio.Lock()
        self._pid = os.getpid()
        self.closed = False
        self._calls: set[grpc.aio.Call] = set()  # under way
        self._endpoints = [Endpoint(address, tls) for address in addresses]
        self._current = 0

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint that calls go to at present."""
        return self._endpoints[self._current]

    def leave(self, endpoint: Endpoint) -> None:
        """Let the next call go to another endpoint than this one."""
        if self.endpoint is endpoint:
            self._current = (self._current + 1) % len(self._endpoints)

    def check_usable(self) -> None:
        """Fail clearly after close, and in a forked child, where a call on the parent's channel would hang."""
        if self.closed:
            raise RegistryError("this etcd client has been closed")
        if os.getpid() != self._pid:
            raise RegistryError("this etcd client belongs to the process that made it: a forked child makes its own")

    async def call(self, method: Method[Q, R], request: Q) -> R:
        """Make a call, at one endpoint after the other until the deadline."""

        async def once(endpoint: Endpoint, timeout_s: float) -> R:
            invoke = endpoint.channel.unary_unary(
                method.path, request_serializer=serialize, response_deserializer=method.answer.FromString
            )
            metadata = await self.metadata()
            with self.tracking(invoke(request, timeout=timeout_s, metadata=metadata, wait_for_ready=True)) as call:
                return await call

        return await self._persist(once)

    async def exchange(self, method: Method[Q, R], request: Q) -> R:
        """Send one message of a streaming call and return the first answer."""

        async def requests() -> AsyncIterator[Q]:
            yield request

        async def once(endpoint: Endpoint, timeout_s: float) -> R:
            invoke = endpoint.channel.stream_stream(
                method.path, request_serializer=serialize, response_deserializer=method.answer.FromString
            )
            metadata = await self.metadata()
            with self.tracking(invoke(requests(), timeout=timeout_s, metadata=metadata, wait_for_ready=True)) as call:
                async for answer in call:
                    return answer
            raise RegistryUnavailableError(f"etcd at {endpoint.address} ended the call without an answer")

        return await self._persist(once)

    @contextlib.contextmanager
    def tracking(self, call: C) -> Iterator[C]:
        """Let `close` end this call, and leaving the context too."""
        self._calls.add(call)
        try:
            yield call
        finally:
            self._calls.discard(call)
            call.cancel()

    async def _persist(self, once: Callable[[Endpoint, float], Awaitable[R]]) -> R:
        """Attempt a call until it succeeds, fails for good, or the deadline has come."""
        self.check_usable()
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.timeout_s
        pause_s = 0.02
        renewed = False
        while True:
            endpoint, token = self.endpoint, self._token
            try:
                try:
                    return await once(endpoint, max(min(self.attempt_s, deadline - clock()), 0.001))
                except grpc.aio.AioRpcError as error:
                    raise _meaning(error, endpoint) from None
            except asyncio.CancelledError:
                if not self.closed or is_cancelled():
                    raise
                raise RegistryError("this etcd client has been closed") from None  # grpc cancels what is under way
            except _StaleTokenError as error:
                if renewed or not await self.renew(token):
                    raise RegistryDeniedError(f"{error}; it wants a user and a password") from None
                renewed = True
            except RegistryUnavailableError as error:
                if is_cancelled():  # grpc tells of a call that ends at that moment instead
                    raise asyncio.CancelledError from None
                self.leave(endpoint)
                if clock() + pause_s >= deadline:
                    raise RegistryUnavailableError(await self._excuse(error)) from None
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_MAX_S)

    async def _excuse(self, last: RegistryUnavailableError) -> str:
        """Say that nobody answered, and what is known of the reason."""
        reasons = await asyncio.gather(*(endpoint.why_not() for endpoint in self._endpoints))
        return f"no etcd endpoint did what was asked within {self.timeout_s:g} s ({last}); {'; '.join(reasons)}"

    async def renew(self, stale: str | None) -> bool:
        """Get a new token in place of `stale`; False without credentials. Concurrent callers get one together."""
        if self._credentials is None:
            return False
        async with self._renewing:
            if self._token == stale:
                self._token = await self._authenticate(self._credentials)
        return True

    async def _authenticate(self, credentials: Credentials) -> str:
        """Return a token, or an empty one where etcd wants none."""
        invoke = self.endpoint.channel.unary_unary(
            AUTHENTICATE.path, request_serializer=serialize, response_deserializer=AUTHENTICATE.answer.FromString
        )
        request = pb.AuthenticateRequest(name=credentials.user, password=credentials.password)
        endpoint = self.endpoint
        try:
            answer = await invoke(request, timeout=self.attempt_s, wait_for_ready=True, metadata=(NEEDS_LEADER,))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION and "not enabled" in (error.details() or ""):
                log.warning("etcd at %s has no authentication: user %s is not used", endpoint.address, credentials.user)
                return ""
            raise _meaning(error, endpoint) from None
        return answer.token

    @property
    def token(self) -> str | None:
        """The token that calls carry, None before the first is had."""
        return self._token

    async def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what a call carries besides its message."""
        if self._token is None:
            await self.renew(None)
        return (NEEDS_LEADER, ("token", self._token)) if self._token else (NEEDS_LEADER,)

    async def close(self) -> None:
        """Close the channels; calls under way end with a RegistryError.

        Closing a channel is not enough: grpc looks for its calls on the stacks of tasks, and does not see all of them.
        """
        self.closed = True
        for call in self._calls:
            call.cancel()
        for endpoint in self._endpoints:
            await endpoint.channel.close()
