"""Scatter/gather elements and work requests (pyverbs.wr).

Every object holds the engine's struct from its construction on and its setters write through to it: posting is one
call with that struct, without conversion. As in pyverbs, a work request copies its scatter/gather elements when it is
made; what it points to (the next request, an address handle, a memory window) is kept alive by it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from ffverbs._cint import check_u32, check_u64
from ffverbs._native import ffi
from ffverbs._struct import CLOSED, EnumField, IntField, row, typed
from ffverbs.base import PyverbsCM, inc_rkey
from ffverbs.libibverbs_enums import (
    IBV_SEND_FENCE,
    IBV_SEND_INLINE,
    IBV_SEND_IP_CSUM,
    IBV_SEND_SIGNALED,
    IBV_SEND_SOLICITED,
    IBV_WR_BIND_MW,
    IBV_WR_LOCAL_INV,
    IBV_WR_SEND,
    IBV_WR_SEND_WITH_INV,
    ibv_wr_opcode,
)
from ffverbs.pyverbs_error import PyverbsUserError

if TYPE_CHECKING:
    from ffverbs.addr import AH
    from ffverbs.mr import MW, MWBindInfo

__all__ = ["SGE", "RecvWR", "SendWR", "send_flags_to_str"]

_NULL: Final = ffi.NULL
_new_sge: Final = ffi.typeof("struct ffv_sge *")
_new_sges: Final = ffi.typeof("struct ffv_sge[]")
_new_send_wr: Final = ffi.typeof("struct ffv_send_wr *")
_new_recv_wr: Final = ffi.typeof("struct ffv_recv_wr *")
_new: Final = ffi.new

# Opcodes that may do without scatter/gather elements, as in pyverbs. (The verbs allow none for every send and write;
# give a list with one element of length 0 for these.)
_WITHOUT_SGE: Final = frozenset({int(IBV_WR_LOCAL_INV), int(IBV_WR_BIND_MW), int(IBV_WR_SEND_WITH_INV)})


class SGE(PyverbsCM):
    """A piece of registered memory: address, length in bytes, and the local key of its MR."""

    __slots__ = ("_c",)

    def __init__(self, addr: int, length: int, lkey: int) -> None:
        c = self._c = _new(_new_sge)
        try:
            c.addr = addr
            c.length = length
            c.lkey = lkey
        except (TypeError, OverflowError):
            c.addr, c.length, c.lkey = check_u64(addr), check_u32(length), check_u32(lkey)

    addr = IntField("addr", "Address of the first byte.")
    length = IntField("length", "Length in bytes; 0 stands for none here, not for 2^31.")
    lkey = IntField("lkey", "Local key of the memory.")

    def close(self) -> None:
        """Forget the element; work requests made from it have their copy."""
        self._c = CLOSED

    def read(self, length: int, offset: int) -> bytes:
        """Return `length` bytes of the memory from `offset` bytes on; PyverbsUserError outside the element."""
        if length < 0 or offset < 0 or offset + length > self._c.length:
            raise PyverbsUserError(f"Cannot read {length} bytes at offset {offset}: the SGE has {self._c.length} bytes")
        return bytes(ffi.buffer(ffi.cast("char *", self._c.addr + offset), length))

    def __str__(self) -> str:
        return row("Address", f"{self.addr:#x}") + row("Length", self.length) + row("Key", f"{self.lkey:#x}")


def _copy_sges(sg: Sequence[SGE] | None, num_sge: int) -> Any:
    """Return the engine's array of the first `num_sge` elements of `sg` (NULL for none)."""
    if not sg or num_sge <= 0:
        return _NULL
    if num_sge > len(sg):
        raise IndexError(f"num_sge is {num_sge}, but the list has only {len(sg)} SGEs")
    array = _new(_new_sges, num_sge)
    for i in range(num_sge):
        array[i] = typed("sg", sg[i], SGE)._c[0]
    return array


def _owner_of(struct: Any, first: Any) -> Any:
    """Return the request of the chain that begins with `first` whose struct is `struct`; `first` if there is none."""
    wr = first
    while wr is not None:
        if wr._c == struct:
            return wr
        wr = wr._next
        if wr is first:
            break
    return first


