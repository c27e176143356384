"""What only a real etcd can show: members, credentials, TLS, large lists, cuts in the middle of a call, old servers."""

import asyncio
import contextlib
import gc
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import grpc
import pytest

from etcd_registry import (
    RegistryDeniedError,
    RegistryError,
    RegistryUnavailableError,
    RegistryUrlError,
    open_registry,
)
from etcd_registry import _connection as connection
from etcd_registry import rpc_pb2 as pb
from etcd_registry._connection import CompactedError
from etcd_registry._watch import WatchStream
from etcd_registry.client import RANGE, TXN, Credentials, EtcdClient, Tls
from etcd_registry.records import MARKER
from etcd_registry.store import KeyValue
from tests.registry.reading import HANG_S, Reader, eventually
from tests.registry.servers import Cluster, CuttingProxy, EtcdServer, make_certificates, running_etcd

P = "/ffverbs/v1/t/"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(name="etcd")
def etcd_fixture() -> Iterator[EtcdServer]:
    with running_etcd() as server:
        yield server


@pytest.fixture(name="cluster")
def cluster_fixture() -> Iterator[Cluster]:
    cluster = Cluster()
    cluster.start()
    yield cluster
    cluster.close()


@pytest.fixture(name="certificates", scope="module")
def certificates_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


@contextlib.asynccontextmanager
async def client(
    *addresses: str,
    user: str | None = None,
    password: str | None = None,
    timeout_s: float = 4.0,
    tls: Tls | None = None,
) -> AsyncGenerator[EtcdClient, None]:
    credentials = Credentials(user, password or f"{user} password") if user else None
    made = EtcdClient(addresses, credentials=credentials, tls=tls, timeout_s=timeout_s)
    try:
        yield made
    finally:
        await made.close()


# lists


async def test_a_list_larger_than_a_message_comes_in_pages_of_one_revision(etcd: EtcdServer) -> None:
    async with client(etcd.address, timeout_s=HANG_S) as store:
        await store.put(P, b"first")
        for start in range(0, 7500, 250):
            await asyncio.gather(*(store.put(f"{P}{start + n:05}", bytes(600)) for n in range(250)))
        found = await store.get_prefix(P)
        assert [kv.key for kv in found.items] == [P, *(f"{P}{number:05}" for number in range(7500))]
        assert sum(len(kv.value) for kv in found.items) > 4 * 2**20


async def test_a_page_of_huge_values_is_asked_for_in_smaller_ones(etcd: EtcdServer) -> None:
    async with client(etcd.address, timeout_s=HANG_S) as store:
        for number in range(6):
            await store.put(f"{P}{number}", bytes(1_200_000))
        assert len((await store.get_prefix(P)).items) == 6


