"""What tests of verbs ask of a side, and what it answers: values that can be pickled, for the side may be anywhere."""

import os
import random
from dataclasses import dataclass

import ffverbs.libibverbs_enums as e
from ffverbs.cq import WC

__all__ = [
    "ALL_ACCESS",
    "DEADLINE_S",
    "GID_INDEX",
    "GRH_BYTES",
    "PATIENCE",
    "QKEY",
    "RC",
    "UC",
    "UD",
    "XRC",
    "Address",
    "Done",
    "Options",
    "Piece",
    "Recv",
    "Send",
    "pattern",
]

RC, UC, UD = int(e.IBV_QPT_RC), int(e.IBV_QPT_UC), int(e.IBV_QPT_UD)
XRC = int(e.IBV_QPT_XRC_SEND)
ALL_ACCESS = int(
    e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ | e.IBV_ACCESS_REMOTE_ATOMIC
)
GID_INDEX = 1
QKEY = 0x11111111
GRH_BYTES = 40
PATIENCE = float(os.environ.get("FFVERBS_TEST_PATIENCE", "1"))  # how many times longer all may take: emulated machines
# How long anything that must happen may take: only there to turn a hang into a failure.
DEADLINE_S = 60.0 * PATIENCE

Piece = tuple[int, int] | tuple[int, int, int]  # offset in the side's memory, bytes, another key than the memory's


@dataclass(frozen=True)
class Options:
    """What a side makes for itself: sizes, queues, access."""

    qp_type: int = RC
    send_wr: int = 16
    recv_wr: int = 16
    send_sge: int = 4
    recv_sge: int = 4
    inline: int = 64
    sig_all: bool = False
    send_cqe: int = 64
    recv_cqe: int = 64
    channel: bool = False
    cq_fields: int | None = None  # extended completion queues with these fields (ibv_create_cq_wc_flags)
    send_ops: int = 0  # extended queue pairs with these operations (ibv_qp_create_send_ops_flags)
    cq_flags: int = 0  # of extended completion queues (ibv_create_cq_attr_flags)
    srq_wr: int = 0  # more than 0: receive through a shared queue of this size
    tags: int = 0  # more than 0: which matches this many tags
    length: int = 65536
    access: int = ALL_ACCESS  # of the memory
    qps: int = 1
    domain: str = ""  # XRC: path of the file that names the domain, inside FFVERBS_DIR; "" is an anonymous one


@dataclass(frozen=True)
class Address:
    """What the other side has to know: GID, QP numbers, and the memory by its first address, bytes and key."""

    gid: str
    qpns: tuple[int, ...]
    addr: int
    length: int
    rkey: int
    lkey: int
    targets: tuple[int, ...] = ()  # XRC: the queue pairs that receive; `qpns` are those that send
    srqn: int = 0

    @property
    def qpn(self) -> int:
        return self.qpns[0]


@dataclass(frozen=True)
class Send:
    """A send request; `to` and `qkey` for UD, `remote` and the operands for RDMA and atomics."""

    wr_id: int = 1
    opcode: int = int(e.IBV_WR_SEND)
    pieces: tuple[Piece, ...] = ((0, 8),)
    flags: int = int(e.IBV_SEND_SIGNALED)
    imm: int = 0
    remote: int = 0
    rkey: int = 0
    compare_add: int = 0
    swap: int = 0
    to: Address | None = None
    qkey: int = QKEY
    srqn: int | None = None  # XRC: another queue than the one of the side that it is connected to


@dataclass(frozen=True)
class Recv:
    """A receive request."""

    wr_id: int = 1
    pieces: tuple[Piece, ...] = ((0, 1024),)


@dataclass(frozen=True)
class Done:
    """A completion."""

    wr_id: int
    status: int
    opcode: int
    byte_len: int
    imm: int
    qp_num: int
    src_qp: int
    flags: int

    @classmethod
    def of(cls, wc: WC) -> "Done":
        numbers = (wc.wr_id, wc.status, wc.opcode, wc.byte_len, wc.imm_data, wc.qp_num, wc.src_qp, wc.wc_flags)
        return cls(*(int(number) for number in numbers))

    @property
    def ok(self) -> bool:
        return self.status == e.IBV_WC_SUCCESS


def pattern(length: int, seed: int) -> bytes:
    """Return `length` bytes that depend on the seed; no two 1 MiB pieces of one pattern are the same at one offset."""
    block = random.Random(seed).randbytes(min(length, (1 << 20) + 7))
    return (block * (length // len(block) + 1))[:length] if block else b""
