"""Sides whose memory is of a chosen kind, in processes that reach each other's memory in a chosen way (DESIGN D5).

Kinds of memory differ in what of it can be mapped by a peer; ways differ in what the kernel lets a process do with
another one. Together they leave exactly one way for the bytes to go, so that each can be tested by itself.
"""

import contextlib
import ctypes
import fcntl
import mmap
import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any, cast

import ffverbs.libibverbs_enums as e
from ffverbs import _containers as containers
from ffverbs import mem_alloc
from ffverbs.device import DM, AllocDmAttr
from ffverbs.mr import DMMR, MR, Buf, BufMR, DmaBufMR
from tests.conformance import paths
from tests.conformance.pair import ALL_ACCESS, Address, Options, Pair, Peer

__all__ = ["KINDS", "UNMIRRORED", "WAYS", "MemoryPeer", "MemoryWorkers", "over"]

PAGE = 4096
GUARD = b"\xa5"
GUARD_BYTES = 3 * PAGE

KINDS = {
    "allocated": "whole pages that the engine allocated: mapped by peers",
    "moved": "whole pages of the user's, page-aligned: moved, then mapped by peers",
    "edges": "begins and ends in the middle of pages: those two pages are only the owner's",
    "small": "a few bytes in the middle of a heap page that others use: only the owner's",
    "file": "a file, mapped shared: only the owner's",
    "read-only file": "a file, mapped read-only: a source, only the owner's",
    "shared": "anonymous shared memory: only the owner's",
    "on demand": "registered on demand: may come and go, only the owner's",
    "implicit": "the whole address space, registered on demand: only the owner's",
    "descriptor": "a sealed memfd, registered by its descriptor: only the owner's, at addresses that begin at 0",
    "buffer": "a buffer that the engine allocated: mapped by peers",
    "device": "device memory: mapped by peers, at addresses that begin at 0",
}
UNMIRRORED = ("small", "file", "shared", "on demand", "implicit", "descriptor")

WAYS = {
    "permitted": "two processes of one user: the kernel lets them read and write each other's memory",
    "denied": "two processes of one user that may not be traced: the kernel does not",
    "containers": "two containers with user and PID namespaces of their own: neither sees the other",
}

_PR_SET_DUMPABLE = 4
_MAP_FIXED = 0x10
_NOBODY = 65534
_libc = ctypes.CDLL(None, use_errno=True)


