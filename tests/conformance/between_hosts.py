"""What the tests of routers share: containers of several hosts, and messages between two of them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs import _status
from tests.conformance.pair import Done, Pair, Peer, Recv, Send
from tests.conformance.paths import _Remote, spawn
from tests.hosts import Hosts


class Cast:
    """Containers of hosts, ended with the test; with `apart`, each has an address of its own."""

    def __init__(self, hosts: Hosts, folder: Path, apart: bool = False) -> None:
        self._hosts, self._folder, self._apart = hosts, folder, apart
        self._count, self._all = 0, list[_Remote]()

    def __call__(self, host: str, ip: str = "") -> Peer:
        self._count += 1
        if self._apart and not ip:
            ip = f"10.77.{self._hosts.names.index(host) + 1}.{self._count + 1}"
        env = self._hosts.environment(host, ip)
        remote = spawn(self._folder, f"w{self._count}", env=env)
        self._all.append(remote)
        return cast(Peer, remote)

    def kill(self, peer: Peer) -> None:
        cast(_Remote, peer)._kill()  # before it sees that nobody commands it any more
        cast(_Remote, peer)._end()
        self._all.remove(cast(_Remote, peer))

    def end(self) -> None:
        for remote in self._all:
            remote._end()


@pytest.fixture(name="hosts")
def hosts_fixture(node_directory: Path) -> Iterator[Hosts]:
    """Hosts with their routers, ended with the test."""
    hosts = Hosts(node_directory)
    yield hosts
    hosts.close()


@pytest.fixture(name="containers")
def containers_fixture(hosts: Hosts, node_directory: Path) -> Iterator[Cast]:
    """Makes containers of these hosts."""
    made = Cast(hosts, node_directory)
    yield made
    made.end()


def exchange(pair: Pair) -> None:
    """Send a message each way and see it arrive."""
    for one, other in ((pair.a, pair.b), (pair.b, pair.a)):
        other.post_recv(Recv(3))
        one.post_send(Send(4))
        assert one.sent()[0].ok
        assert other.received()[0].wr_id == 3


def router_status(hosts: Hosts, name: str) -> dict[str, Any]:
    """Return what the router of a host says of itself."""
    found = _status.gather(str(hosts.directory(name)))["router"]
    assert found, hosts.log(name)
    return cast("dict[str, Any]", found)


def check_end(done: list[Done], count: int) -> None:
    """Check what a requester saw of `count` work requests whose peer was lost: some went well, and then none."""
    assert [d.wr_id for d in done] == list(range(count))
    fates = [d.ok for d in done]
    assert fates == sorted(fates, reverse=True), done
    allowed = (e.IBV_WC_SUCCESS, e.IBV_WC_RETRY_EXC_ERR, e.IBV_WC_WR_FLUSH_ERR)
    assert all(d.status in allowed for d in done), done


def held(pid: int) -> tuple[int, int]:
    """Return how many descriptors a router has, and how many mappings of containers' memory files."""
    maps = Path(f"/proc/{pid}/maps").read_text(encoding="ascii").splitlines()
    return len(os.listdir(f"/proc/{pid}/fd")), sum("memfd:ffverbs" in line for line in maps)


def anonymous_bytes(pid: int) -> int:
    """Return how much memory of its own a process has, files and what is shared not counted."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) * 1024
