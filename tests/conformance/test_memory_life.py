"""Memory that is large, registered more than once, given back, or under way while it goes (DESIGN D3, D5)."""

import ctypes
import itertools
import mmap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import ffverbs.libibverbs_enums as e
from ffverbs import mem_alloc
from ffverbs.mr import MR
from tests import huge_pages
from tests.conformance.pair import ALL_ACCESS, DEADLINE_S, Options, Pair, Peer, Recv, Send, pattern
from tests.conformance.paths import Workers, begin

PAGE = 4096
GIB = 1 << 30


class Mapping:
    """Anonymous memory of this process, registered by the tests as they like."""

    def __init__(self, length: int, flags: int = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) -> None:
        self.length = length
        self.address = mem_alloc.mmap(0, length, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)

    def write(self, data: bytes, offset: int = 0) -> None:
        ctypes.memmove(self.address + offset, data, len(data))

    def read(self, length: int, offset: int = 0) -> bytes:
        return ctypes.string_at(self.address + offset, length)

    def free(self) -> None:
        mem_alloc.munmap(self.address, self.length)


@contextmanager
def mapping(length: int, flags: int = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) -> Iterator[Mapping]:
    made = Mapping(length, flags)
    try:
        yield made
    finally:
        made.free()


def register(peer: Peer, memory: Mapping, offset: int = 0, length: int | None = None, access: int = ALL_ACCESS) -> MR:
    """Register a part of the memory in the domain of the side, which must live in this process."""
    size = memory.length - offset if length is None else length
    return MR(peer._objects.pd, size, access, address=memory.address + offset)


def write_from(peer: Peer, mr: MR, pair: Pair, length: int, offset: int = 0) -> int:
    """Write `length` bytes of the region to the start of the memory of `b`; return the status."""
    piece = (mr.buf - peer._memory.buf + offset, length, mr.lkey)
    peer.post_send(pair.remote(int(e.IBV_WR_RDMA_WRITE), pieces=(piece,)))
    return peer.sent()[0].status


@pytest.fixture(params=["contexts", "processes"])
def pair(request: pytest.FixtureRequest, workers: Workers, node_directory: Path) -> Iterator[Pair]:
    """Two sides, of which `a` lives in this process."""
    with workers.pair(request.param, node_directory) as made:
        yield made


# ---- large --------------------------------------------------------------------------------------------------------


def test_more_than_4_gib(pair: Pair, seed: int) -> None:
    """5 GiB, almost all of it never touched: addresses beyond 4 GiB work, at each border, in both directions."""
    pair.connect(Options(length=65536), Options(length=5 * GIB))
    data = pattern(3000, seed)
    pair.a.write(data)
    offsets = [0, 2 * GIB - 1500, 4 * GIB - 1500, 4 * GIB + PAGE, 5 * GIB - 3000]
    for offset in offsets:
        pair.a.post_send(pair.remote(int(e.IBV_WR_RDMA_WRITE), offset, pieces=((0, 3000),)))
        assert pair.a.sent()[0].ok
        assert pair.b.read(3000, offset) == data
        pair.a.write(bytes(3000), 8192)
        pair.a.post_send(pair.remote(int(e.IBV_WR_RDMA_READ), offset, pieces=((8192, 3000),)))
        assert pair.a.sent()[0].ok
        assert pair.a.read(3000, 8192) == data
        assert pair.b.read(64, offset + 3000 if offset != offsets[-1] else offset - 64) == bytes(64)
    pair.a.post_send(pair.remote(int(e.IBV_WR_RDMA_WRITE), 5 * GIB - 2999, pieces=((0, 3000),)))
    assert pair.a.sent()[0].status == e.IBV_WC_REM_ACCESS_ERR


def test_more_than_4_gib_of_the_users(pair: Pair, seed: int) -> None:
    """The same for memory that the user mapped, begins at an odd address, and is moved when it is registered."""
    pair.connect()
    data = pattern(5000, seed)
    with mapping(5 * GIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mem_alloc.MAP_NORESERVE_) as memory:
        offsets = [11, 4 * GIB - 2500, 5 * GIB - 5011]
        for offset in offsets:
            memory.write(data, offset)
        with register(pair.a, memory, 11, 5 * GIB - 22) as mr:
            for offset in offsets:
                pair.b.write(bytes(5000))
                assert write_from(pair.a, mr, pair, 5000, offset - 11) == e.IBV_WC_SUCCESS
                assert pair.b.read(5000) == data
                assert memory.read(5000, offset) == data
        assert all(memory.read(5000, offset) == data for offset in offsets)


