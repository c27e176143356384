"""The registry over a store: claims, look-ups, pools, and what becomes of them when the store goes and comes back."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from etcd_registry import (
    AddressInUseError,
    Change,
    ContainerRecord,
    HostRecord,
    PoolError,
    RegistryUnavailableError,
    StoreRegistry,
    Subscription,
    gid_of,
    parse_pool,
)
from etcd_registry.memory import MemoryEtcd, MemoryStore
from etcd_registry.records import CONTAINERS, HOSTS, encode
from tests.registry.labs import Lab
from tests.registry.reading import closing, eventually

RIGHT_WITHIN_S = 30.0  # what the map has after the store's return; mostly two seconds, but the machine may be busy
TTL_S = 60  # longer than any test: only where a test is about leases they end


@contextlib.asynccontextmanager
async def registries(lab: Lab, count: int = 2, ttl_s: int = TTL_S) -> AsyncGenerator[list[StoreRegistry], None]:
    """Start registries, and wait until each has its map."""
    async with contextlib.AsyncExitStack() as stack:
        made = [StoreRegistry(lab.client(), ttl_s=ttl_s) for _ in range(count)]
        for registry in made:
            await stack.enter_async_context(registry)
        for registry in made:
            await registry.directory.wait_synced(20)
        yield made


def host(name: str, machine: str = "") -> HostRecord:
    return HostRecord(name, (f"{name}.example:7471",), ("tcp",), machine or f"machine-{name}")


def container(number: int, where: str, tenant: str = "blue", generation: int = 1) -> ContainerRecord:
    return ContainerRecord(gid_of(ip_address(f"10.1.0.{number}")), where, tenant, generation)


async def register_persistently(registry: StoreRegistry, record: ContainerRecord) -> None:
    while True:
        try:
            await registry.register_container(record)
            return
        except RegistryUnavailableError:
            await asyncio.sleep(0.01)


def places(registry: StoreRegistry) -> dict[str, str]:
    """Return where the registry's directory has each container."""
    return {record.gid: record.host for record in registry.directory.containers}


class Recorder(Subscription):
    """Keeps every change, where other subscribers are spared what was undone before they looked."""

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[Change] = []

    def push(self, key: str, change: Change) -> None:
        self.changes.append(change)


def record_changes(registry: StoreRegistry) -> list[Change]:
    """Return a list that grows with everything that changes in the registry's directory."""
    recorder = Recorder()
    registry.directory._subscriptions.add(recorder)
    return recorder.changes


async def test_what_one_registers_the_other_is_told(lab: Lab) -> None:
    async with registries(lab) as (one, two):
        subscription = two.directory.subscribe()
        await one.register_host(host("a"))
        await one.register_container(container(1, "a"))
        first, second = await anext(subscription), await anext(subscription)
        assert isinstance(first.now, HostRecord) and first.now.host == "a"
        assert second == Change(None, two.directory.container("::ffff:10.1.0.1"))
        location = two.directory.locate("::ffff:10.1.0.1")
        assert location and location.host.endpoints == ("a.example:7471",) and location.container.tenant == "blue"
        await one.unregister_container("::ffff:10.1.0.1")
        third = await anext(subscription)
        assert third.before == second.now and third.now is None
        assert two.directory.locate("::ffff:10.1.0.1") is None


async def test_a_container_is_found_before_the_push_has_come(lab: Lab) -> None:
    async with registries(lab) as (one, two):
        await one.register_container(container(1, "a"))
        found = await two.find_container("::ffff:10.1.0.1")
        assert found and found.host == "a"
        assert await two.find("::ffff:10.1.0.1") is None  # its host is not known
        await one.register_host(host("a"))
        location = await two.find("::ffff:10.1.0.1")
        assert location and location.host.endpoints == ("a.example:7471",)
        assert await two.find_container("::ffff:10.1.0.2") is None
        assert await two.find("::ffff:10.1.0.2") is None


