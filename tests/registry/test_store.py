"""The contract of a store (etcd_registry/store.py), for the one in memory and for etcd."""

import asyncio
import time

import pytest

from etcd_registry.errors import LeaseLostError, RegistryError, RegistryUnavailableError
from etcd_registry.store import KeyValue, Snapshot, Store, prefix_end, prefix_start
from tests.registry.labs import TIMEOUT_S, Lab
from tests.registry.reading import Reader, closing, eventually

P = "/ffverbs/v1/t/"


async def put_persistently(store: Store, key: str, value: bytes) -> None:
    """Put, again and again while the store is away."""
    while True:
        try:
            await store.put(key, value)
            return
        except RegistryUnavailableError:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("prefix", "end"),
    [(b"/a/", b"/a0"), (b"a\xff", b"b"), (b"a\xff\xff", b"b"), (b"\xff", b"\0"), (b"", b"\0"), (b"a\xfe", b"a\xff")],
)
def test_the_end_of_a_prefix(prefix: bytes, end: bytes) -> None:
    assert prefix_end(prefix) == end
    assert prefix_start(prefix) == (prefix or b"\0")


async def test_values_come_back(lab: Lab) -> None:
    async with closing(lab.client()) as (store,):
        assert await store.get(P + "a") is None
        first = await store.put(P + "a", b"1")
        second = await store.put(P + "a", b"\0\xff")
        assert second > first
        assert await store.get(P + "a") == KeyValue(P + "a", b"\0\xff", second, first)
        assert await store.delete(P + "a")
        assert not await store.delete(P + "a")
        assert await store.get(P + "a") is None


async def test_a_prefix_is_just_that(lab: Lab) -> None:
    async with closing(lab.client()) as (store,):
        for key in ("/x/a", "/x/a/b", "/x/\u00ff", "/x", "/x0", "/w/z", "/y"):
            await store.put(key, b"v")
        found = await store.get_prefix("/x/")
        assert [kv.key for kv in found.items] == ["/x/a", "/x/a/b", "/x/\u00ff"]
        assert {kv.key for kv in (await store.get_prefix("")).items} >= {"/x", "/x0", "/w/z", "/y", "/x/a"}


async def test_one_of_many_claims_wins(lab: Lab) -> None:
    async with closing(*(lab.client() for _ in range(8))) as stores:
        swaps = await asyncio.gather(
            *(store.put_if_not_exists(P + "a", f"nonce {number}".encode()) for number, store in enumerate(stores))
        )
        assert sum(swap.applied for swap in swaps) == 1
        (winner,) = [number for number, swap in enumerate(swaps) if swap.applied]
        assert {swap.current.value for swap in swaps if swap.current} == {f"nonce {winner}".encode()}


async def test_replace_wants_the_key_as_it_was(lab: Lab) -> None:
    async with closing(lab.client()) as (store,):
        old = (await store.put_if_not_exists(P + "a", b"1")).current
        assert old
        new = await store.replace(old, b"2")
        assert new.applied and new.current and new.current.value == b"2"
        late = await store.replace(old, b"3")
        assert not late.applied and late.current == new.current
        assert not (await store.replace(old, None)).applied
        assert (await store.replace(new.current, None)).applied
        assert await store.get(P + "a") is None


async def test_a_repeated_claim_of_the_same_writer_is_its_own(lab: Lab) -> None:
    async with closing(lab.client()) as (store,):
        lease, other = await store.lease(60), await store.lease(60)
        assert (await store.put_if_not_exists(P + "a", b"nonce", lease)).applied
        assert (await store.put_if_not_exists(P + "a", b"nonce", lease)).applied
        assert not (await store.put_if_not_exists(P + "a", b"nonce", other)).applied


async def test_keys_go_with_their_lease(lab: Lab) -> None:
    async with closing(lab.client()) as (store,):
        lease = await store.lease(60)
        assert await store.refresh_lease(lease) == 60
        async with Reader(store, P) as reader:
            await store.put(P + "a", b"1", lease)
            await store.put(P + "b", b"1")
            await reader.until(lambda it: set(it.map) == {P + "a", P + "b"})
            await store.revoke_lease(lease)
            await reader.until(lambda it: set(it.map) == {P + "b"})
        await store.revoke_lease(lease)


async def test_a_lease_that_nobody_refreshes_ends(lab: Lab) -> None:
    async with closing(lab.client()) as (store,), Reader(store, P) as reader:
        lease = await store.lease(3)
        await store.put(P + "a", b"1", lease)
        await reader.until(lambda it: set(it.map) == {P + "a"})
        await reader.until(lambda it: not it.map)
        with pytest.raises(LeaseLostError):
            await store.refresh_lease(lease)
        with pytest.raises(LeaseLostError):
            await store.put(P + "a", b"1", lease)
        with pytest.raises(LeaseLostError):
            await store.put_if_not_exists(P + "a", b"1", lease)


