"""In the lab's machine: two routers on its two RDMA devices, a container of each, and what they do to each other.

    python -m tests.lab.rdma_guest

Says what it sees, one line a thing; an assertion that fails, or a hang, is its end. Started by test_rdma.py.
"""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import ffverbs.libibverbs_enums as e
from ffverbs import _status
from tests.conformance.pair import ALL_ACCESS, RC, Done, Options, Pair, Peer, Recv, Send
from tests.conformance.paths import _Remote, spawn
from tests.hosts import Hosts

DEADLINE_S = 300.0
SIZES = (0, 1, 64, 16384, 32769, 200_001)
BIG = 1 << 20
LARGE = (32769, 200_001, BIG)
OPTIONS = Options(qp_type=RC, length=BIG + 8192)
PATIENT: dict[str, Any] = {"timeout": 20, "retry_cnt": 7}
ADDRESSES = {"a": "192.0.2.1", "b": "192.0.2.2", "c": "192.0.2.3"}  # c has no device


class RdmaHosts(Hosts):
    """Hosts, the first two at the addresses of the machine's devices, that use RDMA where they can."""

    def address(self, name: str) -> str:
        return ADDRESSES[name]

    def options(self) -> list[str]:
        return ["--transport", "auto"]


@contextmanager
def staged(*where: str) -> Iterator[tuple[RdmaHosts, list[_Remote]]]:
    """Yield hosts, and a container on each of those that are named; all end in any case."""
    with tempfile.TemporaryDirectory() as folder:
        hosts = RdmaHosts(Path(folder), tuple(sorted(set(where))))
        remotes: list[_Remote] = []
        try:
            for name in where:
                remotes.append(spawn(Path(folder), f"w{len(remotes)}", env=hosts.environment(name)))
            yield hosts, remotes
        finally:
            for remote in remotes:
                remote._end()
            hosts.close()


def status(hosts: Hosts, name: str) -> dict[str, Any]:
    """Return what `ffverbs status` says on a host about its router."""
    return cast(dict[str, Any], _status.gather(str(hosts.directory(name)))["router"])


def channels(hosts: Hosts, name: str) -> list[str]:
    """Return what a host's router says of how it reaches each other one."""
    return list(status(hosts, name)["channels"].values())


