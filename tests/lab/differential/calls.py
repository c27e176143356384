"""The vocabulary of generated sequences of verbs calls: constants of the specification, objects, work requests.

A call is a dictionary: "do" names it (`do_...` in interpret.py), the rest are its arguments. Objects have names whose
letters say what they are: pd, cq, mr, srq, qp, ah, mw. A scatter/gather entry is [region, offset, length, change of its
key]; a key is changed by exclusive or, so that 0 leaves it right.
"""

import random
from typing import Any

Call = dict[str, Any]

RC, UC, UD = 2, 3, 4
RESET, INIT, RTR, RTS, SQD, SQE, ERR = range(7)
WRITE, WRITE_IMM, SEND, SEND_IMM, READ, SWAP, ADD, LOCAL_INV, BIND, SEND_INV = range(10)
FENCE, SIGNALED, SOLICITED, INLINE = 1, 2, 4, 8
LOCAL_WRITE, REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC, MW_BIND = 1, 2, 4, 8, 16
EVERYTHING = LOCAL_WRITE | REMOTE_WRITE | REMOTE_READ | REMOTE_ATOMIC | MW_BIND
QKEY = 0x1111

STATE, CUR, NOTIFY, ACCESS, PKEY, PORT, QKEY_MASK, AV, MTU, TIMEOUT, RETRY, RNR = (1 << n for n in range(12))
RQ_PSN, RD, ALT, RNR_TIMER, SQ_PSN, DEST_RD, MIG, CAP, DEST = (1 << n for n in range(12, 21))

# What a transition needs (IBA, table 91).
MASKS = {
    (RC, INIT): STATE | PKEY | PORT | ACCESS,
    (UC, INIT): STATE | PKEY | PORT | ACCESS,
    (UD, INIT): STATE | PKEY | PORT | QKEY_MASK,
    (RC, RTR): STATE | AV | MTU | DEST | RQ_PSN | DEST_RD | RNR_TIMER,
    (UC, RTR): STATE | AV | MTU | DEST | RQ_PSN,
    (UD, RTR): STATE,
    (RC, RTS): STATE | TIMEOUT | RETRY | RNR | SQ_PSN | RD,
    (UC, RTS): STATE | SQ_PSN,
    (UD, RTS): STATE | SQ_PSN,
}
# Values that are allowed: patient, because an emulated machine is slow.
VALUES: dict[str, Any] = {
    "qp_access_flags": LOCAL_WRITE | REMOTE_WRITE | REMOTE_READ | REMOTE_ATOMIC,
    "pkey_index": 0,
    "port_num": 1,
    "qkey": QKEY,
    "path_mtu": 3,
    "rq_psn": 0,
    "sq_psn": 0,
    "max_dest_rd_atomic": 4,
    "max_rd_atomic": 4,
    "min_rnr_timer": 1,
    "timeout": 18,
    "retry_cnt": 3,
    "rnr_retry": 2,
}
# Values at and beyond the limits.
ODD_VALUES: dict[str, list[int]] = {
    "pkey_index": [1, 100],
    "port_num": [0, 2, 255],
    "path_mtu": [1, 2, 4, 5],
    "max_dest_rd_atomic": [0, 1, 128],
    "max_rd_atomic": [0, 1, 128],
    "min_rnr_timer": [0, 31],
    "timeout": [0, 31],
    "retry_cnt": [0, 7],
    "rnr_retry": [0, 7],
    "qp_access_flags": [0, LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE],
    "rq_psn": [1, 0xFFFFFF],
    "sq_psn": [1, 0xFFFFFF],
}
MASK_OF = {
    "qp_access_flags": ACCESS,
    "pkey_index": PKEY,
    "port_num": PORT,
    "qkey": QKEY_MASK,
    "path_mtu": MTU,
    "max_dest_rd_atomic": DEST_RD,
    "max_rd_atomic": RD,
    "min_rnr_timer": RNR_TIMER,
    "timeout": TIMEOUT,
    "retry_cnt": RETRY,
    "rnr_retry": RNR,
    "rq_psn": RQ_PSN,
    "sq_psn": SQ_PSN,
}
# Soft-RoCE's queues hold one less than a power of two, or more than was asked for.
CAP_OF = [7, 7, 4, 4, 64]
LENGTHS = [0, 1, 3, 8, 13, 64, 255, 256, 1000, 1024, 1025, 2048, 4096, 5000]
MR_BYTES = 8192


