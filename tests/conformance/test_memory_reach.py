"""Every way of reaching memory carries every operation, where it is the only way there is (DESIGN D5).

Which way a test leaves is made sure of by what is forbidden: memory that no peer can map, a kernel that refuses
process_vm_*, a peer that is stopped (then nobody else can do its part), an address space too small for windows.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs import _containers as containers
from tests.conformance.memory import UNMIRRORED, WAYS, MemoryPeer, MemoryWorkers, over
from tests.conformance.pair import GRH_BYTES, UD, Options, Pair, Recv, Send, pattern
from tests.stopping import stopped

STAGE_BYTES = 256 << 10
LARGE = 3 * STAGE_BYTES + 4097  # several chunks of a staging buffer, the last one odd
SIZES = (1, 8, 4093, 20000)
PAIRS_OF_KINDS = [
    ("allocated", "allocated"),
    ("moved", "edges"),
    ("edges", "moved"),
    ("edges", "edges"),
    ("small", "small"),
    ("allocated", "file"),
    ("file", "allocated"),
    ("shared", "file"),
    ("on demand", "on demand"),
    ("allocated", "on demand"),
    ("implicit", "device"),
    ("device", "implicit"),
    ("descriptor", "buffer"),
    ("buffer", "descriptor"),
]


@pytest.fixture(scope="module", name="memory_workers")
def memory_workers_fixture() -> Iterator[MemoryWorkers]:
    workers = MemoryWorkers()
    yield workers
    workers.close()


@contextmanager
def made(workers: MemoryWorkers, way: str) -> Iterator[Pair]:
    if way == "containers" and (reason := containers.unavailable()):
        pytest.skip(f"containers cannot be made on this host: {reason}")
    if way == "denied" and os.geteuid() != 0:
        pytest.skip("only root can become two processes of a user that may not trace each other")
    with workers.pair(way) as pair:
        yield pair


@pytest.fixture(params=WAYS)
def pair(request: pytest.FixtureRequest, memory_workers: MemoryWorkers) -> Iterator[Pair]:
    """Two sides for each way; nothing is made yet."""
    with made(memory_workers, request.param) as two:
        yield two


@pytest.fixture(name="permitted")
def permitted_fixture(memory_workers: MemoryWorkers) -> Iterator[Pair]:
    with made(memory_workers, "permitted") as two:
        yield two


@pytest.fixture(name="denied")
def denied_fixture(memory_workers: MemoryWorkers) -> Iterator[Pair]:
    with made(memory_workers, "denied") as two:
        yield two


def both(pair: Pair) -> tuple[MemoryPeer, MemoryPeer]:
    return cast(MemoryPeer, pair.a), cast(MemoryPeer, pair.b)


def check_neighbours(pair: Pair) -> None:
    a, b = both(pair)
    assert a.neighbours_stand() and b.neighbours_stand(), "memory beside the registered memory was changed"


# ---- operations ---------------------------------------------------------------------------------------------------


def send(pair: Pair, length: int, seed: int) -> None:
    data = pattern(length, seed)
    pair.a.write(data)
    pair.b.write(bytes(length))
    pair.b.post_recv(Recv(7, ((0, length),)))
    pair.a.post_send(Send(5, int(e.IBV_WR_SEND_WITH_IMM), ((0, length),), imm=0x1234))
    done, got = pair.a.sent()[0], pair.b.received()[0]
    assert (done.status, done.wr_id) == (e.IBV_WC_SUCCESS, 5)
    assert (got.status, got.wr_id, got.byte_len, got.imm) == (e.IBV_WC_SUCCESS, 7, length, 0x1234)
    assert pair.b.read(length) == data


def write(pair: Pair, length: int, seed: int) -> None:
    data = pattern(length, seed)
    pair.a.write(data)
    pair.b.write(bytes(length))
    pair.a.post_send(pair.remote(int(e.IBV_WR_RDMA_WRITE), pieces=((0, length),)))
    assert pair.a.sent()[0].ok
    assert pair.b.read(length) == data


def read(pair: Pair, length: int, seed: int) -> None:
    data = pattern(length, seed)
    pair.b.write(data)
    pair.a.write(bytes(length))
    pair.a.post_send(pair.remote(int(e.IBV_WR_RDMA_READ), pieces=((0, length),)))
    done = pair.a.sent()[0]
    assert (done.status, done.byte_len) == (e.IBV_WC_SUCCESS, length)
    assert pair.a.read(length) == data


def atomics(pair: Pair, offset: int) -> None:
    word = 8 * offset
    pair.b.write((41).to_bytes(8, "little"), word)
    add = pair.remote(int(e.IBV_WR_ATOMIC_FETCH_AND_ADD), word, pieces=((0, 8),), compare_add=1)
    swap = pair.remote(int(e.IBV_WR_ATOMIC_CMP_AND_SWP), word, pieces=((8, 8),), compare_add=42, swap=2**63 + 5)
    miss = pair.remote(int(e.IBV_WR_ATOMIC_CMP_AND_SWP), word, pieces=((16, 8),), compare_add=42, swap=1)
    pair.a.post_send(add, swap, miss)
    assert all(done.ok for done in pair.a.sent(3))
    originals = [int.from_bytes(pair.a.read(8, 8 * i), "little") for i in range(3)]
    assert originals == [41, 42, 2**63 + 5]
    assert int.from_bytes(pair.b.read(8, word), "little") == 2**63 + 5


def datagram(pair: Pair, length: int, seed: int) -> None:
    data = pattern(length, seed)
    pair.a.write(data)
    pair.b.post_recv(Recv(9, ((0, length + GRH_BYTES),)))
    pair.a.post_send(Send(3, int(e.IBV_WR_SEND), ((0, length),), to=pair.to_b))
    assert pair.a.sent()[0].ok
    got = pair.b.received()[0]
    assert (got.status, got.byte_len) == (e.IBV_WC_SUCCESS, length + GRH_BYTES)
    assert pair.b.read(length, GRH_BYTES) == data


@pytest.mark.parametrize("kinds", PAIRS_OF_KINDS, ids="-".join)
def test_every_operation(pair: Pair, kinds: tuple[str, str], seed: int) -> None:
    over(pair, *kinds, Options(length=max(SIZES)))
    for size in SIZES:
        send(pair, size, seed + size)
        write(pair, size, seed + 1)
        read(pair, size, seed + 2)
        check_neighbours(pair)
    # An atomic needs a word that is aligned in memory, too: the kind "edges" begins at an odd address.
    if "edges" not in kinds:
        atomics(pair, 0)
        atomics(pair, 100)
    check_neighbours(pair)


@pytest.mark.parametrize("kinds", PAIRS_OF_KINDS, ids="-".join)
def test_datagrams(pair: Pair, kinds: tuple[str, str], seed: int) -> None:
    over(pair, *kinds, Options(qp_type=UD, length=8192))
    for size in (1, 1000, 4096):
        datagram(pair, size, seed + size)
    check_neighbours(pair)


@pytest.mark.parametrize(
    "kinds",
    [("file", "shared"), ("edges", "edges"), ("allocated", "file"), ("file", "allocated"), ("device", "on demand")],
    ids="-".join,
)
def test_larger_than_a_staging_buffer(pair: Pair, kinds: tuple[str, str], seed: int) -> None:
    over(pair, *kinds, Options(length=LARGE))
    for operation in (send, write, read):
        operation(pair, LARGE, seed)
        check_neighbours(pair)


@pytest.mark.parametrize("kinds", [("file", "shared"), ("small", "small"), ("allocated", "file")], ids="-".join)
def test_shared_receive_queue(pair: Pair, kinds: tuple[str, str], seed: int) -> None:
    length = 2 * STAGE_BYTES + 1
    over(pair, *kinds, Options(length=length), Options(length=length, srq_wr=4))
    for size in (5, 4096, length):
        send(pair, size, seed + size)
    check_neighbours(pair)


def test_a_file_that_can_only_be_read_is_a_source(pair: Pair) -> None:
    length = 30000
    data = bytes(i * 7 % 251 for i in range(length))
    over(pair, "read-only file", "small", Options(length=length))
    pair.b.post_recv(Recv(1, ((0, length),)))
    pair.a.post_send(Send(pieces=((0, length),)))
    assert pair.a.sent()[0].ok and pair.b.received()[0].ok
    assert pair.b.read(length) == data
    pair.b.write(bytes(length))
    pair.a.post_send(pair.remote(int(e.IBV_WR_RDMA_WRITE), pieces=((100, length - 100),)))
    assert pair.a.sent()[0].ok
    assert pair.b.read(length - 100) == data[100:]
    # It is no target of a read: the key does not allow it.
    pair.a.post_send(pair.remote(int(e.IBV_WR_RDMA_READ), pieces=((0, 8),)))
    assert pair.a.sent()[0].status == e.IBV_WC_LOC_PROT_ERR


def test_gathered_from_all_over(pair: Pair, seed: int) -> None:
    """Edges, whole pages and the middle of pages in one list, scattered to others."""
    over(pair, "edges", "edges", Options(length=40000, send_sge=4, recv_sge=4))
    data = pattern(40000, seed)
    pair.a.write(data)
    pair.b.write(bytes(40000))
    pair.b.post_recv(Recv(1, ((0, 50), (60, 9000), (39000, 1000), (10000, 20000))))
    pair.a.post_send(Send(pieces=((39950, 50), (3, 4000), (20000, 19000))))
    assert pair.a.sent()[0].ok and pair.b.received()[0].byte_len == 23050
    sent = data[39950:40000] + data[3:4003] + data[20000:39000]
    at = 0
    for offset, size in ((0, 50), (60, 9000), (39000, 1000), (10000, 13000)):
        assert pair.b.read(size, offset) == sent[at : at + size], offset
        at += size
    check_neighbours(pair)


# ---- which way it was ---------------------------------------------------------------------------------------------


def check_way(pair: Pair, expected: int) -> None:
    a, b = both(pair)
    assert a.errno_of_reading(b.pid(), pair.to_b.addr) == expected
    assert b.errno_of_reading(a.pid(), pair.to_a.addr) == expected


@pytest.mark.parametrize(
    "kinds", [("allocated", "allocated"), ("file", "moved"), ("small", "file"), ("edges", "shared")], ids="-".join
)
def test_permitted_needs_nobody_else(permitted: Pair, kinds: tuple[str, str], seed: int) -> None:
    """The requester alone does it, by process_vm_* where it must: the responder is stopped."""
    over(permitted, *kinds, Options(length=20000))
    check_way(permitted, 0)
    data = pattern(20000, seed)
    permitted.a.write(data)
    permitted.b.post_recv(Recv(1, ((0, 20000),)))
    write_wr = permitted.remote(int(e.IBV_WR_RDMA_WRITE), pieces=((0, 20000),))
    with stopped(permitted.b.pid()):
        permitted.a.post_send(Send(pieces=((0, 20000),)), write_wr)
        assert all(done.ok for done in permitted.a.sent(2))
    assert permitted.b.received()[0].ok
    assert permitted.b.read(20000) == data


@pytest.mark.parametrize("kind", ["allocated", "moved", "device", "buffer"])
def test_mapped_memory_needs_nobody_else(denied: Pair, kind: str, seed: int) -> None:
    over(denied, "file", kind, Options(length=20480))
    check_way(denied, errno.EPERM)
    data = pattern(20480, seed)
    denied.a.write(data)
    with stopped(denied.b.pid()):
        denied.a.post_send(denied.remote(int(e.IBV_WR_RDMA_WRITE), pieces=((0, 20480),)))
        assert denied.a.sent()[0].ok
    assert denied.b.read(20480) == data


@pytest.mark.parametrize(
    "kinds", [*(("allocated", kind) for kind in UNMIRRORED), ("file", "small"), ("shared", "file")], ids="-".join
)
def test_denied_needs_the_owner(denied: Pair, kinds: tuple[str, str], seed: int) -> None:
    """Memory that only its owner reaches: nothing completes while the owner is stopped, everything when it goes on."""
    over(denied, *kinds, Options(length=20000))
    check_way(denied, errno.EPERM)
    data = pattern(20000, seed)
    denied.a.write(data)
    denied.b.write(bytes(20000))
    with stopped(denied.b.pid()):
        denied.a.post_send(denied.remote(int(e.IBV_WR_RDMA_WRITE), pieces=((0, 20000),)))
        with pytest.raises(TimeoutError):
            denied.a.poll("send", 1, deadline_s=0.05)
    assert denied.a.sent()[0].ok
    assert denied.b.read(20000) == data


@pytest.mark.parametrize("kinds", [("allocated", "allocated"), ("moved", "file"), ("file", "allocated")], ids="-".join)
def test_no_room_for_windows(pair: Pair, kinds: tuple[str, str], seed: int) -> None:
    """An address space too small to map a peer's memory (ulimit -v): slower, and the same."""
    over(pair, *kinds, Options(length=LARGE))
    a, b = both(pair)
    a.limit()
    b.limit()
    for operation in (send, write, read):
        operation(pair, LARGE, seed)
    atomics(pair, 3)
    assert (a.maps_of_peers(), b.maps_of_peers()) == (0, 0)


