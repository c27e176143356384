"""Memory by address, the device memory helpers, and the answer about fork."""

import ctypes
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ffverbs import dma_util, fork
from ffverbs import mem_alloc as m
from ffverbs.enums import IBV_FORK_ENABLED
from ffverbs.pyverbs_error import PyverbsRDMAError, PyverbsUserError
from tests.unit.real_pyverbs import evaluate, evaluate_here

PREAMBLE = "import pyverbs.mem_alloc as m, pyverbs.dma_util as d\np = m.posix_memalign(64, 64)\n"
EXPRESSIONS = [
    "list(m.read(p, 64))",
    "m.write(p, 'abcdef', 6)",
    "m.write(p, b'xyz', 3, 2)",
    "list(m.read(p, 8))",
    "m.write(p, 'é', 2, 8)",
    "m.write(p, bytearray(b'qr'), 1, offset=12)",
    "list(m.read(p, 6, 7))",
    "list(m.read(p + 8, 4, -1))",
    "list(m.read(p, 0))",
    "m.writebe32(p, 0x01020304)",
    "m.writebe32(p, 5, 3)",
    "m.writebe64(p, 0x0102030405060708, 2)",
    "list(m.read(p, 32))",
    "m.read32(p)",
    "m.read32(p, 3)",
    "m.read32(p + 4, -1)",
    "m.read64(p, 2)",
    "d.mmio_write32_as_be(p, 0x01020304)",
    "d.mmio_write64_as_be(p + 8, 0x0102030405060708)",
    "list(m.read(p, 16))",
    "[d.udma_to_dev_barrier(), d.udma_from_dev_barrier()]",
    "m.write(p, 5, 1)",
    "m.write(p, 'ab', -1)[0]",
    "m.malloc('a')",
    "[n for n in dir(m) if n.isupper()]",
    "{n: getattr(m, n) for n in dir(m) if n.endswith('_')and n.isupper()}",
    "m.free(0)",
    "m.free(p)",
]


def test_same_as_the_real_one() -> None:
    real = evaluate(PREAMBLE, *EXPRESSIONS)
    ours = evaluate_here(PREAMBLE, *EXPRESSIONS)
    for expression, expected, actual in zip(EXPRESSIONS, real, ours, strict=True):
        if expression.startswith("[n for n"):
            assert set(expected) <= set(actual)
        elif expression == "m.write(p, 'ab', -1)[0]":
            assert actual[0] == expected[0] == "OverflowError"
        else:
            assert actual == expected, expression


@pytest.fixture
def block() -> Iterator[int]:
    address = m.posix_memalign(64, 64)
    yield address
    m.free(address)


def test_posix_memalign_is_aligned_and_zeroed() -> None:
    for alignment in (8, 64, 4096, 1 << 20):
        address = m.posix_memalign(1000, alignment)
        assert address % alignment == 0
        assert m.read(address, 1000) == bytes(1000)
        m.write(address, b"\xff" * 1000, 1000)
        m.free(address)


def test_words_are_big_endian_and_offsets_count_words(block: int) -> None:
    m.writebe32(block, 0x01020304, 1)
    m.writebe64(block, 0x05060708090A0B0C, 1)
    assert m.read(block, 16) == bytes([0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
    assert m.read32(block, 1) == 0x04030201
    assert m.read64(block, 1) == 0x0C0B0A0908070605


@pytest.mark.parametrize(
    "call",
    [
        lambda: m.malloc(1 << 62),
        lambda: m.posix_memalign(1 << 62),
        lambda: m.posix_memalign(100, 3),
        lambda: m.posix_memalign(100, 0),
        lambda: m.mmap(length=0),
        lambda: m.mmap(length=1 << 62),
        lambda: m.munmap(1, 5),
    ],
)
def test_what_cannot_be_had_is_a_memory_error(call: Callable[[], object]) -> None:
    with pytest.raises(MemoryError, match=r"^Failed to \w+ .*: \w+"):
        call()


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda p: m.malloc(-1), OverflowError, "negative"),
        (lambda p: m.malloc(1 << 64), OverflowError, "too large"),
        (lambda p: m.mmap(fd=1 << 31), OverflowError, "too large"),
        (lambda p: m.writebe32(p, 1 << 32), OverflowError, "too large"),
        (lambda p: m.writebe64(p, -1), OverflowError, "negative"),
        (lambda p: m.read(p, -1), PyverbsUserError, "negative"),
        (lambda p: m.write(p, b"abc", 4), PyverbsUserError, "the data given has 3"),
        (
            lambda p: m.write(p, memoryview(b"abc"), 3),  # type: ignore[arg-type]
            TypeError,
            "expected bytes, memoryview found",
        ),
        (lambda p: m.read(0, 1), PyverbsUserError, "No memory can be at address 0x0"),
        (lambda p: m.read32(4095), PyverbsUserError, "No memory can be at"),
        (lambda p: m.read64(p, -(p // 8)), PyverbsUserError, "No memory can be at"),
        (lambda p: m.free("x"), TypeError, "an integer is required"),  # type: ignore[arg-type]
        (lambda p: dma_util.mmio_write32_as_be(p, 1 << 32), OverflowError, "too large"),
        (lambda p: dma_util.mmio_write64_as_be(0, 1), PyverbsUserError, "No memory can be at"),
    ],
)
def test_bad_arguments(block: int, call: Callable[[int], object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call(block)
    assert m.read(block, 64) == bytes(64)


def test_mappings_share_a_file_and_forget_private_pages(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hello".ljust(mmap.PAGESIZE, b"\0"))
    fd = os.open(path, os.O_RDWR)
    shared = m.mmap(length=mmap.PAGESIZE, flags=m.MAP_SHARED_, fd=fd)
    os.close(fd)
    assert m.read(shared, 5) == b"hello"
    m.write(shared, b"J", 1)
    m.munmap(shared, mmap.PAGESIZE)
    assert path.read_bytes()[:5] == b"Jello"

    private = m.mmap(length=mmap.PAGESIZE)
    m.write(private, b"x", 1)
    m.madvise(private, mmap.PAGESIZE)
    assert m.read(private, 1) == b"\0"
    with pytest.raises(PyverbsRDMAError) as caught:
        m.madvise(private + 1, 1)
    assert caught.value.error_code == 22
    m.munmap(private, mmap.PAGESIZE)


def test_mmap_at_a_fixed_address() -> None:
    start = m.mmap(length=3 * mmap.PAGESIZE)
    middle = start + mmap.PAGESIZE
    flags = m.MAP_PRIVATE_ | m.MAP_ANONYMOUS_ | m.MAP_FIXED_
    assert m.mmap(middle, mmap.PAGESIZE, m.PROT_READ_, flags) == middle
    m.munmap(start, 3 * mmap.PAGESIZE)


def test_stores_for_devices_are_one_access_of_the_bytes_given(block: int) -> None:
    dma_util.mmio_write32_as_be(block, 0x04030201)
    dma_util.udma_to_dev_barrier()
    dma_util.mmio_write64_as_be(block + 8, 0x0807060504030201)
    dma_util.udma_from_dev_barrier()
    assert ctypes.string_at(block, 16) == bytes([1, 2, 3, 4, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])


def test_fork_is_always_safe_for_the_parent() -> None:
    assert fork.is_fork_initialized() is IBV_FORK_ENABLED
    fork.fork_init()
    assert fork.is_fork_initialized() is IBV_FORK_ENABLED