class RecvWR(PyverbsCM):
    """A receive request. `num_sge` elements of the list `sg` are copied; `next_wr` is posted with it."""

    __slots__ = ("_c", "_next", "_sges")

    def __init__(
        self, wr_id: int = 0, num_sge: int = 0, sg: Sequence[SGE] | None = None, next_wr: "RecvWR | None" = None
    ) -> None:
        if num_sge < 1 or sg is None:
            raise PyverbsUserError("A WR needs at least one SGE")
        self._sges = _copy_sges(sg, num_sge)
        self._next: Any = None
        c = self._c = _new(_new_recv_wr)
        try:
            c.wr_id = wr_id
        except (TypeError, OverflowError):
            c.wr_id = check_u64(wr_id)
        c.num_sge = num_sge
        c.sg_list = self._sges
        if next_wr is not None:
            self.next_wr = next_wr

    wr_id = IntField("wr_id", "The caller's number, returned in the completion.")
    num_sge = IntField("num_sge", "How many elements of the list are used.")

    @property
    def sg_list(self) -> int:
        """Address of the engine's copy of the list."""
        return int(ffi.cast("uintptr_t", self._c.sg_list))

    @property
    def next_wr(self) -> "RecvWR | None":
        """The request that is posted after this one."""
        wr: RecvWR | None = self._next
        return wr

    @next_wr.setter
    def next_wr(self, val: "RecvWR") -> None:
        wr = typed("val", val, RecvWR)
        self._c.next = wr._c
        self._next = wr

    def close(self) -> None:
        """Forget the request; what was posted stays posted."""
        self._c, self._next = CLOSED, None

    def _copy_from(self, struct: Any, first: "RecvWR") -> None:
        """Become a copy of the request of the chain from `first` on that has this struct."""
        owner: RecvWR = _owner_of(struct, first)
        self._c[0] = owner._c[0]
        self._sges, self._next = owner._sges, owner._next

    def __str__(self) -> str:
        return row("WR ID", self.wr_id) + row("Num SGE", self.num_sge)