def test_no_room_for_windows_of_datagrams(pair: Pair, seed: int) -> None:
    over(pair, "allocated", "moved", Options(qp_type=UD, length=8192))
    a, b = both(pair)
    # The first datagram attaches the other side (its queues have to be mapped, too); without a receive it is lost.
    a.post_send(Send(to=pair.to_b))
    assert a.sent()[0].ok
    a.limit()
    b.limit()
    for size in (1, 4096):
        datagram(pair, size, seed)
    assert (a.maps_of_peers(), b.maps_of_peers()) == (0, 0)


# ---- both at once -------------------------------------------------------------------------------------------------


def test_both_directions_and_many_at_once(pair: Pair, seed: int) -> None:
    """Staged messages of both sides, several in each queue, cross each other; each queue keeps its order."""
    size, count = STAGE_BYTES + 77, 4
    over(pair, "file", "shared", Options(length=2 * count * size))
    data = {side: pattern(count * size, seed + number) for number, side in enumerate((pair.a, pair.b))}
    for side in (pair.a, pair.b):
        side.write(data[side])
        side.post_recv(*(Recv(i, (((count + i) * size, size),)) for i in range(count)))
    for side in (pair.a, pair.b):
        side.post_send(*(Send(i, pieces=((i * size, size),)) for i in range(count)))
    for side, other in ((pair.a, pair.b), (pair.b, pair.a)):
        assert [(done.wr_id, done.status) for done in side.sent(count)] == [(i, 0) for i in range(count)]
        assert [(done.wr_id, done.status) for done in side.received(count)] == [(i, 0) for i in range(count)]
        assert side.read(count * size, count * size) == data[other]