class Sequence:
    """One sequence in the making."""

    def __init__(self, seed: int):
        """Draws everything from `seed`."""
        self.rng = random.Random(seed)
        self.calls: list[Call] = []
        self.next_id = 1
        self.under_way_s = 0.08  # how long what waits may take until it gives up

    def add(self, do: str, **arguments: Any) -> None:
        """Append a call."""
        self.calls.append({"do": do, **arguments})

    def chance(self, percent: float) -> bool:
        """Say yes in `percent` of cases."""
        return self.rng.random() * 100 < percent

    def new_id(self) -> int:
        """Return a wr_id that no other work request of the sequence has."""
        self.next_id += 1
        return self.next_id - 1

    # ---- objects --------------------------------------------------------------------------------------------------

    def base(self, cqe: int = 64, **more: Any) -> None:
        """A protection domain, two completion queues, and a region for either side."""
        self.add("pd", name="pd0")
        self.add("cq", name="cq0", cqe=cqe, **more)
        self.add("cq", name="cq1", cqe=cqe, **more)
        self.add("mr", name="mr0", pd="pd0", length=MR_BYTES, access=EVERYTHING, fill=1)
        self.add("mr", name="mr1", pd="pd0", length=MR_BYTES, access=EVERYTHING, fill=101)

    def queue_pair(self, name: str, kind: int, cq: str, **more: Any) -> None:
        """A queue pair of moderate size."""
        cap = more.pop("cap", CAP_OF)
        self.add("qp", name=name, type=kind, pd=more.pop("pd", "pd0"), scq=cq, rcq=cq, cap=cap, **more)

    def move(self, name: str, kind: int, to: int, peer: str | None = None, **values: Any) -> None:
        """A legal transition; `values` replace the usual ones."""
        mask = MASKS[kind, to]
        chosen = {**VALUES, **values}
        fields = {field: chosen[field] for field, bit in MASK_OF.items() if mask & bit}
        route: Call = {"route": {}} if mask & AV else {}
        if mask & AV:
            route["route"]["sgid_index"] = 1
        if mask & DEST:
            route["peer"] = peer
        self.add("modify", name=name, state=to, mask=mask, values=fields, **route)

    def connect(self, kind: int, a: str = "qp0", b: str = "qp1", **values: Any) -> None:
        """Bring both to RTS."""
        for to in (INIT, RTR, RTS):
            self.move(a, kind, to, b, **values)
            self.move(b, kind, to, a, **values)

    def pair(self, kind: int, **values: Any) -> None:
        """Two connected queue pairs."""
        self.base()
        self.queue_pair("qp0", kind, "cq0", sig_all=0)
        self.queue_pair("qp1", kind, "cq1", sig_all=0)
        self.connect(kind, **values)

    # ---- work requests --------------------------------------------------------------------------------------------

    def pieces(self, region: str, total: int, most: int = 4) -> list[list[Any]]:
        """A scatter/gather list of `total` bytes in one to `most` pieces."""
        number = self.rng.randint(1, most) if total else self.rng.randint(0, 1)
        cuts = sorted(self.rng.randint(0, total) for _ in range(max(number - 1, 0)))
        sizes = [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)] if number else []
        offset = self.rng.choice([0, 0, 1, 64, MR_BYTES // 2 - total])
        found = []
        for size in sizes:
            found.append([region, max(offset, 0), size, 0])
            offset = max(offset, 0) + size
        return found

    def receive(self, name: str, total: int, region: str = "mr1", **more: Any) -> None:
        """Post one receive."""
        self.add("recv", name=name, wrs=[{"id": self.new_id(), "sg": self.pieces(region, total)}], **more)

    def request(self, opcode: int, total: int, region: str = "mr0", target: str = "mr1") -> Call:
        """A work request of that opcode that breaks no rule."""
        atomic = opcode in (SWAP, ADD)
        wr: Call = {"id": self.new_id(), "opcode": opcode, "flags": SIGNALED}
        wr["sg"] = [[region, 8 * self.rng.randrange(16), 8, 0]] if atomic else self.pieces(region, total)
        if not wr["sg"]:
            wr["sg"] = [[region, 0, 0, 0]]
        if opcode in (WRITE, WRITE_IMM, READ):
            wr["remote"] = [target, MR_BYTES // 2 + self.rng.choice([0, 1, 100]), 0]
        if atomic:
            wr["remote"] = [target, 8 * self.rng.randrange(64), 0]
            wr["atomic"] = [self.rng.getrandbits(64), self.rng.getrandbits(64)]
        if opcode in (WRITE_IMM, SEND_IMM):
            wr["imm"] = self.rng.getrandbits(32)
        if self.chance(10):
            wr["flags"] |= self.rng.choice([FENCE, SOLICITED])
        if total <= 64 and opcode in (SEND, SEND_IMM, WRITE, WRITE_IMM) and self.chance(30):
            wr["flags"] |= INLINE
        return wr

    def post(self, name: str, *wrs: Call) -> None:
        """Post a list of sends."""
        self.add("send", name=name, wrs=list(wrs))

    def look(self, *names: str) -> None:
        """Ask for the states of queue pairs."""
        for name in names:
            self.add("query", name=name)


def takes_receive(opcode: int) -> bool:
    """Tell whether the responder needs a receive for it."""
    return opcode in (SEND, SEND_IMM, SEND_INV, WRITE_IMM)


def opcodes_of(kind: int) -> list[int]:
    """Return the opcodes that a queue pair of that type carries out in both devices."""
    if kind == RC:
        return [WRITE, WRITE_IMM, SEND, SEND_IMM, READ, SWAP, ADD]
    return [WRITE, WRITE_IMM, SEND, SEND_IMM] if kind == UC else [SEND, SEND_IMM]


def operations_of(kind: int) -> int:
    """Return the mask of those opcodes for an extended queue pair (ibv_create_qp_ex(3))."""
    bits = {WRITE: 0, WRITE_IMM: 1, SEND: 2, SEND_IMM: 3, READ: 4, SWAP: 5, ADD: 6}
    return sum(1 << bits[opcode] for opcode in opcodes_of(kind))