class SendWR(PyverbsCM):
    """A send request: which operation, with which memory, and after `set_wr_*`, on what at the other side.

    `imm_data` is the raw word: immediate data in network order, or the key to invalidate in host order.
    """

    __slots__ = ("_c", "_keep", "_next", "_sges")

    def __init__(
        self,
        wr_id: int = 0,
        opcode: int = IBV_WR_SEND,
        num_sge: int = 0,
        imm_data: int = 0,
        sg: Sequence[SGE] | None = None,
        send_flags: int = IBV_SEND_SIGNALED,
        next_wr: "SendWR | None" = None,
    ) -> None:
        if (num_sge < 1 or sg is None) and opcode not in _WITHOUT_SGE:
            raise PyverbsUserError("A WR needs at least one SGE")
        self._sges = _copy_sges(sg, num_sge)
        self._keep: Any = None
        self._next: Any = None
        c = self._c = _new(_new_send_wr)
        try:
            c.wr_id = wr_id
            c.opcode = opcode
            c.send_flags = send_flags
            c.imm_data_be = imm_data
        except (TypeError, OverflowError):
            c.wr_id, c.opcode = check_u64(wr_id), check_u32(opcode)
            c.send_flags, c.imm_data_be = check_u32(send_flags), check_u32(imm_data)
        c.num_sge = num_sge
        c.sg_list = self._sges
        if next_wr is not None:
            self.next_wr = next_wr

    wr_id = IntField("wr_id", "The caller's number, returned in the completion.")
    num_sge = IntField("num_sge", "How many elements of the list are used.")
    imm_data = IntField("imm_data_be", "Immediate data (raw, network order), or the key to invalidate (host order).")
    opcode = EnumField("opcode", ibv_wr_opcode, "The operation.")
    send_flags = IntField("send_flags", "Mask of ibv_send_flags.")
    rkey = IntField("tail.bind_mw.rkey", "Key that the memory window gets by this request.", readonly=True)
    rdma_remote_addr = IntField("wr.rdma.remote_addr", "Address at the other side.", readonly=True)
    rdma_rkey = IntField("wr.rdma.rkey", "Key of the memory at the other side.", readonly=True)

    @property
    def sg_list(self) -> int:
        """Address of the engine's copy of the list; set an SGE to replace the list by this one element."""
        return int(ffi.cast("uintptr_t", self._c.sg_list))

    @sg_list.setter
    def sg_list(self, val: SGE) -> None:
        element = typed("val", val, SGE)
        self._sges = _copy_sges([element], 1)
        self._c.sg_list = self._sges
        self._c.num_sge = 1

    @property
    def next_wr(self) -> "SendWR | None":
        """The request that is posted after this one."""
        wr: SendWR | None = self._next
        return wr

    @next_wr.setter
    def next_wr(self, val: "SendWR") -> None:
        wr = typed("val", val, SendWR)
        self._c.next = wr._c
        self._next = wr

    def close(self) -> None:
        """Forget the request; what was posted stays posted."""
        self._c, self._next, self._keep = CLOSED, None, None

    def set_wr_ud(self, ah: "AH", rqpn: int, rqkey: int) -> None:
        """Address a UD request: the handle, the number of the other QP, and its Q_Key."""
        from ffverbs.addr import AH  # noqa: PLC0415 - addr's imports lead here

        handle = typed("ah", ah, AH)._live()
        ud = self._c.wr.ud
        ud.remote_qpn, ud.remote_qkey, ud.ah = check_u32(rqpn), check_u32(rqkey), handle
        self._keep = ah

    def set_wr_rdma(self, rkey: int, addr: int) -> None:
        """Say which memory of the other side an RDMA read or write is about."""
        rdma = self._c.wr.rdma
        try:
            rdma.remote_addr = addr
            rdma.rkey = rkey
        except (TypeError, OverflowError):
            rdma.remote_addr, rdma.rkey = check_u64(addr), check_u32(rkey)

    def set_wr_atomic(self, rkey: int, addr: int, compare_add: int, swap: int = 0) -> None:
        """Say which 8 bytes of the other side an atomic is about, and its operands (host order)."""
        atomic = self._c.wr.atomic
        try:
            atomic.remote_addr = addr
            atomic.compare_add = compare_add
            atomic.swap = swap
            atomic.rkey = rkey
        except (TypeError, OverflowError):
            atomic.remote_addr, atomic.compare_add = check_u64(addr), check_u64(compare_add)
            atomic.swap, atomic.rkey = check_u64(swap), check_u32(rkey)

    def set_bind_wr(self, mw: "MW", bind_info: "MWBindInfo") -> None:
        """Bind a memory window of type 2; `rkey` is then the window's new key, its old one counted up."""
        from ffverbs.mr import MW, MWBindInfo  # noqa: PLC0415 - mr's imports lead here

        window, info = typed("mw", mw, MW), typed("bind_info", bind_info, MWBindInfo)
        bind = self._c.tail.bind_mw
        bind.mw = window._live()
        bind.rkey = inc_rkey(window.rkey)
        bind.bind_info = info._c[0]
        self._keep = (window, info)

    def set_qp_type_xrc(self, remote_srqn: int) -> None:
        """Name the SRQ at the other side that an XRC request goes to."""
        self._c.xrc_remote_srqn = check_u32(remote_srqn)

    def _copy_from(self, struct: Any, first: "SendWR") -> None:
        """Become a copy of the request of the chain from `first` on that has this struct."""
        owner: SendWR = _owner_of(struct, first)
        self._c[0] = owner._c[0]
        self._sges, self._next, self._keep = owner._sges, owner._next, owner._keep

    def __str__(self) -> str:
        # The flags are followed by no line end and the whole by two: pyverbs' form.
        flags = f"{'Send flags':<22}: {send_flags_to_str(self.send_flags)}"
        return (
            row("WR ID", self.wr_id)
            + row("Num SGE", self.num_sge)
            + row("Opcode", self.opcode)
            + flags
            + row("Imm Data", self.imm_data)
            + "\n"
        )


_SEND_FLAGS: Final = {
    int(IBV_SEND_FENCE): "IBV_SEND_FENCE",
    int(IBV_SEND_SIGNALED): "IBV_SEND_SIGNALED",
    int(IBV_SEND_SOLICITED): "IBV_SEND_SOLICITED",
    int(IBV_SEND_INLINE): "IBV_SEND_INLINE",
    int(IBV_SEND_IP_CSUM): "IBV_SEND_IP_CSUM",
}


def send_flags_to_str(flags: int) -> str:
    """Return the names of the flags in the mask, each followed by a space."""
    return "".join(f"{name} " for bit, name in _SEND_FLAGS.items() if flags & bit)