def test_message_of_2_gib(pair: Pair, seed: int) -> None:
    """2^31 bytes, the largest message there is, in one piece; and one byte more is refused."""
    length = 2 * GIB
    pair.connect(Options(length=length + PAGE), Options(length=length + PAGE))
    checksum = pair.a.fill(length, seed)
    pair.b.post_recv(Recv(1, ((0, length),)))
    pair.a.post_send(Send(1, pieces=((0, length),)))
    assert pair.a.sent()[0].ok
    assert pair.b.received()[0].byte_len == length
    assert pair.b.checksum(length) == checksum
    pair.a.post_send(Send(2, pieces=((0, length), (0, 1))))
    assert pair.a.sent()[0].status == e.IBV_WC_LOC_LEN_ERR


# ---- registered more than once ------------------------------------------------------------------------------------

# Two regions over one memory: the same, overlapping by a page and a half, one in the other, sharing only a page.
OVERLAPS = {
    "same": ((0, 5 * PAGE), (0, 5 * PAGE)),
    "overlapping": ((0, 3 * PAGE), (PAGE + 2048, 3 * PAGE)),
    "nested": ((0, 5 * PAGE), (PAGE + 100, PAGE)),
    "sharing a page": ((100, 2 * PAGE), (2 * PAGE + 100, 2 * PAGE)),
}


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("first_goes_first", [True, False])
def test_overlapping_regions(pair: Pair, overlap: str, first_goes_first: bool, seed: int) -> None:
    pair.connect()
    data = pattern(6 * PAGE, seed)
    with mapping(6 * PAGE) as memory:
        memory.write(data)
        regions = [(register(pair.a, memory, *part), part) for part in OVERLAPS[overlap]]
        for mr, (offset, length) in regions:
            assert write_from(pair.a, mr, pair, length) == e.IBV_WC_SUCCESS
            assert pair.b.read(length) == data[offset : offset + length]
        gone, _ = regions.pop(0 if first_goes_first else 1)
        gone.close()
        [(mr, (offset, length))] = regions
        pair.b.write(bytes(length))
        assert write_from(pair.a, mr, pair, length) == e.IBV_WC_SUCCESS
        assert pair.b.read(length) == data[offset : offset + length]
        # What the user writes now is what goes out, wherever the memory stands.
        memory.write(data[::-1])
        assert write_from(pair.a, mr, pair, length) == e.IBV_WC_SUCCESS
        assert pair.b.read(length) == data[::-1][offset : offset + length]
        mr.close()
        assert memory.read(6 * PAGE) == data[::-1]


def test_three_regions_in_every_order_of_release(pair: Pair, seed: int) -> None:
    pair.connect()
    parts = ((0, 4 * PAGE), (PAGE, 4 * PAGE), (2 * PAGE + 50, 2 * PAGE))
    data = pattern(6 * PAGE, seed)
    for order in itertools.permutations(range(3)):
        with mapping(6 * PAGE) as memory:
            memory.write(data)
            regions = {number: register(pair.a, memory, *part) for number, part in enumerate(parts)}
            for number in order:
                for left, mr in regions.items():
                    offset, length = parts[left]
                    assert write_from(pair.a, mr, pair, length) == e.IBV_WC_SUCCESS, (order, number)
                    assert pair.b.read(length) == data[offset : offset + length], (order, number)
                regions.pop(number).close()
            assert memory.read(6 * PAGE) == data


