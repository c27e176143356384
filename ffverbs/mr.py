"""Memory regions and memory windows (pyverbs.mr)."""

import resource
from errno import EINVAL, EOPNOTSUPP
from typing import Any, Final

from ffverbs._cint import check_int, check_u8, check_u32, check_u64
from ffverbs._native import ffi, lib
from ffverbs._struct import EnumMembers, IntField, NumberField, new, row, typed, typed_or_none
from ffverbs.base import Handle, PyverbsCM, PyverbsObject, check, raise_errno
from ffverbs.device import DM, Context
from ffverbs.libibverbs_enums import (
    IBV_ACCESS_HUGETLB,
    IBV_ACCESS_LOCAL_WRITE,
    IBV_ACCESS_ON_DEMAND,
    IBV_REREG_MR_CHANGE_PD,
    IBV_REREG_MR_CHANGE_TRANSLATION,
    IBV_REREG_MR_ERR_CMD,
    IBV_REREG_MR_ERR_INPUT,
    ibv_mw_type,
)
from ffverbs.mem_alloc import (
    MAP_ANONYMOUS_,
    MAP_HUGETLB_,
    MAP_PRIVATE_,
    MAP_SHARED_,
    PROT_READ_,
    PROT_WRITE_,
    mmap,
    munmap,
)
from ffverbs.pd import PD
from ffverbs.pyverbs_error import PyverbsError, PyverbsRDMAError, PyverbsUserError
from ffverbs.utils import rereg_error_to_str

__all__ = [
    "DMMR",
    "HUGE_PAGE_SIZE",
    "MR",
    "MW",
    "Buf",
    "BufMR",
    "DMAHandle",
    "DmaBufMR",
    "DmaHandleInitAttr",
    "MREx",
    "MWBind",
    "MWBindInfo",
    "mwtype2str",
]

HUGE_PAGE_SIZE: Final = 0x200000
PAGE_SIZE: Final = resource.getpagesize()
_WHOLE: Final = (1 << 64) - 1  # SIZE_MAX: bytes of the whole address space

_MW_TYPES: Final = EnumMembers(ibv_mw_type)