async def test_a_compaction_between_two_pages_begins_the_list_anew(
    etcd: EtcdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etcd_registry.client.PAGE", 2)
    async with client(etcd.address) as store, client(etcd.address) as other:
        for number in range(5):
            await store.put(f"{P}{number}", b"")
        call, calls = store._connection.call, 0

        async def compacting(method: object, request: object) -> object:
            nonlocal calls
            calls += 1
            if calls == 2:
                await other.compact(await other.put(P + "5", b""))
            return await call(method, request)  # type: ignore[arg-type,type-var]

        monkeypatch.setattr(store._connection, "call", compacting)
        assert len((await store.get_prefix(P)).items) == 6
        assert calls > 4


# cuts


async def test_a_claim_whose_answer_was_lost_is_known_to_be_ours(etcd: EtcdServer) -> None:
    async with CuttingProxy(etcd.port) as proxy, client(proxy.address) as store, client(etcd.address) as direct:
        for number in range(20):
            key = f"{P}{number}"
            await store.get(key)  # the connection stands
            proxy.arm()
            swap = await store.put_if_not_exists(key, b"nonce %d" % number)
            assert swap.applied and swap.current and swap.current.value == b"nonce %d" % number
            proxy.arm()
            assert (await store.replace(swap.current, None)).applied
            assert await direct.get(key) is None
        assert proxy.cuts == 40


async def test_a_lease_whose_answer_was_lost_is_granted_once(etcd: EtcdServer) -> None:
    async with CuttingProxy(etcd.port) as proxy, client(proxy.address) as store:
        await store.get(P)
        proxy.arm()
        lease = await store.lease(60)
        assert await store.refresh_lease(lease) == 60
        answer = etcd.post("lease/leases")
        assert len(list(answer["leases"])) == 1  # type: ignore[call-overload]


async def test_a_watch_that_is_cut_resumes_without_loss(etcd: EtcdServer) -> None:
    async with (
        CuttingProxy(etcd.port) as proxy,
        client(proxy.address) as store,
        client(etcd.address) as writer,
        Reader(store, P) as reader,
    ):
        await reader.until(lambda it: it.resumed == 1)
        for number in range(200):
            if number % 20 == 7:
                proxy.arm()
            await writer.put(P + "a", b"%d" % number)
        await reader.until(lambda it: it.map == {P + "a": b"199"})
        assert [value for _, value in reader.puts] == [b"%d" % number for number in range(200)]
        assert proxy.cuts > 0 and reader.resumed > 1 and reader.snapshots == 1


async def test_a_revision_is_reported_whole_where_etcd_sends_it_in_parts(etcd: EtcdServer) -> None:
    """Resuming after half a revision would lose the other half."""
    etcd.kill()
    etcd.add("--max-request-bytes", "100000")  # above this, and half a megabyte, answers come in parts
    etcd.start()
    async with client(etcd.address, timeout_s=HANG_S) as store:
        first = await store.put(P, b"")
        for number in range(40):
            keys = (f"{P}{number}/{part}".encode() for part in range(7))
            puts = [pb.RequestOp(request_put=pb.PutRequest(key=key, value=bytes(13_000))) for key in keys]
            await store._connection.call(TXN, pb.TxnRequest(success=puts))
        revisions: list[int] = []
        items = 0
        async with WatchStream(store._connection, P, first + 1) as stream:
            while len(revisions) < 40:
                changes = await stream.next()
                revisions += {event.mod_revision for event in changes.events if isinstance(event, KeyValue)}
                items += len(changes.events)
        assert len(set(revisions)) == len(revisions) == 40
        assert items == 40 * 7


# hanging


async def test_a_hung_server_is_noticed_by_its_silence(etcd: EtcdServer) -> None:
    async with client(etcd.address) as store, Reader(store, P) as reader:
        await reader.until(lambda it: it.resumed == 1)
        etcd.pause()
        await reader.until(lambda it: it.cuts > 0)
        etcd.resume()
        await reader.until(lambda it: it.resumed == 2)


async def test_a_quiet_watch_lives_on(etcd: EtcdServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etcd_registry._watch.SILENCE_S", 0.05)
    async with client(etcd.address) as store, Reader(store, P) as reader:
        await reader.until(lambda it: it.resumed == 1)
        await asyncio.sleep(1)  # some twenty questions and answers
        assert reader.cuts == 0
        await store.put(P + "a", b"1")
        await reader.until(lambda it: it.map == {P + "a": b"1"})


async def test_an_idle_channel_stays_open(etcd: EtcdServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """etcd punishes pings without a call with a closed connection: there are none, however often we may ping."""
    quick = dict(connection.OPTIONS) | {"grpc.keepalive_time_ms": 100, "grpc.http2.min_time_between_pings_ms": 100}
    monkeypatch.setattr(connection, "OPTIONS", tuple(quick.items()))
    async with client(etcd.address) as store:
        await store.get(P)
        channel = store._connection.endpoint.channel
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(4):  # etcd takes three seconds of it
                await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        assert channel.get_state() is grpc.ChannelConnectivity.READY


async def test_a_watch_is_not_waited_for_forever(etcd: EtcdServer) -> None:
    async with client(etcd.address, timeout_s=1) as store:
        await store.get(P)
        etcd.pause()
        with pytest.raises(RegistryUnavailableError, match="does not answer its watch"):
            async with asyncio.timeout(HANG_S), WatchStream(store._connection, P, 1):
                pass


async def test_a_server_that_is_away_is_looked_for_every_second(etcd: EtcdServer) -> None:
    """gRPC's own back-off would grow to minutes, and a server that returned would stay unused for as long."""
    async with (
        CuttingProxy(etcd.port) as proxy,
        client(proxy.address, timeout_s=1) as store,
        Reader(store, P) as reader,
    ):
        await reader.until(lambda it: it.resumed == 1)
        proxy.closed = True
        proxy.cut()
        await eventually(lambda: len(proxy.refused) > 0 and time.monotonic() - proxy.refused[0] > 14)
        gaps = [later - earlier for earlier, later in itertools.pairwise(proxy.refused)]
        assert statistics.median(gaps) < 2, gaps
        proxy.closed = False
        await reader.until(lambda it: it.resumed == 2)


# watches that cannot go on


async def test_a_compacted_revision_is_told_from_a_cut(etcd: EtcdServer) -> None:
    async with client(etcd.address) as store:
        first = await store.put(P + "a", b"1")
        last = 0
        for number in range(10):
            last = await store.put(P + "a", b"%d" % number)
        await store.compact(last)
        with pytest.raises(CompactedError):
            async with WatchStream(store._connection, P, first) as stream:
                await stream.next()
        with pytest.raises(CompactedError):
            await store._connection.call(RANGE, pb.RangeRequest(key=P.encode(), revision=first))


async def test_a_watch_relists_after_a_compaction_in_its_absence(etcd: EtcdServer) -> None:
    async with (
        CuttingProxy(etcd.port) as proxy,
        client(proxy.address) as store,
        client(etcd.address) as writer,
        Reader(store, P) as reader,
    ):
        await writer.put(P + "gone", b"1")
        await reader.until(lambda it: P + "gone" in it.map and it.resumed == 1)
        proxy.closed = True
        proxy.cut()
        await reader.until(lambda it: it.cuts > 0)
        await writer.delete(P + "gone")
        await writer.compact(await writer.put(P + "new", b"2"))
        proxy.closed = False
        await reader.until(lambda it: it.map == {P + "new": b"2"})
        assert reader.snapshots == 2


@pytest.mark.parametrize("writes", [0, 40], ids=["behind", "ahead"])
async def test_a_wiped_etcd_is_noticed_behind_and_ahead_of_where_we_were(etcd: EtcdServer, writes: int) -> None:
    async with (
        CuttingProxy(etcd.port) as proxy,
        client(proxy.address) as store,
        client(etcd.address) as writer,
        Reader(store, P) as reader,
    ):
        for number in range(20):
            await writer.put(f"{P}old{number}", b"")
        await reader.until(lambda it: len(it.map) == 20 and it.resumed == 1)
        proxy.closed = True
        etcd.wipe()
        await reader.until(lambda it: it.cuts > 0)
        async with client(etcd.address, timeout_s=HANG_S) as patient:
            for number in range(writes):
                await patient.put(f"{P}new{number}", b"")
            await patient.put(P + "new", b"")
        proxy.closed = False
        await reader.until(lambda it: len(it.map) == writes + 1 and P + "new" in it.map)


# members


async def test_losing_one_of_three_members_loses_nothing(cluster: Cluster) -> None:
    async with (
        client(*cluster.addresses) as store,
        client(*cluster.addresses[1:]) as writer,
        Reader(store, P) as reader,
    ):
        await reader.until(lambda it: it.resumed == 1)
        for number in range(10):
            await writer.put(P + "a", b"%d" % number)
        cluster.members[0].kill()  # the one that the watch is at
        for number in range(10, 20):
            while True:
                with contextlib.suppress(RegistryUnavailableError):
                    await writer.put(P + "a", b"%d" % number)
                    break
        await reader.until(lambda it: it.map == {P + "a": b"19"})
        assert list(dict.fromkeys(value for _, value in reader.puts)) == [b"%d" % number for number in range(20)]
        assert reader.snapshots == 1
        assert (await store.put_if_not_exists(P + "b", b"1")).applied


async def test_a_member_that_hangs_is_left(cluster: Cluster) -> None:
    async with (
        client(*cluster.addresses) as store,
        client(*cluster.addresses[1:]) as writer,
        Reader(store, P) as reader,
    ):
        await reader.until(lambda it: it.resumed == 1)
        cluster.members[0].pause()
        for _ in range(3):
            assert await store.get(P + "a") is None
        while True:
            with contextlib.suppress(RegistryUnavailableError):
                await writer.put(P + "a", b"1")
                break
        await reader.until(lambda it: it.map == {P + "a": b"1"})
        cluster.members[0].resume()


async def test_a_member_without_the_others_says_so_and_is_left(cluster: Cluster) -> None:
    """Two of three are gone: nothing can be written, nothing hangs; with the second all is well again."""
    async with client(*cluster.addresses) as store, Reader(store, P) as reader:
        await reader.until(lambda it: it.resumed == 1)
        for member in cluster.members[1:]:
            member.kill()
        await reader.until(lambda it: it.cuts > 0)
        with pytest.raises(RegistryUnavailableError):
            await store.put(P + "a", b"1")
        cluster.members[1].start()
        while True:
            with contextlib.suppress(RegistryUnavailableError):
                await store.put(P + "a", b"2")
                break
        await reader.until(lambda it: it.map == {P + "a": b"2"})


# credentials


async def test_credentials_are_asked_for_and_checked(etcd: EtcdServer) -> None:
    etcd.enable_users()
    async with client(etcd.address) as nobody:
        with pytest.raises(RegistryDeniedError, match="wants a user and a password"):
            await nobody.get(P)
    async with client(etcd.address, user="router", password="wrong") as wrong:
        with pytest.raises(RegistryDeniedError, match="check the user, its password"):
            await wrong.get(P)
    async with client(etcd.address, user="router") as router:
        await router.put(P + "a", b"1")
        assert (await router.put_if_not_exists(P + "b", b"1", await router.lease(60))).applied
        with pytest.raises(RegistryDeniedError, match="permission denied"):
            await router.get("/else")


async def test_a_watch_that_is_forbidden_fails_and_one_that_may_only_read_works(etcd: EtcdServer) -> None:
    etcd.enable_users()
    async with client(etcd.address, user="router") as router, client(etcd.address, user="monitor") as monitor:
        async with Reader(router, "/else/") as denied:
            await eventually(lambda: denied.ended)
            assert isinstance(denied.error, RegistryDeniedError)
        with pytest.raises(RegistryDeniedError, match="refuses to watch /else/"):
            async with WatchStream(router._connection, "/else/", 1):
                pass
        async with Reader(monitor, P) as reader:
            await reader.until(lambda it: it.resumed == 1)
            await router.put(P + "a", b"1")
            await reader.until(lambda it: it.map == {P + "a": b"1"})


async def test_tokens_that_a_restart_has_lost_are_renewed(etcd: EtcdServer) -> None:
    etcd.enable_users()
    async with client(etcd.address, user="router", timeout_s=20) as store, Reader(store, P) as reader:
        await reader.until(lambda it: it.resumed == 1)
        etcd.kill()
        etcd.start()
        await asyncio.gather(*(store.put(f"{P}{number}", b"") for number in range(20)))
        await reader.until(lambda it: len(it.map) == 20)
        assert reader.snapshots == 1


async def test_a_watch_renews_the_token_that_a_restart_has_lost(etcd: EtcdServer) -> None:
    """It alone: no call has done so before."""
    etcd.enable_users()
    async with client(etcd.address, user="router") as store, Reader(store, P) as reader:
        await reader.until(lambda it: it.resumed == 1)
        etcd.kill()
        await reader.until(lambda it: it.cuts > 0)
        etcd.start()
        await reader.until(lambda it: it.resumed == 2)
        assert reader.snapshots == 1


async def test_tokens_that_expire_are_renewed(tmp_path: Path) -> None:
    for words in (["genrsa", "-out", "key.pem", "2048"], ["rsa", "-in", "key.pem", "-pubout", "-out", "public.pem"]):
        subprocess.run(["openssl", *words], cwd=tmp_path, check=True, capture_output=True)
    keys = f"pub-key={tmp_path}/public.pem,priv-key={tmp_path}/key.pem"
    etcd = EtcdServer("--auth-token", f"jwt,{keys},sign-method=RS256,ttl=3s")
    try:
        etcd.start()
        etcd.enable_users()
        async with client(etcd.address, user="router") as store:
            for number in range(2):
                await store.put(f"{P}{number}", b"")
                async with WatchStream(store._connection, P, 1) as stream:
                    await stream.next()
                await asyncio.sleep(3.1)
                async with Reader(store, P) as reader:
                    await reader.until(lambda it: it.resumed == 1)
    finally:
        etcd.close()


async def test_a_user_of_an_etcd_without_users_is_not_needed(
    etcd: EtcdServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with client(etcd.address, user="router") as store:
        await store.put(P + "a", b"1")
    assert "has no authentication" in caplog.text


# TLS


async def test_tls_with_and_without_client_certificates(certificates: Path, tmp_path: Path) -> None:
    ca, certificate, key = (certificates / name for name in ("ca.pem", "client.pem", "client.key"))
    etcd = EtcdServer(tls=certificates)
    try:
        etcd.start()
        async with client(etcd.address, tls=Tls(ca), timeout_s=HANG_S) as store:
            await store.put(P + "a", b"1")
        async with open_registry(f"etcd://{etcd.address}?ca={ca}&cert={certificate}&key={key}") as registry:
            await registry.directory.wait_synced(HANG_S)
        async with client(etcd.address, tls=Tls(certificates / "other-ca.pem"), timeout_s=1) as store:
            with pytest.raises(RegistryUnavailableError, match=r"(?i)certificate"):
                await store.get(P)
        async with client(etcd.address, timeout_s=1) as store:
            with pytest.raises(RegistryUnavailableError):
                await store.get(P)
        etcd.kill()
        etcd.add("--trusted-ca-file", str(ca), "--client-cert-auth")
        etcd.start()
        async with client(etcd.address, tls=Tls(ca, certificate, key), timeout_s=HANG_S) as store:
            assert await store.get(P + "a")
        stranger = Tls(ca, certificates / "stranger.pem", certificates / "stranger.key")
        async with client(etcd.address, tls=stranger, timeout_s=1) as store:
            with pytest.raises(RegistryUnavailableError):
                await store.get(P + "a")
    finally:
        etcd.close()
    with pytest.raises(RegistryUrlError, match="go together"):
        Tls(ca, certificate)


# the process


def test_a_forked_child_is_told_to_make_its_own_client(etcd: EtcdServer) -> None:
    program = f"""
import asyncio, os, sys
from etcd_registry.client import EtcdClient
from etcd_registry.errors import RegistryError

async def parent():
    client = EtcdClient([{etcd.address!r}], timeout_s=5)
    await client.put("a", b"1")
    child = os.fork()
    if child == 0:
        os._exit(tried(client))
    _, status = os.waitpid(child, 0)
    assert (await client.get("a")).value == b"1"
    await client.close()
    return os.waitstatus_to_exitcode(status)

def tried(client):
    try:
        client.get("a").send(None)
    except RegistryError as error:
        return 42 if "a forked child makes its own" in str(error) else 1
    return 2

sys.exit(asyncio.run(parent()))
"""
    # gRPC's own handlers of forks, which it runs unless told not to, hang now and then.
    env = {**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0"}
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=env, timeout=30, check=False)
    assert run.returncode == 42


async def test_close_ends_what_is_under_way(etcd: EtcdServer) -> None:
    async with client(etcd.address, timeout_s=20) as store:
        lease = await store.lease(60)
        etcd.pause()
        calls = [asyncio.create_task(call) for call in (store.get(P), store.refresh_lease(lease))]
        await eventually(lambda: len(store._connection._calls) == 2)
        await store.close()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [str(result) for result in results] == ["this etcd client has been closed"] * 2
        assert {type(result) for result in results} == {RegistryError}


async def test_clients_leave_no_descriptors(etcd: EtcdServer) -> None:
    async def use() -> None:
        async with client(etcd.address) as store, Reader(store, P) as reader:
            await reader.until(lambda it: it.resumed == 1)

    def descriptors() -> int:
        gc.collect()  # a call and its task, which grpc lets refer to each other, keep their connection
        return len(os.listdir("/proc/self/fd"))

    await use()  # grpc opens some for the rest of the process
    before = descriptors()
    for _ in range(5):
        await use()
    await eventually(lambda: descriptors() <= before)


async def test_the_marker_is_written_once(etcd: EtcdServer) -> None:
    async with client(etcd.address) as store, Reader(store, P) as one, Reader(store, P) as two:
        await one.until(lambda it: it.resumed == 1)
        await two.until(lambda it: it.resumed == 1)
        marker = await store.get(MARKER)
        assert marker and marker.create_revision == marker.mod_revision


def test_the_tools_are_there() -> None:
    assert shutil.which("etcd") and shutil.which("openssl"), "tests/setup/system_packages.sh test installs them"
