"""Makes sequences of verbs calls, legal and illegal, from seeds: the same seed makes the same sequence.

Each theme makes one kind of sequence and draws the rest from the sequence's random numbers.
"""

from typing import Any

from tests.lab.differential.calls import (
    ADD,
    BIND,
    CUR,
    ERR,
    EVERYTHING,
    INIT,
    INLINE,
    LENGTHS,
    LOCAL_INV,
    LOCAL_WRITE,
    MASK_OF,
    MR_BYTES,
    MW_BIND,
    NOTIFY,
    ODD_VALUES,
    QKEY,
    RC,
    READ,
    REMOTE_ATOMIC,
    REMOTE_READ,
    REMOTE_WRITE,
    RESET,
    RTR,
    RTS,
    SEND,
    SEND_IMM,
    SEND_INV,
    SIGNALED,
    SQD,
    STATE,
    SWAP,
    UC,
    UD,
    VALUES,
    WRITE,
    WRITE_IMM,
    Call,
    Sequence,
    opcodes_of,
    operations_of,
    takes_receive,
)


def traffic(s: Sequence) -> None:
    """Legal work on a connected pair."""
    kind = s.rng.choice([RC, RC, UC])
    s.pair(kind, path_mtu=s.rng.choice([1, 3, 5]))
    for _ in range(s.rng.randint(2, 8)):
        here = s.rng.choice(["qp0", "qp1"])
        there, region, target = ("qp1", "mr0", "mr1") if here == "qp0" else ("qp0", "mr1", "mr0")
        opcode, total = s.rng.choice(opcodes_of(kind)), s.rng.choice([n for n in LENGTHS if n <= MR_BYTES // 2 - 100])
        if takes_receive(opcode):
            s.receive(there, max(total, s.rng.choice(LENGTHS[:-1])), target)
        s.post(here, s.request(opcode, total, region, target))
    s.look("qp0", "qp1")


def faults(s: Sequence) -> None:
    """One work request of a connected pair breaks a rule; others follow."""
    kind = s.rng.choice([RC, RC, RC, UC])
    s.pair(kind)
    opcode, total = s.rng.choice(opcodes_of(kind)), s.rng.choice([8, 64, 1000, 3000])
    wr = s.request(opcode, total)
    room = total
    break_rule(s, wr)
    if takes_receive(opcode):
        if s.chance(15):
            room = total // 2
        s.receive("qp1", room)
        if s.chance(10):
            s.calls[-1]["wrs"][0]["sg"] = [["mr1", 0, total, s.rng.choice([1, 0x100, 0xFFFFFFFF])]]
        s.receive("qp1", 4000)
    s.post("qp0", wr)
    s.look("qp0", "qp1")
    s.post("qp0", s.request(s.rng.choice([SEND, WRITE]), 16))
    s.look("qp0", "qp1")


def break_rule(s: Sequence, wr: Call) -> None:
    """Spoil a work request."""
    if "remote" in wr and s.chance(50):
        break_remote(s, wr)
        return
    choice = s.rng.choice(["lkey", "beyond", "opcode", "inline", "entries", "none"])
    if choice == "lkey":
        wr["flags"] &= ~INLINE
        wr["sg"][-1][3] = s.rng.choice([1, 0x100, 0x80000000, 0xFFFFFFFF])
        wr["sg"][-1][2] = max(wr["sg"][-1][2], 1)
    elif choice == "beyond":
        wr["flags"] &= ~INLINE
        wr["sg"][-1][1:3] = [MR_BYTES - 4, 8]
    elif choice == "opcode":
        wr["opcode"] = s.rng.choice([READ, SWAP, ADD, LOCAL_INV, 12, 14, 200])
        wr.setdefault("remote", ["mr1", 0, 0])
    elif choice == "inline":
        wr["flags"] |= INLINE
        wr["sg"] = [["mr0", 0, s.rng.choice([64, 500, 2000]), 0]]
    elif choice == "entries":
        wr["flags"] &= ~INLINE
        wr["sg"] = [["mr0", 8 * n, 8, 0] for n in range(s.rng.choice([4, 5, 40]))]


def break_remote(s: Sequence, wr: Call) -> None:
    """Spoil where a work request goes."""
    choices = ["rkey", "remote beyond", "remote access", "remote before"]
    if wr["opcode"] in (SWAP, ADD):
        choices += ["misaligned", "atomic length"]
    choice = s.rng.choice(choices)
    if choice == "rkey":
        wr["remote"][2] = s.rng.choice([1, 0x100, 0x80000000, 0xFFFFFFFF])
    elif choice == "remote beyond":
        wr["remote"][1] = MR_BYTES - 4
    elif choice == "remote before":
        wr["remote"][1] = -8
    elif choice == "remote access":
        access = s.rng.choice([LOCAL_WRITE, LOCAL_WRITE | REMOTE_READ, LOCAL_WRITE | REMOTE_WRITE, REMOTE_READ])
        s.add("mr", name="mr2", pd="pd0", length=MR_BYTES, access=access, fill=9)
        wr["remote"][0] = "mr2"
    elif choice == "misaligned":
        wr["remote"][1] += s.rng.randint(1, 7)
    elif choice == "atomic length":
        wr["sg"][0][2] = s.rng.choice([0, 1, 4, 7, 9, 16])


def domains(s: Sequence) -> None:
    """Regions of another protection domain, of too little access, and of the past."""
    s.add("pd", name="pd1")
    s.pair(RC)
    access = s.rng.choice([0, LOCAL_WRITE, REMOTE_READ, EVERYTHING, REMOTE_WRITE, REMOTE_ATOMIC])
    s.add("mr", name="mr2", pd=s.rng.choice(["pd0", "pd1"]), length=MR_BYTES, access=access, fill=77)
    if s.chance(30):
        s.add("close", name="mr2")
    opcode = s.rng.choice(opcodes_of(RC))
    local = s.chance(50)
    wr = s.request(opcode, 64, "mr2" if local else "mr0", "mr1" if local else "mr2")
    wr["flags"] &= ~INLINE  # whose bytes posting itself would read, gone as they may be
    if takes_receive(opcode):
        s.receive("qp1", 64, s.rng.choice(["mr1", "mr2"]))
    s.post("qp0", wr)
    s.look("qp0", "qp1")


def rights(s: Sequence) -> None:
    """Queue pairs that do not let others do what is asked of them."""
    values = {
        "qp_access_flags": s.rng.choice([0, LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC]),
        "max_dest_rd_atomic": s.rng.choice([0, 1, 4]),
        "max_rd_atomic": s.rng.choice([1, 4]),
    }
    kind = s.rng.choice([RC, RC, UC])
    s.pair(kind, **values)
    for _ in range(s.rng.randint(1, 3)):
        opcode = s.rng.choice(opcodes_of(kind))
        if takes_receive(opcode):
            s.receive("qp1", 100)
        s.post("qp0", s.request(opcode, 100))
    s.look("qp0", "qp1")


def states(s: Sequence) -> None:
    """One queue pair is led about: transitions that exist and that do not, masks and values right and wrong."""
    kind = s.rng.choice([RC, UC, UD])
    s.base()
    s.queue_pair("qp0", kind, "cq0")
    at = RESET
    for _ in range(s.rng.randint(2, 7)):
        step = s.rng.random()
        if step < 0.55 and at < RTS:
            at += 1
            s.move("qp0", kind, at, "qp0")
            if s.chance(35):
                at -= 1 if spoil_transition(s) else 0
        elif step < 0.8:
            to = s.rng.choice([RESET, ERR, SQD, RTS, INIT, RTR, 7])
            s.add("modify", name="qp0", state=to, mask=1, values={})
            at = to if to in (RESET, ERR) else at
        else:
            field = s.rng.choice(sorted(MASK_OF))
            s.add("modify", name="qp0", state=at, mask=MASK_OF[field] | 1, values={field: VALUES[field]})
        s.look("qp0")
        if s.chance(25):
            s.receive("qp0", 64)
        if s.chance(25) and kind != UD and at not in (RESET, INIT, RTR):
            s.post("qp0", s.request(s.rng.choice([SEND, WRITE]), 16))
    s.look("qp0")
    # Last, for Soft-RoCE's library leaves a refused work request in the queue.
    if s.chance(40) and kind != UD:
        s.post("qp0", s.request(s.rng.choice([SEND, WRITE]), 16))


def spoil_transition(s: Sequence) -> bool:
    """Spoil the last transition; tell whether it is sure to be refused."""
    call = s.calls[-1]
    choice = s.rng.choice(["less", "more", "value", "cur"])
    if choice == "less":
        bits = [1 << n for n in range(1, 21) if call["mask"] >> n & 1]
        if not bits:
            return False
        call["mask"] &= ~s.rng.choice(bits)
        return True
    if choice == "more":
        field = s.rng.choice(sorted(MASK_OF))
        call["mask"] |= MASK_OF[field]
        call["values"][field] = VALUES[field]
        return False
    if choice == "value":
        fields = [field for field in ODD_VALUES if field in call["values"]]
        if fields:
            field = s.rng.choice(fields)
            call["values"][field] = s.rng.choice(ODD_VALUES[field])
        return False
    call["mask"] |= CUR
    call["cur"] = s.rng.choice([RESET, INIT, RTR, RTS])
    return False


def sizes(s: Sequence) -> None:
    """Objects of every size, possible and not."""
    s.add("pd", name="pd0")
    s.add("cq", name="cq0", cqe=s.rng.choice([1, 2, 100, 4096, 0, 1 << 30]), vector=s.rng.choice([0, 0, 0, 0, 1000]))
    s.add("cq", name="cq1", cqe=16)
    if s.chance(30):
        s.add("resize", name="cq1", cqe=s.rng.choice([1, 32, 0, 1 << 30]))
    s.add("mr", name="mr0", pd="pd0", length=s.rng.choice([1, 100, 4096, 100000]), access=s.rng.randrange(64), fill=3)
    if s.chance(40):
        s.add("srq", name="srq0", pd="pd0", wr=s.rng.choice([1, 15, 0, 1 << 30]), sge=s.rng.choice([1, 2, 0, 1000]))
        s.add("modify_srq", name="srq0", mask=2, limit=s.rng.choice([0, 1, 15, 16, 1000]))
        s.add("query_srq", name="srq0")
    cap = [s.rng.choice([1, 4, 1 << 30, 100]), s.rng.choice([1, 4, 1 << 30, 0]), 1, 1, s.rng.choice([0, 64])]
    if s.chance(30):
        cap[s.rng.choice([2, 3, 4])] = s.rng.choice([0, 8, 5000])
    s.queue_pair("qp0", s.rng.choice([RC, UC, UD, RC, 100]), "cq1", cap=cap)
    s.add("mw", name="mw0", pd="pd0", type=s.rng.choice([1, 2, 2, 2, 3]))
    s.add("ah", name="ah0", pd="pd0", sgid_index=1, port=s.rng.choice([0, 1, 1, 2]), is_global=1)
    s.look("qp0")


def datagrams(s: Sequence) -> None:
    """UD: wrong Q_Keys, nobody there, messages longer than a packet, receives without room for the header."""
    s.base()
    s.queue_pair("qp0", UD, "cq0")
    s.queue_pair("qp1", UD, "cq1")
    s.connect(UD)
    s.add("ah", name="ah0", pd="pd0")
    for _ in range(s.rng.randint(1, 4)):
        total = s.rng.choice([0, 1, 100, 1024, 4000])
        if s.chance(85):
            s.receive("qp1", total + s.rng.choice([40, 40, 40, 100]), ud=True)
        wr = s.request(s.rng.choice([SEND, SEND_IMM]), total)
        wr.update(ah="ah0", to="qp1", qkey=QKEY if s.chance(80) else QKEY + 1)
        if s.chance(10):
            wr["qpn"] = 0xFFFFF0
        if s.chance(5):
            wr["opcode"] = s.rng.choice([WRITE, READ])
        s.post("qp0", wr)
    s.look("qp0", "qp1")


def shared_receives(s: Sequence) -> None:
    """Two queue pairs take from one SRQ."""
    s.base()
    s.add("srq", name="srq0", pd="pd0", wr=s.rng.choice([3, 7]), sge=2)
    if s.chance(50):
        s.add("modify_srq", name="srq0", mask=2, limit=s.rng.choice([1, 2, 3]))
    s.queue_pair("qp0", RC, "cq0", srq="srq0")
    s.queue_pair("qp1", RC, "cq1", srq="srq0")
    s.connect(RC)
    for _ in range(s.rng.randint(1, 6)):
        if s.chance(70):
            wr = {"id": s.new_id(), "sg": s.pieces("mr1", s.rng.choice([100, 100, 10]), 3 if s.chance(10) else 2)}
            s.add("recv", name="srq0", wrs=[wr])
        if s.chance(60):
            s.post(s.rng.choice(["qp0", "qp1"]), s.request(s.rng.choice([SEND, SEND_IMM, WRITE]), 64))
    if s.chance(20):
        s.receive("qp0", 10)
    if s.chance(30):
        s.add("modify", name="qp1", state=ERR, mask=1)
    s.look("qp0", "qp1")


def windows(s: Sequence) -> None:
    """Type 2 windows: bound, used, bound wrongly, invalidated here and from there."""
    s.pair(RC, qp_access_flags=EVERYTHING, timeout=13, retry_cnt=3)
    s.under_way_s = 0.6
    s.add("mw", name="mw0", pd="pd0", type=2)
    offset, length = s.rng.choice([0, 64]), s.rng.choice([64, 4096, MR_BYTES, 0])
    access = s.rng.choice([REMOTE_READ, REMOTE_WRITE, REMOTE_READ | REMOTE_WRITE, REMOTE_ATOMIC])
    region = "mr1"
    if s.chance(20):
        s.add("mr", name="mr2", pd="pd0", length=MR_BYTES, access=s.rng.choice([LOCAL_WRITE, MW_BIND]), fill=5)
        region = "mr2"
    bind = {"id": s.new_id(), "opcode": BIND, "flags": SIGNALED, "sg": []}
    s.post("qp1", {**bind, "bind": ["mw0", region, offset, length, access]})
    s.look("qp1")
    invalidated = False  # Soft-RoCE of Linux 6.1 brings its kernel down when that is done twice
    for _ in range(s.rng.randint(1, 3)):
        choice = s.rng.random()
        if choice < 0.6:
            wr = s.request(s.rng.choice([WRITE, READ]), 32)
            wr.update(remote=["mw0", s.rng.choice([0, 64, 100, 5000]), 0 if s.chance(85) else 0x100], base="mr1")
            s.post("qp0", wr)
        elif choice < 0.8:
            change = 0 if s.chance(70) and not invalidated else 0x55
            invalidated = invalidated or not change
            wr = {"id": s.new_id(), "opcode": LOCAL_INV, "flags": SIGNALED, "sg": []}
            s.post("qp1", {**wr, "invalidate": ["mw0", change]})
        else:
            s.receive("qp1", 64, "mr1")
            wr = {"id": s.new_id(), "opcode": SEND_INV, "flags": SIGNALED, "sg": [["mr0", 0, 16, 0]]}
            change = 0 if s.chance(80) and not invalidated else 0x55
            invalidated = invalidated or not change
            s.post("qp0", {**wr, "invalidate": ["mw0", change]})
    s.look("qp0", "qp1")


def closed_windows(s: Sequence) -> None:
    """Windows of both types, and regions and windows that are closed while they are bound."""
    s.pair(RC, qp_access_flags=EVERYTHING)
    kind = s.rng.choice([1, 2])
    s.add("mw", name="mw0", pd="pd0", type=kind)
    bind = ["mw0", "mr1", s.rng.choice([0, 64]), s.rng.choice([64, 4096, MR_BYTES]), s.rng.choice([0, REMOTE_WRITE])]
    by_call = s.chance(80 if kind == 1 else 10)
    if by_call:
        s.add("bind", name="qp1", id=s.new_id(), mw="mw0", bind=bind[1:])
    else:
        s.post("qp1", {"id": s.new_id(), "opcode": BIND, "flags": SIGNALED, "sg": [], "bind": bind})
    for name in s.rng.sample(["mr1", "mw0", "mr1"], 3):
        s.add("close", name=name)
    s.look("qp0", "qp1")


def extended(s: Sequence) -> None:
    """Extended queue pairs and completion queues: requests by the newer calls, in batches, kept and thrown away."""
    kind = s.rng.choice([RC, RC, UC, UD])
    s.base(ex=1)
    ops = operations_of(kind)
    if s.chance(10):
        ops |= s.rng.choice([1 << 4, 1 << 10, 1 << 40])
    s.queue_pair("qp0", kind, "cq0", ops=ops)
    s.queue_pair("qp1", kind, "cq1", ops=operations_of(kind))
    s.connect(kind)
    s.add("ah", name="ah0", pd="pd0")
    for _ in range(s.rng.randint(1, 3)):
        batch(s, kind, s.rng.choice([1, 1, 2, 5]))
        if s.chance(10):
            s.calls[-1]["abort"] = True
    # Last, for Soft-RoCE's library keeps the queue's lock after a refusal.
    if s.chance(30):
        batch(s, kind, s.rng.choice([1, 3, 20]))
        spoiled = s.rng.choice(s.calls[-1]["wrs"])
        spoiled["sg"] = [["mr0", 8 * n, 8, 0] for n in range(s.rng.choice([1, 5, 20]))]
        spoiled["flags"] &= ~INLINE
    s.look("qp0", "qp1")


def batch(s: Sequence, kind: int, number: int) -> None:
    """A batch of requests, and the receives that it needs."""
    wrs = [s.request(s.rng.choice(opcodes_of(kind)), s.rng.choice([1, 8, 32, 64])) for _ in range(number)]
    for wr in wrs:
        if kind == UD:
            wr.update(ah="ah0", to="qp1", qkey=QKEY)
        if s.chance(4) and "remote" in wr:
            break_remote(s, wr)
        wr["sg"] = wr["sg"][:1]  # Soft-RoCE's library adds the lengths of several up wrongly
        if takes_receive(wr["opcode"]):
            s.receive("qp1", 104, ud=kind == UD)
    s.post("qp0", *wrs)


def queues(s: Sequence) -> None:
    """Lists of work requests: too many, with one that is refused in their midst, without completions."""
    kind = s.rng.choice([RC, UC])
    s.base(cqe=256)
    s.queue_pair("qp0", kind, "cq0", cap=[3, 3, 2, 2, 32], sig_all=s.rng.choice([0, 1]))
    s.queue_pair("qp1", kind, "cq1", cap=[3, 3, 2, 2, 32])
    s.connect(kind)
    number = s.rng.randint(1, 6)
    receives = [{"id": s.new_id(), "sg": s.pieces("mr1", 64, 2)} for _ in range(number)]
    if s.chance(20):
        receives[-1]["sg"] = [["mr1", 0, 1, 0]] * 3
    s.add("recv", name="qp1", wrs=receives, bad=True)
    wrs = [s.request(s.rng.choice([SEND, WRITE, WRITE]), 32) for _ in range(s.rng.randint(1, 6))]
    for wr in wrs:
        wr["sg"] = wr["sg"][:1]
        wr["flags"] = s.rng.choice([0, SIGNALED, SIGNALED])
    if s.chance(25):
        s.rng.choice(wrs)["sg"] = [["mr0", 0, 1, 0]] * 3
    s.post("qp0", *wrs)
    s.calls[-1]["bad"] = True
    s.post("qp0", s.request(WRITE, 8))
    s.look("qp0", "qp1")


def waits(s: Sequence) -> None:
    """No receive is there, or nobody at all: retries that end, and some that do not."""
    if s.chance(60):
        s.pair(RC, rnr_retry=s.rng.choice([0, 1, 3, 7]))
        s.post("qp0", s.request(s.rng.choice([SEND, WRITE_IMM]), 64))
        s.look("qp0", "qp1")
        s.receive("qp1", 64)
        s.look("qp0", "qp1")
        return
    s.base()
    s.queue_pair("qp0", RC, "cq0")
    s.queue_pair("qp1", RC, "cq1")
    for to in (INIT, RTR, RTS):
        s.move("qp0", RC, to, "qp1", timeout=s.rng.choice([5, 8]), retry_cnt=s.rng.choice([0, 1, 2]))
        if s.chance(40):
            s.move("qp1", RC, to, "qp0")
    s.post("qp0", s.request(s.rng.choice([SEND, WRITE, READ]), 64))
    s.look("qp0", "qp1")


def endings(s: Sequence) -> None:
    """Queue pairs go to ERR, SQD and RESET, or are closed, with work in them; then they are used again."""
    kind = s.rng.choice([RC, UC])
    s.pair(kind, rnr_retry=7, timeout=13, retry_cnt=3)
    s.under_way_s = 0.6
    for _ in range(s.rng.randint(0, 3)):
        s.receive(s.rng.choice(["qp0", "qp1"]), 64)
    if s.chance(40):
        s.post("qp0", s.request(SEND, 64))
    name = s.rng.choice(["qp0", "qp1"])
    to = s.rng.choice([ERR, ERR, RESET, SQD, None])
    if to is None:
        s.add("close", name=name)
        s.look("qp0", "qp1")
        return
    notify = {"en_sqd_async_notify": 1} if to == SQD and s.chance(50) else {}
    s.add("modify", name=name, state=to, mask=STATE | (NOTIFY if notify else 0), values=notify)
    s.look("qp0", "qp1")
    s.receive(name, 64)
    s.post(name, s.request(s.rng.choice([SEND, WRITE]), 32))
    s.look("qp0", "qp1")
    if to == SQD:
        s.add("modify", name=name, state=RTS, mask=1, values={})
    elif s.chance(50):
        s.add("modify", name=name, state=RESET, mask=1, values={})
        other = "qp1" if name == "qp0" else "qp0"
        for step in (INIT, RTR, RTS):
            s.move(name, kind, step, other, timeout=13)
    s.look("qp0", "qp1")


THEMES = (
    (traffic, 4),
    (faults, 6),
    (domains, 3),
    (rights, 2),
    (states, 4),
    (sizes, 2),
    (datagrams, 3),
    (shared_receives, 2),
    (windows, 2),
    (closed_windows, 1),
    (extended, 3),
    (queues, 3),
    (waits, 1),
    (endings, 2),
)


def sequence(seed: int, only: str | None = None) -> dict[str, Any]:
    """Return the sequence of that seed, of the theme `only` if given: {"seed", "theme", "under_way_s", "calls"}."""
    made = Sequence(seed)
    weighted = [(theme, weight) for theme, weight in THEMES if only in (None, theme.__name__)]
    (theme,) = made.rng.choices([theme for theme, _ in weighted], [weight for _, weight in weighted])
    theme(made)
    return {"seed": seed, "theme": theme.__name__, "under_way_s": made.under_way_s, "calls": made.calls}