def test_freed_and_registered_again(pair: Pair, seed: int) -> None:
    """Memory that is unmapped while registered, mapped anew at the same address, and registered once more."""
    pair.connect()
    for lap in range(5):
        data = pattern(4 * PAGE, seed + lap)
        memory = Mapping(4 * PAGE)
        memory.write(data)
        old = register(pair.a, memory)
        assert write_from(pair.a, old, pair, 4 * PAGE) == e.IBV_WC_SUCCESS
        memory.free()
        fixed = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mem_alloc.MAP_FIXED_
        assert memory.address == mem_alloc.mmap(
            memory.address, 4 * PAGE, mmap.PROT_READ | mmap.PROT_WRITE, fixed, -1, 0
        )
        assert memory.read(4 * PAGE) == bytes(4 * PAGE)
        memory.write(data[::-1])
        with register(pair.a, memory) as mr:
            assert write_from(pair.a, mr, pair, 4 * PAGE) == e.IBV_WC_SUCCESS
            assert pair.b.read(4 * PAGE) == data[::-1]
            old.close()
            memory.write(data)
            assert write_from(pair.a, mr, pair, 4 * PAGE) == e.IBV_WC_SUCCESS
            assert pair.b.read(4 * PAGE) == data
        assert memory.read(4 * PAGE) == data
        memory.free()


def test_small_buffers_of_the_heap_one_after_the_other(pair: Pair, seed: int) -> None:
    """Buffers of a few bytes that share pages come and go; each holds its own, and the heap is unhurt."""
    pair.connect()
    live: list[tuple[int, int, MR, bytes]] = []
    for number in range(200):
        length = 1 + number * 37 % 300
        address = mem_alloc.malloc(length)
        data = pattern(length, seed + number)
        ctypes.memmove(address, data, length)
        mr = MR(pair.a._objects.pd, length, ALL_ACCESS, address=address)
        live.append((address, length, mr, data))
        if number % 3 == 2:
            address, _, mr, _ = live.pop(number * 7 % len(live))
            mr.close()
            mem_alloc.free(address)
    for address, length, mr, data in live:
        assert write_from(pair.a, mr, pair, length) == e.IBV_WC_SUCCESS
        assert pair.b.read(length) == data
        mr.close()
        assert ctypes.string_at(address, length) == data
        mem_alloc.free(address)


# ---- huge pages ---------------------------------------------------------------------------------------------------


@pytest.fixture(name="four_huge_pages")
def four_huge_pages_fixture() -> Iterator[None]:
    """Four huge pages of 2 MiB, if the machine can spare them."""
    with huge_pages.reserved(4) as obstacle:
        if obstacle:
            pytest.skip(obstacle)
        yield


@pytest.mark.usefixtures("four_huge_pages")
def test_huge_pages(pair: Pair, seed: int) -> None:
    pair.connect(Options(length=2 * huge_pages.BYTES))
    data = pattern(huge_pages.BYTES + 12345, seed)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mem_alloc.MAP_HUGETLB_
    with mapping(2 * huge_pages.BYTES, flags) as memory:
        memory.write(data, 777)
        for access in (ALL_ACCESS, ALL_ACCESS | int(e.IBV_ACCESS_HUGETLB)):
            with register(pair.a, memory, access=access) as mr:
                pair.b.write(bytes(len(data)))
                assert write_from(pair.a, mr, pair, len(data), 777) == e.IBV_WC_SUCCESS
                assert pair.b.read(len(data)) == data
                # And as a target.
                pair.b.post_send(
                    Send(opcode=int(e.IBV_WR_RDMA_WRITE), pieces=((5, 1000),), remote=mr.buf + 9, rkey=mr.rkey)
                )
                assert pair.b.sent()[0].ok
                assert memory.read(1000, 9) == data[5:1005]
                memory.write(bytes(777))
                memory.write(data, 777)
        assert memory.read(len(data), 777) == data


# ---- under way ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lap", range(5))
def test_deregistered_under_load(pair: Pair, lap: int) -> None:
    """Once a region is closed nobody writes there any more: what its owner puts there stays."""
    pair.connect()
    with mapping(4 * PAGE) as memory:
        pair.b.write(b"\x77" * 4 * PAGE)
        mr = register(pair.a, memory)
        send = Send(lap, int(e.IBV_WR_RDMA_WRITE), ((0, 4 * PAGE),), remote=mr.buf, rkey=mr.rkey)
        end_of_load = begin(pair.b, "write_until_refused", send)
        deadline = time.monotonic() + DEADLINE_S
        while memory.read(4 * PAGE) != b"\x77" * 4 * PAGE:
            assert time.monotonic() < deadline, "nothing was written"
        mr.close()
        memory.write(b"\x11" * 4 * PAGE)
        status, written = end_of_load()
        assert status == e.IBV_WC_REM_ACCESS_ERR
        assert written > 0
        assert memory.read(4 * PAGE) == b"\x11" * 4 * PAGE
