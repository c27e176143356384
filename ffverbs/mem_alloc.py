"""Memory by address: the C library's allocators and mappings, and access to what they return.

Addresses are ints. Allocation that fails is a MemoryError, as in pyverbs. Access is not checked against the bounds of
any allocation, because none are known here: a wrong address ends the process, as it does in C; only what is certainly
wrong (an address in the unmapped first page, a length beyond the data) is refused.
"""

import ctypes
import mmap as _mm
import os
import sys
from typing import Final

from ffverbs._cint import check_i64, check_int, check_u32, check_u64
from ffverbs.pyverbs_error import PyverbsRDMAError, PyverbsUserError

PROT_EXEC_: Final = 4
PROT_READ_: Final = 1
PROT_WRITE_: Final = 2
PROT_NONE_: Final = 0
MAP_PRIVATE_: Final = 2
MAP_SHARED_: Final = 1
MAP_FIXED_: Final = 16
MAP_ANONYMOUS_: Final = 32
MAP_STACK_: Final = 0x2_0000
MAP_LOCKED_: Final = 0x2000
MAP_HUGETLB_: Final = 0x4_0000
MAP_POPULATE_: Final = 0x8000
MAP_NORESERVE_: Final = 0x4000
MAP_GROWSDOWN_: Final = 0x100
MADV_DONTNEED: Final = _mm.MADV_DONTNEED

_FIRST_PAGE_END: Final = 4096
_MAP_FAILED: Final = (1 << (8 * ctypes.sizeof(ctypes.c_void_p))) - 1

# Calls through this object release the GIL.
_libc = ctypes.CDLL(None, use_errno=True)
_libc.malloc.argtypes = [ctypes.c_size_t]
_libc.malloc.restype = ctypes.c_void_p
_libc.free.argtypes = [ctypes.c_void_p]
_libc.free.restype = None
_libc.posix_memalign.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_size_t]
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.mmap.restype = ctypes.c_void_p
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def _memory_error(what: str, code: int) -> MemoryError:
    return MemoryError(f"{what}: {os.strerror(code)}")


def mmap(
    addr: int = 0,
    length: int = 100,
    prot: int = PROT_READ_ | PROT_WRITE_,
    flags: int = MAP_PRIVATE_ | MAP_ANONYMOUS_,
    fd: int = 0,
    offset: int = 0,
) -> int:
    """Map `length` bytes (mmap(2)) and return their address; MemoryError if the kernel refuses."""
    start = _libc.mmap(
        check_u64(addr), check_u64(length), check_int(prot), check_int(flags), check_int(fd), check_i64(offset)
    )
    if start == _MAP_FAILED:
        raise _memory_error(f"Failed to mmap memory of {length} bytes", ctypes.get_errno())
    return start or 0


def munmap(addr: int, length: int) -> None:
    """Unmap `length` bytes at `addr`, a multiple of the page size; MemoryError if the kernel refuses."""
    start = check_u64(addr)
    if _libc.munmap(start, check_u64(length)):
        raise _memory_error(f"Failed to munmap requested memory at {start:#x}", ctypes.get_errno())


def madvise(addr: int, length: int, flags: int = MADV_DONTNEED) -> None:
    """Tell the kernel how `length` bytes at `addr` will be used (madvise(2)); PyverbsRDMAError if it refuses."""
    start = check_u64(addr)
    if _libc.madvise(start, check_u64(length), check_int(flags)):
        raise PyverbsRDMAError(f"Failed to madvise memory at {start:#x}", ctypes.get_errno())


def malloc(size: int) -> int:
    """Allocate `size` bytes, not zeroed, and return their address; MemoryError if there are none."""
    start = _libc.malloc(check_u64(size))
    if start is None:
        raise _memory_error(f"Failed to allocate memory of {size} bytes", ctypes.get_errno())
    return int(start)


def posix_memalign(size: int, alignment: int = 8) -> int:
    """Allocate `size` zeroed bytes at a multiple of `alignment`, a power of two of at least 8, and return the address.

    MemoryError for another alignment or when there is no memory.
    """
    start = ctypes.c_void_p()
    code = _libc.posix_memalign(ctypes.byref(start), check_u64(alignment), check_u64(size))
    if code:
        raise _memory_error(f"Failed to allocate memory of {size} bytes aligned to {alignment}", code)
    address = start.value or 0
    ctypes.memset(address, 0, size)
    return address


def free(ptr: int) -> None:
    """Free what `malloc()` or `posix_memalign()` returned; 0 is allowed."""
    _libc.free(check_u64(ptr))


def _address(addr: int, offset_bytes: int) -> int:
    """Return the address of an access; PyverbsUserError for one that can never be valid."""
    address = check_u64(addr) + check_i64(offset_bytes)
    if not _FIRST_PAGE_END <= address < _MAP_FAILED:
        raise PyverbsUserError(f"No memory can be at address {address:#x}: pass an address that was allocated")
    return address


def writebe32(addr: int, val: int, offset: int = 0) -> None:
    """Store `val` as big-endian 32-bit word number `offset` after `addr`."""
    word = check_u32(val).to_bytes(4, "big")
    ctypes.c_uint32.from_address(_address(addr, 4 * offset)).value = int.from_bytes(word, sys.byteorder)


def writebe64(addr: int, val: int, offset: int = 0) -> None:
    """Store `val` as big-endian 64-bit word number `offset` after `addr`."""
    word = check_u64(val).to_bytes(8, "big")
    ctypes.c_uint64.from_address(_address(addr, 8 * offset)).value = int.from_bytes(word, sys.byteorder)


def write(addr: int, data: str | bytes | bytearray, length: int, offset: int = 0) -> None:
    """Copy the first `length` bytes of `data` (str: of its UTF-8) to `addr` plus `offset` bytes."""
    if isinstance(data, str):
        data = data.encode()
    if not isinstance(data, bytes | bytearray):
        raise TypeError(f"expected bytes, {type(data).__name__} found")
    if check_u64(length) > len(data):
        raise PyverbsUserError(f"Cannot write {length} bytes: the data given has {len(data)}")
    ctypes.memmove(_address(addr, offset), bytes(data[:length]), length)


def read32(addr: int, offset: int = 0) -> int:
    """Return 32-bit word number `offset` after `addr`, in the machine's byte order."""
    return ctypes.c_uint32.from_address(_address(addr, 4 * offset)).value


def read64(addr: int, offset: int = 0) -> int:
    """Return 64-bit word number `offset` after `addr`, in the machine's byte order."""
    return ctypes.c_uint64.from_address(_address(addr, 8 * offset)).value


def read(addr: int, length: int, offset: int = 0) -> bytes:
    """Return `length` bytes at `addr` plus `offset` bytes."""
    if length < 0:
        raise PyverbsUserError(f"Cannot read {length} bytes: the length is negative")
    return ctypes.string_at(_address(addr, offset), length)
