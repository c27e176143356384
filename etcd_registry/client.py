"""A client of etcd for asyncio, over grpcio: the Store that clusters use. Needs the extra `router` (grpcio, protobuf).

Method names are etcd3's where they do the same. What the packaged clients lack and this one has: watches that resume or
begin anew by themselves, fail-over between members, renewal of tokens, a deadline for every call, lists in pages.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Sequence

from . import rpc_pb2 as pb
from ._connection import CompactedError, Connection, Credentials, Method, Tls
from ._watch import WatchStream, key_value
from .errors import LeaseLostError, RegistryDeniedError, RegistryError, RegistryUnavailableError
from .records import MARKER
from .store import Cut, KeyValue, Resumed, Snapshot, Swap, WatchItem, prefix_end, prefix_start

__all__ = ["Credentials", "EtcdClient", "Tls"]

RANGE: Method[pb.RangeRequest, pb.RangeResponse] = Method("/etcdserverpb.KV/Range", pb.RangeResponse)
PUT: Method[pb.PutRequest, pb.PutResponse] = Method("/etcdserverpb.KV/Put", pb.PutResponse)
DELETE: Method[pb.DeleteRangeRequest, pb.DeleteRangeResponse] = Method(
    "/etcdserverpb.KV/DeleteRange", pb.DeleteRangeResponse
)
TXN: Method[pb.TxnRequest, pb.TxnResponse] = Method("/etcdserverpb.KV/Txn", pb.TxnResponse)
COMPACT: Method[pb.CompactionRequest, pb.CompactionResponse] = Method(
    "/etcdserverpb.KV/Compact", pb.CompactionResponse
)  # fmt: skip
GRANT: Method[pb.LeaseGrantRequest, pb.LeaseGrantResponse] = Method(
    "/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantResponse
)
REVOKE: Method[pb.LeaseRevokeRequest, pb.LeaseRevokeResponse] = Method(
    "/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeResponse
)
KEEP_ALIVE: Method[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse] = Method(
    "/etcdserverpb.Lease/LeaseKeepAlive", pb.LeaseKeepAliveResponse
)

PAGE = 1000  # keys; 4 MiB is the largest message that grpc takes by default
PAUSE_MIN_S, PAUSE_MAX_S = 0.05, 1.0
LEASE_EXISTS = "lease already exists"


class EtcdClient:
    """One cluster of etcd. `addresses` are HOST:PORT of its members; make it within a running event loop.

    `timeout_s` bounds every call. `marker` is a key that tells one life of the cluster's data from the next: a wiped
    etcd that has caught up with the old revisions looks like the old one otherwise.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        credentials: Credentials | None = None,
        tls: Tls | None = None,
        timeout_s: float = 3.0,
        marker: str = MARKER,
    ) -> None:
        if not addresses:
            raise RegistryError("an etcd client needs at least one endpoint")
        self._connection = Connection(list(addresses), credentials=credentials, tls=tls, timeout_s=timeout_s)
        self._marker = marker

    async def get(self, key: str) -> KeyValue | None:
        """Return the key, or None if it is absent."""
        answer = await self._connection.call(RANGE, pb.RangeRequest(key=key.encode()))
        return key_value(answer.kvs[0]) if answer.kvs else None

    async def get_prefix(self, prefix: str) -> Snapshot:
        """Return every key that begins with `prefix`, all at one revision, fetched in pages."""
        while True:
            try:
                return await self._pages(prefix.encode())
            except CompactedError:
                continue  # the revision of the first page was compacted away: read anew

    async def _pages(self, prefix: bytes) -> Snapshot:
        items: list[KeyValue] = []
        request = pb.RangeRequest(key=prefix_start(prefix), range_end=prefix_end(prefix), limit=PAGE)
        while True:
            try:
                answer = await self._connection.call(RANGE, request)
            except RegistryError as error:
                if "larger than max" not in str(error) or request.limit == 1:
                    raise
                request.limit = max(request.limit // 8, 1)  # large values of somebody else's
                continue
            items += map(key_value, answer.kvs)
            if not answer.more:
                return Snapshot(request.revision or answer.header.revision, tuple(items))
            request.revision = request.revision or answer.header.revision
            request.key = answer.kvs[-1].key + b"\0"

    async def put(self, key: str, value: bytes, lease: int = 0) -> int:
        """Write the key and return its new revision."""
        answer = await self._connection.call(PUT, pb.PutRequest(key=key.encode(), value=value, lease=lease))
        return answer.header.revision

    async def put_if_not_exists(self, key: str, value: bytes, lease: int = 0) -> Swap:
        """Write the key if it is absent (Store.put_if_not_exists)."""
        absent = pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.CREATE, key=key.encode(), create_revision=0)
        return await self._swap(key, absent, value, lease)

    async def replace(self, expected: KeyValue, value: bytes | None, lease: int = 0) -> Swap:
        """Write or delete the key if it stands as `expected` (Store.replace)."""
        key, revision = expected.key.encode(), expected.mod_revision
        unchanged = pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=key, mod_revision=revision)
        return await self._swap(expected.key, unchanged, value, lease)

    async def _swap(self, key: str, compare: pb.Compare, value: bytes | None, lease: int) -> Swap:
        """Compare and swap.

        The connection repeats a call that was cut, and the first one may have been applied: then the comparison fails,
        and the key is as we wrote it. The writer's nonce in the value tells that from the same work of another.
        """
        name = key.encode()
        write = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=name))
        if value is not None:
            write = pb.RequestOp(request_put=pb.PutRequest(key=name, value=value, lease=lease))
        read = pb.RequestOp(request_range=pb.RangeRequest(key=name))
        request = pb.TxnRequest(compare=[compare], success=[write, read], failure=[read])
        answer = await self._connection.call(TXN, request)
        kvs = answer.responses[-1].response_range.kvs
        current = key_value(kvs[0]) if kvs else None
        as_wanted = current is None if value is None else current is not None and current.value == value
        return Swap(answer.succeeded or (as_wanted and (current is None or current.lease == lease)), current)

    async def delete(self, key: str) -> bool:
        """Delete the key and return whether it was there."""
        answer = await self._connection.call(DELETE, pb.DeleteRangeRequest(key=key.encode()))
        return answer.deleted > 0

    async def lease(self, ttl_s: int) -> int:
        """Grant a lease of at least `ttl_s` seconds and return its id.

        The id is ours to choose: a call that is repeated after a cut cannot leave a second lease behind.
        """
        lease = secrets.randbelow(2**63 - 1) + 1
        try:
            answer = await self._connection.call(GRANT, pb.LeaseGrantRequest(TTL=ttl_s, ID=lease))
        except RegistryError as error:
            if LEASE_EXISTS not in str(error):
                raise
            return lease
        if answer.error:
            raise RegistryError(f"etcd grants no lease of {ttl_s} s: {answer.error}")
        return answer.ID

    async def refresh_lease(self, lease: int) -> int:
        """Let the lease begin anew and return its seconds."""
        answer = await self._connection.exchange(KEEP_ALIVE, pb.LeaseKeepAliveRequest(ID=lease))
        if answer.TTL <= 0:  # not an error to etcd
            raise LeaseLostError(f"etcd knows no lease {lease:x}: it has ended")
        return answer.TTL

    async def revoke_lease(self, lease: int) -> None:
        """End the lease and delete its keys."""
        with contextlib.suppress(LeaseLostError):
            await self._connection.call(REVOKE, pb.LeaseRevokeRequest(ID=lease))

    async def compact(self, revision: int) -> None:
        """Forget what was before `revision`."""
        await self._connection.call(COMPACT, pb.CompactionRequest(revision=revision, physical=True))

    async def watch_prefix(self, prefix: str) -> AsyncGenerator[WatchItem, None]:
        """Yield a Snapshot of the prefix and then its Changes (Store.watch_prefix)."""
        position = None  # the revision up to which everything has been reported
        life: bytes | None = None
        pause_s = PAUSE_MIN_S
        denied = False
        while True:
            stream = None
            try:
                if position is None:
                    life, _ = await self._life()
                    snapshot = await self.get_prefix(prefix)
                    position = snapshot.revision
                    yield snapshot
                stream = WatchStream(self._connection, prefix, position + 1)
                async with stream:
                    # A wiped etcd (its revision is below ours) lets a watch wait in silence for a revision of its far
                    # future; one that has passed our revision again is told by its marker. Both are asked of the
                    # whole cluster, after the watch stands: the member at hand may just lag behind.
                    now, revision = await self._life()
                    if now != life or revision < position:
                        position = None
                        continue
                    yield Resumed(position)
                    pause_s, denied = PAUSE_MIN_S, False
                    while True:
                        changes = await stream.next()
                        position = changes.revision
                        yield changes
            except CompactedError:
                position = None
            except RegistryUnavailableError as error:
                if self._connection.closed:
                    return
                if stream is not None:
                    stream.leave()
                yield Cut(str(error))
                await asyncio.sleep(pause_s)
                pause_s, denied = min(2 * pause_s, PAUSE_MAX_S), False
            except RegistryDeniedError:
                # A watch with a token that etcd has lost is refused in the same words as a forbidden one.
                if denied or stream is None:
                    raise
                try:
                    denied = await self._connection.renew(stream.token)
                except RegistryUnavailableError:  # it has gone again: so the next watch is refused, or cut
                    await asyncio.sleep(pause_s)
                    continue
                if not denied:
                    raise

    async def _life(self) -> tuple[bytes | None, int]:
        """Return the cluster's marker, written where there was none (None where we may not), and its revision."""
        key = self._marker.encode()
        # Who may read but not write, as a monitor, makes do with somebody else's marker.
        with contextlib.suppress(RegistryDeniedError):
            await self.put_if_not_exists(self._marker, secrets.token_hex(8).encode())
        answer = await self._connection.call(RANGE, pb.RangeRequest(key=key))
        return (answer.kvs[0].value if answer.kvs else None), answer.header.revision

    async def close(self) -> None:
        """Close the connections; watches end."""
        await self._connection.close()