async def test_a_watch_tells_what_is_there_and_what_happens(lab: Lab) -> None:
    async with closing(lab.client()) as (store,):
        await store.put(P + "old", b"1")
        await store.put("/elsewhere", b"1")
        async with Reader(store, P) as reader:
            await reader.until(lambda it: it.resumed == 1)
            assert isinstance(reader.items[0], Snapshot)
            assert reader.map == {P + "old": b"1"}
            await store.put(P + "new", b"2")
            await store.put("/elsewhere", b"2")
            await store.delete(P + "old")
            await reader.until(lambda it: it.map == {P + "new": b"2"})
            assert reader.snapshots == 1 and reader.cuts == 0


async def test_a_watch_misses_nothing_when_the_store_is_killed(lab: Lab) -> None:
    async with closing(lab.client(), lab.client()) as (store, writer), Reader(store, P) as reader:
        await reader.until(lambda it: it.resumed == 1)
        number = 0
        for _ in range(3):
            for _ in range(20):
                await put_persistently(writer, P + "a", b"%d" % number)
                number += 1
            lab.kill()
            writing = asyncio.create_task(put_persistently(writer, P + "a", b"%d" % number))
            number += 1
            await reader.until(lambda it: it.cuts > 0)
            lab.start()
            await writing
        await put_persistently(writer, P + "a", b"end")
        await reader.until(lambda it: it.map == {P + "a": b"end"})
        values = [value for _, value in reader.puts]
        # A put that was repeated after a cut may have been carried out twice: twice in etcd, so twice in the watch.
        assert list(dict.fromkeys(values)) == [b"%d" % n for n in range(number)] + [b"end"]
        assert reader.snapshots == 1


async def test_a_store_that_returns_is_used_at_once(lab: Lab) -> None:
    lab.kill()
    async with closing(lab.client()) as (store,), Reader(store, P) as reader:
        with pytest.raises(RegistryUnavailableError):
            await store.put(P + "a", b"1")
        lab.start()
        await put_persistently(store, P + "a", b"1")
        await reader.until(lambda it: it.map == {P + "a": b"1"})


async def test_calls_end_when_the_store_hangs(lab: Lab) -> None:
    async with closing(lab.client()) as (store,):
        await store.put(P + "a", b"1")
        lease = await store.lease(60)
        old = await store.get(P + "a")
        assert old
        lab.pause()
        began = time.monotonic()
        calls = (
            store.get(P), store.get_prefix(P), store.put(P, b""), store.delete(P), store.lease(1), store.compact(1),
            store.refresh_lease(lease), store.revoke_lease(lease), store.put_if_not_exists(P, b""),
            store.replace(old, b""),
        )  # fmt: skip
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(result) for result in results} == {RegistryUnavailableError}
        assert time.monotonic() - began < 5 * TIMEOUT_S  # each by itself, none of the ten after another
        lab.resume()
        assert await store.get(P + "a")


async def test_a_watch_opened_while_the_store_hangs_says_so_and_goes_on_later(lab: Lab) -> None:
    async with closing(lab.client()) as (store,):
        lab.pause()
        async with Reader(store, P) as reader:
            await reader.until(lambda it: it.cuts > 0)
            lab.resume()
            await store.put(P + "a", b"1")
            await reader.until(lambda it: it.map == {P + "a": b"1"})


async def test_a_watch_begins_anew_after_a_compaction_that_it_missed(lab: Lab) -> None:
    async with closing(lab.client(), lab.client()) as (store, writer), Reader(store, P) as reader:
        await writer.put(P + "a", b"1")
        await reader.until(lambda it: it.map == {P + "a": b"1"} and it.resumed == 1)
        lab.kill()
        await reader.until(lambda it: it.cuts > 0)
        lab.start()
        await asyncio.gather(*(put_persistently(writer, P + "b", b"%d" % number) for number in range(5)))
        revision = await writer.put(P + "b", b"last")
        await writer.compact(revision)
        await reader.until(lambda it: it.map == {P + "a": b"1", P + "b": b"last"})


async def test_a_watch_notices_a_wiped_store(lab: Lab) -> None:
    async with closing(lab.client(), lab.client()) as (store, writer), Reader(store, P) as reader:
        for number in range(20):
            await writer.put(P + "old", b"%d" % number)
        await reader.until(lambda it: P + "old" in it.map and it.resumed == 1)
        lab.wipe()
        await put_persistently(writer, P + "new", b"1")
        await reader.until(lambda it: it.map == {P + "new": b"1"})
        assert reader.snapshots > 1


async def test_nothing_works_after_close_and_watches_end(lab: Lab) -> None:
    store = lab.client()
    async with Reader(store, P) as reader:
        await reader.until(lambda it: it.resumed == 1)
        await store.close()
        await eventually(lambda: reader.ended)
        assert reader.error is None
    with pytest.raises(RegistryError, match="has been closed"):
        await store.get(P)
