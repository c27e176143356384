"""On-demand memory comes and goes between operations: what is there is used, what is not ends the work request."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

import ffverbs.libibverbs_enums as e
from tests.conformance.memory import MemoryPeer, MemoryWorkers, over
from tests.conformance.pair import ALL_ACCESS, UD, Options, Pair, Recv, Send, pattern
from tests.conformance.test_memory_reach import made, memory_workers_fixture  # noqa: F401 - the fixture is used

PAGE = 4096
WAYS = ("contexts", "permitted", "denied", "containers")
SEND, WRITE, READ = int(e.IBV_WR_SEND), int(e.IBV_WR_RDMA_WRITE), int(e.IBV_WR_RDMA_READ)
ADD = int(e.IBV_WR_ATOMIC_FETCH_AND_ADD)


@contextmanager
def both_here(directory: Path) -> Iterator[Pair]:
    two = Pair(MemoryPeer(), MemoryPeer(), "contexts", str(directory))
    try:
        yield two
    finally:
        two.close()


@pytest.fixture(params=WAYS)
def pair(request: pytest.FixtureRequest, memory_workers: MemoryWorkers, node_directory: Path) -> Iterator[Pair]:
    """Two sides in one process, and for each way in which two processes reach each other's memory."""
    way = both_here(node_directory) if request.param == "contexts" else made(memory_workers, request.param)
    with way as two:
        yield two


def both(pair: Pair) -> tuple[MemoryPeer, MemoryPeer]:
    return cast(MemoryPeer, pair.a), cast(MemoryPeer, pair.b)


@pytest.mark.parametrize("opcode", [SEND, WRITE, READ], ids=["send", "write", "read"])
def test_replaced_between_operations(pair: Pair, opcode: int, seed: int) -> None:
    """What was there before is neither read nor written any more; a mapping of a peer would still show it."""
    over(pair, "on demand", "on demand", Options(length=4 * PAGE))
    a, b = both(pair)
    source, sink = (b, a) if opcode == READ else (a, b)
    for turn in range(3):
        data = pattern(2 * PAGE + 100, seed + turn)
        for side in (a, b):
            side.unmap(0, 4 * PAGE)
            side.map_anew(0, 4 * PAGE)
            assert side.read(4 * PAGE) == bytes(4 * PAGE)
        source.write(data)
        if opcode == SEND:
            b.post_recv(Recv(turn, ((0, len(data)),)))
        a.post_send(pair.remote(opcode, pieces=((0, len(data)),)))
        assert a.sent()[0].ok
        assert opcode != SEND or b.received()[0].ok
        assert sink.read(4 * PAGE) == data + bytes(4 * PAGE - len(data))


def test_an_atomic_on_replaced_memory(pair: Pair) -> None:
    over(pair, "allocated", "on demand", Options(length=2 * PAGE))
    a, b = both(pair)
    for _ in range(2):
        b.unmap(0, 2 * PAGE)
        b.map_anew(0, 2 * PAGE)
        a.post_send(pair.remote(ADD, PAGE, pieces=((0, 8),), compare_add=5))
        assert a.sent()[0].ok
        assert int.from_bytes(b.read(8, PAGE), "little") == 5


def test_mapped_after_registering_the_whole_address_space(pair: Pair, seed: int) -> None:
    over(pair, "implicit", "implicit", Options(length=PAGE))
    a, b = both(pair)
    data = pattern(3 * PAGE, seed)
    from_, to = a.map_more(3 * PAGE), b.map_more(3 * PAGE)
    a.write(data, from_)
    a.post_send(pair.remote(WRITE, to, pieces=((from_, 3 * PAGE),)))
    assert a.sent()[0].ok
    assert b.read(3 * PAGE, to) == data
    a.unmap(from_, 3 * PAGE)
    b.unmap(to, 3 * PAGE)


