"""One watch stream of etcd's: opening it within a deadline, seeing that it still lives, telling why it ended.

A stream says nothing while nothing changes, also when its server hangs, so a silent one is asked for its progress. The
answer only shows that the server lives: its revision may be ahead of events still to come (etcd before 3.4.25).
"""

import asyncio
import contextlib

import grpc
import grpc.aio

from . import rpc_pb2 as pb
from ._connection import CompactedError, Connection, Method, serialize
from .errors import RegistryDeniedError, RegistryUnavailableError
from .store import Changes, KeyValue, prefix_end, prefix_start

__all__ = ["WatchStream", "key_value"]

WATCH: Method[pb.WatchRequest, pb.WatchResponse] = Method("/etcdserverpb.Watch/Watch", pb.WatchResponse)

SILENCE_S = 5.0  # after this long without a message the server is asked for one
ANSWER_S = 3.0  # and has this long to send it


def key_value(kv: pb.KeyValue) -> KeyValue:
    """Return a key of etcd's as the contract has it. Keys of others that are no text stay distinct, and alien."""
    return KeyValue(
        kv.key.decode(errors="backslashreplace"), kv.value, kv.mod_revision, kv.create_revision, kv.lease
    )  # fmt: skip


class WatchStream:
    """A stream with one watch, of a prefix from a revision on. Use it as a context manager.

    Raises CompactedError where the revision is gone, RegistryDeniedError, and RegistryUnavailableError for every
    other end.
    """

    def __init__(self, connection: Connection, prefix: str, start_revision: int) -> None:
        self._connection = connection
        self._prefix = prefix.encode()
        self._start_revision = start_revision
        self._endpoint = connection.endpoint
        self._held = contextlib.ExitStack()
        self._call: grpc.aio.StreamStreamCall[pb.WatchRequest, pb.WatchResponse] | None = None
        self._reading: asyncio.Task[pb.WatchResponse | None] | None = None
        self.revision = 0  # etcd's when the watch was created
        self.token: str | None = None

    async def __aenter__(self) -> "WatchStream":
        """Open the stream and wait until the watch is created."""
        self._connection.check_usable()
        try:
            await self._open()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the stream."""
        await self._close()

    async def _open(self) -> None:
        connection = self._connection
        metadata = await connection.metadata()
        self.token = connection.token
        invoke: grpc.aio.StreamStreamMultiCallable[pb.WatchRequest, pb.WatchResponse] = (
            self._endpoint.channel.stream_stream(
                WATCH.path, request_serializer=serialize, response_deserializer=WATCH.answer.FromString
            )
        )
        self._call = self._held.enter_context(connection.tracking(invoke(metadata=metadata, wait_for_ready=True)))
        create = pb.WatchCreateRequest(
            key=prefix_start(self._prefix),
            range_end=prefix_end(self._prefix),
            start_revision=self._start_revision,
            fragment=True,
        )
        await self._send(pb.WatchRequest(create_request=create), connection.attempt_s)
        response = await self._receive(connection.attempt_s)
        if response is None:
            raise self._hung()
        if not response.created:
            raise RegistryUnavailableError(f"etcd at {self._endpoint.address} did not confirm the watch")
        self._check(response)
        self.revision = response.header.revision

    async def next(self) -> Changes:
        """Wait for the next changes. A revision is reported whole, also where etcd sends it in parts."""
        events: list[KeyValue | str] = []
        while True:
            response = await self._receive(SILENCE_S)
            if response is None:
                await self._send(pb.WatchRequest(progress_request=pb.WatchProgressRequest()), ANSWER_S)
                response = await self._receive(ANSWER_S)
                if response is None:
                    raise self._hung()
            self._check(response)
            for event in response.events:
                kv = key_value(event.kv)
                events.append(kv.key if event.type == pb.Event.DELETE else kv)
            if response.events and not response.fragment:
                return Changes(response.events[-1].kv.mod_revision, tuple(events))

    def _hung(self) -> RegistryUnavailableError:
        return RegistryUnavailableError(f"etcd at {self._endpoint.address} does not answer its watch")

    def _check(self, response: pb.WatchResponse) -> None:
        """Raise if the watch has ended. Compaction comes after `created`, a refusal together with it."""
        if response.compact_revision:
            raise CompactedError(f"etcd has forgotten what was before revision {response.compact_revision}")
        if response.canceled:
            raise RegistryDeniedError(
                f"etcd at {self._endpoint.address} refuses to watch {self._prefix.decode()}:"
                f" {response.cancel_reason or 'no reason given'}; check the user, its password and its role"
            )

    async def _send(self, request: pb.WatchRequest, timeout_s: float) -> None:
        assert self._call is not None
        try:
            async with asyncio.timeout(timeout_s):
                await self._call.write(request)
        except TimeoutError:
            raise self._hung() from None
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise self._ended(error) from None

    async def _receive(self, timeout_s: float) -> pb.WatchResponse | None:
        """Return the next message, None if none came in time; the read goes on, as ending it would end the call."""
        assert self._call is not None
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read(self._call))
        await asyncio.wait({self._reading}, timeout=timeout_s)
        if not self._reading.done():
            return None
        reading, self._reading = self._reading, None
        try:
            response = reading.result()
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
            raise self._ended(error) from None
        if response is None:
            raise self._ended(None)
        return response

    @staticmethod
    async def _read(
        call: "grpc.aio.StreamStreamCall[pb.WatchRequest, pb.WatchResponse]",
    ) -> pb.WatchResponse | None:
        message = await call.read()
        return message if isinstance(message, pb.WatchResponse) else None

    def _ended(self, error: BaseException | None) -> RegistryUnavailableError:
        details = error.details() if isinstance(error, grpc.aio.AioRpcError) else None
        reason = details or "no reason given"
        return RegistryUnavailableError(f"etcd at {self._endpoint.address} ended the watch: {reason}")

    async def _close(self) -> None:
        self._held.close()
        self._call = None  # grpc keeps the connection as long as somebody holds a call on it
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
            self._reading = None

    def leave(self) -> None:
        """Let the next stream, and the next call, go to another endpoint."""
        self._connection.leave(self._endpoint)