def test_error_in_the_middle_of_a_staged_message(denied: Pair) -> None:
    """The responder fails while a message goes in stages: the requester learns it, everything is flushed."""
    over(denied, "file", "file", Options(length=LARGE))
    denied.b.post_recv(Recv(1, ((0, LARGE),)), Recv(2, ((0, 8),)))
    with stopped(denied.b.pid()):
        denied.a.post_send(Send(1, pieces=((0, LARGE),)), Send(2))
        denied.a.modify(int(e.IBV_QPS_ERR))
        assert [done.status for done in denied.a.sent(2)] == [e.IBV_WC_WR_FLUSH_ERR] * 2
    denied.b.modify(int(e.IBV_QPS_ERR))
    assert [done.status for done in denied.b.received(2)] == [e.IBV_WC_WR_FLUSH_ERR] * 2


@pytest.mark.parametrize("end", ["reset", "destroyed", "failed"])
def test_taken_from_a_shared_queue_comes_back(denied: Pair, end: str) -> None:
    """A message in stages holds a receive of the shared queue when its sender is reset: the queue loses nothing."""
    over(denied, "file", "file", Options(length=LARGE), Options(length=LARGE, srq_wr=1))
    denied.b.post_recv(Recv(1, ((0, LARGE),)))
    with stopped(denied.b.pid()):
        denied.a.post_send(Send(1, pieces=((0, LARGE),)))
        if end == "destroyed":
            denied.a.destroy_qp()
        else:
            denied.a.modify(int(e.IBV_QPS_RESET if end == "reset" else e.IBV_QPS_ERR))
    done = denied.b.received()[0]
    assert (done.status, done.wr_id) == (e.IBV_WC_WR_FLUSH_ERR, 1)
    denied.b.post_recv(Recv(2, ((0, LARGE),)))  # there is room for one, again