class MR(Handle):
    """Registered memory.

    Without `address`, `length` bytes of zeroed, page-aligned memory are allocated for it (huge pages if `access` has
    IBV_ACCESS_HUGETLB); with it, the caller's memory is registered, which stays the caller's. With
    IBV_ACCESS_ON_DEMAND the memory may be unmapped and mapped again between uses; `implicit` with it registers the
    whole address space, and `address` is then only where read() and write() begin. With `handle=` it is an MR of an
    imported PD, imported: `buf` is `address`, or 0.
    """

    __slots__ = ("_buf", "_imported", "_mapped", "_memory", "_pd")
    _GROUPS = ("mws",)

    _buf: int  # address of the memory; 0 if it is not in the address space
    _mapped: tuple[int, int] | None  # memory of ours that the engine does not free: address and bytes
    _memory: Any  # the memory as a buffer

    def __init__(
        self,
        creator: PD,
        length: int = 0,
        access: int = 0,
        address: int | None = None,
        implicit: bool = False,
        **kwargs: Any,
    ) -> None:
        if creator is None:
            raise TypeError("Argument 'creator' must not be None")
        if not isinstance(creator, PD):
            raise PyverbsUserError(f"Cannot create MR from {type(creator)}")
        if kwargs.get("handle") is not None:
            self._import(creator, check_u32(kwargs["handle"]), address)
            return
        self._register(creator, check_u64(length), check_u32(access), address, None, implicit)

    def _register(
        self, pd: PD, length: int, access: int, address: int | None, iova: int | None, implicit: bool
    ) -> None:
        self._pd, self._mapped, self._memory, self._imported = pd, None, None, False
        out = ffi.new("struct ffv_mr **")
        engine_allocates = not access & (IBV_ACCESS_HUGETLB | IBV_ACCESS_ON_DEMAND)
        if address is None and iova is None and not implicit and engine_allocates:
            rc = lib.ffv_alloc_mr(pd._live(), length, access, out)
        else:
            rc = self._register_at(pd, length, access, address, iova, implicit, out)
        check(rc, f"Failed to register a MR. length: {length}, access flags: {access}")
        self._open(out[0])
        if not implicit:
            self._buf = int(ffi.cast("uintptr_t", out[0].addr))
        self._memory = ffi.buffer(ffi.cast("char *", self._buf), length)
        pd._attach(self, "mrs")

    def _import(self, pd: PD, handle: int, address: int | None) -> None:
        """Open the MR of that handle; `address` is where its memory can be read and written here, if it can."""
        self._pd, self._mapped, self._memory, self._imported = pd, None, None, True
        out = ffi.new("struct ffv_mr **")
        check(lib.ffv_import_mr(pd._live(), handle, out), f"Failed to import MR with handle {handle}")
        self._open(out[0])
        self._buf = check_u64(address or 0)
        if self._buf:
            self._memory = ffi.buffer(ffi.cast("char *", self._buf), out[0].length)
        pd._attach(self, "mrs")

    def _register_at(
        self, pd: PD, length: int, access: int, address: int | None, iova: int | None, implicit: bool, out: Any
    ) -> int:
        handle = pd._live()
        self._buf = self._map(length, access) if address is None else check_u64(address)
        if implicit:
            first, size, iova = 0, _WHOLE, check_u64(iova or 0)
        else:
            first, size, iova = self._buf, length, self._buf if iova is None else check_u64(iova)
        rc: int = lib.ffv_reg_mr(handle, ffi.cast("void *", first), size, iova, access, out)
        if rc < 0:
            self._unmap()
        return rc

    def _register_fd(self, pd: PD, length: int, access: int, fd: int, offset: int, iova: int, what: str) -> None:
        self._pd, self._buf, self._mapped, self._memory, self._imported = pd, 0, None, None, False
        out = ffi.new("struct ffv_mr **")
        check(lib.ffv_reg_dmabuf_mr(pd._live(), offset, length, check_u64(iova), fd, access, out), what)
        self._open(out[0])
        # A mapping of our own to read and write through, on whole pages.
        before = offset % PAGE_SIZE
        prot = PROT_READ_ | (PROT_WRITE_ if access & IBV_ACCESS_LOCAL_WRITE else 0)
        address = mmap(length=length + before, prot=prot, flags=MAP_SHARED_, fd=fd, offset=offset - before)
        self._mapped = (address, length + before)
        self._memory = ffi.buffer(ffi.cast("char *", address + before), length)
        pd._attach(self, "mrs")

    def _register_buf(self, pd: PD, buf: "Buf", length: int, access: int, offset: int, iova: int | None) -> None:
        self._pd, self._mapped, self._imported = pd, None, False
        length = length or max(buf.size - offset, 0)
        self._buf = buf.addr + offset
        out = ffi.new("struct ffv_mr **")
        first = self._buf if iova is None else check_u64(iova)
        rc = lib.ffv_reg_buf_mr(pd._live(), buf._live(), offset, length, first, access, out)
        check(rc, f"Failed to register a MR. length: {length}, access flags: {access}")
        self._open(out[0])
        self._memory = ffi.buffer(ffi.cast("char *", self._buf), length)
        pd._attach(self, "mrs")
        buf._attach(self, "mrs")

    def _map(self, length: int, access: int) -> int:
        """Map memory of our own, of huge pages if asked for, and return its address."""
        huge = bool(access & IBV_ACCESS_HUGETLB)
        size = -(-length // HUGE_PAGE_SIZE) * HUGE_PAGE_SIZE if huge else max(length, 1)
        flags = MAP_PRIVATE_ | MAP_ANONYMOUS_ | (MAP_HUGETLB_ if huge else 0)
        try:
            address = mmap(length=size, prot=PROT_READ_ | PROT_WRITE_, flags=flags, fd=-1)
        except MemoryError as error:
            hint = ": are there huge pages in /proc/sys/vm/nr_hugepages?" if huge else ""
            raise PyverbsError(f"Failed to allocate MR buffer of size {size}{hint}") from error
        self._mapped = (address, size)
        return address

    def _unmap(self) -> None:
        mapped, self._mapped = self._mapped, None
        if mapped is not None:
            munmap(*mapped)

    @property
    def buf(self) -> int:
        """Address of the memory."""
        self._live()
        return self._buf

    @property
    def lkey(self) -> int:
        """The key for one's own work requests."""
        return int(self._live().lkey)

    @property
    def rkey(self) -> int:
        """The key for peers."""
        return int(self._live().rkey)

    @property
    def length(self) -> int:
        """Bytes."""
        return int(self._live().length)

    @property
    def handle(self) -> int:
        """The engine's number of the MR."""
        return int(self._live().handle)

    def write(self, data: str | bytes | bytearray | memoryview, length: int, offset: int = 0) -> None:
        """Copy the first `length` bytes of `data` (str as UTF-8) to `offset` bytes into the memory.

        PyverbsUserError if that is more than the data or the memory has.
        """
        if isinstance(data, str):
            data = data.encode()
        self._check_range(length, offset)
        view = memoryview(data).cast("B")
        if length > len(view):
            raise PyverbsUserError(f"Cannot write {length} bytes: the data has only {len(view)}")
        self._memory[offset : offset + length] = view[:length]

    def read(self, length: int, offset: int) -> bytes:
        """Return `length` bytes from `offset` bytes into the memory; PyverbsUserError outside of it."""
        self._check_range(length, offset)
        data: bytes = self._memory[offset : offset + length]
        return data

    def _check_range(self, length: int, offset: int) -> None:
        self._live()
        if offset < 0:
            raise PyverbsUserError(f"Invalid offset {offset}: it must not be negative")
        if length < 0:
            raise PyverbsUserError(f"Invalid length {length}: it must not be negative")
        if self._memory is None:
            raise PyverbsUserError("The memory of an imported MR is not at a known address: give it as `address`")
        if offset + length > len(self._memory):
            raise PyverbsUserError(
                f"Cannot access {length} bytes at offset {offset}: the MR has {len(self._memory)} bytes"
            )

    def rereg(self, flags: int, pd: PD | None = None, addr: int = 0, length: int = 0, access: int = 0) -> None:
        """Change what `flags`, a mask of ibv_rereg_mr_flags, names: domain, memory, or access; the keys stay.

        Memory that was allocated for the MR is given back when other memory takes its place.
        """
        mr, flags = self._live(), check_u32(flags)
        domain = typed_or_none("pd", pd, PD)
        address, length = ffi.cast("void *", check_u64(addr)), check_u64(length)
        handle = ffi.NULL if domain is None else domain._live()
        rc = lib.ffv_rereg_mr(mr, flags, handle, address, length, check_u32(access))
        if rc < 0:
            step = IBV_REREG_MR_ERR_INPUT if rc == -EINVAL else IBV_REREG_MR_ERR_CMD
            raise_errno(-rc, f"Failed to rereg MR: {rereg_error_to_str(step)}")
        if flags & IBV_REREG_MR_CHANGE_TRANSLATION:
            self._buf = int(ffi.cast("uintptr_t", mr.addr))
            self._memory = ffi.buffer(mr.addr, mr.length)
            self._unmap()
        if flags & IBV_REREG_MR_CHANGE_PD and domain is not None and domain is not self._pd:
            old, self._pd = self._pd, domain
            domain._attach(self, "mrs")
            old._detach(self)

    def unimport(self) -> None:
        """Give an imported MR up; one of one's own is left as it is."""
        if self._imported:
            self.close()

    def _destroy(self, handle: Any) -> None:
        check(lib.ffv_unimport_mr(handle) if self._imported else lib.ffv_dereg_mr(handle), "Failed to dereg MR")
        self._memory = None
        self._unmap()

    def __str__(self) -> str:
        return "MR:\n" + "".join(row(name, getattr(self, name)) for name in ("lkey", "rkey", "length", "buf", "handle"))


class MWBindInfo(PyverbsCM):
    """What a memory window opens: `length` bytes at `addr` of an MR, and which access."""

    __slots__ = ("_c", "_mr")

    def __init__(self, mr: MR, addr: int, length: int, mw_access_flags: int) -> None:
        self._mr = typed("mr", mr, MR)
        self._c = new("mw_bind_info", addr=addr, length=length, mw_access_flags=mw_access_flags)
        self._c.mr = mr._live()

    addr = IntField("addr", "Address of the window's first byte.", readonly=True)
    length = IntField("length", "Bytes; 0 closes the window.", readonly=True)
    mw_access_flags = IntField("mw_access_flags", "Mask of ibv_access_flags.", readonly=True)

    def __str__(self) -> str:
        return (
            "MWBindInfo:\n"
            + row("Addr", self.addr)
            + row("Length", self.length)
            + row("MW access flags", self.mw_access_flags)
        )


class MWBind(PyverbsCM):
    """A request to bind a memory window of type 1, for QP.bind_mw()."""

    __slots__ = ("_info", "_send_flags", "_wr_id")

    def __init__(self, info: MWBindInfo, send_flags: int, wr_id: int = 0) -> None:
        self._info = typed("info", info, MWBindInfo)
        self._send_flags = check_u32(send_flags)
        self._wr_id = check_u64(wr_id)

    def __str__(self) -> str:
        return "MWBind:\n" + row("WR id", self._wr_id) + row("Send flags", self._send_flags)


class MW(Handle):
    """A memory window: a key for a part of an MR, that can be given and taken away with work requests."""

    __slots__ = ("_pd", "_type")

    def __init__(self, pd: PD, mw_type: int) -> None:
        self._pd = typed("pd", pd, PD)
        self._type = check_u32(mw_type)
        out = ffi.new("struct ffv_mw **")
        check(lib.ffv_alloc_mw(pd._live(), self._type, out), "Failed to allocate MW")
        self._open(out[0])
        pd._attach(self, "mws")

    @property
    def rkey(self) -> int:
        """The key for peers; binding changes it."""
        return int(lib.ffv_mw_rkey(self._live()))

    @property
    def handle(self) -> int:
        """The engine's number of the window: its key without the consumer's byte."""
        return self.rkey >> 8

    @property
    def type(self) -> ibv_mw_type:
        """Type 1 (bound by QP.bind_mw()) or 2 (bound by work requests)."""
        return _MW_TYPES[self._type]

    def _destroy(self, handle: Any) -> None:
        check(lib.ffv_dealloc_mw(handle), "Failed to dealloc MW")

    def __str__(self) -> str:
        return "MW:\n" + row("Rkey", self.rkey) + row("Handle", self.handle) + row("MW Type", mwtype2str(self._type))


def mwtype2str(mw_type: int) -> str:
    """Return the name of an ibv_mw_type."""
    return {1: "IBV_MW_TYPE_1", 2: "IBV_MW_TYPE_2"}.get(mw_type, f"Unknown MW type ({mw_type})")


class DMMR(MR):
    """An MR over `length` bytes of device memory from `offset` on; `access` must have IBV_ACCESS_ZERO_BASED.

    Its addresses in work requests begin at 0. `read()` and `write()` copy as DM does.
    """

    __slots__ = ("_dm", "_offset")

    def __init__(self, pd: PD, length: int, access: int, dm: DM, offset: int) -> None:
        domain, self._dm = typed("pd", pd, PD), typed("dm", dm, DM)
        length, access, self._offset = check_u64(length), check_u32(access), check_u64(offset)
        self._pd, self._buf, self._mapped, self._memory = domain, 0, None, None
        self._imported = False
        out = ffi.new("struct ffv_mr **")
        rc = lib.ffv_reg_dm_mr(domain._live(), dm._live(), self._offset, length, access, out)
        check(rc, f"Failed to register a device MR. length: {length}, access flags: {access}")
        self._open(out[0])
        domain._attach(self, "mrs")
        dm._attach(self, "mrs")

    def write(self, data: str | bytes | bytearray | memoryview, length: int, offset: int = 0) -> None:
        """Copy the first `length` bytes of `data` (str as UTF-8) to `offset` bytes into the MR; errors as DM's."""
        self._live()
        self._dm.copy_to_dm(self._offset + offset, data.encode() if isinstance(data, str) else data, length)

    def read(self, length: int, offset: int) -> bytes:
        """Return `length` bytes from `offset` bytes into the MR; errors as DM's."""
        self._live()
        return self._dm.copy_from_dm(self._offset + offset, length)


class DmaBufMR(MR):
    """An MR over `length` bytes at `offset` of a dma-buf; its addresses in work requests begin at `offset`.

    `dmabuf` is the descriptor of a dma-buf that can be mapped, or of a memfd that is sealed against shrinking
    (F_SEAL_SHRINK); it may be closed afterwards. Memory of a GPU (no descriptor, or a DmaBuf) raises EOPNOTSUPP.
    """

    __slots__ = ("_dmabuf", "_offset")

    def __init__(
        self,
        pd: PD,
        length: int,
        access: int,
        dmabuf: int | None = None,
        offset: int = 0,
        gpu: int = 0,
        gtt: int = 0,
    ) -> None:
        domain, length, access, offset = typed("pd", pd, PD), check_u64(length), check_u32(access), check_u64(offset)
        what = f"Failed to register a dma-buf MR. length: {length}, access flags: {access}"
        if dmabuf is None:
            raise PyverbsRDMAError(f"{what}: there is no GPU's memory, give a descriptor", EOPNOTSUPP)
        self._dmabuf, self._offset = check_int(dmabuf), offset
        self._register_fd(domain, length, access, self._dmabuf, offset, offset, what)

    @property
    def offset(self) -> int:
        """Where the MR begins in the dma-buf."""
        return self._offset

    @property
    def dmabuf(self) -> int:
        """The descriptor, as it was given."""
        return self._dmabuf


class DmaHandleInitAttr(PyverbsObject):
    """Attributes of a DMA handle."""

    __slots__ = ("_comp_mask", "_cpu_id", "_ph", "_tph_mem_type")

    def __init__(self, comp_mask: int = 0, cpu_id: int = 0, ph: int = 0, tph_mem_type: int = 0) -> None:
        self.comp_mask = comp_mask
        self.cpu_id = cpu_id
        self.ph = ph
        self.tph_mem_type = tph_mem_type

    comp_mask = NumberField("comp_mask", check_u32, "Mask of ibv_dmah_init_attr_mask: attributes that are set.")
    cpu_id = NumberField("cpu_id", check_u32, "The CPU whose cache is meant.")
    ph = NumberField("ph", check_u8, "Processing hint.")
    tph_mem_type = NumberField("tph_mem_type", check_u8, "An ibv_tph_mem_type.")

    def __str__(self) -> str:
        return "".join(row(name, getattr(self, name)) for name in ("comp_mask", "cpu_id", "ph", "tph_mem_type"))


class DMAHandle(PyverbsCM):
    """Hints for the PCI accesses of a real device: construction raises EOPNOTSUPP."""

    __slots__ = ()

    def __init__(self, ctx: Context, init_attr: DmaHandleInitAttr) -> None:
        typed("ctx", ctx, Context)
        typed("init_attr", init_attr, DmaHandleInitAttr)
        raise PyverbsRDMAError("Failed to allocate a DMA handle: there is no DMA", EOPNOTSUPP)


class Buf(Handle):
    """A zeroed buffer of `size` bytes for BufMR, which peers map directly."""

    __slots__ = ("_pd", "_size")
    _GROUPS = ("mrs",)

    def __init__(self, pd: PD, size: int) -> None:
        self._pd, self._size = typed("pd", pd, PD), check_u64(size)
        out = ffi.new("struct ffv_buf **")
        check(lib.ffv_alloc_buf(pd._live(), self._size, out), f"Failed to allocate a buffer of {self._size} bytes")
        self._open(out[0])
        pd._attach(self, "bufs")

    @property
    def addr(self) -> int:
        """Address of the buffer."""
        return int(ffi.cast("uintptr_t", lib.ffv_buf_addr(self._live())))

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size

    def export_dmabuf_fd(self) -> int:
        """Raise EOPNOTSUPP: the buffer is no dma-buf."""
        self._live()
        raise PyverbsRDMAError("Failed to export Buf as a dma-buf: it is none", EOPNOTSUPP)

    def _destroy(self, handle: Any) -> None:
        check(lib.ffv_free_buf(handle), "Failed to free buffer")

    def __str__(self) -> str:
        return "Buf:\n" + row("addr", self.addr) + row("size", self.size)


class BufMR(MR):
    """An MR over `length` bytes of a Buf from `offset` on; without a length, over the rest of it."""

    __slots__ = ("_of",)

    def __init__(self, pd: PD, buf: Buf, length: int = 0, access: int = 0, offset: int = 0) -> None:
        domain, self._of = typed("pd", pd, PD), typed("buf", buf, Buf)
        self._register_buf(domain, buf, check_u64(length), check_u32(access), check_u64(offset), None)


class MREx(MR):
    """An MR with a choice of `iova`, the address that peers and work requests use for its first byte.

    Of the process's memory as MR, of a descriptor (`fd`, from `fd_offset` on, as DmaBufMR), or of a `buf` as BufMR.
    """

    __slots__ = ("_of",)

    def __init__(
        self,
        pd: PD,
        length: int = 0,
        access: int = 0,
        address: int | None = None,
        iova: int | None = None,
        fd: int | None = None,
        fd_offset: int = 0,
        dmah: DMAHandle | None = None,
        implicit: bool = False,
        buf: Buf | None = None,
        **kwargs: Any,
    ) -> None:
        domain, length, access = typed("pd", pd, PD), check_u64(length), check_u32(access)
        offset, self._of = check_u64(fd_offset), typed_or_none("buf", buf, Buf)
        what = f"Failed to register a MR. length: {length}, access flags: {access}"
        if dmah is not None:
            raise PyverbsRDMAError(f"{what}: there is no DMA to give hints for", EOPNOTSUPP)
        if (address is not None) + (fd is not None) + (buf is not None) + bool(implicit) > 1:
            raise PyverbsUserError(f"{what}: give one of address, fd, buf and implicit")
        if kwargs.get("handle") is not None:
            self._import(domain, check_u32(kwargs["handle"]), address)
        elif fd is not None:
            self._register_fd(domain, length, access, check_int(fd), offset, offset if iova is None else iova, what)
        elif buf is not None:
            self._register_buf(domain, buf, length, access, 0, iova)
        else:
            self._register(domain, length, access, address, iova, implicit)