@pytest.mark.parametrize("opcode", [WRITE, READ, ADD], ids=["write", "read", "atomic"])
@pytest.mark.parametrize("kind", ["on demand", "implicit"])
def test_not_there_at_the_responder(pair: Pair, kind: str, opcode: int) -> None:
    over(pair, "allocated", kind, Options(length=4 * PAGE))
    a, b = both(pair)
    b.unmap(PAGE, PAGE)
    pieces = ((0, 8),) if opcode == ADD else ((0, 2 * PAGE),)
    a.post_send(pair.remote(opcode, PAGE if opcode == ADD else 0, pieces=pieces))
    assert a.sent()[0].status == e.IBV_WC_REM_ACCESS_ERR
    assert a.state() == e.IBV_QPS_ERR
    b.map_anew(PAGE, PAGE)


def test_not_there_at_the_receiver(pair: Pair) -> None:
    over(pair, "allocated", "on demand", Options(length=4 * PAGE))
    a, b = both(pair)
    b.unmap(PAGE, PAGE)
    b.post_recv(Recv(4, ((0, 2 * PAGE),)))
    a.post_send(Send(3, pieces=((0, 2 * PAGE),)))
    assert a.sent()[0].status == e.IBV_WC_REM_OP_ERR
    assert b.received()[0].status == e.IBV_WC_LOC_PROT_ERR
    b.map_anew(PAGE, PAGE)


@pytest.mark.parametrize("opcode", [SEND, WRITE, READ], ids=["send", "write", "read"])
def test_not_there_at_the_requester(pair: Pair, opcode: int) -> None:
    over(pair, "on demand", "allocated", Options(length=4 * PAGE))
    a, b = both(pair)
    a.unmap(PAGE, PAGE)
    b.post_recv(Recv(4, ((0, 2 * PAGE),)))
    a.post_send(pair.remote(opcode, pieces=((0, 2 * PAGE),)))
    assert a.sent()[0].status == e.IBV_WC_LOC_PROT_ERR
    a.map_anew(PAGE, PAGE)


def test_read_only_is_a_source_and_no_target(pair: Pair, seed: int) -> None:
    over(pair, "on demand", "on demand", Options(length=PAGE))
    a, b = both(pair)
    b.map_anew(0, PAGE, writable=False)
    a.write(pattern(64, seed))
    a.post_send(pair.remote(READ, pieces=((0, 64),)))
    assert a.sent()[0].ok
    assert a.read(64) == bytes(64)
    a.post_send(pair.remote(WRITE, pieces=((0, 64),)))
    assert a.sent()[0].status == e.IBV_WC_REM_ACCESS_ERR


@pytest.mark.parametrize("kind", ["on demand", "implicit"])
def test_a_window_over_it(pair: Pair, kind: str, seed: int) -> None:
    over(pair, "allocated", kind, Options(length=2 * PAGE, access=ALL_ACCESS | int(e.IBV_ACCESS_MW_BIND)))
    a, b = both(pair)
    key = b.bind_window(2, PAGE, 64, int(e.IBV_ACCESS_REMOTE_WRITE))
    b.map_anew(0, 2 * PAGE)
    data = pattern(64, seed)
    a.write(data)
    a.post_send(Send(opcode=WRITE, pieces=((0, 64),), remote=pair.to_b.addr + PAGE, rkey=key))
    assert a.sent()[0].ok
    assert b.read(64, PAGE) == data
    a.post_send(Send(opcode=WRITE, pieces=((0, 64),), remote=pair.to_b.addr + PAGE + 1, rkey=key))
    assert a.sent()[0].status == e.IBV_WC_REM_ACCESS_ERR


def test_datagrams(pair: Pair, seed: int) -> None:
    over(pair, "on demand", "implicit", Options(qp_type=UD, length=2 * PAGE))
    a, b = both(pair)
    for turn in range(2):
        data = pattern(1000, seed + turn)
        for side in (a, b):
            side.map_anew(0, 2 * PAGE)
        a.write(data)
        b.post_recv(Recv(turn, ((0, 1040),)))
        a.post_send(Send(to=pair.to_b, pieces=((0, 1000),)))
        assert a.sent()[0].ok
        assert b.received()[0].ok
        assert b.read(1000, 40) == data
