"""Ordered access to device memory: what programs that ring a NIC's doorbells use.

No device of this package has doorbells; the functions do to ordinary memory what they would do to a device's.
"""

import ctypes
import threading

from ffverbs._cint import check_u32, check_u64
from ffverbs.mem_alloc import _address

__all__ = ["mmio_write32_as_be", "mmio_write64_as_be", "udma_from_dev_barrier", "udma_to_dev_barrier"]

_fence = threading.Lock()


def _full_barrier() -> None:
    # A release of a lock followed by its acquisition orders everything before against everything after; either alone
    # lets accesses move into the critical section.
    with _fence:
        pass
    with _fence:
        pass


def udma_to_dev_barrier() -> None:
    """Let earlier stores to memory be seen before any later store."""
    _full_barrier()


def udma_from_dev_barrier() -> None:
    """Let later loads see what was stored before the value that an earlier load saw."""
    _full_barrier()


def mmio_write64_as_be(addr: int, val: int) -> None:
    """Store the 64-bit `val`, whose bytes are in big-endian order already, at `addr` in one access."""
    ctypes.c_uint64.from_address(_address(addr, 0)).value = check_u64(val)


def mmio_write32_as_be(addr: int, val: int) -> None:
    """Store the 32-bit `val`, whose bytes are in big-endian order already, at `addr` in one access."""
    ctypes.c_uint32.from_address(_address(addr, 0)).value = check_u32(val)