class _IOVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Memory:
    """Some memory of a kind, `length` bytes at `address`, with neighbours that must stay as they are."""

    def __init__(self, kind: str, length: int) -> None:
        self.address, self.length = 0, length
        self.guards: list[tuple[int, int]] = []
        self._kept: list[Any] = []
        {"moved": self._pages, "edges": self._edges, "small": self._small, "file": self._file,
         "read-only file": self._file, "shared": self._shared, "on demand": self._pages,
         "implicit": self._pages}[kind](kind)  # fmt: skip
        for first, size in self.guards:
            ctypes.memset(first, GUARD[0], size)

    def _map(self, length: int, flags: int, fd: int = -1, prot: int = mmap.PROT_READ | mmap.PROT_WRITE) -> int:
        length = (length + PAGE - 1) // PAGE * PAGE
        address = mem_alloc.mmap(0, length, prot, flags, fd, 0)
        self._kept.append((address, length))
        return address

    def _pages(self, _kind: str) -> None:
        self.address = self._map(self.length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def _edges(self, _kind: str) -> None:
        first = self._map(self.length + 2 * GUARD_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.address = first + GUARD_BYTES - 101
        self.guards = [(first, GUARD_BYTES - 101), (self.address + self.length, GUARD_BYTES)]

    def _small(self, _kind: str) -> None:
        # Less than a page on either side of the memory, on the same pages as it.
        first = mem_alloc.malloc(self.length + 136)
        self.address = first + 72  # aligned as atomics need it
        self.guards = [(first, 72), (self.address + self.length, 64)]

    def _file(self, kind: str) -> None:
        with tempfile.TemporaryFile() as file:
            file.truncate(self.length)
            read_only = kind == "read-only file"
            if read_only:
                file.write(bytes(i * 7 % 251 for i in range(self.length)))
                file.flush()
            prot = mmap.PROT_READ if read_only else mmap.PROT_READ | mmap.PROT_WRITE
            self.address = self._map(self.length, mmap.MAP_SHARED, file.fileno(), prot)

    def _shared(self, _kind: str) -> None:
        self.address = self._map(self.length, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)

    def guards_stand(self) -> bool:
        return all(ctypes.string_at(first, size) == GUARD * size for first, size in self.guards)

    def free(self) -> None:
        for address, length in self._kept:
            mem_alloc.munmap(address, length)


class MemoryPeer(Peer):
    """A side over memory of a kind; obeys the commands of `Peer`, too."""

    def __init__(self) -> None:
        super().__init__()
        self._chosen: _Memory | None = None

    def create_over(self, kind: str, options: Options, directory: str) -> Address:
        """Open the device and make everything over memory of this kind; the queue pairs stay in RESET."""
        if kind == "allocated":
            return self.create(options, directory)
        os.environ["FFVERBS_DIR"] = directory
        self._o = self._make(options)
        if kind in ("device", "descriptor", "buffer"):
            make = {"device": self._device_memory, "descriptor": self._descriptor, "buffer": self._buffer}[kind]
            self._mr = make(options)
            return self.address()
        self._chosen = _Memory(kind, options.length)
        access = options.access | (e.IBV_ACCESS_ON_DEMAND if kind in ("on demand", "implicit") else 0)
        self._mr = MR(self._o.pd, options.length, access, address=self._chosen.address, implicit=kind == "implicit")
        return self.address()

    def _descriptor(self, options: Options) -> DmaBufMR:
        fd = os.memfd_create("ffverbs-test", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        os.ftruncate(fd, options.length)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        mr = DmaBufMR(self._objects.pd, options.length, options.access, fd)
        os.close(fd)
        return mr

    def _buffer(self, options: Options) -> BufMR:
        return BufMR(self._objects.pd, Buf(self._objects.pd, options.length + 104), options.length, options.access, 104)

    def _device_memory(self, options: Options) -> DMMR:
        """Register device memory from its second word on, so that its place is not that of its addresses."""
        length = (options.length + 7) // 8 * 8
        dm = DM(self._objects.ctx, AllocDmAttr(length + 8))
        return DMMR(self._objects.pd, length, options.access | e.IBV_ACCESS_ZERO_BASED, dm, 8)

    def write(self, data: bytes, offset: int = 0) -> None:
        if isinstance(self._memory, DMMR):  # copies are of whole words
            first, end = offset // 4 * 4, (offset + len(data) + 3) // 4 * 4
            words = bytearray(self._memory.read(end - first, first))
            words[offset - first : offset - first + len(data)] = data
            self._memory.write(words, len(words), first)
        elif isinstance(self._memory, DmaBufMR):
            super().write(data, offset)
        else:
            ctypes.memmove(self._memory.buf + offset, data, len(data))

    def read(self, length: int, offset: int = 0) -> bytes:
        if isinstance(self._memory, DMMR):
            first, end = offset // 4 * 4, (offset + length + 3) // 4 * 4
            return self._memory.read(end - first, first)[offset - first : offset - first + length]
        if isinstance(self._memory, DmaBufMR):
            return super().read(length, offset)
        return ctypes.string_at(self._memory.buf + offset, length)

    # ---- memory that comes and goes ----------------------------------------------------------------------------------

    def unmap(self, offset: int, length: int) -> None:
        """Take whole pages of the memory away."""
        mem_alloc.munmap(self._memory.buf + offset, length)

    def map_anew(self, offset: int, length: int, writable: bool = True) -> None:
        """Put fresh pages in the place of what was there, or was not."""
        prot = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
        mem_alloc.mmap(self._memory.buf + offset, length, prot, flags, -1, 0)

    def map_more(self, length: int) -> int:
        """Map fresh pages somewhere and return how far from the memory's first byte they are."""
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        return mem_alloc.mmap(0, length, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0) - self._memory.buf

    def neighbours_stand(self) -> bool:
        """Whether what shares pages with the memory is as it was."""
        return self._chosen is None or self._chosen.guards_stand()

    def close(self) -> None:
        self.unlimit()
        super().close()
        if self._chosen is not None:
            self._chosen.free()
            self._chosen = None

    # ---- what the kernel permits -----------------------------------------------------------------------------------

    def deny(self) -> None:
        """Become nobody, whom no other nobody may trace."""
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        if _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")

    def errno_of_reading(self, pid: int, address: int) -> int:
        """What process_vm_readv of one byte of another process fails with; 0 if it does not."""
        byte = ctypes.create_string_buffer(1)
        here, there = _IOVec(ctypes.addressof(byte), 1), _IOVec(address, 1)
        if _libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) == 1:
            return 0
        return ctypes.get_errno()

    def limit(self, spare_bytes: int = 1 << 30) -> None:
        """Allow little more address space than is in use: no window on a peer's memory (64 GiB) can be mapped."""
        pages = int(Path("/proc/self/statm").read_bytes().split()[0])
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (pages * PAGE + spare_bytes, hard))

    def unlimit(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))

    def maps_of_peers(self) -> int:
        """How many windows on peers' memory are mapped."""
        maps = Path("/proc/self/maps").read_bytes().splitlines()
        sizes = (int(high, 16) - int(low, 16) for low, high in (line.split()[0].split(b"-") for line in maps))
        return sum(size == 1 << 36 for size in sizes)