async def test_an_address_is_held_until_its_container_goes(lab: Lab) -> None:
    async with registries(lab) as (one, two):
        await one.register_container(container(1, "a", generation=7))
        with pytest.raises(AddressInUseError, match=r"10\.1\.0\.1 on host a \(tenant blue, generation 7\)") as refused:
            await two.register_container(container(1, "b"))
        assert "generation 7" in refused.value.holder
        await one.unregister_container(container(1, "a").gid)
        began = time.monotonic()
        await two.register_container(container(1, "b"))
        await eventually(lambda: places(one) == {container(1, "b").gid: "b"}, within_s=RIGHT_WITHIN_S)
        assert time.monotonic() - began < RIGHT_WITHIN_S, "its lease, of a minute, is not waited for"


async def test_a_container_that_starts_again_has_a_new_generation(lab: Lab) -> None:
    async with registries(lab) as (one, two):
        await one.register_container(container(1, "a", generation=1))
        await one.register_container(container(1, "a", generation=2))
        await eventually(lambda: [it.generation for it in two.directory.containers] == [2])
        with pytest.raises(AddressInUseError, match="tenant blue"):
            await one.register_container(container(1, "a", tenant="red"))


async def test_a_router_that_starts_again_takes_its_records_over(lab: Lab) -> None:
    async with registries(lab, 1) as (watching,):
        async with registries(lab, 2) as (before, after):
            await before.register_host(host("a"))
            await before.register_container(container(1, "a"))
            lost: list[str] = []
            before._lost = lambda record, holder: lost.append(f"{type(record).__name__} to {holder}")
            await after.register_host(host("a"))
            await after.register_container(container(1, "a", generation=2))
            await eventually(lambda: len(lost) == 2)
            assert lost[0].startswith("HostRecord to host a")
            # The earlier one no longer wants them, and takes nothing away when it ends.
            await before.unregister_container(container(1, "a").gid)
            assert places(after) == {container(1, "a").gid: "a"}
        await eventually(lambda: not watching.directory.containers)


async def test_two_machines_cannot_be_one_host(lab: Lab) -> None:
    async with registries(lab) as (one, two):
        await one.register_host(host("a", machine="first"))
        with pytest.raises(AddressInUseError, match=r"machine first.*--host"):
            await two.register_host(host("a", machine="second"))


async def test_a_pool_gives_every_address_once_and_says_who_has_them(lab: Lab) -> None:
    pool = parse_pool("10.1.0.0/29")
    async with registries(lab, 3) as some:
        claims = [
            registry.claim_address(pool, f"h{number}", "blue", 1)
            for number, registry in enumerate(some)
            for _ in range(2)
        ]
        records = await asyncio.gather(*claims)
        assert {record.gid for record in records} == {gid_of(ip_address(f"10.1.0.{number}")) for number in range(1, 7)}
        await eventually(lambda: len(some[0].directory.containers) == 6)
        with pytest.raises(PoolError, match=r"all of its 6 addresses are in use \(.*on host h\d") as exhausted:
            await some[0].claim_address(pool, "h0", "blue", 1)
        assert "give the router a larger one" in str(exhausted.value)
        await some[1].unregister_container(records[2].gid)
        await eventually(lambda: len(some[0].directory.containers) == 5)
        assert (await some[0].claim_address(pool, "h0", "blue", 2)).gid == records[2].gid


async def test_an_address_that_was_given_back_rests(lab: Lab) -> None:
    pool = parse_pool("10.1.0.0/28")
    async with registries(lab, 1) as (one,):
        seen = []
        for _ in range(14):
            record = await one.claim_address(pool, "a", "blue", 1)
            seen.append(record.gid)
            await one.unregister_container(record.gid)
            await eventually(lambda: not one.directory.containers)
        assert len(set(seen)) == 14