def carried(hosts: Hosts, pair: Pair, how: str) -> str:
    """Send until `ffverbs status` says on both hosts that they are carried so; return what it says on a."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        send(pair, 64)
        said = {name: channels(hosts, name) for name in hosts.names}
        if all(len(lines) == 1 and lines[0].startswith(how) for lines in said.values()):
            return said["a"][0]
        hosts.check()
        assert time.monotonic() < deadline, f"not carried by {how}: {said}"


def send(pair: Pair, size: int) -> None:
    """SEND so many bytes, and check them and both completions."""
    crc = pair.a.fill(size, size, 5)
    pair.b.post_recv(Recv(100, ((4096, size),)))
    pair.a.post_send(Send(1, pieces=((5, size),)))
    (sent,), (received,) = pair.a.sent(), pair.b.received()
    assert (sent.wr_id, sent.status, sent.opcode) == (1, e.IBV_WC_SUCCESS, e.IBV_WC_SEND)
    assert received == Done(100, 0, int(e.IBV_WC_RECV), size, 0, pair.to_b.qpn, 0, 0)
    assert pair.b.checksum(size, 4096) == crc


def write_and_read(pair: Pair, size: int) -> None:
    """WRITE so many bytes and READ others, and check them and the completions."""
    crc = pair.a.fill(size, size + 1, 5)
    pair.a.post_send(pair.remote(e.IBV_WR_RDMA_WRITE, 4099, wr_id=2, pieces=((5, size),)))
    assert [(done.wr_id, done.status, done.opcode) for done in pair.a.sent()] == [(2, 0, e.IBV_WC_RDMA_WRITE)]
    assert pair.b.checksum(size, 4099) == crc
    crc = pair.b.fill(size, size + 2, 7)
    pair.a.post_send(pair.remote(e.IBV_WR_RDMA_READ, 7, wr_id=3, pieces=((4097, size),)))
    assert [(done.wr_id, done.status, done.byte_len) for done in pair.a.sent()] == [(3, 0, size)]
    assert pair.a.checksum(size, 4097) == crc


def add_and_swap(pair: Pair) -> None:
    """Do both atomics, and check what was there and what is there."""
    pair.b.write((1000).to_bytes(8, "little"), 64)
    add = pair.remote(e.IBV_WR_ATOMIC_FETCH_AND_ADD, 64, wr_id=4, pieces=((8, 8),), compare_add=234)
    swap = pair.remote(e.IBV_WR_ATOMIC_CMP_AND_SWP, 64, wr_id=5, pieces=((16, 8),), compare_add=1234, swap=77)
    for request, at, before, after in ((add, 8, 1000, 1234), (swap, 16, 1234, 77)):
        pair.a.post_send(request)
        assert [(done.wr_id, done.status) for done in pair.a.sent()] == [(request.wr_id, 0)]
        assert int.from_bytes(pair.a.read(8, at), "little") == before
        assert int.from_bytes(pair.b.read(8, 64), "little") == after


def counters(hosts: Hosts) -> dict[str, int]:
    """Return the counters of both routers, added up."""
    found = [status(hosts, name)["counters"] for name in hosts.names]
    return {name: found[0][name] + found[1][name] for name in found[0]}


def real_regions() -> list[int]:
    """Return how many memory regions the kernel knows on each device."""
    shown = subprocess.run(["rdma", "resource", "show"], capture_output=True, text=True, check=True).stdout
    return [int(line.split(" mr ")[1].split()[0]) for line in shown.splitlines() if " rxe" in line]


def wait_until_few_regions() -> None:
    """Wait until nothing of containers is registered: the slots of the real queue pair are, one region at each end."""
    deadline = time.monotonic() + DEADLINE_S
    while (shown := real_regions()) != [1, 1]:
        assert time.monotonic() < deadline, f"registered after all ended: {shown}"
        time.sleep(0.2)  # the kernel tells nobody


def one_sided(hosts: Hosts, pair: Pair) -> None:
    """Large payload, wherever it stands, is moved by the devices alone."""
    before = counters(hosts)
    for size in LARGE:
        send(pair, size)
        write_and_read(pair, size)
    after = counters(hosts)
    grown = {name: after[name] - before[name] for name in after}
    moved = sum(2 * (size - 64) + size for size in LARGE)
    assert grown["bytes_one_sided_sent"] == grown["bytes_one_sided_received"] == moved, grown
    assert grown["bytes_streamed"] == 0, grown
    print("one-sided:", moved, flush=True)


def real_queue_pairs(device: str) -> int:
    """Return how many RC queue pairs the kernel knows on a device."""
    shown = subprocess.run(
        ["rdma", "resource", "show", "qp", "link", device], capture_output=True, text=True, check=True
    )
    return shown.stdout.count("type RC")


def begin_writes(pair: Pair, rkey: int, addr: int, count: int = 8) -> int:
    """Post so many WRITEs of 1 MiB, all of the same bytes; return their checksum."""
    crc = pair.a.fill(BIG, 77, 0)
    write = Send(0, int(e.IBV_WR_RDMA_WRITE), ((0, BIG),), remote=addr, rkey=rkey)
    pair.a.post_send(*(replace(write, wr_id=number) for number in range(count)))
    return crc


def remove_device() -> None:
    subprocess.run(["rdma", "link", "delete", "rxe1"], check=True, timeout=DEADLINE_S)


def add_device() -> None:
    subprocess.run(["rdma", "link", "add", "rxe1", "type", "rxe", "netdev", "veth1"], check=True, timeout=DEADLINE_S)


def late_device(hosts: Hosts, pair: Pair) -> None:
    """Two routers have met when one of them gets a device: what goes on between them is carried by it from then on."""
    pair.connect(OPTIONS, **PATIENT)
    print("before a device:", carried(hosts, pair, "tcp, for there is no RDMA at "), flush=True)
    pair.a.post_send(Send(9))  # which waits over there meanwhile
    add_device()
    deadline = time.monotonic() + DEADLINE_S
    while not all(line.startswith("rdma ") for name in hosts.names for line in channels(hosts, name)):
        assert time.monotonic() < deadline, [channels(hosts, name) for name in hosts.names]
        time.sleep(0.1)  # routers tell nobody
    pair.b.post_recv(Recv(10))
    assert [(done.wr_id, done.status) for done in (*pair.a.sent(), *pair.b.received())] == [(9, 0), (10, 0)]
    write_and_read(pair, 200_001)
    pair.close()
    print("with a late one:", *channels(hosts, "a"), flush=True)


def without_device(hosts: Hosts, pair: Pair) -> None:
    """A device goes while it writes, and comes again."""
    crc = begin_writes(pair, pair.to_b.rkey, pair.to_b.addr)
    remove_device()
    done = pair.a.poll("send", 8, DEADLINE_S)
    assert [(one.wr_id, one.status) for one in done] == [(number, 0) for number in range(8)]
    assert pair.b.checksum(BIG, 0) == crc
    print("without a device:", carried(hosts, pair, "tcp, for there is no RDMA at "), flush=True)
    write_and_read(pair, 200_001)
    add_device()
    print("with one again:", carried(hosts, pair, "rdma "), flush=True)
    write_and_read(pair, 200_001)


def without_memory(hosts: Hosts, pair: Pair) -> None:
    """The memory is deregistered while the device writes to it."""
    there = pair.b.register(ALL_ACCESS, BIG)
    begin_writes(pair, there.rkey, there.addr)
    pair.b.deregister()
    statuses = [one.status for one in pair.a.poll("send", 8, DEADLINE_S)]
    first = next((number for number, status in enumerate(statuses) if status), 8)
    rest = [int(e.IBV_WC_REM_ACCESS_ERR)] + [int(e.IBV_WC_WR_FLUSH_ERR)] * 7
    assert statuses == [0] * first + rest[: 8 - first], statuses
    print("deregistered after:", first, flush=True)


def without_peer(pair: Pair, remote: Any) -> None:
    """The container dies while the device writes to it; nothing of it stays registered."""
    begin_writes(pair, pair.to_b.rkey, pair.to_b.addr)
    remote._end()
    statuses = [one.status for one in pair.a.poll("send", 8, DEADLINE_S)]
    assert statuses[-1] == e.IBV_WC_WR_FLUSH_ERR, statuses
    print("killed after:", statuses.count(0), flush=True)


def traffic(hosts: Hosts, pair: Pair) -> None:
    """Every operation over real RDMA, which goes and comes again under it."""
    pair.connect(OPTIONS, **PATIENT)
    print("carried:", carried(hosts, pair, "rdma "), flush=True)
    for size in SIZES:
        send(pair, size)
        write_and_read(pair, size)
    add_and_swap(pair)
    one_sided(hosts, pair)
    print("real regions:", *real_regions(), flush=True)
    print("real queue pairs:", *map(real_queue_pairs, ("rxe0", "rxe1")), flush=True)
    without_device(hosts, pair)
    pair.close()


def faults(hosts: Hosts, remotes: list[Any]) -> None:
    """Memory and containers go while devices are at them."""
    pair = Pair(cast(Peer, remotes[0]), cast(Peer, remotes[1]), "rdma").connect(OPTIONS, **PATIENT)
    carried(hosts, pair, "rdma ")
    without_memory(hosts, pair)
    pair.close()
    wait_until_few_regions()
    pair.connect(OPTIONS, **PATIENT)
    carried(hosts, pair, "rdma ")
    without_peer(pair, remotes[1])
    pair.a.close()
    wait_until_few_regions()


def main() -> None:
    """Do all of it."""
    remove_device()
    with staged("a", "b") as (hosts, remotes):
        pair = Pair(cast(Peer, remotes[0]), cast(Peer, remotes[1]), "rdma")
        late_device(hosts, pair)
        traffic(hosts, pair)
        faults(hosts, remotes)
    print("done", flush=True)


if __name__ == "__main__":
    main()