# ---- workers ------------------------------------------------------------------------------------------------------

_MAIN = "import sys; from tests.conformance.memory import worker_main; worker_main(sys.argv[1])"


def worker_main(address: str) -> None:
    """Be a worker: connect to the Unix socket at `address` and obey."""
    paths.serve(Client(address, "AF_UNIX"), MemoryPeer())


class MemoryWorkers:
    """Two workers for each way, kept for the session."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ffm-")
        self._root = Path(self._folder.name)
        self._root.chmod(0o755)
        self._kept: dict[str, tuple[Any, Any, Path]] = {}

    def _start(self, way: str) -> tuple[Any, Any, Path]:
        directory = self._root / way
        directory.mkdir(exist_ok=True)
        two = []
        for name in ("one", "two"):
            if way == "containers":
                worker: Any = paths.contain(directory, name, _MAIN)
            else:
                worker = paths.spawn(directory, name, _MAIN)
            two.append(worker)
        if way == "denied":
            os.chown(directory, _NOBODY, _NOBODY)
            for worker in two:
                worker.deny()
        return two[0], two[1], directory

    @contextmanager
    def pair(self, way: str) -> Iterator[Pair]:
        """Yield two sides of the way, which are closed afterwards."""
        two = self._kept.get(way)
        if two is not None and any(worker.broken or worker.busy for worker in two[:2]):
            two[0]._end()
            two[1]._end()
            two = None
        a, b, directory = self._kept[way] = two or self._start(way)
        inside = containers.SHARED_INSIDE if way == "containers" else str(directory)
        try:
            yield Pair(cast(Peer, a), cast(Peer, b), way, inside)
        finally:
            for peer in (b, a):
                if not peer.busy and not peer.broken:
                    with contextlib.suppress(BrokenPipeError):
                        peer.close()

    def close(self) -> None:
        for a, b, _ in self._kept.values():
            a._end()
            b._end()
        self._folder.cleanup()


def over(pair: Pair, kind_a: str, kind_b: str, options: Options, b_options: Options | None = None) -> Pair:
    """Create both sides over memory of these kinds and connect them."""
    a, b = cast(MemoryPeer, pair.a), cast(MemoryPeer, pair.b)
    assert pair._directory is not None
    pair.to_a = a.create_over(kind_a, _allowed(kind_a, options), pair._directory)
    pair.to_b = b.create_over(kind_b, _allowed(kind_b, b_options or options), pair._directory)
    a.connect(pair.to_b)
    b.connect(pair.to_a)
    return pair


def _allowed(kind: str, options: Options) -> Options:
    if kind != "read-only file":
        return options
    return replace(options, access=options.access & ~ALL_ACCESS)
