"""The map by itself: what it serves while its source is in doubt, and what its subscribers are told."""

import asyncio
from ipaddress import ip_address

import pytest

from etcd_registry import ContainerRecord, HostRecord, RegistryUnavailableError, gid_of, this_machine
from etcd_registry.directory import Change, Directory
from etcd_registry.records import Record, encode, key_of
from etcd_registry.store import KeyValue

HOST = HostRecord("a", ("10.0.0.1:7471",), ("tcp",), this_machine())
HERE, THERE = (ContainerRecord(gid_of(ip_address("10.1.0.1")), host, "blue", 1) for host in "ab")


def stored(record: Record, revision: int = 1) -> KeyValue:
    return KeyValue(key_of(record), encode(record), revision, revision)


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etcd_registry.directory.GRACE_S", 0.05)


async def test_a_container_is_located_when_its_host_is_known_too() -> None:
    directory = Directory()
    directory.replace([stored(HERE)])
    assert directory.container("::ffff:10.1.0.1") == HERE and directory.locate(HERE.gid) is None
    directory.put(stored(HOST))
    location = directory.locate(HERE.gid)
    assert location and (location.container, location.host) == (HERE, HOST)
    assert directory.container("fe80::1") is None and directory.host("b") is None
    directory.close()


async def test_what_is_gone_in_doubt_goes_after_the_grace_unless_it_returns() -> None:
    directory = Directory()
    directory.replace([stored(HERE), stored(HOST)])
    subscription = directory.subscribe()
    directory.doubt()
    directory.replace([])
    assert directory.locate(HERE.gid)
    directory.put(stored(HOST, 2))
    first = await anext(subscription)
    assert first == Change(HERE, None)
    assert directory.host("a") == HOST and directory.container(HERE.gid) is None
    directory.close()


async def test_what_moved_in_doubt_moves_at_once() -> None:
    directory = Directory()
    directory.replace([stored(HERE)])
    directory.doubt()
    directory.drop(key_of(HERE))
    directory.put(stored(THERE, 2))
    assert directory.container(HERE.gid) == THERE
    await asyncio.sleep(0.1)
    assert directory.container(HERE.gid) == THERE
    directory.close()


async def test_without_doubt_what_is_gone_goes_at_once() -> None:
    directory = Directory()
    directory.doubt()  # before anything was read there is nothing to keep
    directory.replace([stored(HERE)])
    directory.drop(key_of(HERE))
    assert directory.containers == []
    directory.drop(key_of(HERE))
    directory.close()


async def test_a_slow_subscriber_has_one_change_a_record_waiting() -> None:
    directory = Directory()
    slow = directory.subscribe()
    for revision in range(1000):
        directory.put(stored(HERE if revision % 2 else THERE, revision))
    directory.put(stored(HOST))
    assert await anext(slow) == Change(None, HERE)
    assert await anext(slow) == Change(None, HOST)
    directory.put(stored(THERE))
    directory.put(stored(HERE))  # as it was
    directory.drop(key_of(HOST))
    assert await anext(slow) == Change(HOST, None)
    waiting = asyncio.create_task(anext(slow))
    await asyncio.sleep(0)
    directory.unsubscribe(slow)
    with pytest.raises((StopAsyncIteration, RuntimeError)):
        await waiting
    directory.close()


async def test_waiting_for_a_map_that_does_not_come_says_why() -> None:
    directory = Directory()
    directory.disconnect("no route to it")
    with pytest.raises(RegistryUnavailableError, match="no route to it"):
        await directory.wait_synced(0.01)
    directory.replace([])
    await directory.wait_synced(0.01)
    directory.close()


async def test_aliens_are_warned_of_once_each_time_they_are_written(caplog: pytest.LogCaptureFixture) -> None:
    directory = Directory()
    for revision in (1, 1, 2):
        directory.replace([KeyValue("/ffverbs/v1/hosts/\n", b"{", revision, 1)])
    assert len(caplog.records) == 2
    assert all("\n" not in record.getMessage() for record in caplog.records)
    directory.replace([])
    assert directory._aliens == {}
    directory.close()