async def test_values_of_others_are_ignored_with_a_warning(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    async with closing(lab.client()) as (store,), registries(lab, 1) as (one,):
        await store.put(HOSTS + "a", b'{"schema":2,"host":"a"}')
        await store.put(CONTAINERS + "x", b"\xff")
        await store.put("/ffverbs/v1/something/else", b"{}")
        await store.put(HOSTS + "b", encode(host("c")))
        await store.put(HOSTS + "d", encode(host("d")))
        await eventually(lambda: [it.host for it in one.directory.hosts] == ["d"])
        texts = [record.getMessage() for record in caplog.records]
        for part in ("schema 2", CONTAINERS + "x", "/ffverbs/v1/something/else", "belongs to /ffverbs/v1/hosts/c"):
            assert sum(part in text for text in texts) == 1, part
        with pytest.raises(AddressInUseError, match="cannot read"):
            await one.register_host(host("a"))
        await store.put(HOSTS + "d", b"{")
        await eventually(lambda: one.directory.hosts == [])


async def test_the_map_outlives_the_store(lab: Lab) -> None:
    async with registries(lab) as (one, two):
        await one.register_host(host("a"))
        await one.register_container(container(1, "a"))
        await eventually(lambda: two.directory.locate(container(1, "a").gid) is not None)
        lab.kill()
        await eventually(lambda: not two.directory.connected)
        assert two.directory.problem
        assert two.directory.locate(container(1, "a").gid) is not None
        with pytest.raises(RegistryUnavailableError):
            await two.register_container(container(2, "b"))
        lab.start()
        began = time.monotonic()
        await register_persistently(two, container(2, "b"))
        right = {container(1, "a").gid: "a", container(2, "b").gid: "b"}
        await eventually(lambda: places(one) == places(two) == right, within_s=RIGHT_WITHIN_S)
        assert time.monotonic() - began < RIGHT_WITHIN_S


async def test_what_was_withdrawn_meanwhile_goes_and_nothing_else_flickers(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etcd_registry.directory.GRACE_S", 1.0)
    async with registries(lab) as (one, two):
        for number in (1, 2):
            await one.register_container(container(number, "a"))
        await eventually(lambda: len(places(two)) == 2)
        changes = record_changes(two)
        lab.kill()
        await eventually(lambda: not two.directory.connected and not one.directory.connected)
        await one.unregister_container(container(2, "a").gid)
        lab.start()
        await eventually(lambda: places(two) == {container(1, "a").gid: "a"}, within_s=RIGHT_WITHIN_S + 1)
        assert [change.now for change in changes] == [None]


async def test_a_wiped_store_is_filled_again_while_the_map_goes_on(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etcd_registry.directory.GRACE_S", RIGHT_WITHIN_S)
    async with registries(lab) as (one, two):
        await one.register_host(host("a"))
        await one.register_container(container(1, "a"))
        await two.register_container(container(2, "b"))
        right = {container(1, "a").gid: "a", container(2, "b").gid: "b"}
        await eventually(lambda: places(one) == places(two) == right)
        changes = record_changes(two)
        lab.wipe()
        async with closing(lab.client()) as (store,):

            async def stored() -> int:
                with contextlib.suppress(RegistryUnavailableError):
                    return len((await store.get_prefix(CONTAINERS)).items)
                return 0

            async with asyncio.timeout(RIGHT_WITHIN_S + 2):
                while await stored() < 2:
                    assert places(one) == places(two) == right
        await eventually(lambda: two.directory.connected)
        assert changes == []


async def test_a_lost_lease_is_replaced(lab: Lab) -> None:
    async with closing(lab.client()) as (store,), registries(lab, ttl_s=60) as (one, two):
        await one.register_host(host("a"))
        await one.register_container(container(1, "a"))
        await eventually(lambda: places(two) == {container(1, "a").gid: "a"})
        before = one._lease
        await store.revoke_lease(before)
        await eventually(lambda: one._lease not in (0, before) and len(one._placed) == 2, within_s=RIGHT_WITHIN_S)
        await eventually(lambda: two.directory.locate(container(1, "a").gid) is not None, within_s=RIGHT_WITHIN_S)


async def test_whoever_took_the_address_of_a_lost_lease_keeps_it(lab: Lab) -> None:
    async with closing(lab.client()) as (store,), registries(lab) as (one, two):
        lost: list[str] = []
        one._lost = lambda record, holder: lost.append(holder)
        await one.register_container(container(1, "a"))
        async with one._writing:  # it cannot act before the other does
            await store.revoke_lease(one._lease)
            await two.register_container(container(1, "b"))
        await eventually(lambda: len(lost) == 1)
        assert "on host b" in lost[0]
        await eventually(lambda: places(one) == places(two) == {container(1, "b").gid: "b"})


async def test_leases_that_end_while_the_store_hangs_take_nobody_away(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etcd_registry.directory.GRACE_S", RIGHT_WITHIN_S)
    async with registries(lab, ttl_s=2) as (one, two):
        await one.register_container(container(1, "a"))
        await two.register_container(container(2, "b"))
        right = {container(1, "a").gid: "a", container(2, "b").gid: "b"}
        await eventually(lambda: places(one) == places(two) == right)
        leases = {one._lease, two._lease}
        changes = [record_changes(registry) for registry in (one, two)]
        lab.pause()
        await asyncio.sleep(4.5)  # more than twice their leases
        await eventually(lambda: not one.directory.connected and not two.directory.connected)
        lab.resume()
        await eventually(lambda: not {one._lease, two._lease, 0} & leases and len(one._placed) == len(two._placed) == 1)
        async with closing(lab.client()) as (store,):
            assert len((await store.get_prefix(CONTAINERS)).items) == 2
        assert changes == [[], []]


async def test_leases_that_end_while_the_store_is_deaf_to_us_take_nobody_away() -> None:
    """The watch goes on, and tells of ended leases, but calls fail: others cannot refresh their leases either."""

    class DeafStore(MemoryStore):
        deaf = False

        async def refresh_lease(self, lease: int) -> int:
            if self.deaf:
                raise RegistryUnavailableError("no answer")
            return await super().refresh_lease(lease)

    server = MemoryEtcd()
    store = DeafStore(server)
    async with StoreRegistry(store) as one, StoreRegistry(MemoryStore(server)) as two:
        await one.register_host(host("a"))
        await two.register_container(container(2, "b"))
        await eventually(lambda: len(places(one)) == 1)
        changes = record_changes(one)
        store.deaf = True
        one._nudge.set()
        await eventually(lambda: one._failing)
        ended = two._lease
        server.end_lease(ended)
        await eventually(lambda: two._lease not in (0, ended) and len(two._placed) == 1)
        await eventually(lambda: one.directory._doubted == {})
        assert changes == []
        store.deaf = False


async def test_an_address_of_an_earlier_life_is_not_free() -> None:
    server = MemoryEtcd()
    async with StoreRegistry(MemoryStore(server)) as before, StoreRegistry(MemoryStore(server)) as after:
        await before.register_container(container(1, "a"))
        with pytest.raises(AddressInUseError):
            await after._register(container(1, "a"), new=True)
        await after.register_container(container(1, "a", generation=2))


async def test_news_from_before_our_own_claim_are_no_takeover() -> None:
    async with StoreRegistry(MemoryStore(MemoryEtcd())) as one:
        await one.register_container(container(1, "a"))
        (placed,) = one._placed.values()
        earlier = encode(replace(container(1, "a"), owner="earlier"))
        one._taken(replace(placed, value=earlier, mod_revision=placed.mod_revision - 1))
        assert one._wanted
        one._taken(replace(placed, value=earlier, mod_revision=placed.mod_revision + 1))
        assert not one._wanted


async def test_a_router_that_dies_is_forgotten(lab: Lab) -> None:
    async with registries(lab, 1) as (two,):
        one = StoreRegistry(lab.client(), ttl_s=2)
        await one.start()
        await one.register_container(container(1, "a"))
        await eventually(lambda: places(two) == {container(1, "a").gid: "a"})
        for task in one._tasks:  # as if it were killed: nobody refreshes, nobody withdraws
            task.cancel()
        await eventually(lambda: not places(two))
        await two.register_container(container(1, "b"))
        await one.close()


async def test_records_stay_while_their_router_lives(lab: Lab) -> None:
    async with registries(lab, 1, ttl_s=3) as (one,), registries(lab, 1) as (two,):
        await one.register_container(container(1, "a"))
        await eventually(lambda: len(places(two)) == 1)
        changes = record_changes(two)
        await asyncio.sleep(6)  # twice its lease
        assert changes == []


async def test_a_registration_that_failed_leaves_nothing(lab: Lab) -> None:
    async with closing(lab.client()) as (store,), registries(lab) as (one, two):
        lab.pause()
        with pytest.raises(RegistryUnavailableError):
            await one.register_container(container(1, "a"))
        lab.resume()
        # What the stopped store may have been told all the same is taken back.
        await eventually(lambda: one.directory.connected and not one._withdrawn)
        assert await store.get(CONTAINERS + container(1, "a").gid) is None
        await register_persistently(two, container(1, "b"))


async def test_a_claim_that_is_carried_out_late_is_taken_back(lab: Lab) -> None:
    async with closing(lab.client()) as (store,), registries(lab) as (one, two):
        await one.register_container(container(1, "a"))
        await eventually(lambda: places(two) == {container(1, "a").gid: "a"})
        changes = record_changes(two)
        late = replace(container(2, "a"), owner=one.owner)
        await store.put(CONTAINERS + late.gid, encode(late))
        await eventually(lambda: len(changes) == 2)
        assert changes == [Change(None, late), Change(late, None)]


async def test_routers_may_start_before_their_store(lab: Lab) -> None:
    lab.kill()
    async with StoreRegistry(lab.client()) as one:
        with pytest.raises(RegistryUnavailableError, match="could not be read within"):
            await one.directory.wait_synced(0.05)
        lab.start()
        await one.directory.wait_synced(RIGHT_WITHIN_S)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("10.1.0.1/16", "host bits"),
        ("nonsense", "10.1.0.0/16"),
        ("127.0.0.0/8", "loopback"),
        ("224.0.0.0/4", "unicast"),
    ],
)
def test_pools_that_are_none(text: str, wrong: str) -> None:
    with pytest.raises(PoolError, match=wrong):
        parse_pool(text)


@pytest.mark.parametrize(
    ("text", "usable"), [("10.1.0.8/32", 1), ("10.1.0.8/31", 2), ("10.1.0.8/30", 2), ("fd00::/126", 3)]
)
async def test_small_pools(text: str, usable: int) -> None:
    async with StoreRegistry(MemoryStore(MemoryEtcd())) as one:
        await one.directory.wait_synced(5)
        for _ in range(usable):
            await one.claim_address(parse_pool(text), "a", "blue", 1)
        with pytest.raises(PoolError, match=f"too small: all of its {usable} addresses"):
            await one.claim_address(parse_pool(text), "a", "blue", 1)


class Grudging(MemoryStore):
    """Fails with an error of its own when a task that waits for it is cancelled, as grpc may."""

    failed = 0

    async def lease(self, ttl_s: int) -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.failed += 1
            raise RegistryUnavailableError("it went away at this moment") from None
        return 0


async def test_closing_ends_whatever_the_store_says_of_it() -> None:
    store = Grudging(MemoryEtcd(), timeout_s=20)
    registry = StoreRegistry(store)
    await registry.start()
    registry._wanted["/ffverbs/v1/hosts/a"] = host("a")
    registry._nudge.set()
    placing = asyncio.create_task(registry.register_host(host("b")))
    await asyncio.sleep(0)
    await asyncio.wait_for(registry.close(), 20)
    placing.cancel()
    await asyncio.gather(placing, return_exceptions=True)
    assert store.failed
