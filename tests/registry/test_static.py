"""The registry in a file."""

import json
import os
from pathlib import Path

import pytest

from etcd_registry import (
    AddressInUseError,
    ContainerRecord,
    HostRecord,
    PoolError,
    StaticFileError,
    StaticRegistry,
    canonical_gid,
    parse_pool,
)
from etcd_registry.records import HOSTS
from tests.registry.reading import eventually

GOOD: dict[str, object] = {
    "schema": 1,
    "serial": 7,
    "hosts": {"a": {"endpoints": ["10.0.0.1:7471"], "transports": ["tcp"]}},
    "containers": {"10.1.0.2": {"host": "a", "tenant": "blue"}, "fd00::2": {"host": "a", "tenant": "red"}},
}
GID = canonical_gid("::ffff:10.1.0.2")


def write(path: Path, **changes: object) -> Path:
    """Write the file as tools do, at once and whole."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({**GOOD, **changes}))
    os.replace(fresh, path)
    return path


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etcd_registry.static.LOOK_S", 0.02)


@pytest.fixture(name="path")
def path_fixture(tmp_path: Path) -> Path:
    return write(tmp_path / "cluster.json")


async def test_the_file_is_the_map(path: Path) -> None:
    async with StaticRegistry(path) as registry:
        location = registry.directory.locate("::ffff:10.1.0.2")
        assert location and location.host.endpoints == ("10.0.0.1:7471",) and location.container.tenant == "blue"
        assert registry.directory.connected
        assert await registry.find("fd00::2") == registry.directory.locate("fd00::2")
        await registry.register_host(HostRecord("a", ("10.0.0.1:7471",), ("tcp", "rdma"), "m"))
        await registry.register_container(ContainerRecord(GID, "a", "blue", 5))


async def test_whoever_the_file_does_not_know_is_refused(path: Path) -> None:
    async with StaticRegistry(path) as registry:
        with pytest.raises(StaticFileError, match="has no host b"):
            await registry.register_host(HostRecord("b", ("10.0.0.1:7471",), ("tcp",), "m"))
        with pytest.raises(StaticFileError, match=r"stale: it has host a at 10\.0\.0\.1:7471"):
            await registry.register_host(HostRecord("a", ("10.0.0.9:7471",), ("tcp",), "m"))
        with pytest.raises(StaticFileError, match="has no container"):
            await registry.register_container(ContainerRecord(canonical_gid("::ffff:10.1.0.3"), "a", "blue", 1))
        with pytest.raises(AddressInUseError, match=r"10\.1\.0\.2 on host a"):
            await registry.register_container(ContainerRecord(GID, "b", "blue", 1))
        with pytest.raises(AddressInUseError, match="tenant blue"):
            await registry.register_container(ContainerRecord(GID, "a", "red", 1))
        with pytest.raises(PoolError, match="only with etcd"):
            await registry.claim_address(parse_pool("10.1.0.0/16"), "a", "blue", 1)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"schema": 2}, "schema 2"),
        ({"serial": 0}, "serials begin at 1"),
        ({"serial": "7"}, "'serial' is no whole number"),
        ({"more": 1}, "unknown fields: 'more'"),
        ({"hosts": []}, "hosts is no object"),
        ({"hosts": {}}, "not among the hosts"),
        ({"hosts": {"a": {"endpoints": ["10.0.0.1"], "transports": ["tcp"]}}}, "no port"),
        ({"hosts": {"a": {"endpoints": ["10.0.0.1:1"]}}}, "unknown fields: 'transports'"),
        ({"containers": {"nonsense": {"host": "a", "tenant": "t"}}}, "neither by an IPv4 address nor by a GID"),
        ({"containers": {"10.1.0.2": {"host": "a"}}}, "unknown fields: 'tenant'"),
        (
            {"containers": {name: {"host": "a", "tenant": "t"} for name in ("10.1.0.2", "::ffff:10.1.0.2")}},
            "two notations",
        ),
    ],
)
async def test_malformed_files_are_refused(changes: dict[str, object], wrong: str, path: Path) -> None:
    with pytest.raises(StaticFileError, match=f"cluster.json is malformed: .*{wrong}"):
        await StaticRegistry(write(path, **changes)).start()


async def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(StaticFileError, match="No such file"):
        await StaticRegistry(tmp_path / "none").start()
    with pytest.raises(StaticFileError, match="Is a directory"):
        await StaticRegistry(tmp_path).start()
    (tmp_path / "cut").write_text(json.dumps(GOOD)[:-10])
    with pytest.raises(StaticFileError, match="no JSON"):
        await StaticRegistry(tmp_path / "cut").start()


async def test_an_edit_is_followed(path: Path) -> None:
    async with StaticRegistry(path) as registry:
        subscription = registry.directory.subscribe()
        write(path, serial=8, containers={"10.1.0.3": {"host": "a", "tenant": "blue"}})
        await eventually(lambda: registry.directory.container("::ffff:10.1.0.3") is not None)
        assert [record.gid for record in registry.directory.containers] == [canonical_gid("::ffff:10.1.0.3")]
        registry.directory.unsubscribe(subscription)
        assert len([change async for change in subscription]) == 3


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"serial": 6}, "went back from serial 7 to 6"),
        ({"containers": {}}, "has changed, but not its serial 7"),
        ({"serial": 8, "hosts": 1}, "malformed"),
    ],
)
async def test_a_stale_or_spoilt_edit_changes_nothing_and_is_said_once(
    changes: dict[str, object], wrong: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with StaticRegistry(path) as registry:
        write(path, **changes)
        await eventually(lambda: not registry.directory.connected)
        assert wrong in registry.directory.problem
        assert registry.directory.record(HOSTS + "a") and len(registry.directory.containers) == 2
        write(path, serial=9)
        await eventually(lambda: registry.directory.connected)
        assert sum(wrong in record.getMessage() for record in caplog.records) == 1
